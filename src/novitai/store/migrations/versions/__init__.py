# SPDX-License-Identifier: Apache-2.0
"""One file for each migration, named by its number and its change."""
