# SPDX-License-Identifier: Apache-2.0
"""Settings are checked together; an error names each wrong setting and says what to do."""

from __future__ import annotations

import base64
import re
import ssl
from pathlib import Path

import pytest

from novitai import settings
from novitai.errors import SettingsError
from novitai.store.engine.sqlite_file import path_of
from novitai.upstream.transport import Transport

TLS = ssl.create_default_context()
DOCUMENTED = re.compile(r"^\| `(NOVITA\w+)` \|", re.MULTILINE)


def secret(length: int) -> str:
    """Make a signing secret of `length` bytes."""
    return "whsec_" + base64.b64encode(bytes(range(length))).decode()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without settings, and an empty working folder."""
    import os

    for name in list(os.environ):
        if name.startswith("NOVITA"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_defaults_are_those_that_are_documented() -> None:
    """With nothing set: the embedded store, the real Novita, and the documented limits."""
    loaded = settings.load()
    assert loaded.embedded
    assert loaded.upstream_url == "https://api.novita.ai"
    assert loaded.upstream_calls_per_minute == 300
    assert (loaded.rate_limit_per_minute, loaded.rate_limit_burst) == (100, 20)
    assert (loaded.sync_interval_seconds, loaded.absent_after_seconds) == (5, 180)
    assert loaded.placement_deadline_seconds == 7200
    assert loaded.failed_instance_policy is settings.FailedInstancePolicy.STOP
    assert loaded.environment is settings.Environment.DEVELOPMENT


def test_every_setting_is_documented() -> None:
    """The reference lists exactly the settings that are read."""
    page = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"
    assert sorted(DOCUMENTED.findall(page.read_text())) == sorted(settings.known_names())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("NOVITAI_DATABSE_URL", "NOVITAI_DATABASE_URL"),
        ("NOVITAI_SYNC_INTERVAL", "NOVITAI_SYNC_INTERVAL_SECONDS"),
        ("NOVITAI_ENV_URL", "NOVITAI_REDIS_URL"),
        ("NOVITAI_MAX_CONCURRENT_CREATES", "NOVITAI_(?!TEST_)"),
        ("NOVITAI_TEST_CRASH", "NOVITAI_TEST_CRASH_AT"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, name: str, nearest: str
) -> None:
    """A misspelt setting is refused, because it would otherwise have no effect."""
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=f"{name}.*did you mean {nearest}"):
        settings.load()


@pytest.mark.parametrize(
    "name",
    [
        "NOVITAI_PORT",
        "NOVITAI_PORT_8080_TCP",
        "NOVITAI_SERVICE_HOST",
        "NOVITAI_API_PORT",
        "NOVITAI_API_PORT_8080_TCP_ADDR",
        "NOVITAI_API_SERVICE_PORT_HTTP",
        "NOVITAI_WORKER_SERVICE_HOST",
        "NOVITAI_EU_WEST_1_API_SERVICE_HOST",
        "NOVITAI_URL",
        "NOVITAI_API_KEY",
        "NOVITAI_PROFILE",
        "OTHER",
    ],
)
def test_what_is_meant_for_others_is_ignored(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Variables of container platforms and of clients are ignored."""
    monkeypatch.setenv(name, "tcp://10.0.0.1:8080")
    settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOVITAI_UPSTREAM_URL", "ftp://x"),
        ("NOVITAI_UPSTREAM_URL", "https://x/?a=b"),
        ("NOVITAI_DATABASE_URL", "mysql://x"),
        ("NOVITAI_DATABASE_URL", "postgresql://h/d?conect_timeout=3"),
        ("NOVITAI_DATABASE_DIRECT_URL", "sqlite:///x"),
        ("NOVITAI_PUBLIC_URL", "example.com"),
        ("NOVITAI_UPSTREAM_PROXY", "ftp://x"),
        ("NOVITAI_SECRET_KEY", "short"),
        ("NOVITAI_ADMIN_API_KEY", "nineteen-characters"),
        ("NOVITAI_ADMIN_API_KEY", "twenty characters here"),
        ("NOVITAI_SYNC_INTERVAL_SECONDS", "0.1"),
        ("NOVITAI_ABSENT_AFTER_SECONDS", "1.9"),
        ("NOVITAI_UPSTREAM_CALLS_PER_MINUTE", "0"),
        ("NOVITAI_RATE_LIMIT_PER_MINUTE", "many"),
        ("NOVITAI_RATE_LIMIT_BURST", "-1"),
        ("NOVITAI_FAILED_INSTANCE_POLICY", "panic"),
        ("NOVITAI_ENVIRONMENT", "prod"),
        ("NOVITAI_WEBHOOK_SECRET", "abc"),
        ("NOVITAI_WEBHOOK_SECRET", "whsec_"),
        ("NOVITAI_WEBHOOK_SECRET", "whsec_QQ=="),
        ("NOVITAI_WEBHOOK_SECRET", secret(23)),
        ("NOVITAI_WEBHOOK_SECRET", secret(65)),
        ("NOVITAI_WEBHOOK_SECRET", f"{secret(32)} whsec_QQ=="),
        ("NOVITAI_WEBHOOK_SECRET", f"{secret(32)}!"),
        ("NOVITAI_WEBHOOK_SECRET", secret(32).removeprefix("whsec_")),
        ("NOVITAI_WEBHOOK_ALLOW_PRIVATE", "perhaps"),
        ("NOVITAI_REDIS_URL", "http://x"),
        ("NOVITAI_TRUSTED_PROXIES", "10.0.0.300"),
        *(
            ("NOVITAI_UPSTREAM_PROXY", value)
            for value in (
                "proxy:3128",
                "ftp://proxy:3128",
                "http://",
                "http://:3128",
                "http://proxy:0",
                "http://proxy:99999",
                "http://proxy:3128/path",
                "http://proxy:3128?a=b",
                "http://pro xy:3128",
                "http://próxy:3128",
                "http://[::1",
                "socks4://proxy:1080",
                "socks5://proxy",
            )
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The message names the setting, but not its value, which may be a secret."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as refusal:
        settings.load()
    if name.endswith(("KEY", "SECRET", "PROXY")) and value != "whsec_":
        assert value not in str(refusal.value).split()


@pytest.mark.parametrize(
    "value",
    [
        "http://proxy:3128",
        "http://proxy",
        "https://proxy.example.com:443/",
        "socks5://127.0.0.1:1080",
        "socks5h://[::1]:1080",
        "http://me:s%40cret@a_b.internal:3128",
    ],
)
def test_a_proxy_that_is_accepted_can_be_used(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Every proxy that the settings accept can be used by the client."""
    monkeypatch.setenv("NOVITAI_UPSTREAM_PROXY", value)
    proxy = settings.load().upstream_proxy
    assert proxy is not None
    Transport("https://api.novita.ai", "key", timeout=1, proxy=proxy.get_secret_value(), tls=TLS)


@pytest.mark.parametrize(
    "value", [secret(24), secret(64), secret(32).rstrip("="), f"{secret(32)}  {secret(33)}"]
)
def test_a_signing_secret_has_24_to_64_bytes(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """As in Standard Webhooks, a secret has 24 to 64 bytes; base64 padding is optional."""
    monkeypatch.setenv("NOVITAI_WEBHOOK_SECRET", value)
    loaded = settings.load().webhook_secret
    assert loaded is not None
    assert loaded.get_secret_value() == value


def test_white_space_around_a_value_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, bare: Path
) -> None:
    """White space around a value is removed, and a value of white space only is not set."""
    values = {
        "NOVITA_API_KEY": "key\n",
        "NOVITAI_DATA_DIR": " /data ",
        "NOVITAI_RATE_LIMIT_BURST": " 7\t",
        "NOVITAI_WEBHOOK_ALLOW_PRIVATE": " true ",
        "NOVITAI_ENVIRONMENT": "production\r\n",
        "NOVITAI_UPSTREAM_URL": " https://x/ ",
        "NOVITAI_REDIS_URL": "  ",
        "NOVITAI_SYNC_INTERVAL_SECONDS": "\n",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    (bare / ".env").write_text('NOVITAI_ADMIN_API_KEY="  an-admin-key-of-enough-characters "\n')
    loaded = settings.load()
    assert loaded.novita_api_key is not None
    assert loaded.novita_api_key.get_secret_value() == "key"
    assert loaded.admin_api_key is not None
    assert loaded.admin_api_key.get_secret_value() == "an-admin-key-of-enough-characters"
    assert (loaded.data_dir, loaded.rate_limit_burst) == (Path("/data"), 7)
    assert loaded.webhook_allow_private
    assert loaded.environment is settings.Environment.PRODUCTION
    assert (loaded.upstream_url, loaded.redis_url) == ("https://x", None)
    assert loaded.sync_interval_seconds == 5


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two wrong values give one message with two lines."""
    monkeypatch.setenv("NOVITAI_SECRET_KEY", "short")
    monkeypatch.setenv("NOVITAI_RATE_LIMIT_BURST", "-1")
    with pytest.raises(SettingsError) as refusal:
        settings.load()
    assert len(str(refusal.value).splitlines()) == 2


def test_dotenv_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, bare: Path
) -> None:
    """`.env` in the working folder is read; environment variables override it."""
    (bare / ".env").write_text("NOVITAI_RATE_LIMIT_BURST=7\nNOVITAI_RATE_LIMIT_PER_MINUTE=8\n")
    monkeypatch.setenv("NOVITAI_RATE_LIMIT_BURST", "9")
    loaded = settings.load()
    assert (loaded.rate_limit_burst, loaded.rate_limit_per_minute) == (9, 8)


def test_a_dotenv_that_cannot_be_looked_for_is_told() -> None:
    """The system may refuse that, as in a working folder that the user may not enter."""
    with pytest.raises(SettingsError, match="cannot be read in the folder in which novitai"):
        settings.load(Path("x" * 300))


def test_an_unknown_name_in_dotenv_is_refused_too(bare: Path) -> None:
    """An unknown name in `.env` is refused, as in the environment."""
    (bare / ".env").write_text("NOVITAI_RATE_LIMIT_BRUST=7\n")
    with pytest.raises(SettingsError, match="BRUST"):
        settings.load()


def test_secrets_stay_out_of_the_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    """The `repr` of the settings shows no secret."""
    secrets = {
        "NOVITA_API_KEY": "canary-one",
        "NOVITAI_SECRET_KEY": "canary-two-canary-two-canary-two",
        "NOVITAI_ADMIN_API_KEY": "canary-three-canary-three",
        "NOVITAI_DATABASE_URL": "postgresql://u:canary-four@h/d",
        "NOVITAI_WEBHOOK_SECRET": "whsec_canary5canary5canary5canary5canary5",
        "NOVITAI_REDIS_URL": "redis://:canary-six@h",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    assert "canary" not in repr(settings.load())


def test_a_data_folder_may_have_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters with a meaning in URLs are quoted in the database URL."""
    monkeypatch.setenv("NOVITAI_DATA_DIR", "/data/what?%20 is#this")
    assert settings.load().database == "sqlite:////data/what%3F%2520%20is%23this/novitai.db"


def test_a_user_without_a_home_folder_needs_none(
    monkeypatch: pytest.MonkeyPatch, homeless: None
) -> None:
    """The platform's data folder is looked for only if something is to be stored in it."""
    monkeypatch.setenv("NOVITAI_DATABASE_URL", "postgresql://u@h/d")
    assert not settings.load().embedded
    monkeypatch.setenv("NOVITAI_DATABASE_URL", "")
    monkeypatch.setenv("NOVITAI_DATA_DIR", "/data")
    assert settings.load().data_folder == Path("/data")


@pytest.mark.parametrize("folder", ["", "~/data"])
def test_a_missing_home_folder_is_told(
    monkeypatch: pytest.MonkeyPatch, homeless: None, folder: str
) -> None:
    """The error says which setting helps."""
    monkeypatch.setenv("NOVITAI_DATA_DIR", folder)
    with pytest.raises(SettingsError, match=r"NOVITAI_DATA_DIR: .*no home folder"):
        _ = settings.load().database
    with pytest.raises(SettingsError, match=r"NOVITAI_DATABASE_URL: .*no home folder"):
        path_of("sqlite:///~/novitai.db")
