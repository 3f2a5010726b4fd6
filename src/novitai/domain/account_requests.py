# SPDX-License-Identifier: Apache-2.0
"""Validation of the request bodies for account operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from novitai.domain.fields import Fields, not_blank, text
from novitai.domain.validation import instance_name


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """A valid request to adopt an upstream instance.

    Attributes:
        upstream_id: The upstream ID of the instance.
        name: The name of the new record; if None, it is made from the upstream name.
        instance_id: An existing record without an instance that receives it, instead of a new one.
    """

    upstream_id: str
    name: str | None = None
    instance_id: str | None = None


def parse_adopt(body: Mapping[str, object]) -> AdoptRequest:
    """Check a request to adopt an instance.

    Raises:
        ValidationFailed: with every invalid field.
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
    """Check a confirmation of missing instances; return the digest of the set, if given.

    Raises:
        ValidationFailed: with every invalid field.
    """
    fields = Fields(body)
    digest = fields.read("missingDigest", text("Missing digest", longest=64), None)
    fields.finish()
    return digest
