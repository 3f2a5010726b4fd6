# SPDX-License-Identifier: Apache-2.0
"""Validation of request bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.api.schemas.instances import CreateInstanceRequest
from novitai.api.schemas.keys import CreateKeyRequest
from novitai.api.schemas.wire import read
from novitai.domain.api_key import KeyRequest, Scope
from novitai.domain.instance import BillingMode
from novitai.domain.requests import CreateRequest
from novitai.errors import FieldError, ValidationFailed

GOOD: Mapping[str, object] = {
    "name": "my-instance",
    "productName": "gpu-basic",
    "templateId": "tmpl-12345",
}


def parse_create(body: Mapping[str, object], *, allow_private: bool = False) -> CreateRequest:
    """Check a request for an instance."""
    return read(CreateInstanceRequest, body, allow_private=allow_private).wanted()


def parse_key_request(body: Mapping[str, object], *, now: int) -> KeyRequest:
    """Check a request for a key."""
    return read(CreateKeyRequest, body, now=now).wanted()


def refused(changes: Mapping[str, object], *, allow_private: bool = False) -> ValidationFailed:
    """Validate a good request with changes that make it invalid; return the error."""
    with pytest.raises(ValidationFailed) as caught:
        parse_create({**GOOD, **changes}, allow_private=allow_private)
    return caught.value


def field_errors(error: ValidationFailed) -> Sequence[FieldError]:
    """Return the invalid fields of an error."""
    assert isinstance(error.details, list)
    assert all(isinstance(detail, FieldError) for detail in error.details)
    return error.details


def test_the_defaults_are_the_references() -> None:
    """Omitted fields get the API reference's defaults."""
    assert parse_create(GOOD) == CreateRequest(
        "my-instance", "gpu-basic", "tmpl-12345", gpu_num=1, rootfs_size=60, region=None
    )


def test_every_field_is_read() -> None:
    """Every field of the body is in the request."""
    request = parse_create(
        {
            **GOOD,
            "gpuNum": 2,
            "rootfsSize": 80,
            "region": "US-WEST-01",
            "webhookUrl": "https://webhook.example.com/notify",
            "billingMode": "spot",
            "maxHourlyPrice": 1.5,
            "regionFallback": True,
            "envs": {"PEM": "a\nb"},
        }
    )
    assert request == CreateRequest(
        "my-instance",
        "gpu-basic",
        "tmpl-12345",
        2,
        80,
        "US-WEST-01",
        "https://webhook.example.com/notify",
        BillingMode.SPOT,
        1.5,
        True,
        {"PEM": "a\nb"},
    )


def test_the_references_example_is_answered_word_for_word() -> None:
    """The API reference's example gives its two fields, messages and order."""
    error = refused({"gpuNum": 0, "name": ""})
    assert error.code == "VALIDATION_ERROR"
    assert error.message == "Validation failed"
    assert field_errors(error) == [
        FieldError("name", "Name must be at least 1 character long", ""),
        FieldError("gpuNum", "GPU number must be at least 1", 0),
    ]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("name", "", "INVALID_INSTANCE_NAME"),
        ("name", "a" * 101, "INVALID_INSTANCE_NAME"),
        ("name", "a b", "INVALID_INSTANCE_NAME"),
        ("name", "é", "INVALID_INSTANCE_NAME"),
        ("name", "a\n", "INVALID_INSTANCE_NAME"),
        ("name", 7, "INVALID_INSTANCE_NAME"),
        ("productName", "", "INVALID_PRODUCT_NAME"),
        ("productName", "  ", "INVALID_PRODUCT_NAME"),
        ("productName", "a\x00b", "INVALID_PRODUCT_NAME"),
        ("templateId", "", "INVALID_TEMPLATE_ID"),
        ("templateId", "\ud800", "INVALID_TEMPLATE_ID"),
        ("templateId", 107672, "INVALID_TEMPLATE_ID"),
        ("gpuNum", 0, "INVALID_GPU_NUM"),
        ("gpuNum", 9, "INVALID_GPU_NUM"),
        ("gpuNum", "2", "INVALID_GPU_NUM"),
        ("gpuNum", 2.5, "INVALID_GPU_NUM"),
        ("gpuNum", 2.0, "INVALID_GPU_NUM"),
        ("gpuNum", True, "INVALID_GPU_NUM"),
        ("rootfsSize", 19, "INVALID_ROOTFS_SIZE"),
        ("rootfsSize", 1001, "INVALID_ROOTFS_SIZE"),
        ("rootfsSize", 10**30, "INVALID_ROOTFS_SIZE"),
        ("webhookUrl", "notaurl", "INVALID_WEBHOOK_URL"),
        ("region", "", "VALIDATION_ERROR"),
        ("region", 1, "VALIDATION_ERROR"),
        ("billingMode", "monthly", "VALIDATION_ERROR"),
        ("billingMode", [], "VALIDATION_ERROR"),
        ("maxHourlyPrice", 0, "VALIDATION_ERROR"),
        ("maxHourlyPrice", -1, "VALIDATION_ERROR"),
        ("maxHourlyPrice", "1", "VALIDATION_ERROR"),
        ("maxHourlyPrice", True, "VALIDATION_ERROR"),
        ("maxHourlyPrice", float("nan"), "VALIDATION_ERROR"),
        ("maxHourlyPrice", 10**400, "VALIDATION_ERROR"),
        ("regionFallback", "true", "VALIDATION_ERROR"),
        ("regionFallback", 1, "VALIDATION_ERROR"),
        ("envs", {"A": 1}, "VALIDATION_ERROR"),
        ("envs", {"": "x"}, "VALIDATION_ERROR"),
        ("envs", {"A=B": "x"}, "VALIDATION_ERROR"),
        ("envs", {"A": "\x00"}, "VALIDATION_ERROR"),
        ("envs", {"A": "x" * 4096}, "VALIDATION_ERROR"),
        ("envs", {f"A{number}": "x" for number in range(101)}, "VALIDATION_ERROR"),
        ("envs", [], "VALIDATION_ERROR"),
        ("gpuNumber", 2, "VALIDATION_ERROR"),
    ],
)
def test_one_wrong_field_is_told_with_its_own_code(field: str, value: object, code: str) -> None:
    """A single invalid field gives its own error code, and only that field in the details."""
    error = refused({field: value})
    assert error.code == code
    assert [detail.field for detail in field_errors(error)] == [field]


@pytest.mark.parametrize(("field", "least", "most"), [("gpuNum", 1, 8), ("rootfsSize", 20, 1000)])
def test_the_bounds_themselves_are_allowed(field: str, least: int, most: int) -> None:
    """The reference's ranges include their ends."""
    parse_create({**GOOD, field: least})
    parse_create({**GOOD, field: most})


@pytest.mark.parametrize(
    "field",
    [
        "name",
        "productName",
        "templateId",
        "gpuNum",
        "rootfsSize",
        "region",
        "webhookUrl",
        "billingMode",
        "maxHourlyPrice",
        "regionFallback",
        "envs",
    ],
)
def test_null_is_a_wrong_value(field: str) -> None:
    """`null` is invalid; it does not mean that the field is absent."""
    assert [detail.field for detail in field_errors(refused({field: None}))] == [field]


def test_everything_wrong_is_told_in_the_references_order() -> None:
    """Errors come in the order of the API reference, then our fields, then unknown ones."""
    error = refused(
        {
            "zzz": 1,
            "envs": 1,
            "regionFallback": 1,
            "maxHourlyPrice": 0,
            "billingMode": 1,
            "webhookUrl": 1,
            "region": 1,
            "rootfsSize": 1,
            "gpuNum": 0,
            "templateId": 1,
            "productName": 1,
            "name": 1,
        }
    )
    assert [detail.field for detail in field_errors(error)] == [
        "name",
        "productName",
        "templateId",
        "gpuNum",
        "rootfsSize",
        "region",
        "webhookUrl",
        "billingMode",
        "maxHourlyPrice",
        "regionFallback",
        "envs",
        "zzz",
    ]


def test_what_is_missing_is_told_without_a_value() -> None:
    """A missing required field is reported without a value."""
    with pytest.raises(ValidationFailed) as caught:
        parse_create({})
    assert field_errors(caught.value) == [
        FieldError("name", "Name is required", has_value=False),
        FieldError("productName", "Product name is required", has_value=False),
        FieldError("templateId", "Template ID is required", has_value=False),
    ]


def test_a_misspelt_field_is_told_with_the_nearest_name() -> None:
    """Unknown fields are rejected with a suggestion, since a misspelt one costs money."""
    (detail,) = field_errors(refused({"gpunum": 8}))
    assert detail.message == "Unknown field; did you mean 'gpuNum'?"


def test_environment_variables_are_never_shown() -> None:
    """Errors contain neither the names nor the values of environment variables."""
    for envs in ({"PASS": "hunter2\x00"}, {"hunter2\x00": "x"}, "hunter2", {"A": ["hunter2"]}):
        (detail,) = field_errors(refused({"envs": envs}))
        assert "hunter2" not in repr(detail)
        assert not detail.has_value


def test_a_misspelt_secret_is_not_shown() -> None:
    """The value of an unknown field may be a secret under a misspelt name."""
    (detail,) = field_errors(refused({"env": {"PASS": "hunter2"}}))
    assert "hunter2" not in repr(detail)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@127.0.0.1/x",
        "ftp://user:hunter2@example.com",
        "user:hunter2@example.com",
        "http://user:hunter2@[bad",
    ],
)
def test_user_info_in_a_url_is_masked(url: str) -> None:
    """The password of a rejected URL is not in the error."""
    (detail,) = field_errors(refused({"webhookUrl": url}))
    assert "hunter2" not in repr(detail)


def test_a_long_value_is_cut_where_it_is_shown() -> None:
    """Long values are cut in the error."""
    (detail,) = field_errors(refused({"name": "a" * 100_000}))
    assert isinstance(detail.shown, str)
    assert len(detail.shown) <= 201


def test_a_flood_of_unknown_fields_is_cut() -> None:
    """At most twenty unknown fields are reported."""
    error = refused({f"field{number}": number for number in range(5000)})
    assert len(field_errors(error)) == 20


@pytest.mark.parametrize(
    "url",
    [
        "https://webhook.example.com/notify",
        "http://8.8.8.8:8080/x?y=1",
        "https://user:pass@example.com/",
        "https://[2606:4700:4700::1111]/",
        "HTTPS://EXAMPLE.COM",
        "https://bücher.example/",
        "https://locally.example.com",
        "https://example.com/@me",
    ],
)
def test_a_public_webhook_is_accepted_as_it_was_sent(url: str) -> None:
    """Public URLs are accepted and not rewritten."""
    assert parse_create({**GOOD, "webhookUrl": url}).webhook_url == url


PRIVATE = [
    "http://localhost/",
    "http://LOCALHOST./",
    "http://a.localhost",
    "http://printer.local",
    "http://metadata.google.internal/",
    "http://ⓛocalhost/",
    "http://lo\u00adcalhost/",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.0.0.1./",
    "http://１２７.0.0.1/",
    "http://127。0。0。1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data",
    "http://100.64.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:8.8.8.8]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fd00::1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[ff02::1]/",
    "https://intranet/",
    "http://metadata/",
    "http://api.ns.svc/",
    "http://x.localdomain/",
    "http://nas.home.arpa/",
    "http://a.invalid/",
    "http://user@127.0.0.1:80/",
    "http://example.com@127.0.0.1/",
]


@pytest.mark.parametrize("url", PRIVATE)
def test_a_private_webhook_is_refused_in_any_spelling(url: str) -> None:
    """Private, loopback and embedded addresses are rejected in every spelling."""
    error = refused({"webhookUrl": url})
    assert error.code == "INVALID_WEBHOOK_URL"
    message = field_errors(error)[0].message
    assert message.startswith("Webhook URL must not point to a private or loopback address")
    assert "NOVITAI_WEBHOOK_ALLOW_PRIVATE=true" in message


@pytest.mark.parametrize("url", [url for url in PRIVATE if "\u00ad" not in url])
def test_a_private_webhook_is_accepted_where_it_is_allowed(url: str) -> None:
    """With NOVITAI_WEBHOOK_ALLOW_PRIVATE the same URLs are accepted."""
    assert parse_create({**GOOD, "webhookUrl": url}, allow_private=True).webhook_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "notaurl",
        "ftp://example.com/",
        "javascript:alert(1)",
        "//example.com/",
        "http://",
        "http:///x",
        "http://:80/",
        "http://exa mple.com/",
        "http://example.com/\n",
        "http://exam\tple.com",
        "http://example.com\\@127.0.0.1/",
        "http://127%2e0.0.1/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://1.2.3.08/",
        "http://a..b/",
        "http://-a.example/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:x/",
        "http://[::1",
        "http://[::1]x/",
        "http://[zz]/",
        "http://example.com/" + "a" * 2048,
        "http://" + "a." * 130 + "example/",
        "http://[fe80::1%25" + "a" * 400 + "]/",
    ],
)
def test_what_is_no_webhook_url_is_refused_even_where_private_ones_are_allowed(url: str) -> None:
    """Invalid URLs are always rejected."""
    assert refused({"webhookUrl": url}, allow_private=True).code == "INVALID_WEBHOOK_URL"


@pytest.mark.parametrize(
    "letter",
    [
        *"\u202e\u2066\u200b\u200d\u200e\u00ad\ufeff\u2060\u061c\U000e0041",
        *"\ue000\u0378\u3164\u115f\ufe0f\u034f\U000e0100",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("url", ["/a{}b", "/?a{}b=1", "/?a=b{}", "/#{}", "/{}"])
@pytest.mark.parametrize("place", ["http://8.8.8.8", "https://me{}:x@example.com"])
def test_a_webhook_that_a_reader_would_not_see_is_refused(
    place: str, url: str, letter: str
) -> None:
    """A URL with an invisible character is rejected, and the error names it."""
    error = refused({"webhookUrl": (place + url).replace("{}", letter)}, allow_private=True)
    assert error.code == "INVALID_WEBHOOK_URL"
    message = field_errors(error)[0].message
    assert f"U+{ord(letter):04X}" in message
    assert letter not in message


def test_a_webhook_in_another_script_is_accepted() -> None:
    """Visible characters of any script and percent-encoded ones stay unchanged."""
    for path in ("/größe", "/作業?名=値", "/%E2%80%AE"):
        url = f"https://example.com{path}"
        assert parse_create({**GOOD, "webhookUrl": url}).webhook_url == url


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


@given(
    body=st.dictionaries(
        st.sampled_from([*GOOD, "gpuNum", "rootfsSize", "region", "webhookUrl", "envs", "x"]),
        json_values,
    )
)
def test_nothing_that_is_json_breaks_validation(body: dict[str, object]) -> None:
    """Any JSON value gives a valid request or a list of errors."""
    try:
        gpu_num = parse_create(body).gpu_num
    except ValidationFailed as error:
        gpu_num = len(field_errors(error))
    assert gpu_num >= 1


def test_a_key_request_is_read() -> None:
    """A key request has a name, scopes and an expiry."""
    assert parse_key_request(
        {"name": "ci", "scopes": ["read", "write"], "expiresAt": "2023-10-20T10:30:00.000Z"},
        now=0,
    ) == KeyRequest("ci", frozenset({Scope.READ, Scope.WRITE}), 1_697_797_800_000)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": "read"}, "scopes"),
        ({"scopes": ["root"]}, "scopes"),
        ({"scopes": [["read"]]}, "scopes"),
        ({"scopes": [None]}, "scopes"),
        ({"expiresAt": "2023-10-20T10:30:00"}, "expiresAt"),
        ({"expiresAt": "soon"}, "expiresAt"),
        ({"expiresAt": None}, "expiresAt"),
        ({"expiresAt": "1970-01-01T00:00:00Z"}, "expiresAt"),
        ({"scope": ["read"]}, "scope"),
    ],
)
def test_a_wrong_key_request_is_refused(changes: dict[str, object], field: str) -> None:
    """Each invalid field is reported."""
    with pytest.raises(ValidationFailed) as caught:
        parse_key_request({"name": "ci", "scopes": ["read"], **changes}, now=1)
    assert [detail.field for detail in field_errors(caught.value)] == [field]
