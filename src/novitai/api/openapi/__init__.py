# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document and the page that shows it."""
