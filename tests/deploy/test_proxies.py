# SPDX-License-Identifier: Apache-2.0
"""The configurations of Caddy and nginx: each proxy takes its own, ends TLS, and streams."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2
import pytest

from tests.blackbox.harness import ADMIN_KEY, REQUEST, Sandbox, Server, until
from tests.docs.pages import ROOT
from tests.egress.certificates import certificate_for
from tests.services import unavailable

CADDYFILE = ROOT / "deploy/caddy/Caddyfile"
NGINX = ROOT / "deploy/nginx/novitai.conf"
pytestmark = pytest.mark.blackbox


def program(name: str, package: str) -> str:
    """Find a program."""
    found = shutil.which(name)
    if found is None:
        unavailable(f"{name} is not on the PATH (Debian's package: {package})")
    return found


def free_ports() -> tuple[int, int]:
    """Find two ports that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


class Proxy:
    """A running proxy.

    Attributes:
        url: Its address.
        issuer: The file of the certificate that signed its own.
    """

    def __init__(
        self, command: list[str], folder: Path, env: Mapping[str, str], port: int, issuer: Path
    ) -> None:
        self.url = f"https://localhost:{port}"
        self.issuer = issuer
        self._out = folder / "proxy.out"
        with self._out.open("w") as out:
            self._popen = subprocess.Popen(
                command, cwd=folder, env=dict(env), stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )

    def answers(self) -> bool:
        """Whether the server answers through the proxy."""
        assert self._popen.poll() is None, self._out.read_text()
        if not self.issuer.exists():
            return False
        try:
            with self.client() as client:
                return client.get("/health/live").status_code == 200
        except httpx2.TransportError:
            return False

    def client(self) -> httpx2.Client:
        """Make a client that trusts the proxy's certificate."""
        tls = ssl.create_default_context(cafile=str(self.issuer))
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        return httpx2.Client(
            base_url=self.url, verify=tls, headers=headers, trust_env=False, timeout=30
        )

    def close(self) -> None:
        """End it."""
        self._popen.terminate()
        self._popen.wait(30)


def caddy(folder: Path, server: str) -> Proxy:
    """Start Caddy with the Caddyfile, and a certificate of its own issuer."""
    plain, port = free_ports()
    env = {
        "PUBLIC_HOST": "localhost",
        "UPSTREAM_PORT": server.rpartition(":")[2],
        "HTTP_PORT": str(plain),
        "HTTPS_PORT": str(port),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "HOME": str(folder),
    }
    # Without the interface of an administrator, whose port another Caddy may use.
    text = CADDYFILE.read_text(encoding="utf-8").replace("\n{\n", "\n{\n\tadmin off\n", 1)
    (folder / "Caddyfile").write_text(text, encoding="utf-8")
    command = [program("caddy", "caddy"), "run", "--config", str(folder / "Caddyfile")]
    issuer = folder / "caddy/pki/authorities/local/root.crt"
    return Proxy([*command, "--adapter", "caddyfile"], folder, env, port, issuer)


def nginx_configuration(folder: Path, server: str, plain: int, port: int) -> Path:
    """Write the file into a configuration whose paths and ports a test may use."""
    certificate_for("localhost", folder)
    text = NGINX.read_text(encoding="utf-8")
    for before, after in (
        ("/etc/ssl/novitai/fullchain.pem", f"{folder}/certificate.pem"),
        ("/etc/ssl/novitai/privkey.pem", f"{folder}/key.pem"),
        ("127.0.0.1:8080", server.removeprefix("http://")),
        ("novitai.example.com", "localhost"),
    ):
        assert before in text
        text = text.replace(before, after)
    text = re.sub(r"^ *listen \[::\].*\n", "", text, flags=re.MULTILINE)
    text = text.replace("listen 80", f"listen {plain}").replace("listen 443", f"listen {port}")
    places = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\n    access_log off;\n{places}{text}}}\n",
        encoding="utf-8",
    )
    return main


def nginx(folder: Path, server: str) -> Proxy:
    """Start nginx with the file of the project."""
    plain, port = free_ports()
    configuration = nginx_configuration(folder, server, plain, port)
    command = [program("nginx", "nginx"), "-e", "stderr", "-c", str(configuration)]
    return Proxy(command, folder, {}, port, folder / "certificate.pem")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start an emulator and a server that trusts a proxy on this machine."""
    sandbox = Sandbox(tmp_path_factory.mktemp("server"))
    sandbox.env |= {
        "NOVITAI_ENVIRONMENT": "production",
        "NOVITAI_TRUSTED_PROXIES": "127.0.0.1",
        "NOVITAI_PUBLIC_URL": "https://novitai.example.com",
    }
    sandbox.emulator()
    yield sandbox.server()
    sandbox.close()


@pytest.fixture(params=[caddy, nginx])
def proxy(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[Proxy]:
    """Start a proxy in front of the server."""
    started: Proxy = request.param(tmp_path, server.url)
    try:
        until(started.answers, 20, "the proxy answers")
        yield started
    finally:
        started.close()


def test_nginx_takes_its_file(tmp_path: Path) -> None:
    """`nginx -t` passes without a warning."""
    main = nginx_configuration(tmp_path, "http://127.0.0.1:8080", *free_ports())
    checked = subprocess.run(
        [program("nginx", "nginx"), "-t", "-e", "stderr", "-c", str(main)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr


def test_caddy_takes_its_file(tmp_path: Path) -> None:
    """`caddy validate` passes with a public name, and the file is formatted."""
    env = {"PUBLIC_HOST": "novitai.example.com", "HOME": str(tmp_path)}
    for command in (["validate", "--adapter", "caddyfile", "--config"], ["fmt", "--diff"]):
        checked = subprocess.run(
            [program("caddy", "caddy"), *command, str(CADDYFILE)],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr


def test_events_arrive_at_once(proxy: Proxy) -> None:
    """An event reaches a client of the stream while the stream is open."""
    with proxy.client() as client, client.stream("GET", "/api/events/stream") as stream:
        assert stream.status_code == 200
        with proxy.client() as other:
            created = other.post("/api/instances", json=REQUEST)
            assert created.status_code == 201, created.text
        instance = created.json()["instanceId"]
        assert any(instance in line for line in stream.iter_lines())


def test_the_caller_is_known_behind_the_proxy(proxy: Proxy, server: Server) -> None:
    """A caller cannot forge its address through the proxy; without it, the forgery is believed."""
    forged = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "http"}
    with proxy.client() as client:
        assert client.get("/api/instances", headers=forged).status_code == 200
    assert server.http.get("/api/instances", headers=forged).status_code == 403


def test_browsers_get_a_secure_cookie(proxy: Proxy) -> None:
    """The server learns from the proxy alone that the browser came by HTTPS."""
    with proxy.client() as client:
        browser = {"Origin": proxy.url, "Sec-Fetch-Site": "same-origin"}
        logged_in = client.post("/api/session", json={"key": ADMIN_KEY}, headers=browser)
        assert logged_in.status_code == 204, logged_in.text
        assert "; Secure" in logged_in.headers["Set-Cookie"]
