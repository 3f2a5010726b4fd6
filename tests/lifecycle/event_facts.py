# SPDX-License-Identifier: Apache-2.0
"""Validate the data of an event by the table of event types."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs
import orjson
from pydantic import TypeAdapter

from novitai.api.openapi.events import EVENTS
from novitai.api.schemas.wire import JsonSchema
from novitai.domain.event import EventType
from novitai.domain.instance_details import InstanceDetails


def errors_of(event_type: EventType, data: Mapping[str, object]) -> list[str]:
    """List what in the data of an event the table does not allow: each field must be declared."""
    return [error.message for error in _validator(event_type).iter_errors(_sent(data))]


def _sent(data: Mapping[str, object]) -> Any:
    return orjson.loads(orjson.dumps(data))


@cache
def _validator(event_type: EventType) -> jsonschema_rs.Validator:
    info = EVENTS[event_type]
    models = [InstanceDetails if info.data is None else info.data]
    models += [] if info.facts is None else [info.facts]
    _, written = TypeAdapter.json_schemas(
        [(model, "validation", TypeAdapter(model)) for model in models],
        schema_generator=JsonSchema,
    )
    definitions = written["$defs"]
    for model in models:  # together they close the object, see `unevaluatedProperties`
        definitions[model.__name__].pop("additionalProperties", None)
    schema = {
        "$defs": definitions,
        "allOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in models],
        "unevaluatedProperties": False,
    }
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
