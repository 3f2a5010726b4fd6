# SPDX-License-Identifier: Apache-2.0
"""What a client sends, checked whole: every wrong field is told, in the reference's order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from novitai.clock import parse_iso
from novitai.domain.addresses import Host, read_host
from novitai.domain.api_key import MAX_NAME, KeyRequest, Scope
from novitai.domain.fields import (
    Fields,
    Wrong,
    flag,
    not_blank,
    positive_number,
    text,
    whole_number,
)
from novitai.domain.instance import BillingMode
from novitai.domain.outside import first_unseen
from novitai.domain.requests import CreateRequest
from novitai.domain.view import masked_url

MAX_URL: Final = 2048
# Novita's own limits on a create call (upstream.md §4).
MAX_ENVS: Final = 100
MAX_ENV_NAME: Final = 511
MAX_ENV_VALUE: Final = 4095
MAX_HOURLY_PRICE: Final = 1_000_000.0

PRIVATE_WEBHOOK: Final = "Webhook URL must not point to a private or loopback address"
PRIVATE_WEBHOOKS_HINT: Final = (
    "; to allow private receivers, set NOVITAI_WEBHOOK_ALLOW_PRIVATE=true on the server"
)
"""Names the setting that lifts a refusal."""

_END_OF_TIME: Final = 253_402_300_800_000
"""The year 10000, in Unix milliseconds: what cannot be written as ISO-8601 any more."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
_CODES: Final = {
    "name": "INVALID_INSTANCE_NAME",
    "productName": "INVALID_PRODUCT_NAME",
    "templateId": "INVALID_TEMPLATE_ID",
    "gpuNum": "INVALID_GPU_NUM",
    "rootfsSize": "INVALID_ROOTFS_SIZE",
    "webhookUrl": "INVALID_WEBHOOK_URL",
}


def parse_create(body: Mapping[str, object], *, allow_private: bool = False) -> CreateRequest:
    """Check a request for an instance (API reference, "CreateInstanceRequest").

    Args:
        body: The JSON object that was sent.
        allow_private: Whether the webhook may point to private and loopback addresses.

    Raises:
        ValidationFailed: with every wrong field.
    """
    fields = Fields(body, codes=_CODES, secret=frozenset({"envs"}), masks={"webhookUrl": _mask_url})
    product_name = not_blank("Product name", longest=255)
    template_id = not_blank("Template ID", longest=255)
    request = CreateRequest(
        name=fields.require("name", "Name", instance_name, ""),
        product_name=fields.require("productName", "Product name", product_name, ""),
        template_id=fields.require("templateId", "Template ID", template_id, ""),
        gpu_num=fields.read("gpuNum", whole_number("GPU number", least=1, most=8), 1),
        rootfs_size=fields.read(
            "rootfsSize",
            whole_number("Root filesystem size", least=20, most=1000, unit=" GB"),
            60,
        ),
        region=fields.read("region", not_blank("Region", longest=64), None),
        webhook_url=fields.read(
            "webhookUrl", partial(webhook_url, allow_private=allow_private), None
        ),
        billing_mode=fields.read("billingMode", _billing_mode, BillingMode.ON_DEMAND),
        max_hourly_price=fields.read(
            "maxHourlyPrice", positive_number("Maximum hourly price", most=MAX_HOURLY_PRICE), None
        ),
        region_fallback=fields.read("regionFallback", flag("Region fallback"), False),
        envs=fields.read("envs", _envs, {}),
    )
    fields.finish()
    return request


def parse_instance_name(body: Mapping[str, object]) -> str:
    """Check a request that names an instance: `instanceName` and nothing else.

    Raises:
        ValidationFailed: with every wrong field.
    """
    fields = Fields(body, codes={"instanceName": _CODES["name"]})
    name = fields.require("instanceName", "Instance name", instance_name, "")
    fields.finish()
    return name


def parse_key_request(body: Mapping[str, object], *, now: int) -> KeyRequest:
    """Check a request for an API key: `name`, `scopes`, and perhaps `expiresAt`.

    Raises:
        ValidationFailed: with every wrong field.
    """
    fields = Fields(body)
    request = KeyRequest(
        name=fields.require("name", "Name", not_blank("Name", longest=MAX_NAME), ""),
        scopes=fields.require("scopes", "Scopes", _scopes, frozenset()),
        expires_at=fields.read("expiresAt", partial(_future, now=now), None),
    )
    fields.finish()
    return request


def webhook_url(value: object, *, allow_private: bool) -> str:
    """Accept a webhook URL as far as it can be judged without resolving its name.

    Raises:
        Wrong: it is no HTTP URL, it points to a private or loopback address, or a reader would not
            see all of it.
    """
    url = text("Webhook URL", longest=MAX_URL)(value)
    # `urlsplit` drops some of these silently, and clients differ over the others.
    if any(character.isspace() or character in '\\<>"^`{|}' for character in url):
        raise Wrong("Webhook URL must not contain spaces or characters that have to be encoded")
    try:
        host = _http_host(url)
    except ValueError:
        raise Wrong("Webhook URL must be a valid HTTP or HTTPS URL") from None
    if host.private and not allow_private:
        raise Wrong(f"{PRIVATE_WEBHOOK}{PRIVATE_WEBHOOKS_HINT}")
    if (unseen := first_unseen(url)) is not None:
        raise Wrong(
            f"Webhook URL must not contain the invisible character U+{ord(unseen):04X}; "
            "leave it out or percent-encode it"
        )
    return url


def _http_host(url: str) -> Host:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("not an HTTP URL")
    match = _AUTHORITY.fullmatch(parts.netloc.rpartition("@")[2])
    if match is None or not 0 < int(match["port"] or 80) < 65_536:
        raise ValueError("no host, or no port that can be")
    return read_host(match["host"])


def instance_name(value: object) -> str:
    """Accept the name of an instance (API reference, "CreateInstanceRequest").

    Raises:
        Wrong: it has other characters than letters, digits, hyphens and underscores, or too many.
    """
    name = text("Name", longest=100)(value)
    if not _NAME.fullmatch(name):
        raise Wrong("Name must contain only letters, digits, hyphens and underscores")
    return name


def _billing_mode(value: object) -> BillingMode:
    for mode in BillingMode:
        if value == mode.value:
            return mode
    raise Wrong("Billing mode must be " + " or ".join(f"'{mode.value}'" for mode in BillingMode))


def _envs(value: object) -> dict[str, str]:
    """Accept an object of strings; messages count the entries and show nothing of them."""
    if not isinstance(value, Mapping):
        raise Wrong("Environment variables must be an object of strings")
    if len(value) > MAX_ENVS:
        raise Wrong(f"There must be at most {MAX_ENVS} environment variables")
    read: dict[str, str] = {}
    for number, (name, content) in enumerate(value.items(), start=1):
        entry = f"Environment variable number {number}"
        text(f"{entry}: its name", longest=MAX_ENV_NAME)(name)
        if "=" in name or any(character.isspace() for character in name):
            raise Wrong(f"{entry}: its name must not contain '=' or spaces")
        # Keys and certificates have line breaks.
        check = text(f"{entry}: its value", shortest=0, longest=MAX_ENV_VALUE, lines=True)
        read[name] = check(content)
    return read


def _scopes(value: object) -> frozenset[Scope]:
    names = ", ".join(f"'{scope.value}'" for scope in Scope)
    if not isinstance(value, list) or not value:
        raise Wrong(f"Scopes must be a list with at least one of {names}")
    try:
        return frozenset(Scope(word) for word in value)
    except (ValueError, TypeError):
        raise Wrong(f"Scopes must be among {names}") from None


def _future(value: object, *, now: int) -> int:
    if not isinstance(value, str):
        raise Wrong("Expiry must be an ISO-8601 time")
    try:
        at = parse_iso(value)
    except (ValueError, OverflowError):
        raise Wrong("Expiry must be an ISO-8601 time with an offset, such as Z") from None
    if at <= now:
        raise Wrong("Expiry must be in the future")
    if at >= _END_OF_TIME:
        raise Wrong("Expiry must be before the year 10000")
    return at


def _mask_url(url: str) -> str:
    try:
        masked = masked_url(url)
    except ValueError:
        return "***"
    # What is no URL may still hold a password before its @.
    return masked if masked != url or "@" not in url else "***@" + url.rpartition("@")[2]
