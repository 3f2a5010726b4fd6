# SPDX-License-Identifier: Apache-2.0
"""What a client sends about the account, checked whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from novitai.domain.fields import Fields, not_blank, text
from novitai.domain.validation import instance_name


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """Which upstream instance is to become a record's own.

    Attributes:
        upstream_id: The instance.
        name: The name of the new record; made of upstream's where it is None.
        instance_id: The waiting record that is to be given it, instead of a new one.
    """

    upstream_id: str
    name: str | None = None
    instance_id: str | None = None


def parse_adopt(body: Mapping[str, object]) -> AdoptRequest:
    """Check a request to adopt an instance.

    Raises:
        ValidationFailed: with every wrong field.
    """
    fields = Fields(body, codes={"name": "INVALID_INSTANCE_NAME"})
    request = AdoptRequest(
        upstream_id=fields.require(
            "upstreamId", "Upstream ID", not_blank("Upstream ID", longest=255), ""
        ),
        name=fields.read("name", instance_name, None),
        instance_id=fields.read("instanceId", text("Instance ID", longest=64), None),
    )
    fields.finish()
    return request


def parse_confirm(body: Mapping[str, object]) -> str | None:
    """Check a confirmation of what is missing; return the digest of the set that was shown.

    Raises:
        ValidationFailed: with every wrong field.
    """
    fields = Fields(body)
    digest = fields.read("missingDigest", text("Missing digest", longest=64), None)
    fields.finish()
    return digest
