# SPDX-License-Identifier: Apache-2.0
"""The event log and the outbox. Only this package writes statuses."""
