# SPDX-License-Identifier: Apache-2.0
"""One file for each step, named by its number and what it does."""
