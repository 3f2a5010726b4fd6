# SPDX-License-Identifier: Apache-2.0
"""Novita's products, templates and clusters, cached."""
