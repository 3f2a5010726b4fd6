# SPDX-License-Identifier: Apache-2.0
"""Maintenance: deletion of old rows, and checks of the clocks."""
