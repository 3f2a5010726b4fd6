# SPDX-License-Identifier: Apache-2.0
"""Webhook endpoints, their messages, and the worker that delivers them."""
