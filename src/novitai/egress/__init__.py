# SPDX-License-Identifier: Apache-2.0
"""Outgoing requests: the address guard, the HTTP client, and signing and sending of webhooks."""
