# SPDX-License-Identifier: Apache-2.0
"""Commands: the changes that requests make, each once per idempotency key."""
