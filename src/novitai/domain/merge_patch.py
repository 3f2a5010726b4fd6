# SPDX-License-Identifier: Apache-2.0
"""JSON merge patches (RFC 7396)."""

from __future__ import annotations

from collections.abc import Mapping


def merge_patch(target: object, patch: object) -> object:
    """Apply a merge patch (RFC 7396, section 2) and return the result; `target` is not changed.

    A member of a patch that is None removes the member of the target. A patch that is not an object
    replaces the target.
    """
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
