# SPDX-License-Identifier: Apache-2.0
"""The queries, one module per table. They run inside the caller's transaction."""
