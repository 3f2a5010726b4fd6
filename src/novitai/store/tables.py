# SPDX-License-Identifier: Apache-2.0
"""The tables. Times are Unix milliseconds, prices 1/100000 USD, sealed columns are encrypted.

Each column has one writer: in `instances`, sync writes `obs_*`, the function that derives `status`
writes that, the review of limits writes `stops_at`, `stop_reason`, `unenforced`, `limit_*`,
`auto_stop_*`, `auto_stops_at`, `sample_due_at` and `review_due_at`, the admission to budgets writes
`reserved_*`, triggers write `changed_in` (see `queries.changes`), and operations and commands write
everything else.

Databases get their tables from the migrations. So the condition of a partial index is given for
SQLite alone: an argument for PostgreSQL would load its dialect in every process.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
    false,
    text,
    true,
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Record = Row[*tuple[Any, ...]]
"""A result row; its types are those of the selected columns, in their order."""

# On SQLite only INTEGER becomes a rowid; PostgreSQL needs 64 bits.
_SEQUENCE: Final = BigInteger().with_variant(Integer(), "sqlite")

installation: Final = Table(
    "installation",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Values of the whole installation, by name, such as `id` and the sealed webhook secret."""

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("scopes", String(40), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("limits", Text),
    Column("secret_id", String(16)),
)
"""API keys. `secret_id` names the secret key of the digest; null stands for the first one."""

sessions: Final = Table(
    "sessions",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("key_id", String(40), nullable=False),
    Column("settings_key_digest", String(64)),
    Column("created_at", BigInteger, nullable=False),
    Column("last_used_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)
"""Sessions of browsers. The key of the settings has no row in `api_keys`; its digest is kept here.

It shows whether the key of the settings is still the one of the log-in.
"""
Index("ix_sessions_expires_at", sessions.c.expires_at)

login_codes: Final = Table(
    "login_codes",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("key_id", String(40), nullable=False),
    Column("settings_key_digest", String(64)),
    Column("expires_at", BigInteger, nullable=False),
)
"""One-time codes that log a browser in; a row is deleted when its code is used."""
Index("ix_login_codes_expires_at", login_codes.c.expires_at)

instances: Final = Table(
    "instances",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("status", String(20), nullable=False),
    Column("product_name", String(255), nullable=False),
    Column("template_id", String(255), nullable=False),
    Column("gpu_num", Integer, nullable=False),
    Column("rootfs_size", Integer, nullable=False),
    Column("region", String(255), nullable=False),
    Column("billing_mode", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("product_id", String(255)),
    Column("cluster_id", String(255)),
    Column("region_fallback", Boolean, nullable=False, server_default=false()),
    Column("max_hourly_price", BigInteger),
    Column("hourly_price", BigInteger),
    Column("webhook_url", Text),
    Column("launch_sealed", LargeBinary, nullable=False),
    Column("upstream_id", String(255)),
    Column("bought_at", BigInteger),
    Column("ever_ran", Boolean, nullable=False, server_default=false()),
    Column("first_ready_at", BigInteger),
    Column("ready_at", BigInteger),
    Column("started_at", BigInteger),
    Column("stopped_at", BigInteger),
    Column("terminated_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("acted_at", BigInteger),
    Column("failed", Boolean, nullable=False, server_default=false()),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("error_at", BigInteger),
    Column("obs_status", String(64)),
    Column("obs_at", BigInteger),
    Column("obs_error", Text),
    Column("obs_port_mappings", Text, nullable=False, server_default="[]"),
    Column("obs_ssh", Text),
    Column("obs_jupyter", Text),
    Column("obs_web_terminal", Text),
    Column("obs_credentials_sealed", LargeBinary),
    Column("obs_spot_status", String(64)),
    Column("obs_spot_reclaim_at", BigInteger),
    Column("obs_hourly_price", BigInteger),
    Column("obs_digest", String(32)),
    Column("obs_missing_since", BigInteger),
    Column("obs_missing_count", Integer, nullable=False, server_default=text("0")),
    Column("obs_gone", Boolean, nullable=False, server_default=false()),
    Column("origin", String(16), nullable=False, server_default="created"),
    Column("confirmed_at", BigInteger),
    Column("upstream_created_at", BigInteger),
    Column("released_at", BigInteger),
    Column("identity_told_at", BigInteger),
    Column("deleted_again", Integer, nullable=False, server_default=text("0")),
    Column("late_call", String(16)),
    Column("late_call_at", BigInteger),
    Column("obs_unlisted_since", BigInteger),
    Column("obs_unlisted_count", Integer, nullable=False, server_default=text("0")),
    Column("obs_unmarked_count", Integer, nullable=False, server_default=text("0")),
    Column("quote_id", String(40)),
    Column("obs_run_began_at", BigInteger),
    Column("obs_exited_at", BigInteger),
    Column("obs_purge_at", BigInteger),
    Column("limits", Text),
    Column("protected_reason", Text),
    Column("stops_at", BigInteger),
    Column("stop_reason", String(32)),
    Column("unenforced", Boolean, nullable=False, server_default=false()),
    Column("limit_memory", Text, nullable=False, server_default="{}"),
    Column("limit_fired_at", BigInteger),
    Column("review_due_at", BigInteger),
    Column("auto_stop", Text),
    Column("auto_stop_memory", Text, nullable=False, server_default="{}"),
    Column("auto_stop_state", String(16), nullable=False, server_default="armed"),
    Column("auto_stops_at", BigInteger),
    Column("sample_due_at", BigInteger),
    Column("reserved_rate", BigInteger),
    Column("reserved_length", BigInteger),
    Column("reserved_at", BigInteger),
    Column("tags", Text, nullable=False, server_default="{}"),
    Column("created_by_key_id", String(40)),
    Column("created_by_name", String(100)),
    Column("inherited_limits", Text),
    Column("changed_in", BigInteger, nullable=False, server_default=text("0")),
    Column("removed_at", BigInteger),
)
"""Records of instances. One that retention removed keeps its row: see `queries.retention`."""
_LIVE: Final = text("status NOT IN ('terminated', 'released')")
# An ended record no longer owns its upstream ID, so another record may have it.
Index(
    "uq_instances_live_upstream_id",
    instances.c.upstream_id,
    unique=True,
    sqlite_where=_LIVE,
)
Index("ix_instances_upstream_id", instances.c.upstream_id)
Index("ix_instances_created_at_id", instances.c.created_at, instances.c.id)
Index("ix_instances_status_created_at", instances.c.status, instances.c.created_at)
Index("ix_instances_name", instances.c.name)
Index("ix_instances_changed_in", instances.c.changed_in)
Index("ix_instances_created_by_key_id", instances.c.created_by_key_id)
Index(
    "ix_instances_quote_id",
    instances.c.quote_id,
    sqlite_where=instances.c.quote_id.is_not(None),
)
Index(
    "ix_instances_product_ready",
    instances.c.product_name,
    instances.c.created_at,
    sqlite_where=instances.c.first_ready_at.is_not(None),
)
Index(
    "ix_instances_review_due_at",
    instances.c.review_due_at,
    sqlite_where=instances.c.review_due_at.is_not(None),
)
Index(
    "ix_instances_unenforced",
    instances.c.id,
    sqlite_where=instances.c.unenforced,
)
Index(
    "ix_instances_limit_fired_at",
    instances.c.limit_fired_at,
    sqlite_where=instances.c.limit_fired_at.is_not(None),
)
Index(
    "ix_instances_sample_due_at",
    instances.c.sample_due_at,
    sqlite_where=instances.c.sample_due_at.is_not(None),
)
Index(
    "ix_instances_reserved_at",
    instances.c.reserved_at,
    sqlite_where=instances.c.reserved_at.is_not(None),
)

instance_tags: Final = Table(
    "instance_tags",
    metadata,
    Column("instance_id", String(40), ForeignKey("instances.id"), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("value", String(256), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
"""The tags of `instances.tags` again, one a row, so that lists can be filtered by them.

`created_at` is the instance's: the index has the order of a list.
"""
Index(
    "ix_instance_tags_listed",
    instance_tags.c.name,
    instance_tags.c.value,
    instance_tags.c.created_at,
    instance_tags.c.instance_id,
)

operations: Final = Table(
    "operations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("instance_id", String(40), ForeignKey("instances.id")),
    Column("phase", String(20), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("token", BigInteger, nullable=False, server_default=text("0")),
    Column("wake", BigInteger, nullable=False, server_default=text("0")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("done", Boolean, nullable=False, server_default=false()),
    Column("outcome", String(20)),
    Column("deadline_at", BigInteger),
    Column("next_step_at", BigInteger),
    Column("lease_until", BigInteger),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("memory", Text, nullable=False, server_default="{}"),
    Column("actor", Text),
    Column("changed_in", BigInteger, nullable=False, server_default=text("0")),
)
Index(
    "ix_operations_due",
    operations.c.kind,
    operations.c.next_step_at,
    sqlite_where=~operations.c.done,
)
Index(
    "uq_operations_running",
    operations.c.instance_id,
    unique=True,
    sqlite_where=~operations.c.done,
)
Index("ix_operations_instance_id", operations.c.instance_id)
_STOPS: Final = text("kind = 'stop' AND outcome = 'succeeded'")
Index(
    "ix_operations_stops",
    operations.c.updated_at,
    sqlite_where=_STOPS,
)
Index("ix_operations_changed_in", operations.c.changed_in)
Index("ix_operations_created_at_id", operations.c.created_at, operations.c.id)

attempts: Final = Table(
    "attempts",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("operation_id", String(40), ForeignKey("operations.id"), nullable=False),
    Column("instance_id", String(40), ForeignKey("instances.id"), nullable=False),
    Column("upstream_name", String(255), nullable=False, unique=True),
    Column("product_id", String(255), nullable=False),
    Column("cluster_id", String(255), nullable=False),
    Column("region", String(255), nullable=False),
    Column("price", BigInteger, nullable=False),
    Column("state", String(20), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("send_by", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("upstream_id", String(255)),
    Column("reason", String(64)),
    Column("message", Text),
    Column("unseen_count", Integer, nullable=False, server_default=text("0")),
    Column("unseen_since", BigInteger),
    Column("image", String(500), nullable=False, server_default=text("''")),
    Column("key_digest", String(64), nullable=False, server_default=text("''")),
    Column("clock_offset", BigInteger),
)
Index("ix_attempts_instance_id", attempts.c.instance_id)
Index(
    "ix_attempts_unsettled",
    attempts.c.created_at,
    sqlite_where=attempts.c.state.in_(["sent", "unknown"]),
)

billing_states: Final = Table(
    "billing_states",
    metadata,
    Column("instance_id", String(40), ForeignKey("instances.id"), primary_key=True),
    Column("upstream_id", String(255), primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("known_at", BigInteger, nullable=False),
    Column("adopted", Boolean, nullable=False, server_default=false()),
    Column("word", String(64), nullable=False, server_default=text("''")),
    Column("counts_after", BigInteger),
    Column("absent_by", BigInteger),
    Column("started_at", BigInteger),
    Column("stopped_at", BigInteger),
    Column("ended", Boolean, nullable=False, server_default=false()),
    Column("least", BigInteger, nullable=False, server_default=text("0")),
    Column("most", BigInteger, nullable=False, server_default=text("0")),
    Column("unknown", Boolean, nullable=False, server_default=false()),
    Column("key_id", String(40)),
    Column("tags", Text),
)
"""The state of each upstream instance that a record pays, and the sums of its closed spans.

`least` and `most` are 1/100000 USD per day times milliseconds. `started_at` and `stopped_at` are
times of Novita's clock.
"""
Index(
    "ix_billing_states_unended",
    billing_states.c.instance_id,
    sqlite_where=~billing_states.c.ended,
)

billing_spans: Final = Table(
    "billing_spans",
    metadata,
    Column("id", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("instance_id", String(40), ForeignKey("instances.id"), nullable=False),
    Column("upstream_id", String(255), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("rate", BigInteger),
    Column("began_after", BigInteger, nullable=False),
    Column("began_by", BigInteger),
    Column("ended_after", BigInteger),
    Column("ended_by", BigInteger),
    Column("expires_after", BigInteger),
    Column("expires_by", BigInteger),
    Column("key_id", String(40)),
    Column("tags", Text),
)
"""The ledger: when which rate is billed, in 1/100000 USD per day; null if the price is unknown."""
Index("ix_billing_spans_instance_id", billing_spans.c.instance_id, billing_spans.c.upstream_id)
Index("ix_billing_spans_ended_by", billing_spans.c.ended_by)

events: Final = Table(
    "events",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("instance_id", String(40), ForeignKey("instances.id")),
    Column("type", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("data", Text, nullable=False),
    Column("actor", Text),
)
"""The log of events; `instance_id` is null for events about the account."""
Index("ix_events_instance_id_sequence", events.c.instance_id, events.c.sequence)

idempotency_keys: Final = Table(
    "idempotency_keys",
    metadata,
    Column("api_key_id", String(40), primary_key=True),
    Column("route", String(255), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body_digest", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("headers", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
Index("ix_idempotency_keys_created_at", idempotency_keys.c.created_at)

quotes: Final = Table(
    "quotes",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("product_name", String(255), nullable=False),
    Column("template_id", String(255), nullable=False),
    Column("gpu_num", Integer, nullable=False),
    Column("rootfs_size", Integer, nullable=False),
    Column("region", String(255), nullable=False),
    Column("billing_mode", String(16), nullable=False),
    Column("region_fallback", Boolean, nullable=False),
    Column("offers", Text, nullable=False),
)
"""Quotes; `offers` is a JSON list of product ID, cluster ID, region and price, best first."""
Index("ix_quotes_expires_at", quotes.c.expires_at)

budgets: Final = Table(
    "budgets",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("period", String(8), nullable=False),
    Column("tz", String(64), nullable=False),
    Column("key_id", String(40)),
    Column("tag_name", String(63)),
    Column("tag_value", String(256)),
    Column("alert_at", Text, nullable=False),
    Column("on_limit", String(8), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("told_since", BigInteger),
    Column("told", Text, nullable=False),
    Column("exceeded", Boolean, nullable=False),
    Column("key_limit", Boolean, nullable=False, server_default=false()),
)
"""Budgets; `alert_at` and `told` are JSON lists of percentages."""
Index("ix_budgets_key_id", budgets.c.key_id)

bill_readings: Final = Table(
    "bill_readings",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("due_at", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("window_ms", BigInteger, nullable=False),
    Column("pass_since", BigInteger),
    Column("pass_end", BigInteger),
    Column("next_since", BigInteger),
    Column("next_category", Integer, nullable=False, server_default=text("0")),
    Column("comparable", Boolean, nullable=False, server_default=true()),
    Column("reached", BigInteger),
    Column("billed_until", BigInteger),
    Column("clock_offset", BigInteger, nullable=False, server_default=text("0")),
)
"""How far Novita's bills were read, in the one row named `last`.

`reached` and `billed_until` are the ends of the last hour that was read and of the last one that
has a bill. A pass that runs reads from `pass_since` to `pass_end` and goes on at `next_since` of
`next_category`; `comparable` says whether its bills are compared. Hours are those of Novita's
clock, which is `clock_offset` ahead of ours.
"""

billed_days: Final = Table(
    "billed_days",
    metadata,
    Column("day", BigInteger, primary_key=True),
    Column("upstream_id", String(255), primary_key=True),
    Column("category", String(32), primary_key=True),
    Column("hours", Text, nullable=False),
)
"""Novita's bills of a UTC day of its clock.

`hours` is a JSON object: the amount in 1/10000 USD by the number of the hour; null if it cannot be
read.
"""

cost_findings: Final = Table(
    "cost_findings",
    metadata,
    Column("type", String(64), primary_key=True),
    Column("upstream_id", String(255), primary_key=True),
    Column("day", BigInteger, primary_key=True),
    Column("told_at", BigInteger, nullable=False),
)
"""The events about Novita's bills, so that each is told once for an owner and day.

`upstream_id` is empty for what concerns no single owner.
"""
Index("ix_cost_findings_told_at", cost_findings.c.told_at)

leases: Final = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", BigInteger, nullable=False),
)
"""Leases on tasks that one process may do at a time, such as listing the account."""

listings: Final = Table(
    "listings",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("began_at", BigInteger, nullable=False),
    Column("complete_at", BigInteger),
    Column("whole_at", BigInteger),
    Column("incomplete_count", Integer, nullable=False, server_default=text("0")),
)
"""The last listing of the account, in the one row named `last`.

`complete_at` is when the last complete listing began, `whole_at` when the last listing began whose
pages were all read; `incomplete_count` is the number of consecutive incomplete listings.
"""

unmanaged_instances: Final = Table(
    "unmanaged_instances",
    metadata,
    Column("upstream_id", String(255), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("status", String(64), nullable=False),
    Column("marker", String(32), nullable=False),
    Column("attempt_known", Boolean, nullable=False),
    Column("orphan", Boolean, nullable=False),
    Column("hourly_price", BigInteger),
    Column("created_at", BigInteger),
    Column("region", String(255), nullable=False),
    Column("product_id", String(255), nullable=False),
    Column("product_name", String(255), nullable=False),
    Column("gpu_num", Integer),
    Column("rootfs_size", Integer),
    Column("billing_mode", String(16), nullable=False),
    Column("cluster_id", String(255), nullable=False),
    Column("image", String(500), nullable=False),
)
"""The instances of the last listing that belong to no record; each listing replaces them.

`marker` is the marker in the upstream name, of any installation; empty if there is none.
"""

listed_instances: Final = Table(
    "listed_instances",
    metadata,
    Column("upstream_id", String(255), primary_key=True),
    Column("first_listed_at", BigInteger, nullable=False),
    Column("orphan_at", BigInteger),
    Column("dismissed_at", BigInteger),
    Column("deleted_at", BigInteger),
    Column("last_listed_at", BigInteger),
    Column("attempt_id", String(16)),
)
"""Every upstream ID ever listed: when, and what was decided about it.

`last_listed_at` is written once a day at most. `attempt_id` is of the last marker of this
installation in its name.
"""
Index(
    "ix_listed_instances_attempt_id",
    listed_instances.c.attempt_id,
    sqlite_where=listed_instances.c.attempt_id.is_not(None),
)

workers: Final = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("started_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

webhooks: Final = Table(
    "webhooks",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("standing", Boolean, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", Text, nullable=False, server_default="[]"),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("description", Text),
    Column("secret_sealed", LargeBinary),
    Column("previous_secret_sealed", LargeBinary),
    Column("previous_secret_until", BigInteger),
    Column("failing_since", BigInteger),
    Column("failed_at", BigInteger),
    Column("off_at", BigInteger),
    Column("off_reason", String(20)),
    Column("deleted_at", BigInteger),
)
"""Receivers: standing webhooks, and one for each `webhook_url` of an instance."""
Index(
    "ix_webhooks_listening",
    webhooks.c.id,
    sqlite_where=webhooks.c.standing & webhooks.c.enabled,
)
Index("ix_webhooks_created_at_id", webhooks.c.created_at, webhooks.c.id)

webhook_lines: Final = Table(
    "webhook_lines",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("instance_id", String(40), ForeignKey("instances.id")),
    Column("webhook_id", String(40), ForeignKey("webhooks.id"), nullable=False),
    Column("host", String(300), nullable=False),
    Column("token", BigInteger, nullable=False, server_default=text("0")),
    Column("next_try_at", BigInteger),
    Column("lease_until", BigInteger),
    Column("spared_until", BigInteger),
)
"""The lines; `next_try_at` is null while no message waits.

A line without an instance carries the events about the account.
"""
Index(
    "uq_webhook_lines_account_webhook_id",
    webhook_lines.c.webhook_id,
    unique=True,
    sqlite_where=webhook_lines.c.instance_id.is_(None),
)
Index(
    "uq_webhook_lines_instance_id_webhook_id",
    webhook_lines.c.instance_id,
    webhook_lines.c.webhook_id,
    unique=True,
)
Index(
    "ix_webhook_lines_webhook_id_next_try_at",
    webhook_lines.c.webhook_id,
    webhook_lines.c.next_try_at,
)
Index(
    "ix_webhook_lines_due",
    webhook_lines.c.next_try_at,
    sqlite_where=webhook_lines.c.next_try_at.is_not(None),
)

deliveries: Final = Table(
    "deliveries",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("line_id", String(40), ForeignKey("webhook_lines.id"), nullable=False),
    Column("webhook_id", String(40), ForeignKey("webhooks.id"), nullable=False),
    Column("instance_id", String(40), ForeignKey("instances.id")),
    Column("event_sequence", BigInteger, ForeignKey("events.sequence"), nullable=False),
    Column("status", String(16), nullable=False),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
)
"""Messages: one event for one receiver, written in the transaction of the event."""
Index(
    "uq_deliveries_webhook_id_event_sequence",
    deliveries.c.webhook_id,
    deliveries.c.event_sequence,
    unique=True,
)
Index(
    "ix_deliveries_instance_id_event_sequence",
    deliveries.c.instance_id,
    deliveries.c.event_sequence,
)
Index("ix_deliveries_event_sequence_id", deliveries.c.event_sequence, deliveries.c.id)
Index(
    "ix_deliveries_dead",
    deliveries.c.event_sequence,
    deliveries.c.id,
    sqlite_where=deliveries.c.status == "dead",
)
Index(
    "ix_deliveries_waiting",
    deliveries.c.line_id,
    deliveries.c.event_sequence,
    sqlite_where=deliveries.c.status == "pending",
)
Index(
    "ix_deliveries_oldest",
    deliveries.c.created_at,
    sqlite_where=deliveries.c.status == "pending",
)

delivery_attempts: Final = Table(
    "delivery_attempts",
    metadata,
    Column("delivery_id", String(40), ForeignKey("deliveries.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("status_code", Integer),
    Column("error", Text),
    Column("response", Text),
)
