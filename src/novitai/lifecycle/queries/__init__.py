# SPDX-License-Identifier: Apache-2.0
"""Reads: instances, their history, and waiting for a status. Nothing here writes."""
