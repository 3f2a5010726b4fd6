# SPDX-License-Identifier: Apache-2.0
"""HTTP: middleware, authentication, limits, bodies and error rendering."""
