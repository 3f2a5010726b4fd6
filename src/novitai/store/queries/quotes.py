# SPDX-License-Identifier: Apache-2.0
"""Queries on `quotes`: the promised offers of a request."""

from __future__ import annotations

import orjson
from sqlalchemy import Connection, delete, exists, select

from novitai.domain.instance import BillingMode, InstanceStatus
from novitai.domain.placement import QuotedOffer
from novitai.domain.quote import Quote, QuotedTerms
from novitai.store.tables import instances
from novitai.store.tables import quotes as table


def insert(connection: Connection, quote: Quote) -> None:
    """Insert a quote."""
    terms = quote.terms
    connection.execute(
        table.insert().values(
            id=quote.id,
            created_at=quote.created_at,
            expires_at=quote.expires_at,
            product_name=terms.product_name,
            template_id=terms.template_id,
            gpu_num=terms.gpu_num,
            rootfs_size=terms.rootfs_size,
            region=terms.region,
            billing_mode=terms.billing_mode.value,
            region_fallback=terms.region_fallback,
            offers=orjson.dumps(
                [[one.product_id, one.cluster_id, one.region, one.price] for one in quote.offers]
            ).decode(),
        )
    )


def load(connection: Connection, quote_id: str) -> Quote | None:
    """Load a quote, even if it has expired; None if it does not exist."""
    row = connection.execute(select(table).where(table.c.id == quote_id)).first()
    if row is None:
        return None
    return Quote(
        id=row.id,
        created_at=row.created_at,
        expires_at=row.expires_at,
        terms=QuotedTerms(
            product_name=row.product_name,
            template_id=row.template_id,
            gpu_num=row.gpu_num,
            rootfs_size=row.rootfs_size,
            region=row.region,
            billing_mode=BillingMode(row.billing_mode),
            region_fallback=row.region_fallback,
        ),
        offers=tuple(QuotedOffer(*offer) for offer in orjson.loads(row.offers)),
    )


def prune(connection: Connection, *, before: int, limit: int = 1000) -> int:
    """Delete up to `limit` quotes that expired earlier; return how many were deleted.

    A quote is kept while an instance that it binds may not have been bought yet.
    """
    waits = exists().where(
        instances.c.quote_id == table.c.id,
        instances.c.status == InstanceStatus.CREATING.value,
    )
    old = select(table.c.id).where(table.c.expires_at < before, ~waits).limit(limit)
    return connection.execute(delete(table).where(table.c.id.in_(old))).rowcount
