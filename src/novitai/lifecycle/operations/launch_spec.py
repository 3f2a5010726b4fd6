# SPDX-License-Identifier: Apache-2.0
"""The launch specification: made from a template and a request, and stored encrypted."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import orjson

from novitai.domain.instance import Instance, LaunchSpec, Port, PortType, Tool
from novitai.domain.operation import Attempt
from novitai.domain.product import Template
from novitai.domain.requests import CreateRequest
from novitai.store.vault import Vault
from novitai.upstream import models

_PURPOSE: Final = "launch"


def resolve(template: Template, request: CreateRequest) -> LaunchSpec:
    """Copy the template's launch settings; the request's `envs` override the template's.

    Novita's create call has no template parameter, so the client does this (upstream.md §10).
    """
    return replace(template.launch, envs={**template.launch.envs, **request.envs})


def seal(vault: Vault, spec: LaunchSpec) -> bytes:
    """Encrypt a specification for storage."""
    plain = {
        "image": spec.image,
        "imageAuthId": spec.image_auth_id,
        "command": spec.command,
        "entrypoint": spec.entrypoint,
        "ports": [[port.port, port.type.value] for port in spec.ports],
        "tools": [[tool.name, tool.port, tool.type.value] for tool in spec.tools],
        "envs": dict(spec.envs),
        "minCudaVersion": spec.min_cuda_version,
    }
    return vault.seal(_PURPOSE, orjson.dumps(plain))


def unseal(vault: Vault, sealed: bytes) -> LaunchSpec:
    """Decrypt a stored specification.

    Raises:
        VaultError: it was encrypted with another secret key.
    """
    plain = orjson.loads(vault.unseal(_PURPOSE, sealed))
    return LaunchSpec(
        image=plain["image"],
        image_auth_id=plain["imageAuthId"],
        command=plain["command"],
        entrypoint=plain["entrypoint"],
        ports=tuple(Port(number, PortType(kind)) for number, kind in plain["ports"]),
        tools=tuple(Tool(name, port, PortType(kind)) for name, port, kind in plain["tools"]),
        envs=plain["envs"],
        min_cuda_version=plain["minCudaVersion"],
    )


def create_call(instance: Instance, spec: LaunchSpec, attempt: Attempt) -> models.CreateInstance:
    """Build the create call of an attempt (upstream.md §4)."""
    return models.CreateInstance(
        name=attempt.upstream_name,
        product_id=attempt.product_id,
        cluster_id=attempt.cluster_id,
        gpu_num=instance.gpu_num,
        rootfs_size=instance.rootfs_size,
        billing_mode=instance.billing_mode.value,
        image_url=spec.image,
        image_auth_id=spec.image_auth_id or "",
        ports=tuple(models.UpstreamPort(port.port, port.type.value) for port in spec.ports),
        envs=tuple(spec.envs.items()),
        tools=tuple(
            models.UpstreamTool(tool.name, tool.port, tool.type.value) for tool in spec.tools
        ),
        command=spec.command or "",
        entrypoint=spec.entrypoint or "",
        min_cuda_version=spec.min_cuda_version or "",
    )
