# SPDX-License-Identifier: Apache-2.0
"""The database engines: SQLite and PostgreSQL, their files, connections and checks."""
