# SPDX-License-Identifier: Apache-2.0
"""Logs and numbers: what the process tells of itself. Knows nothing of instances."""
