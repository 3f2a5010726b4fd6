# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: each figure has a yardstick measured in the same minute; compare the ratios."""
