# SPDX-License-Identifier: Apache-2.0
"""The groups of methods: one module for each resource of the API."""
