# SPDX-License-Identifier: Apache-2.0
"""`/api/session`: log-in, log-out, one-time codes, and requests with a session."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from novitai.api.http.application import Rules
from novitai.clock import iso
from novitai.domain.api_key import KeyRequest, Scope, make_key
from novitai.domain.session import CODE_MS, IDLE_MS
from novitai.ids import Ids
from novitai.settings import Settings
from tests.api.application import CREATE, Api, ApiFactory
from tests.api.browser import HOST, OWN, Browser
from tests.api.client import ApiProcess
from tests.api.wire import serving

PUBLIC = "https://novitai.example.com"
EVIL = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}


async def logged_in(api: Api, scope: Scope = Scope.WRITE) -> Browser:
    """A browser that logged in with the key of a scope."""
    browser = Browser(api)
    assert (await browser.log_in(key=api.keys[scope])).status_code == 204
    return browser


async def test_a_browser_logs_in(api: Api) -> None:
    """The answer is 204 with a cookie that is not the key, and the session shows its key."""
    browser = Browser(api)
    answer = await browser.log_in(key=api.keys[Scope.WRITE])
    assert answer.status_code == 204
    assert answer.headers["Cache-Control"] == "no-store"
    name, _, rest = answer.headers["Set-Cookie"].partition("=")
    assert name == f"novitai-{api.app.installation_id}"
    assert rest.endswith("; Max-Age=604800; Path=/; HttpOnly; SameSite=Strict")
    assert api.keys[Scope.WRITE] not in rest
    shown = await browser.send("GET", "/api/session")
    assert shown.json() == {
        "keyId": (await api.call("GET", "/api/key")).json()["id"],
        "name": "the write key",
        "scopes": ["write"],
        "expiresAt": iso(api.clock.now() + IDLE_MS),
    }


async def test_a_session_does_what_its_key_may(api: Api) -> None:
    """Requests have the scopes and the name of the key, and no shared cache keeps the answers."""
    browser = await logged_in(api)
    listed = await browser.send("GET", "/api/instances")
    assert listed.status_code == 200
    assert listed.headers["Cache-Control"] == "private, no-cache"
    assert (await browser.send("POST", "/api/instances", body=CREATE)).status_code == 201
    assert api.instances.actors[0].name == "the write key"
    lacking = await browser.send("GET", "/api/keys")
    assert (lacking.status_code, lacking.json()["error"]["code"]) == (403, "FORBIDDEN")


async def test_a_log_in_ends_the_session_before(api: Api) -> None:
    """The browser forgets its old cookie, so nothing else would end that session for days."""
    browser = await logged_in(api)
    old = browser.cookie
    assert (await browser.log_in(key=api.keys[Scope.READ])).status_code == 204
    assert (await browser.send("GET", "/api/session")).json()["scopes"] == ["read"]
    browser.cookie = old
    assert (await browser.send("GET", "/api/session")).status_code == 401


async def test_another_scheme_leaves_the_session_alone(api: Api) -> None:
    """A proxy may pass its own credentials on; an invalid API key is one all the same."""
    browser = await logged_in(api)
    for given, status in (("Basic YTpi", 200), ("", 200), ("Bearer", 401), ("bearer wrong", 401)):
        answer = await browser.send("GET", "/api/session", headers={**OWN, "Authorization": given})
        assert answer.status_code == status, given


@pytest.mark.parametrize("body", [{}, {"key": ""}, {"key": "a", "code": "b"}, {"key": 1}, {"k": 1}])
async def test_a_log_in_needs_a_key_or_a_code(api: Api, body: Mapping[str, object]) -> None:
    """Both, none, or another field is 400, and no value is shown."""
    answer = await Browser(api).send("POST", "/api/session", body=body)
    assert answer.status_code == 400
    assert "value" not in answer.json()["error"]["details"][0]
    assert "Set-Cookie" not in answer.headers


async def test_wrong_log_ins_are_failed_authentications(api: Api) -> None:
    """They share the limit of wrong keys: 20 a minute from an address; a good key still works."""
    browser, guess = Browser(api), make_key(Ids())
    for _ in range(7):
        assert (await browser.log_in(key=guess)).status_code == 401
        assert (await browser.log_in(code="x" * 43)).status_code == 401
        headers = {"Authorization": f"Bearer {guess}"}
        assert (await browser.send("GET", "/api/key", headers=headers)).status_code in {401, 429}
    refused = await browser.log_in(key=guess)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert (await browser.log_in(key=api.keys[Scope.READ])).status_code == 204


@pytest.mark.parametrize("cookie", ["{name}={guess}", "{name}=", "{name}=x; {name}=y"])
async def test_a_wrong_cookie_is_a_failed_authentication(api: Api, cookie: str) -> None:
    """It is 401, and counted."""
    browser = Browser(api)
    browser.cookie = cookie.format(name=f"novitai-{api.app.installation_id}", guess=Ids().secret())
    answers = [await browser.send("GET", "/api/instances") for _ in range(21)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/instances", CREATE),
        ("PATCH", "/api/instances/inst_1", {"name": "x"}),
        ("DELETE", "/api/instances/inst_1", None),
        ("DELETE", "/api/session", None),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        EVIL,
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {},
    ],
)
async def test_changes_need_a_proof_of_origin(
    api: Api, method: str, path: str, body: object, headers: Mapping[str, str]
) -> None:
    """With a cookie, a request of another port or site, or without a header, is 403."""
    browser = await logged_in(api)
    answer = await browser.send(method, path, body=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "CROSS_SITE_REQUEST")
    assert not api.instances.requests
    assert (await browser.send("GET", "/api/session", headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", [OWN, {"Origin": f"http://{HOST}"}])
async def test_own_changes_are_accepted(api: Api, headers: Mapping[str, str]) -> None:
    """`Sec-Fetch-Site` or an `Origin` equal to ours is such a proof."""
    browser = await logged_in(api)
    answer = await browser.send("POST", "/api/instances", body=CREATE, headers=headers)
    assert answer.status_code == 201


async def test_a_rebound_name_is_refused(api: Api) -> None:
    """With a cookie, under another name, even a GET is 403; so is a log-in."""
    browser = await logged_in(api)
    browser.host = "evil.example"
    for answer in (
        await browser.send("GET", "/api/instances"),
        await browser.send("POST", "/api/instances", body=CREATE),
        await browser.log_in(key=api.keys[Scope.READ]),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "HOST_NOT_ALLOWED")
        assert "'evil.example'" in answer.json()["error"]["message"]


async def test_no_other_page_logs_a_browser_in(api: Api) -> None:
    """Another page could log it in with its own key, and then read what the user does."""
    for headers in (EVIL, {"Origin": "http://localhost:3000"}):
        body = {"key": api.keys[Scope.READ]}
        answer = await Browser(api).send("POST", "/api/session", body=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "CROSS_SITE_REQUEST")
        assert "Set-Cookie" not in answer.headers


async def test_a_key_goes_before_the_cookie(api: Api) -> None:
    """With a bearer token, the cookie is ignored: neither its scopes nor its rules apply."""
    browser = await logged_in(api, Scope.ADMIN)
    read = {**EVIL, "Host": "evil.example", "Authorization": f"Bearer {api.keys[Scope.READ]}"}
    assert (await browser.send("GET", "/api/instances", headers=read)).status_code == 200
    lacking = await browser.send("POST", "/api/instances", body=CREATE, headers=read)
    assert lacking.json()["error"]["code"] == "FORBIDDEN"
    for wrong in ("Bearer x", "bearer", "Bearer nvt x"):
        answer = await browser.send("GET", "/api/instances", headers={"Authorization": wrong})
        assert answer.status_code == 401
    without = await browser.send("GET", "/api/session", headers=read)
    assert (without.status_code, without.json()["error"]["code"]) == (404, "SESSION_NOT_FOUND")


async def test_a_browser_logs_out(api: Api) -> None:
    """The cookie is removed and of no use any more; other sessions of the key go on."""
    browser, other = await logged_in(api), await logged_in(api)
    answer = await browser.send("DELETE", "/api/session")
    assert answer.status_code == 204
    name = f"novitai-{api.app.installation_id}"
    assert answer.headers["Set-Cookie"] == (
        f"{name}=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict"
    )
    assert (await browser.send("GET", "/api/session")).status_code == 401
    assert (await browser.send("DELETE", "/api/session")).status_code == 401
    assert (await other.send("GET", "/api/session")).status_code == 200


async def test_a_revoked_key_signs_the_browser_out(api: Api) -> None:
    """The next request of its session is 401."""
    browser = await logged_in(api)
    key_id = (await browser.send("GET", "/api/session")).json()["keyId"]
    await api.call("DELETE", f"/api/keys/{key_id}", scope=Scope.ADMIN)
    assert (await browser.send("GET", "/api/session")).status_code == 401


async def test_the_end_of_the_key_is_that_of_the_session(api: Api) -> None:
    """`expiresAt` is the first of both ends."""
    end = api.clock.now() + 60_000
    made = await api.services.keys.create(KeyRequest("brief", frozenset({Scope.READ}), end))
    browser = Browser(api)
    await browser.log_in(key=made.text)
    assert (await browser.send("GET", "/api/session")).json()["expiresAt"] == iso(end)


async def test_a_session_has_a_limit_of_its_own(api: Api) -> None:
    """600 a minute for the sessions of a key, apart from its other calls."""
    browsers = [await logged_in(api), await logged_in(api)]
    for number in range(600):
        answer = await browsers[number % 2].send("GET", "/api/instances")
        assert answer.status_code == 200
    assert answer.headers["RateLimit-Policy"] == '"session";q=600;w=60'
    assert answer.headers["RateLimit"] == '"session";r=0;t=60'
    assert (await browsers[0].send("GET", "/api/instances")).status_code == 429
    assert (await api.call("GET", "/api/instances")).headers["RateLimit"] == '"key";r=117;t=2'


async def test_log_ins_count_as_calls_of_the_key(api: Api) -> None:
    """So a key cannot fill the table of sessions faster than it may call."""
    browser = Browser(api)
    answers = [await browser.log_in(key=api.keys[Scope.WRITE]) for _ in range(121)]
    assert [answer.status_code for answer in answers] == [204] * 120 + [429]


async def test_a_code_logs_a_browser_in_once(api: Api) -> None:
    """A key makes a code, whose address has it in the fragment; a second use is 401."""
    answer = await api.call("POST", "/api/session/codes", headers={"Host": HOST})
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    made = answer.json()
    assert made["url"] == f"http://{HOST}/#code={made['code']}"
    assert made["expiresAt"] == iso(api.clock.now() + CODE_MS)
    browser, late = Browser(api), Browser(api)
    assert (await browser.log_in(code=made["code"])).status_code == 204
    assert (await browser.send("GET", "/api/session")).json()["scopes"] == ["write"]
    refused = await late.log_in(code=made["code"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "UNAUTHORIZED")


async def test_a_code_ends_after_a_minute(api: Api) -> None:
    """Then it is refused as an unknown one."""
    made = (await api.call("POST", "/api/session/codes", headers={"Host": HOST})).json()
    await api.clock.advance(CODE_MS / 1000)
    assert (await Browser(api).log_in(code=made["code"])).status_code == 401


async def test_a_code_is_never_shown_again(api: Api) -> None:
    """A second request with its `Idempotency-Key` is refused."""
    headers = {"Host": HOST, "Idempotency-Key": "once"}
    assert (await api.call("POST", "/api/session/codes", headers=headers)).status_code == 201
    again = await api.call("POST", "/api/session/codes", headers=headers)
    assert again.json()["error"]["code"] == "IDEMPOTENCY_NOT_REPLAYABLE"


async def test_a_session_makes_no_code(api: Api) -> None:
    """Otherwise a session could go on beyond its end."""
    answer = await (await logged_in(api)).send("POST", "/api/session/codes")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")


async def test_the_address_of_a_code(factory: ApiFactory) -> None:
    """It is the public URL; without one, a name that browsers may not use is refused."""
    api = await factory.make(public_url=PUBLIC)
    made = (await api.call("POST", "/api/session/codes")).json()
    assert made["url"] == f"{PUBLIC}/#code={made['code']}"
    api = await factory.make()
    refused = await api.call("POST", "/api/session/codes")
    assert refused.json()["error"]["code"] == "HOST_NOT_ALLOWED"


async def test_behind_a_proxy_the_cookie_is_secure(factory: ApiFactory, settings: Settings) -> None:
    """If a trusted proxy ended TLS, the cookie is `__Host-` and Secure, and `Origin` is https."""
    proxies = settings.model_validate({"trusted_proxies": "127.0.0.1"}).trusted_proxies
    api = await factory.make(rules=Rules(trusted_proxies=proxies), public_url=PUBLIC)
    forwarded = {"X-Forwarded-Proto": "https", "Origin": PUBLIC}
    browser = Browser(api, "novitai.example.com", forwarded)
    answer = await browser.log_in(key=api.keys[Scope.WRITE])
    assert answer.headers["Set-Cookie"].startswith(f"__Host-novitai-{api.app.installation_id}=")
    assert answer.headers["Set-Cookie"].endswith("; Secure")
    assert (await browser.send("POST", "/api/instances", body=CREATE)).status_code == 201


async def test_nothing_lets_other_origins_read(api: Api) -> None:
    """No response has a header of CORS, and a preflight request is 405."""
    browser = await logged_in(api)
    for answer in (
        await browser.send("GET", "/api/session", headers={"Origin": "http://localhost:3000"}),
        await browser.send("POST", "/api/instances", headers=EVIL),
        await api.client.options(
            "/api/session",
            headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "DELETE"},
        ),
    ):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert answer.status_code == 405


async def test_the_streams_of_a_session_end_with_it(api_process: ApiProcess) -> None:
    """A log-out or a revocation ends its event stream within 2 seconds, and no other one."""
    first, second = Browser(api_process), Browser(api_process)
    for browser in (first, second):
        assert (await browser.log_in(key=api_process.keys[Scope.READ])).status_code == 204
    streams = api_process.app.event_streams
    async with serving(api_process.gateway) as server:
        wires = []
        for browser in (first, second):
            wire = await server.connect()
            lines = f"Host: {HOST}\r\nCookie: {browser.cookie}\r\n"
            await wire.send(f"GET /api/events/stream HTTP/1.1\r\n{lines}\r\n".encode())
            assert b" 200 " in await wire.reader.readuntil(b"retry: 2000\n\n\r\n")
            wires.append(wire)
        assert streams.count == 2
        assert (await first.send("DELETE", "/api/session")).status_code == 204
        last = wires[0].reader.readuntil(b"0\r\n\r\n")
        await api_process.through(last, within=2)
        assert streams.count == 1
        key_id = (await second.send("GET", "/api/session")).json()["keyId"]
        await api_process.call("DELETE", f"/api/keys/{key_id}", scope=Scope.ADMIN)
        await api_process.through(wires[1].reader.readuntil(b"0\r\n\r\n"), within=2)
        assert streams.count == 0
