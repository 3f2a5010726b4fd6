# SPDX-License-Identifier: Apache-2.0
"""Limits and auto-stop: they decide only when; the verbs do the stopping."""
