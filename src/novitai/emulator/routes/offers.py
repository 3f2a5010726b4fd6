# SPDX-License-Identifier: Apache-2.0
"""The catalogue: clusters, GPU products and CPU products (upstream.md §2, §3)."""

from __future__ import annotations

from novitai.emulator import wire
from novitai.emulator.calling import Call, Reply, ok, one_of
from novitai.emulator.catalogue import Product
from novitai.emulator.gate import RouteTable
from novitai.emulator.instances import BillingMode
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator


def list_clusters(emulator: Emulator, _rows: Rows, _call: Call) -> Reply:
    """`GET /clusters`."""
    rows = []
    for cluster in emulator.clusters.values():
        names = {each.name for each in emulator.products.values() if each.offer(cluster.id)}
        rows.append(wire.cluster(cluster, sorted(names)))
    return ok({"data": rows})


def list_products(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /products`; availability depends on cluster, billing mode and number of GPUs."""
    mode = BillingMode(
        one_of(
            call.param("billingMethod") or BillingMode.ON_DEMAND,
            [each.value for each in BillingMode],
            "billingMethod",
        )
    )
    cluster_id = call.param("clusterId")
    name = call.param("productName").lower()
    gpu_num = call.number("gpuNum")
    least_cpu, least_memory = call.number("minCpuPerGpu"), call.number("minMemoryPerGpu")
    least_rootfs = call.number("minRootFSSize")
    rows = [
        wire.product(
            product,
            regions=[
                emulator.clusters[offer.cluster_id].name
                for offer in product.offers
                if offer.cluster_id in emulator.clusters
            ],
            available=available(emulator, product, mode, gpu_num, cluster_id),
            docs_mode=emulator.settings.docs_mode,
        )
        for product in emulator.products.values()
        if name in product.name.lower()
        and (not cluster_id or product.offer(cluster_id) is not None)
        and product.cpu >= least_cpu
        and product.memory >= least_memory
        and product.max_rootfs >= least_rootfs
    ]
    return ok({"data": rows})


def available(
    emulator: Emulator, product: Product, mode: BillingMode, gpu_num: int, cluster_id: str
) -> bool:
    """Whether the product can be deployed in the given cluster or, if it is empty, in any."""
    for offer in product.offers:
        if cluster_id and offer.cluster_id != cluster_id:
            continue
        cluster = emulator.clusters.get(offer.cluster_id)
        if (
            cluster is not None
            and offer.has(mode, gpu_num)
            and not emulator.faults.blocks(product.id, product.name, cluster.id, cluster.name)
        ):
            return True
    return False


def list_cpu_products(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /cpu/products`."""
    cluster_id, name = call.param("clusterId"), call.param("productName").lower()
    return ok(
        {
            "data": [
                wire.cpu_product(product, docs_mode=emulator.settings.docs_mode)
                for product in emulator.cpu_products.values()
                if name in product.name.lower()
                and (not cluster_id or cluster_id in product.cluster_ids)
            ]
        }
    )


ROUTES: RouteTable = {
    ("GET", "/clusters"): list_clusters,
    ("GET", "/products"): list_products,
    ("GET", "/cpu/products"): list_cpu_products,
}
