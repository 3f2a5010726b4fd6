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
    operation = "getOperation"
    return [
        Link(source, 202, "Follow", operation, "operationId", _OPERATION),
        Link(source, 202, "Read", "getInstance", "instanceId", itself),
    ]


LINKS: Final = (
    *(
        Link("createInstance", 201, name, target, "instanceId", _ID)
        for name, target in (
            ("Read", "getInstance"),
            ("History", "listInstanceEvents"),
            ("Stop", "stopInstance"),
            ("Start", "startInstance"),
            ("Restart", "restartInstance"),
            ("NoteUse", "recordInstanceUse"),
            ("Delete", "deleteInstance"),
        )
    ),
    *_verb("startInstance", itself=_ITSELF),
    *_verb("stopInstance", itself=_ITSELF),
    *_verb("restartInstance", itself=_ITSELF),
    *_verb("deleteInstance", itself=_ITSELF),
    *_verb("startInstanceByName", itself=_ID),
    *_verb("stopInstanceByName", itself=_ID),
    *_verb("restartInstanceByName", itself=_ID),
    *_verb("deleteInstanceByName", itself=_ID),
    Link(
        "syncInstances",
        202,
        "Follow",
        "getOperation",
        "operationId",
        _OPERATION,
    ),
    Link("createKey", 201, "Revoke", "revokeKey", "keyId", "$response.body#/id"),
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
