# SPDX-License-Identifier: Apache-2.0
"""Commands: what a request changes, once per idempotency key."""
