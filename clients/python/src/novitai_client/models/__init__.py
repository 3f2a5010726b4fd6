# SPDX-License-Identifier: Apache-2.0
"""The objects of responses, by topic."""
