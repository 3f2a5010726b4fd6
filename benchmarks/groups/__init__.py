# SPDX-License-Identifier: Apache-2.0
"""The groups of benchmarks. Each module has `run(bench)`, which yields its lines."""
