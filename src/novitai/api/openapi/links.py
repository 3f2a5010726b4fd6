# SPDX-License-Identifier: Apache-2.0
"""Links of the OpenAPI document: what of one answer is asked for with next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_ID: Final = "$response.body#/instanceId"
_ITSELF: Final = "$request.path.instanceId"
_OPERATION: Final = "$response.body#/operationId"


@dataclass(frozen=True, slots=True)
class Link:
    """From an operation's answer of a status to a parameter of another operation.

    Attributes:
        source: The operation that answers, by its id; `status` is that of the answer.
        name: What the link is called.
        target: The operation that is asked next, by its id.
        parameter: Which of its parameters is meant, and `value` where that comes from, as a
            runtime expression (OpenAPI 3.1, section 4.8.20.4).
    """

    source: str
    status: int
    name: str
    target: str
    parameter: str
    value: str


def _verb(source: str, *, itself: str) -> list[Link]:
    operation = "get_api_operations_operationId"
    return [
        Link(source, 202, "Follow", operation, "operationId", _OPERATION),
        Link(source, 202, "Read", "get_api_instances_instanceId", "instanceId", itself),
    ]


LINKS: Final = (
    *(
        Link("post_api_instances", 201, name, target, "instanceId", _ID)
        for name, target in (
            ("Read", "get_api_instances_instanceId"),
            ("History", "get_api_instances_instanceId_events"),
            ("Stop", "post_api_instances_instanceId_stop"),
            ("Start", "post_api_instances_instanceId_start"),
            ("Restart", "post_api_instances_instanceId_restart"),
            ("NoteUse", "put_api_instances_instanceId_last_used"),
            ("Delete", "delete_api_instances_instanceId"),
        )
    ),
    *_verb("post_api_instances_instanceId_start", itself=_ITSELF),
    *_verb("post_api_instances_instanceId_stop", itself=_ITSELF),
    *_verb("post_api_instances_instanceId_restart", itself=_ITSELF),
    *_verb("delete_api_instances_instanceId", itself=_ITSELF),
    *_verb("post_api_instances_start", itself=_ID),
    *_verb("post_api_instances_stop", itself=_ID),
    *_verb("post_api_instances_restart", itself=_ID),
    *_verb("post_api_instances_delete", itself=_ID),
    Link(
        "post_api_instances_sync",
        202,
        "Follow",
        "get_api_operations_operationId",
        "operationId",
        _OPERATION,
    ),
    Link("post_api_keys", 201, "Revoke", "delete_api_keys_keyId", "keyId", "$response.body#/id"),
)


def add_links(document: dict[str, Any]) -> None:
    """Write the links into a document that has their operations."""
    by_id = {
        operation["operationId"]: operation
        for item in document["paths"].values()
        for operation in item.values()
    }
    for link in LINKS:
        if {link.source, link.target} <= by_id.keys():
            answers = by_id[link.source]["responses"]
            answers[str(link.status)].setdefault("links", {})[link.name] = {
                "operationId": link.target,
                "parameters": {link.parameter: link.value},
            }
