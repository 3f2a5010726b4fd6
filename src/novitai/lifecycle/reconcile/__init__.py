# SPDX-License-Identifier: Apache-2.0
"""Reconciliation: list the account, compare it with the records, write the differences."""
