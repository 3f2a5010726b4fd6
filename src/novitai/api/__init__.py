# SPDX-License-Identifier: Apache-2.0
"""The HTTP interface: one file per resource, wire schemas, one middleware, error rendering."""
