# SPDX-License-Identifier: Apache-2.0
"""The steps from an empty database to `novitai.store.tables`. See `novitai.store.migrate`."""
