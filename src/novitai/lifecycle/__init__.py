# SPDX-License-Identifier: Apache-2.0
"""The verbs, and what they share: the catalogue, sync, readiness, the record of what happened."""
