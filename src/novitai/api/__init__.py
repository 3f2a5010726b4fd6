# SPDX-License-Identifier: Apache-2.0
"""The HTTP API: one module per resource, wire schemas, one middleware, error rendering."""
