# SPDX-License-Identifier: Apache-2.0
"""The end of a help text: command lines as examples. A test runs each of them."""

from __future__ import annotations


def example(*lines: str) -> str:
    """Return the end of a help text with examples; empty lines keep them apart."""
    title = "Example:" if len(lines) == 1 else "Examples:"
    return "\n\n".join((title, *(f"$ {line}" for line in lines)))
