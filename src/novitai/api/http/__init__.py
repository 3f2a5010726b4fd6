# SPDX-License-Identifier: Apache-2.0
"""HTTP: middleware, authentication, rate limits, request bodies and error rendering."""
