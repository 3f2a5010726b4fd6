# SPDX-License-Identifier: Apache-2.0
"""The typed settings, read from the environment and `.env` and all checked before startup."""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import quote, urlsplit

import platformdirs
from dotenv import dotenv_values
from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from novitai import postgresql_url, urls
from novitai.crash_points import CrashAt
from novitai.errors import SettingsError

PREFIX: Final = "NOVITAI_"
# Ignored: variables that container platforms inject for services named novitai, novitai-api and
# novitai-worker, and variables of novitai's clients.
_INJECTED: Final = re.compile(r"NOVITAI_(\w+_)?(PORT|SERVICE_)")
_OF_CLIENTS: Final = {"NOVITAI_URL", "NOVITAI_API_KEY", "NOVITAI_PROFILE"}
_OF_TESTS: Final = "NOVITAI_TEST_"
_SIGNING_SECRET: Final = "whsec_"  # noqa: S105 - a prefix
_SIGNING_BYTES: Final = range(24, 65)
"""Lengths that Standard Webhooks 1.0 allows."""
_HTTP: Final = frozenset({"http", "https"})
_PROXY: Final = frozenset({"http", "https", "socks5", "socks5h"})

_PROXY_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+")

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Environment(StrEnum):
    """The environment; it decides the log format and whether HTTPS is required."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class FailedInstancePolicy(StrEnum):
    """The action for an instance that was bought but never became ready."""

    STOP = "stop"
    KEEP = "keep"
    DELETE = "delete"


class OrphanPolicy(StrEnum):
    """The action for orphans: live instances with this installation's marker and no record."""

    REPORT = "report"
    DELETE = "delete"
    OFF = "off"


def _split_networks(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


class ArgumentsOnly(BaseSettings):
    """Reads settings from arguments only: neither from the environment nor from `.env`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use the arguments only."""
        return (init_settings,)


class Settings(BaseSettings):
    """All settings. The environment variable is `NOVITAI_` and the field name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    novita_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("NOVITA_API_KEY"),
        description="The key with which novitai calls Novita.",
    )
    upstream_url: str = Field(
        default="https://api.novita.ai",
        description="The base URL of Novita's API; the paths are appended.",
    )
    upstream_calls_per_minute: int = Field(
        default=300,
        ge=1,
        le=100_000,
        description="Maximum calls to Novita per minute from this process.",
    )
    upstream_proxy: SecretStr | None = Field(
        default=None,
        description="http://... or socks5://...: the proxy for calls to Novita only.",
    )
    upstream_timeout_seconds: float = Field(
        default=15.0, ge=0.2, le=120, description="Timeout of one call to Novita."
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="sqlite:///PATH or postgresql://...; default: novitai.db in the data folder.",
    )
    database_direct_url: SecretStr | None = Field(
        default=None,
        description="postgresql://...: for LISTEN, if database_url goes through a pooler.",
    )
    data_dir: Path | None = Field(
        default=None,
        description="The folder of the embedded database and its secret key; see `data_folder`.",
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description="At least 32 bytes; used to hash API keys and to encrypt stored secrets.",
    )
    secret_key_previous: SecretStr | None = Field(
        default=None, description="The previous secret key, during a rotation."
    )
    public_url: str | None = Field(
        default=None, description="The URL under which users reach the server."
    )
    admin_api_key: SecretStr | None = Field(
        default=None, description="A key with every scope, at least 20 characters."
    )
    sync_interval_seconds: float = Field(
        default=5.0,
        ge=0.2,
        le=3600,
        description="Seconds between listings of the account while instances change.",
    )
    absent_after_seconds: float = Field(
        default=180.0,
        ge=2,
        le=86_400,
        description="Seconds without a sighting after which a create counts as absent.",
    )
    placement_deadline_seconds: float = Field(
        default=7200.0, ge=1, le=604_800, description="Seconds within which to buy an instance."
    )
    capacity_wait_seconds: float = Field(
        default=600.0,
        ge=0,
        le=604_800,
        description="Seconds for which a create is retried while there is no capacity.",
    )
    orphans: OrphanPolicy = Field(
        default=OrphanPolicy.REPORT,
        description="The action for instances with this installation's marker and no record.",
    )
    retention_days: int = Field(
        default=90,
        ge=0,
        le=36_500,
        description="Days to keep events, deliveries and ended instances; 0: for ever.",
    )
    failed_instance_policy: FailedInstancePolicy = Field(
        default=FailedInstancePolicy.STOP,
        description="The action for an instance that never became ready.",
    )
    rate_limit_per_minute: int = Field(
        default=100, ge=1, le=1_000_000, description="Requests per minute for each API key."
    )
    rate_limit_burst: int = Field(
        default=20, ge=0, le=1_000_000, description="Additional requests at once, after a pause."
    )
    redis_url: SecretStr | None = Field(
        default=None, description="redis://...: shares the rate limit between several processes."
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="whsec_...: signs webhooks; generated and stored if not set."
    )
    webhook_allow_private: bool = Field(
        default=False, description="Whether webhooks may go to private and loopback addresses."
    )
    environment: Environment = Field(
        default=Environment.DEVELOPMENT, description="development or production (requires HTTPS)."
    )
    trusted_proxies: Annotated[
        tuple[IpNetwork, ...], NoDecode, BeforeValidator(_split_networks)
    ] = Field(
        default=(),
        description="Comma-separated addresses or networks whose X-Forwarded-* is trusted.",
    )
    test_allow_crashes: bool = Field(
        default=False, description="Only for tests of novitai: allows test_crash_at."
    )
    test_crash_at: str | None = Field(
        default=None,
        description="Only for tests of novitai: the crash point at which the process ends itself.",
    )

    @model_validator(mode="after")
    def _direct_only_with_postgresql(self) -> Self:
        if self.database_direct_url is not None and self.embedded:
            raise ValueError(
                "NOVITAI_DATABASE_DIRECT_URL: needs NOVITAI_DATABASE_URL of PostgreSQL"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _stripped(cls, values: dict[str, object]) -> dict[str, object]:
        """Strip every value; a value of only white space counts as not set."""
        stripped = {
            name: value.strip() if isinstance(value, str) else value
            for name, value in values.items()
        }
        return {name: value for name, value in stripped.items() if value != ""}

    @model_validator(mode="after")
    def _no_crash_by_accident(self) -> Settings:
        if self.test_crash_at is None:
            return self
        if not self.test_allow_crashes or self.environment is Environment.PRODUCTION:
            raise ValueError(
                "NOVITAI_TEST_CRASH_AT makes the process kill itself: it needs "
                "NOVITAI_TEST_ALLOW_CRASHES=true, and is refused in production"
            )
        return self

    @field_validator("test_crash_at")
    @classmethod
    def _a_crash_point(cls, value: str | None) -> str | None:
        if value is not None:
            CrashAt.parse(value)
        return value

    @field_validator("upstream_url")
    @classmethod
    def _an_http_url(cls, value: str) -> str:
        read = urls.read_http(value, schemes=_HTTP, example="https://api.novita.ai")
        return read.rstrip("/")

    @field_validator("public_url")
    @classmethod
    def _a_public_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        read = urls.read_http(value, schemes=_HTTP, example="https://novitai.example.com")
        return read.rstrip("/")

    @field_validator("upstream_proxy")
    @classmethod
    def _a_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value()
        read = urls.read_http(text, schemes=_PROXY, example="http://proxy:3128")
        if not _is_proxy_url(read):
            raise ValueError(
                "must be http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, optionally "
                "with user:password@ before the host, and nothing after the port"
            )
        return SecretStr(read)

    @field_validator("database_url")
    @classmethod
    def _a_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            text = value.get_secret_value()
            if urls.database_scheme(text) == "postgresql":
                postgresql_url.check(text)
        return value

    @field_validator("database_direct_url")
    @classmethod
    def _a_postgresql_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            postgresql_url.check(value.get_secret_value())
        return value

    @field_validator("secret_key", "secret_key_previous")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < 32:
            raise ValueError(
                "must be at least 32 bytes long, such as the output of: openssl rand -hex 32"
            )
        return value

    @field_validator("admin_api_key")
    @classmethod
    def _hard_to_guess(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value()
        if len(text) < 20:
            raise ValueError("must be at least 20 characters long")
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("must be visible ASCII characters, because it is sent in a header")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _a_signing_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        secrets = value.get_secret_value().split()
        if not all(_signs(secret) for secret in secrets):
            raise ValueError(
                "must be whsec_ and the base64 of 24 to 64 bytes, or two of these separated by a "
                "space while the second is being replaced; make one with: "
                'echo "whsec_$(openssl rand -base64 32)"'
            )
        return value

    @field_validator("redis_url")
    @classmethod
    def _a_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        return SecretStr(urls.read_redis(value.get_secret_value()))

    @property
    def data_folder(self) -> Path:
        """The absolute path of `data_dir`; by default, the platform's folder for a user's data.

        Raises:
            SettingsError: it lies in the home folder, and this user has none.
        """
        try:
            given = self.data_dir
            folder = platformdirs.user_data_path("novitai", False) if given is None else given
            return folder.expanduser().absolute()
        except RuntimeError:
            raise SettingsError(
                f"{PREFIX}DATA_DIR: must name a folder by its whole path, because this user has no "
                "home folder"
            ) from None

    @property
    def database(self) -> str:
        """The database URL; by default, that of the embedded file in the data folder.

        Raises:
            SettingsError: see `data_folder`.
        """
        if self.database_url is None:
            return f"sqlite:///{quote(str(self.data_folder / 'novitai.db'))}"
        return self.database_url.get_secret_value()

    @property
    def direct_database(self) -> str:
        """The URL for connections that need a session of their own; by default, `database`."""
        direct = self.database_direct_url
        return self.database if direct is None else direct.get_secret_value()

    @property
    def embedded(self) -> bool:
        """Whether the store is an embedded SQLite file."""
        return self.database.startswith("sqlite")


def _is_proxy_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in {"http", "https", "socks5", "socks5h"}
            and _PROXY_HOST.fullmatch(parts.hostname or "") is not None
            and parts.port != 0
            and (parts.port is not None or parts.scheme in {"http", "https"})
            and parts.path in {"", "/"}
            and not parts.query
            and not parts.fragment
            and url.isascii()
            and url.isprintable()
            and not any(character in ' \\<>"^`{|}' for character in url)
        )
    except ValueError:
        return False


def environment_name(field: str) -> str:
    """Return the environment variable of a settings field."""
    return "NOVITA_API_KEY" if field == "novita_api_key" else PREFIX + field.upper()


def known_names() -> list[str]:
    """List the environment variables of all settings."""
    return [environment_name(field) for field in Settings.model_fields]


def load(dotenv: Path = Path(".env")) -> Settings:
    """Read and check the settings; the environment takes precedence over `.env`.

    Raises:
        SettingsError: a name is unknown (the message has the nearest known one), or a value is
            invalid.
    """
    try:
        _refuse_unknown({**_read_dotenv(dotenv), **os.environ}, dotenv)
        return Settings(_env_file=dotenv)  # type: ignore[call-arg]  # pydantic-settings adds it
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _read_dotenv(path: Path) -> dict[str, str]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return {}
        return {name: value or "" for name, value in dotenv_values(path, interpolate=False).items()}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path}: cannot be read in the folder in which novitai was started: {error}"
        ) from None


def _refuse_unknown(values: Mapping[str, str], dotenv: Path) -> None:
    known = known_names()
    for name in sorted(values):
        if (
            not name.startswith(PREFIX)
            or name in known
            or name in _OF_CLIENTS
            or _INJECTED.match(name)
        ):
            continue
        raise SettingsError(
            f"{name}: no such setting (environment, {dotenv}); did you mean {_nearest(name)}?"
        )


def _nearest(name: str) -> str:
    """Return the setting that was probably meant; one for tests only if `name` is like those."""
    for_tests = name.startswith(_OF_TESTS)
    known = [one for one in known_names() if for_tests or not one.startswith(_OF_TESTS)]
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


def _signs(secret: str) -> bool:
    """Whether a text is a signing secret; the padding of the base64 may be missing."""
    if not secret.startswith(_SIGNING_SECRET):
        return False
    text = secret.removeprefix(_SIGNING_SECRET).rstrip("=")
    try:
        return len(base64.b64decode(text + "=" * (-len(text) % 4), validate=True)) in _SIGNING_BYTES
    except (binascii.Error, ValueError):
        return False


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        # An error that concerns two settings names them itself.
        name = f"{environment_name(str(problem['loc'][0]).lower())}: " if problem["loc"] else ""
        lines.append(f"{name}{problem['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)
