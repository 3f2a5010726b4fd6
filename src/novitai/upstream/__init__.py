# SPDX-License-Identifier: Apache-2.0
"""The typed client of Novita's API. Knows upstream's words, and nothing of our own statuses."""
