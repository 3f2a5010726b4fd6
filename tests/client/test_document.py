# SPDX-License-Identifier: Apache-2.0
"""The client has every operation, parameter, field and word of the OpenAPI document."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from novitai_client import AsyncNovitai, Novitai, verify_webhook, words
from novitai_client.client import Client
from novitai_client.errors import CLASSES
from novitai_client.models.history import Operation
from novitai_client.surface import ContextMethod, IteratorMethod, Method, Resource
from tests.client.calls import CALLS, Call
from tests.client.documented import URL, DocumentedServer, Schema
from tests.docs.pages import code, first_column, page, rows, section

AHEAD = {("GET", "/api/events/stream"), ("GET", "/api/operations"), ("GET", "/api/deliveries")}
"""Operations that the client has, and servers of this version may lack."""
HEADERS = {"Idempotency-Key", "If-None-Match", "Accept"}
"""Headers that are no arguments, or only of another method."""
DESCRIPTORS = (Method, IteratorMethod, ContextMethod)


def resources() -> Iterator[tuple[str, type]]:
    """Yield the attributes of a client that hold methods, and their classes."""
    client = Novitai(URL, "nvt_x")
    yield "", Client
    for name in vars(Client):
        if not name.startswith("_") and isinstance(getattr(client, name), Resource):
            yield name, type(getattr(client, name))
    client.close()


def methods() -> list[tuple[str, Any]]:
    """List every public method of a client."""
    return [
        (f"{place}.{name}".lstrip("."), member)
        for place, kind in resources()
        for name, member in vars(kind).items()
        if isinstance(member, DESCRIPTORS)
    ]


METHODS = methods()


def unread(value: object) -> list[str]:
    """List the fields of an object, and of objects in it, that its model does not have."""
    if isinstance(value, BaseModel):
        extra = [f"{type(value).__name__}.{name}" for name in value.model_extra or ()]
        return extra + [
            one for name in type(value).model_fields for one in unread(_of(value, name))
        ]
    if isinstance(value, dict):
        return [one for inner in value.values() for one in unread(inner)]
    return [one for inner in value for one in unread(inner)] if isinstance(value, list) else []


def unset(value: object) -> list[str]:
    """List the fields of models that a response with every documented field leaves unset."""
    if isinstance(value, BaseModel):
        kind = type(value)
        missing = {
            name
            for name, info in kind.model_fields.items()
            if name not in value.model_fields_set and not info.exclude
        }
        inner = [one for name in kind.model_fields for one in unset(_of(value, name))]
        return [f"{kind.__name__}.{name}" for name in sorted(missing)] + inner
    if isinstance(value, dict):
        return [one for each in value.values() for one in unset(each)]
    return [one for each in value for one in unset(each)] if isinstance(value, list) else []


def _of(value: BaseModel, name: str) -> object:
    return getattr(value, name)


def known(documented: DocumentedServer) -> set[tuple[str, str]]:
    """Return the operations of the document."""
    return {operation for operation, _ in documented.operations()}


def served(documented: DocumentedServer) -> list[tuple[tuple[str, str], Call]]:
    """List the calls of the operations that the server has."""
    described = known(documented)
    return [(operation, call) for operation, call in CALLS.items() if operation in described]


def test_every_operation_can_be_reached(documented: DocumentedServer) -> None:
    """For each operation of the document a call sends a request to it, and no call elsewhere."""
    assert known(documented) - AHEAD == set(CALLS) - AHEAD
    with documented.client() as client:
        for operation, call in served(documented):
            documented.sent.clear()
            call(client)
            assert documented.sent[-1].operation == operation


def test_every_parameter_and_field_can_be_sent(documented: DocumentedServer) -> None:
    """A call with all arguments sends each documented parameter and field, and no other."""
    described = dict(documented.operations())
    with documented.client() as client:
        for operation, call in served(documented):
            call(client)
            request = documented.sent[-1].request
            parameters = described[operation].get("parameters", [])
            known = {one["name"] for one in parameters if one["in"] == "query"}
            assert set(dict(request.url.params)) == known - {"cursor"}, operation
            for one in parameters:
                if one["in"] == "header" and one["name"] not in HEADERS:
                    assert one["name"] in request.headers, operation
            takes_key = any(one["name"] == "Idempotency-Key" for one in parameters)
            assert ("Idempotency-Key" in request.headers) is takes_key, operation
            bodies = described[operation].get("requestBody", {}).get("content", {})
            if bodies:
                sent = json.loads(request.content or b"{}")
                schema = next(iter(bodies.values()))["schema"]
                assert sent_fields(sent) == documented_fields(documented, schema), operation


def sent_fields(value: object, place: str = "") -> set[str]:
    """List the fields of a body, as `limits.maxSpend`."""
    if not isinstance(value, dict) or place.endswith(("tags.", "envs.")):
        return set()
    return {place + name for name in value} | {
        field for name, inner in value.items() for field in sent_fields(inner, f"{place}{name}.")
    }


def documented_fields(documented: DocumentedServer, schema: Schema, place: str = "") -> set[str]:
    """List the fields of a schema, as `limits.maxSpend`."""
    found = set()
    for name, inner in documented.fields(schema).items():
        found |= {place + name} | documented_fields(documented, inner, f"{place}{name}.")
    return found


@pytest.mark.parametrize("operation", CALLS, ids=" ".join)
def test_every_field_of_a_response_is_in_its_model(
    documented: DocumentedServer, operation: tuple[str, str]
) -> None:
    """No documented field is unknown to the model, and no field of the model is undocumented."""
    described = dict(documented.operations()).get(operation, {"responses": {}})
    assert described["responses"] or operation in AHEAD
    for status in described["responses"]:
        if status in {"200", "201", "202"}:
            documented.status = {operation: int(status)}
            with documented.client() as client:
                result = CALLS[operation](client)
            assert unread(result) == []
            optional = {"ActionResult.operation_id", "ActionResult.message"}
            assert set(unset(result)) <= (optional if status == "200" else set())


def test_the_words_are_those_of_the_document(document: Schema) -> None:
    """Each closed set of words has the documented ones, so that a new one is noticed."""
    documented = {
        frozenset(schema["enum"])
        for schema in document["components"]["schemas"].values()
        if "enum" in schema
    }
    known = {
        name: frozenset(typing.get_args(value))
        for name, value in vars(words).items()
        if typing.get_origin(value) is typing.Literal
    }
    assert len(known) > 15
    assert {name: values for name, values in known.items() if values not in documented} == {}


def test_a_word_of_a_newer_server_is_kept() -> None:
    """A status that this version does not know is read as it is."""
    at = "2026-01-02T03:04:05Z"
    read = Operation.model_validate(
        {"id": "o", "kind": "polish", "phase": "p", "done": False, "attempts": 0, "new": 1}
        | {"createdAt": at, "updatedAt": at}
    )
    assert str(read.kind) == "polish"
    assert read.model_extra == {"new": 1}


def example(docstring: str) -> str:
    """Return the code under `Example:`."""
    return textwrap.dedent(inspect.cleandoc(docstring).partition("Example:\n")[2])


@pytest.mark.parametrize(("name", "method"), METHODS, ids=[name for name, _ in METHODS])
def test_the_example_of_every_method_runs(
    documented: DocumentedServer, name: str, method: Any
) -> None:
    """The docstring of each method has an example that calls it and runs against the document."""
    program = example(method.__doc__)
    assert f"client.{name}(" in program
    compiled = compile(program, name, "exec")
    operation = ("GET", "/api/" + name.replace(".", "/").replace("/list", ""))
    if operation in AHEAD and (name == "events.stream" or operation not in known(documented)):
        return  # test_stream.py runs the stream
    with documented.client() as client:
        exec(compiled, {"client": client})  # noqa: S102 - the code of our own docstring
    assert documented.sent


def test_the_example_of_a_webhook_compiles() -> None:
    """The function beside the methods has an example too."""
    assert "verify_webhook(" in example(verify_webhook.__doc__ or "")
    compile(example(verify_webhook.__doc__ or ""), "example", "exec")


@pytest.mark.parametrize(("name", "method"), METHODS, ids=[name for name, _ in METHODS])
def test_both_surfaces_have_every_method(name: str, method: Any) -> None:
    """Both clients have the method, with its docstring."""
    blocking, concurrent = Novitai(URL, "nvt_x"), AsyncNovitai(URL, "nvt_x")
    for client in (blocking, concurrent):
        found: Any = client
        for part in name.split("."):
            found = getattr(found, part)
        assert inspect.getdoc(found) == inspect.cleandoc(method.__doc__)
        assert re.match(r"[A-Z][^\n]+\.\n", inspect.getdoc(found) or "")
    blocking.close()


def test_the_reference_has_every_method_and_exception() -> None:
    """The page of the client lists the methods in order, and the class of each code."""
    text = page("reference/python-client.md")
    assert first_column(section(text, "Methods")) == [name for name, _ in METHODS]
    for row, (_, method) in zip(rows(section(text, "Methods")), METHODS, strict=True):
        assert row[1] == " ".join(inspect.cleandoc(method.__doc__).partition("\n\n")[0].split())
    listed = [[code(cell) for cell in row] for row in rows(section(text, "Exceptions"))]
    assert listed == [
        [name, kind.__name__, kind.__bases__[0].__name__] for name, kind in sorted(CLASSES.items())
    ]
