# SPDX-License-Identifier: Apache-2.0
"""The resources of an account besides instances, and the initial ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from novitai.emulator.instances import NEVER, Port

PRIVATE_REGISTRY = "registry.example.com"
"""Images of this registry can only be pulled with credentials."""


@dataclass(frozen=True, slots=True)
class Template:
    """A template (upstream.md §10)."""

    id: str
    name: str
    image: str
    rootfs_size: int
    channel: str = "private"
    type: str = "instance"
    readme: str = ""
    image_auth: str = ""
    start_command: str = ""
    entrypoint: str = ""
    ports: tuple[Port, ...] = ()
    volumes: tuple[tuple[str, int, str], ...] = ()
    envs: tuple[tuple[str, str], ...] = ()
    tools: tuple[tuple[str, str, int, str], ...] = ()
    min_cuda_version: str = ""
    created_at: float = 1735689600.0


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """The credentials of an image registry."""

    id: str
    name: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Storage:
    """A network storage; the size is in GB."""

    id: str
    name: str
    size: int
    cluster_id: str


@dataclass(frozen=True, slots=True)
class Network:
    """A private network; it becomes ready some seconds after its creation."""

    id: str
    name: str
    cluster_id: str
    segment: str
    created_at: float
    ready_at: float


@dataclass(frozen=True, slots=True)
class Job:
    """A job on an instance; its state follows from the clock.

    Attributes:
        error: The failure message once its time is over; empty if it succeeds.
    """

    id: str
    type: str
    instance_id: str
    created_at: float
    running_at: float
    ends_at: float
    broken_at: float = NEVER
    error: str = ""

    def state(self, now: float) -> str:
        """`pulling`, `running`, `success`, `fail` or `break` (upstream.md §12)."""
        if self.broken_at <= now:
            return "break"
        if now >= self.ends_at:
            return "fail" if self.error else "success"
        return "running" if now >= self.running_at else "pulling"


@dataclass(frozen=True, slots=True)
class Prewarm:
    """A task that copies an image to a cluster in advance."""

    id: str
    image_url: str
    auth_id: str
    cluster_id: str
    product_ids: tuple[str, ...]
    note: str
    created_at: float
    running_at: float
    ends_at: float

    def state(self, now: float) -> str:
        """`Pending`, `Running` or `Succeeded`."""
        if now >= self.ends_at:
            return "Succeeded"
        return "Running" if now >= self.running_at else "Pending"


AUTHS = (RegistryAuth("auth-7d41c0a9", PRIVATE_REGISTRY, "robot", "not-a-real-password"),)

TEMPLATES = (
    Template(
        "tmpl-12345",
        "PyTorch 2.8 with Jupyter",
        "pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime",
        60,
        channel="official",
        readme="# PyTorch\n\nJupyter on 8888, TensorBoard on 6006, a worker on 9000.",
        start_command="/start.sh",
        ports=(Port(8888, "http"), Port(6006, "http"), Port(9000, "tcp")),
        envs=(("JUPYTER_ENABLE", "1"), ("HF_HOME", "/workspace/hf")),
        tools=(("Jupyter", "JupyterLab", 8888, "http"),),
        min_cuda_version="12.4",
    ),
    Template(
        "107672",
        "ComfyUI",
        "novitalabs/comfyui:0.4",
        80,
        channel="official",
        start_command="python main.py --listen",
        ports=(Port(8188, "http"),),
        volumes=(("local", 30, "/workspace"),),
        envs=(("CLI_ARGS", "--highvram"),),
    ),
    Template(
        "107701",
        "vLLM OpenAI server",
        "vllm/vllm-openai:v0.11",
        120,
        channel="community",
        start_command="--model Qwen/Qwen3-8B",
        ports=(Port(8000, "http"),),
        envs=(("VLLM_LOGGING_LEVEL", "INFO"),),
        min_cuda_version="12.8",
    ),
    Template(
        "107745",
        "Our private model",
        f"{PRIVATE_REGISTRY}/team/private-model:1.0",
        100,
        image_auth=AUTHS[0].id,
        start_command="serve --port 9000",
        ports=(Port(9000, "http"), Port(9001, "tcp")),
        envs=(("MODEL", "private"),),
    ),
    Template("107802", "Ubuntu, no ports", "ubuntu:24.04", 20, start_command="sleep infinity"),
)
