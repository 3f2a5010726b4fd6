# SPDX-License-Identifier: Apache-2.0
"""Tags: names and values that users give to instances, to find and to account for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from novitai.domain.merge_patch import merge_patch

MAX_TAGS: Final = 16
"""The most tags of an instance."""
MAX_TAG_NAME: Final = 63
MAX_TAG_VALUE: Final = 256
TAG_NAME: Final = f"[a-z0-9][a-z0-9._-]{{0,{MAX_TAG_NAME - 1}}}"
"""The format of a tag's name, as a regular expression."""

_TAG_NAME: Final = re.compile(TAG_NAME)

Tags = Mapping[str, str]
"""The tags of an instance: values by name."""
TagsPatch = Mapping[str, str | None]
"""A change of tags: values to set by name; None removes the tag."""


def is_tag_name(text: str) -> bool:
    """Return whether a text has the format of a tag's name."""
    return _TAG_NAME.fullmatch(text) is not None


def merged_tags(tags: Tags, patch: TagsPatch | None) -> dict[str, str]:
    """Apply a merge patch to tags; a patch that is None removes all of them.

    The result may have more than `MAX_TAGS` tags; the caller checks that.
    """
    merged = merge_patch(tags, patch)
    return dict(merged) if isinstance(merged, Mapping) else {}
