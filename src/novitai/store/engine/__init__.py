# SPDX-License-Identifier: Apache-2.0
"""The SQLite and PostgreSQL engines: their files, connections, threads and checks."""
