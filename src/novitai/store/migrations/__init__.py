# SPDX-License-Identifier: Apache-2.0
"""The migrations that build the tables of `novitai.store.tables`. See `novitai.store.migrate`."""
