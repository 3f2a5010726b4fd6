# SPDX-License-Identifier: Apache-2.0
"""The event log and the outbox: the one place where a status is written."""
