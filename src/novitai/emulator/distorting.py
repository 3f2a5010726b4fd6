# SPDX-License-Identifier: Apache-2.0
"""Applies list faults: omits, adds and spoils rows, and falsifies pages and totals.

A spoiled row is built as bytes, because some variants are not valid JSON.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import orjson

from novitai.emulator.catalogue import CLUSTERS, PRODUCTS
from novitai.emulator.faults import ListFault, Spoil
from novitai.emulator.instances import BillingMode, Instance, Status, Step

TotalAs = Literal["number", "absent", "null", "string", "garbage"]

SpoiltValue = Literal[
    "absent",
    "null",
    "number",
    "object",
    "empty",
    "garbage",
    "halfEmoji",
    "newline",
    "notUtf8",
    "notObject",
]

_VALUES = {"null": b"null", "number": b"7", "object": b"{}", "empty": b'""', "garbage": b'"?"'}

_PREFIXES = {"halfEmoji": b"\\ud83d", "newline": b"\n", "notUtf8": b"\xff"}

_FOREIGN_CREATED_AT = 1735689600.0


def distorted(matching: list[Instance], fault: ListFault) -> list[Instance]:
    """Omit and repeat the rows that the fault selects; `total` follows the new length."""
    shown = []
    for instance in matching:
        if fault.omit.has(instance):
            continue
        shown.append(instance)
        if fault.repeat.has(instance):
            shown.append(instance)
    return shown


def window(rows: int, offset: int, size: int, fault: ListFault) -> tuple[int, int]:
    """Return `(offset, size)` of the page to show instead of the requested one."""
    if fault.most_rows:
        page, size = offset // size, min(size, fault.most_rows)
        offset = page * size
    if fault.pages == "repeatFirst":
        return 0, size
    if fault.pages == "repeatLast" and rows and offset >= rows:
        return (rows - 1) // size * size, size
    return offset, size


def totalled(count: int, fault: ListFault) -> dict[str, object]:
    """Return the `total` field as the fault wants it; empty if the field is omitted."""
    total = max(0, count + fault.total_delta)
    match fault.total:
        case "absent":
            return {}
        case "null":
            return {"total": None}
        case "string":
            return {"total": str(total)}
        case "garbage":
            return {"total": "many"}
        case _:
            return {"total": total}


def spoiled(row: orjson.Fragment, spoil: Spoil) -> orjson.Fragment:
    """Replace one field of a row by an unreadable value, or the row by something else."""
    if spoil.value == "notObject":
        return orjson.Fragment(b'"not a row"')
    fields: dict[str, object] = orjson.loads(orjson.dumps(row))
    if spoil.value == "absent":
        fields.pop(spoil.field, None)
    elif spoil.value in _VALUES:
        fields[spoil.field] = orjson.Fragment(_VALUES[spoil.value])
    else:
        text = orjson.dumps(str(fields.get(spoil.field, "")))
        fields[spoil.field] = orjson.Fragment(b'"' + _PREFIXES[spoil.value] + text[1:])
    return orjson.Fragment(orjson.dumps(fields))


@lru_cache(maxsize=8)
def foreign(count: int) -> tuple[Instance, ...]:
    """Return instances that appear only in lists; they are the same in every list."""
    product, cluster = PRODUCTS[0], CLUSTERS[2]
    return tuple(
        Instance(
            id=f"f{number:015x}",
            name=f"foreign-{number}",
            product_id=product.id,
            product_name=product.name,
            cluster_id=cluster.id,
            cluster_name=cluster.name,
            kind="gpu",
            billing_mode=BillingMode.ON_DEMAND,
            gpu_num=1,
            cpu_num=product.cpu,
            memory=product.memory,
            rootfs_size=60,
            image_url="ubuntu:24.04",
            created_at=_FOREIGN_CREATED_AT,
            created_by="",
            steps=(Step(_FOREIGN_CREATED_AT, Status.RUNNING),),
            booted_at=_FOREIGN_CREATED_AT,
            price=product.price,
        )
        for number in range(1, count + 1)
    )
