# SPDX-License-Identifier: Apache-2.0
"""Routing: the router, lists, query parameters and errors common to several routes."""
