# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: figures beside a yardstick of the same minute, so that the ratio carries over."""
