# SPDX-License-Identifier: Apache-2.0
"""Three generators make clients of the OpenAPI document, which compile and rent an instance."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from clients.tests.generators import BUILD, PYTHON, ROOT, run
from tests.api.application import CREATE
from tests.live import ADMIN_KEY, LiveServer

WARNING = re.compile(r"warn|deprecat|error|unsupported|skipp", re.IGNORECASE)
HOW_TO = ROOT / "docs/how-to/generate-a-client.md"
ID = "inst_[a-z0-9_]+"


@pytest.fixture(scope="module")
def compiled(typescript: Path) -> Path:
    """Generate both TypeScript clients without a warning; compile the programs and the docs."""
    shutil.rmtree(typescript / "build", ignore_errors=True)
    for script in ("generate", "generate:hey-api"):
        said = run("npm", "run", "--silent", script, folder=typescript)
        assert not WARNING.search(said), said
    [shown] = re.findall("```ts\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    (typescript / "generated/how-to.ts").write_text(shown)
    assert run("npm", "run", "--silent", "build", folder=typescript) == ""
    return typescript / "build"


@pytest.fixture(scope="module")
def generated(python: Path, document: bytes) -> Path:
    """Generate the Python client without a warning, and check its types and its program."""
    file, client = BUILD / "openapi.json", BUILD / "openapi-python-client"
    file.write_bytes(document)
    said = run(
        *(python / "openapi-python-client", "generate", "--path", file, "--fail-on-warning"),
        *("--config", PYTHON / "config.yml", "--output-path", client, "--overwrite"),
        folder=BUILD,
        # The generator formats with ruff if it is on the PATH.
        env={"PATH": f"{python}:/usr/bin:/bin"},
    )
    assert not WARNING.search(said), said
    shutil.copyfile(PYTHON / "example.py", client / "example.py")
    # Without a configuration, because mypy would read that of this repository.
    check = (python / "mypy", "--config-file=", "--strict", "novitai_generated", "example.py")
    said = run(*check, folder=client)
    assert said.startswith("Success")
    return client


def access(server: LiveServer) -> dict[str, str]:
    """Return the environment of a program that calls the server."""
    return {"NOVITAI_URL": server.url, "NOVITAI_API_KEY": ADMIN_KEY}


def assert_gone(server: LiveServer, printed: str) -> None:
    """Assert that the instance that a program has printed is being deleted, or is gone."""
    instance_id = printed.partition("created ")[2].partition("\n")[0]
    instance = server.http.get(f"/api/instances/{instance_id}").json()
    assert instance["status"] in {"terminating", "terminated"}


def test_a_client_of_openapi_typescript_rents(compiled: Path, server: LiveServer) -> None:
    """The example creates, waits, lists, follows the stream and deletes, with openapi-fetch."""
    printed = run("node", compiled / "example.js", folder=compiled, env=access(server))
    assert re.fullmatch(
        f"created ({ID})\n"
        "(still [a-z]+\n)*"
        "running in CN-HK-01 at \\$[0-9.]+ an hour\n"
        f"(listed {ID}: [a-z]+\n)*"
        "listed \\1: running\n"
        f"(listed {ID}: [a-z]+\n)*"
        "event instance.terminating\n"
        "(event [a-z._]+\n)*"
        "event instance.terminated\n",
        printed,
    ), printed
    assert_gone(server, printed)


def test_a_client_of_hey_api_rents(compiled: Path, server: LiveServer) -> None:
    """The generated functions create, wait and delete."""
    printed = run("node", compiled / "hey-api-example.js", folder=compiled, env=access(server))
    expected = f"created {ID}\nrunning in CN-HK-01\ndeleted: terminating\n"
    assert re.fullmatch(expected, printed), printed
    assert_gone(server, printed)


def test_a_client_of_openapi_python_client_rents(
    generated: Path, python: Path, server: LiveServer
) -> None:
    """The generated functions create, wait and delete; no default is sent, also no region."""
    printed = run(python / "python", "example.py", folder=generated, env=access(server))
    expected = (
        f"sent name, productName, templateId\ncreated {ID}\nrunning in CN-HK-01\n"
        "deleted: terminating\n"
    )
    assert re.fullmatch(expected, printed), printed
    assert_gone(server, printed)


def test_the_typescript_example_pages(compiled: Path, server: LiveServer) -> None:
    """With more instances than a page holds, the example lists each of them once."""
    source = (compiled / "example.js").read_text()
    assert source.count("limit: 100") == 1
    small = compiled / "small-pages.js"
    small.write_text(source.replace("limit: 100", "limit: 1"))
    made = {
        server.http.post("/api/instances", json={**CREATE, "name": name}).json()["instanceId"]
        for name in ("first", "second")
    }
    printed = run("node", small, folder=compiled, env=access(server))
    listed = re.findall(f"listed ({ID})", printed)
    assert len(listed) == len(set(listed))
    assert made < set(listed)
