# SPDX-License-Identifier: Apache-2.0
"""The shapes of requests and responses, each declared once: it validates and it documents."""
