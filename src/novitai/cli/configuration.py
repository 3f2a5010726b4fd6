# SPDX-License-Identifier: Apache-2.0
"""`novitai config`: the effective settings and the source of each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from novitai.cli.output import say
from novitai.urls import masked

if TYPE_CHECKING:
    from novitai.settings import Settings

_DOTENV: Final = Path(".env")


class SettingSource(StrEnum):
    """Where a setting's value comes from."""

    ENVIRONMENT = "environment"
    DOTENV = ".env"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Effective:
    """An effective setting; `value` is masked if it is secret, and empty if the setting is None."""

    name: str
    value: str
    source: SettingSource


def config(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show the effective settings and the source of each; secrets are masked."""
    from novitai.settings import load

    settings = effective(load(_DOTENV), os.environ, _read(_DOTENV))
    if as_json:
        import orjson

        shown = {one.name: {"value": one.value, "source": one.source} for one in settings}
        say(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
        return
    for one in settings:
        say(f"{one.name}={one.value}  # {one.source}")


def effective(
    settings: Settings, environment: Mapping[str, str], dotenv: Mapping[str, str]
) -> list[Effective]:
    """List every setting with its value and source."""
    from novitai.settings import environment_name

    found = []
    for field in type(settings).model_fields:
        name = environment_name(field)
        if _has(environment, name):
            source = SettingSource.ENVIRONMENT
        elif _has(dotenv, name):
            source = SettingSource.DOTENV
        else:
            source = SettingSource.DEFAULT
        found.append(Effective(name, _shown(settings, field), source))
    return found


def _shown(settings: Settings, field: str) -> str:
    from pydantic import SecretStr

    value = getattr(settings, field)
    if field == "database_url":
        return masked(settings.database)
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return masked(secret)
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(str(one) for one in value)
    if isinstance(value, bool):
        return str(value).lower()
    return masked(value) if isinstance(value, str) and "://" in value else str(value)


def _has(values: Mapping[str, str], name: str) -> bool:
    """Whether a name is set and not blank; as in `Settings`, letter case is ignored."""
    return any(key.upper() == name and value.strip() for key, value in values.items())


def _read(dotenv: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    if not dotenv.is_file():
        return {}
    return {name: value or "" for name, value in dotenv_values(dotenv, interpolate=False).items()}
