# SPDX-License-Identifier: Apache-2.0
"""The tables, queries, migrations and database engines. No business rules and no HTTP calls."""
