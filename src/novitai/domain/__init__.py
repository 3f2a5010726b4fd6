# SPDX-License-Identifier: Apache-2.0
"""What an instance, an operation, a product and an event are. Pure: no I/O, no frameworks."""
