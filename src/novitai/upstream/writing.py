# SPDX-License-Identifier: Apache-2.0
"""Converts dataclasses to upstream's request bodies."""

from __future__ import annotations

from novitai.upstream.models import CreateInstance
from novitai.upstream.wire import Json, Object


def create_body(request: CreateInstance) -> Object:
    """Return the body of a create (upstream.md §4), without empty fields."""
    envs: list[Json] = [{"key": key, "value": value} for key, value in request.envs]
    tools: list[Json] = [
        # Upstream requires a tool's port as text.
        {"name": tool.name, "port": str(tool.port), "type": tool.type}
        for tool in request.tools
    ]
    body: Object = {
        "name": request.name,
        "productId": request.product_id,
        "gpuNum": request.gpu_num,
        "rootfsSize": request.rootfs_size,
        "imageUrl": request.image_url,
        "kind": "gpu",
        "billingMode": request.billing_mode,
        "clusterId": request.cluster_id,
        "imageAuthId": request.image_auth_id,
        "ports": ", ".join(f"{port.port}/{port.type}" for port in request.ports),
        "envs": envs,
        "tools": tools,
        "command": request.command,
        "entrypoint": request.entrypoint,
        "minCudaVersion": request.min_cuda_version,
    }
    return {name: value for name, value in body.items() if value not in ("", [])}
