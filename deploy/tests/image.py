# SPDX-License-Identifier: Apache-2.0
"""The image: build it without a registry of images, and start it without a container engine.

The base is a Debian made by mmdebstrap, and buildah builds `deploy/Containerfile` on it. Bubblewrap
starts the result as an engine would: its command as process 1 in namespaces of its own, as the user
of the image, without capabilities, on a read-only root. Both work where an engine does not, such as
in a container in which control groups cannot be made. They need root.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.docs.pages import ROOT
from tests.services import unavailable

STORAGE: Final = ROOT / "build/image"
_BASE: Final = "localhost/debian-python"
_IMAGE: Final = "localhost/novitai"
_CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
_PACKAGES: Final = "python3,python3-venv,ca-certificates"
_PROGRAMS: Final = ("buildah", "mmdebstrap", "bwrap", "ip", "nsenter", "setpriv", "unshare")
_UNREAD: Final = ("doc", "locale", "man")
_NEW_NETWORK: Final = 0x40000000
"""CLONE_NEWNET of setns(2)."""


def buildah(*arguments: str) -> str:
    """Run buildah on a storage of its own; return its output."""
    command = [
        "buildah",
        *("--root", str(STORAGE / "storage"), "--runroot", str(STORAGE / "run")),
        *("--storage-driver", "vfs", *arguments),
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


class Image:
    """The built image.

    Attributes:
        config: Its configuration, as `docker inspect` shows it.
        root: Its files.
    """

    def __init__(self) -> None:
        missing = [name for name in _PROGRAMS if shutil.which(name) is None]
        if missing or os.geteuid() != 0:
            unavailable(f"building an image needs root and {', '.join(_PROGRAMS)}")
        buildah("rm", "--all")  # a run that was killed has left its own
        if _BASE not in buildah("images", "--format", "{{.Name}}").split():
            _make_base()
        buildah(
            *("bud", "--isolation", "chroot", "--format", "docker", "--pull-never"),
            *("--build-arg", f"BASE={_BASE}", "--tag", _IMAGE, "--file", "deploy/Containerfile"),
            # A proxy that inspects TLS may stand between this machine and PyPI.
            *("--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro", "."),
        )
        self.config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", _IMAGE))[
            "Docker"
        ]["config"]
        self._container = buildah("from", "--pull-never", _IMAGE)
        self.root = Path(buildah("mount", self._container))

    @property
    def env(self) -> dict[str, str]:
        """The environment of its processes."""
        return dict(one.split("=", 1) for one in self.config["Env"])

    def close(self) -> None:
        """Remove the files, and the images of earlier builds."""
        buildah("rm", self._container)
        buildah("rmi", "--prune")


def _make_base() -> None:
    """Make a base image of Debian with Python."""
    container = buildah("from", "scratch")
    exclude = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _UNREAD]
    subprocess.run(
        [
            # It mounts /proc and more, which end with this namespace even if it is killed.
            *(
                "unshare",
                "--mount",
                "mmdebstrap",
                "--quiet",
                "--variant=essential",
                f"--include={_PACKAGES}",
                *exclude,
            ),
            *("bookworm", buildah("mount", container)),
        ],
        check=True,
    )
    buildah("commit", "--quiet", "--rm", container, _BASE)


class Container:
    """A running command of the image.

    Attributes:
        data: The folder that it has as `/data`.
        pid: Its process 1, as this machine numbers it.
    """

    def __init__(self, image: Image, data: Path, *command: str, **env: str) -> None:
        self._image = image
        self._env = {**image.env, **env}
        self.data = data
        self._out = data.with_suffix(".out")
        uid, gid = (int(one) for one in image.config["User"].split(":"))
        data.mkdir(mode=0o700, exist_ok=True)
        os.chown(data, uid, gid)
        self._user = [
            *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"),
            *("--inh-caps=-all", "--bounding-set=-all"),
            # Only the user may enter the folder of the data.
            *("env", f"--chdir={image.config['WorkingDir']}"),
        ]
        self.pid = 0
        self._start([*image.config["Entrypoint"], *(command or image.config["Cmd"])])

    def _start(self, command: list[str]) -> None:
        told, tell = os.pipe()
        with self._out.open("a") as out:
            self._bubble = subprocess.Popen(
                [
                    *("bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"),
                    *("--as-pid-1", "--die-with-parent", "--info-fd", str(tell)),
                    *("--ro-bind", str(self._image.root), "/", "--proc", "/proc", "--dev", "/dev"),
                    *("--bind", str(self.data), "/data"),
                    # setpriv needs them to become the user, and drops them.
                    *("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
                    *("--cap-add", "CAP_SETPCAP", *self._user, *command),
                ],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=[tell],
            )
        os.close(tell)
        with os.fdopen(told) as info:
            self.pid = json.load(info)["child-pid"]

    @property
    def output(self) -> str:
        """The output so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._bubble.poll()

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end, as `docker exec` does."""
        return subprocess.run(
            self._entered(*command), env={**self._env, **env}, text=True,
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in it, and do not wait for its end; it writes to the same output."""
        with self._out.open("a") as out:
            return subprocess.Popen(
                self._entered(*command),
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def _entered(self, *command: str) -> list[str]:
        root = f"/proc/{self.pid}/root"
        spaces = ["--mount", "--pid", "--net", "--ipc", "--uts"]
        return ["nsenter", f"--target={self.pid}", *spaces, f"--root={root}", *self._user, *command]

    def health(self) -> int:
        """Run the command of `HEALTHCHECK`; return its exit code."""
        kind, *command = self._image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.run(*command).returncode

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Let the sockets that this thread opens be in the network of the container."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as own, open(f"/proc/{self.pid}/ns/net") as inner:  # noqa: PTH123 - no file
            assert libc.setns(inner.fileno(), _NEW_NETWORK) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                libc.setns(own.fileno(), _NEW_NETWORK)

    def zombies(self) -> Mapping[str, str]:
        """Return its processes that have ended and were not reaped, by number."""
        listed = self.run("sh", "-c", "cat /proc/[0-9]*/stat 2> /dev/null").stdout
        found = [line.rpartition(")") for line in listed.splitlines()]
        return {name: state for name, _, state in found if state.split()[0] == "Z"}

    def stop(self, within: float) -> int:
        """Send the stop signal of the image; return the exit code."""
        os.kill(self.pid, signal.Signals[self._image.config["StopSignal"]])
        return self._bubble.wait(within)

    def close(self) -> None:
        """End all its processes; bubblewrap does not, once process 1 has another user."""
        if self._bubble.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._bubble.wait(10)
