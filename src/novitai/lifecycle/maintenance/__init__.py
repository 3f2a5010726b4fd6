# SPDX-License-Identifier: Apache-2.0
"""Maintenance: housekeeping of old rows, and the watch on the clocks."""
