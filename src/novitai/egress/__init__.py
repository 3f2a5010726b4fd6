# SPDX-License-Identifier: Apache-2.0
"""Webhooks on the wire: signing, the guarded transport, and the sending of one message."""
