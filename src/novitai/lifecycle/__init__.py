# SPDX-License-Identifier: Apache-2.0
"""The operations on instances, and their catalogue, reconciliation, events and webhooks."""
