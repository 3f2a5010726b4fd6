# SPDX-License-Identifier: Apache-2.0
"""Values of domain objects for tests."""

from __future__ import annotations

from novitai.domain.actor import Actor

AT = 1_760_000_000_000
TESTER = Actor("key_tester", "the tester's")
"""The actor of the changes that tests make without an API key."""
