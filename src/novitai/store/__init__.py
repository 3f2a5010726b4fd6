# SPDX-License-Identifier: Apache-2.0
"""Tables, queries, migrations and the database itself. No business rules, no network."""
