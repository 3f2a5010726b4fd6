# SPDX-License-Identifier: Apache-2.0
"""Links in the OpenAPI document: values of a response that the next request uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_ID: Final = "$response.body#/instanceId"
_ITSELF: Final = "$request.path.instanceId"
_OPERATION: Final = "$response.body#/operationId"


@dataclass(frozen=True, slots=True)
class Link:
    """A link from the response of one operation to a parameter of another.

    Attributes:
        source: The ID of the operation that responds.
        status: The status of that response.
        name: The name of the link.
        target: The ID of the operation to call next.
        parameter: The parameter of the target.
        value: The source of its value, a runtime expression (OpenAPI 3.1, section 4.8.20.4).
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
    """Add the links to a document if it has both of their operations."""
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
