# SPDX-License-Identifier: Apache-2.0
"""Checks of the repository that `make check` runs; no part of the package."""
