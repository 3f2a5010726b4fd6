# SPDX-License-Identifier: Apache-2.0
"""The emulated API: one module per resource, each with a table of (method, path) → handler."""
