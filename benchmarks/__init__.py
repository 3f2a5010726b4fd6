# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: each line has a yardstick of the same minute. See docs/explanation/performance.md."""
