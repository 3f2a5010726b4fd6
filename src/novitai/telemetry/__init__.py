# SPDX-License-Identifier: Apache-2.0
"""Logs and metrics of the process. Knows nothing of instances."""
