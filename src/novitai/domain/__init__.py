# SPDX-License-Identifier: Apache-2.0
"""The types and rules of instances, operations, products and events. No I/O, no frameworks."""
