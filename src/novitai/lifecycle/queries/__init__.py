# SPDX-License-Identifier: Apache-2.0
"""Read-only queries: instances, their history, and waiting for a status."""
