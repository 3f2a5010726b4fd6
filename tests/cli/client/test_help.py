# SPDX-License-Identifier: Apache-2.0
"""The help: two panels, an example of each command that works, and completion in two shells."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import typer.main
from typer.core import TyperGroup

from novitai.cli import entry
from novitai.cli.main import CLIENT, SERVER, app
from novitai.web import is_built
from tests.blackbox.harness import ADMIN_KEY, NOVITAI
from tests.cli.client.answering import answering, http
from tests.cli.client.program import Program
from tests.docs.pages import ROOT

LONG_RUNNING: Final = {"serve", "api", "worker", "emulator", "demo"}
"""Commands whose examples other tests run as processes: tests/blackbox."""
AS_PROCESS: Final = {"ssh", "open", "dashboard"}
"""Commands that replace the process or start a browser."""
WITH_CODE: Final = {} if is_built() else {"dashboard": 3}
"""Examples that cannot succeed against this server, with their exit codes."""
HEAVY: Final = "starlette sqlalchemy alembic uvicorn structlog cryptography asyncpg rich tomlkit"


def commands() -> Iterator[tuple[str, str]]:
    """Yield each command with the end of its help, groups left out."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            for inner, one in command.commands.items():
                yield f"{name} {inner}", one.epilog or ""
        else:
            yield name, command.epilog or ""


def examples() -> list[tuple[str, str]]:
    """List the command lines in the help, each with its command."""
    return [
        (name, line)
        for name, epilog in commands()
        for line in re.findall(r"^\$ (novitai .+)$", epilog, re.MULTILINE)
    ]


def test_every_command_has_an_example() -> None:
    """Each example begins with its command."""
    without = {name for name, _ in commands()} - {name for name, _ in examples()}
    assert without == set()
    for name, line in examples():
        usual = name.removesuffix(" show")
        assert line.startswith((f"novitai {name}", f"novitai {usual}")), line
    assert set(entry._CODES) == LONG_RUNNING


@pytest.fixture
def receiver() -> Iterator[str]:
    """The URL of a receiver of webhooks."""
    with answering(http(b"")) as url:
        yield url


def test_every_example_works(
    program: Program, receiver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line of the help does what it says against a live server and an own database."""
    monkeypatch.chdir(program.folder)
    env = {
        "NOVITAI_DATA_DIR": str(program.folder / "data"),
        "NOVITA_API_KEY": "example",
        "NOVITAI_UPSTREAM_URL": program.server.emulator.url,
        "NOVITAI_API_KEY": "",
        "NOVITAI_URL": "",
    }
    for name in ("ssh", "browser"):
        script = program.folder / name
        script.write_text("#!/bin/sh\nexit 0\n")
        script.chmod(0o755)
    outside = {"PATH": f"{program.folder}:{program.env['PATH']}", "BROWSER": "browser %s"}
    program.rent("trainer", "--max-run", "8h", "--tag", "team=examples")
    client_keys = {"KEY": "", "WEBHOOK": ""}
    for name, line in in_order():
        text = line
        for word, value in client_keys.items():
            text = re.sub(rf"\b{word}\b", value, text)
        text = re.sub(
            r"https?://(127\.0\.0\.1:8080|novitai\.example\.com)", program.server.url, text
        )
        text = text.replace("https://example.com/hook", receiver)
        text = text.replace("/srv/novitai/novitai.db", f"{program.folder}/data/novitai.db")
        text = text.replace("postgresql://novitai@db/novitai", f"sqlite:///{program.folder}/copy")
        words, _, _ = text.partition(" < ")
        arguments = shlex.split(words)[1:]
        if name.split()[0] in AS_PROCESS:
            ran = program.process(*arguments, env={**env, **outside})
        else:
            ran = program.run(*arguments, stdin=f"{ADMIN_KEY}\n", env=given(name, env))
        expected = WITH_CODE.get(name, 0)
        assert ran.code == expected, (line, ran)
        if name == "keys list":
            client_keys["KEY"] = ran.out.split()[0]
        if name == "webhooks create":
            client_keys["WEBHOOK"] = re.findall(r"whk_\w+", ran.err)[0]
        after(program, name, arguments, env)


def given(name: str, env: dict[str, str]) -> dict[str, str]:
    """Return the environment of a command; a log-in without a terminal needs the key in it."""
    return {**env, "NOVITAI_API_KEY": ADMIN_KEY} if name == "login" else env


def in_order() -> list[tuple[str, str]]:
    """List the examples so that each finds what it needs: log-in first, deletions last."""
    first = ["login", "keys create", "keys list", "webhooks create", "budgets set"]
    last = [
        "stop",
        "start",
        "restart",
        "delete",
        "keys revoke",
        "webhooks delete",
        "budgets delete",
        "logout",
    ]
    order = {name: number for number, name in enumerate(first, -100)}
    order |= {name: number for number, name in enumerate(last, 100)}
    lines = [one for one in examples() if one[0] not in LONG_RUNNING]
    return sorted(lines, key=lambda one: order.get(one[0], 0))


def after(program: Program, name: str, arguments: list[str], env: dict[str, str]) -> None:
    """Wait until the next example finds the instance as it needs it."""
    if name == "create":
        made = program.ok("ls", "--columns", "id", "--no-header", "--tag", "team=vision", env=env)
        program.ok("delete", *made.split(), "--yes", env=env)
        program.ok("wait", made.split()[0], "--for", "terminated", env=env)
    if name == "start":
        program.ok("wait", "trainer", env=env)
    if name == "stop" and "--all" not in arguments:
        program.ok("wait", "trainer", "--for", "stopped", env=env)
        program.ok("start", "trainer", env=env)
        program.ok("wait", "trainer", env=env)
    if name == "stop" and "--all" in arguments:
        program.ok("wait", "trainer", "--for", "stopped", env=env)


def test_panels_tell_client_and_server_commands_apart(program: Program) -> None:
    """`novitai --help` has two panels; `webhooks` has commands of both kinds."""
    shown = program.ok("--help")
    client, _, server = shown.partition(SERVER)
    assert CLIENT in client
    for name in ("login", "ls", "create", "costs", "doctor", "webhooks"):
        assert re.search(rf"^. {name} ", client, re.MULTILINE)
    for name in ("serve", "worker", "keys", "config", "migrate"):
        assert re.search(rf"^. {name} ", server, re.MULTILINE)
    inner = program.ok("webhooks", "--help")
    assert re.search(r"^. secret ", inner.partition(CLIENT)[0], re.MULTILINE)
    assert "--json prints InstanceList" in program.ok("ls", "-h")


def test_every_command_prints_json(program: Program) -> None:
    """Each client command takes `--json`, but for the one that prints a script."""
    client = {name for name, _ in commands() if "--profile" in program.ok(*name.split(), "--help")}
    without = {name for name in client if "--json" not in program.ok(*name.split(), "--help")}
    assert len(client) > 30
    assert without == {"completion"}


def test_json_is_described_by_the_server(program: Program) -> None:
    """Each object that a help names is a schema of the OpenAPI document."""
    document = program.server.server.http.get("/openapi.json").json()
    known = set(document["components"]["schemas"])
    named = {
        word
        for _, epilog in commands()
        for said in re.findall(r"--json prints (.+), which /docs", epilog)
        for word in re.findall(r"\b[A-Z]\w+", said)
    }
    assert len(named) > 15
    assert named <= known


def test_a_client_command_loads_nothing_of_the_server(program: Program) -> None:
    """`novitai ls` loads neither the server nor rich, and its help loads only its own module."""
    code = (
        "import sys; sys.argv = ['novitai', 'ls']\n"
        "from novitai.cli.entry import main\n"
        "try:\n main()\nexcept SystemExit as end:\n assert not end.code, end.code\n"
        f"print([name for name in '{HEAVY}'.split() if name in sys.modules], file=sys.stderr)\n"
        "print([n for n in sys.modules if n.startswith('novitai.') and '.cli' not in n "
        "and n not in {'novitai.errors'}], file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=program.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ran.stderr.splitlines()[-2:] == ["[]", "[]"]


def test_client_modules_name_nothing_of_the_server() -> None:
    """No import of the client commands, also inside functions, leads into the server."""
    allowed = {"novitai.cli.output", "novitai.cli.examples"}
    for path in (ROOT / "src/novitai/cli/client").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module is not None and module.startswith("novitai."):
                assert module in allowed or module.startswith("novitai.cli.client"), path


def completed(shell: str, script: str, folder: Path, program: Program) -> str:
    """Run a script in a shell in which the completion is loaded."""
    path = f"{NOVITAI.parent}:{program.env['PATH']}"
    ran = subprocess.run(
        [shell, "-c", script],
        env={**program.env, "PATH": path, "ZDOTDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran
    return ran.stdout


def test_bash_completes_commands_options_and_names(program: Program) -> None:
    """`source <(novitai completion bash)` completes a command, an option and an instance."""
    program.rent("completed-by-bash")
    script = """
    source <(novitai completion bash)
    complete -p novitai
    try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _novitai_completion novitai
            echo "${COMPREPLY[@]}"; }
    try novitai cre
    try novitai ls --wat
    try novitai get completed-by-b
    """
    shown = completed("bash", script, program.folder, program).splitlines()
    assert shown[0] == "complete -o default -F _novitai_completion novitai"
    assert shown[1:] == ["create credentials", "--watch", "completed-by-bash"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_commands(program: Program) -> None:
    """`source <(novitai completion zsh)` registers a function that asks the program."""
    script = """
    autoload -U compinit && compinit -u -d "$ZDOTDIR/dump"
    source <(novitai completion zsh)
    print -r -- $_comps[novitai]
    _TYPER_COMPLETE_ARGS="novitai cre" _NOVITAI_COMPLETE=complete_zsh novitai
    """
    shown = completed("zsh", script, program.folder, program)
    assert shown.splitlines()[0] == "_novitai_completion"
    assert '"create"' in shown


def test_the_shell_is_taken_from_the_environment(program: Program) -> None:
    """Without an argument, `$SHELL` decides; an unknown one is a usage error."""
    assert "#compdef novitai" in program.ok("completion", env={"SHELL": "/usr/bin/zsh"})
    assert program.run("completion", env={"SHELL": "/bin/tcsh"}).code == 2
