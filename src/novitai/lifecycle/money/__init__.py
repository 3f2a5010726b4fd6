# SPDX-License-Identifier: Apache-2.0
"""Money: the ledger of what instances cost."""
