# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document, its page, and the schemas in it."""
