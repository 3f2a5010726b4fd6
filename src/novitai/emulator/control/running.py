# SPDX-License-Identifier: Apache-2.0
"""Resets the emulator, and changes its clock and settings."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.alias_generators import to_camel

from novitai.emulator.calling import JsonObject
from novitai.emulator.config import Delays, LifecycleReply, NameFilter, Settings
from novitai.emulator.control.endpoint import (
    Context,
    ControlError,
    Endpoint,
    Given,
    Nothing,
    endpoint,
)

Seconds = Annotated[float, Field(ge=0, le=10 * 366 * 86_400)]


def reset(context: Context, _given: Nothing) -> JsonObject:
    """Restore the initial catalogue, account, instances, faults, calls, settings and speed."""
    context.emulator.reset()
    context.rows.clear()
    return {"reset": True}


class ClockChange(Given):
    """A jump in time, a new speed, or both; the jump happens first."""

    advance: Seconds | None = None
    speed: Annotated[float, Field(gt=0, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _something(self) -> ClockChange:
        if self.advance is None and self.speed is None:
            raise ValueError("give advance, speed or both")
        return self


def show_clock(context: Context, _given: Nothing) -> JsonObject:
    """Show the virtual time and its speed."""
    clock = context.emulator.clock
    return {"now": clock.now(), "speed": clock.speed}


def change_clock(context: Context, given: ClockChange) -> JsonObject:
    """Advance the virtual time, or change its speed."""
    clock = context.emulator.clock
    if given.advance is not None:
        clock.advance(given.advance)
    if given.speed is not None:
        clock.set_speed(given.speed)
    context.emulator.listeners.nudge()
    return show_clock(context, Nothing())


class SettingsChange(Given):
    """The settings to change; the others keep their values."""

    not_found_status: Literal[400, 404] | None = None
    docs_mode: bool | None = None
    lifecycle_reply: LifecycleReply | None = None
    storage_create_reply: Literal["object", "string"] | None = None
    mask_passwords: bool | None = None
    account_per_key: bool | None = None
    removed_linger_seconds: Seconds | None = None
    delete_not_found_seconds: Seconds | None = None
    rate_limit_per_minute: Annotated[int, Field(ge=0)] | None = None
    rate_limit_retry_after: bool | None = None
    balance: Annotated[int, Field(ge=-(2**53), le=2**53)] | None = None
    voucher: Annotated[int, Field(ge=0, le=2**53)] | None = None
    bill_delay_seconds: Seconds | None = None
    bill_lists_per_minute: Annotated[int, Field(ge=0)] | None = None
    keep_data_days: Annotated[int, Field(ge=0, le=3660)] | None = None
    exited_storage_price: Annotated[int, Field(ge=0, le=2**31)] | None = None
    release_times: bool | None = None
    start_stop_times: bool | None = None
    metrics_lag_seconds: Seconds | None = None
    name_filter: NameFilter | None = None
    date_offset_seconds: Annotated[float, Field(ge=-3e8, le=3e8)] | None = None
    creation_times: bool | None = None
    instance_prices: bool | None = None
    spot_lifetime_seconds: Seconds | None = None
    delays: dict[str, tuple[Seconds, Seconds]] | None = None


_NULLABLE = frozenset({"spot_lifetime_seconds", "date_offset_seconds", "exited_storage_price"})


def show_settings(context: Context, _given: Nothing) -> JsonObject:
    """Show all settings."""
    settings = context.emulator.settings
    shown = {to_camel(name): value for name, value in asdict(settings).items()}
    shown["delays"] = {to_camel(name): value for name, value in asdict(settings.delays).items()}
    return shown


def change_settings(context: Context, given: SettingsChange) -> JsonObject:
    """Change settings; null is allowed for those that may be absent or never happen."""
    changes = {name: getattr(given, name) for name in given.model_fields_set - {"delays"}}
    for name, value in changes.items():
        if value is None and name not in _NULLABLE:
            raise ControlError(f"{to_camel(name)} must not be null")
    settings: Settings = replace(context.emulator.settings, **changes)
    if given.delays:
        settings = replace(settings, delays=_delays(settings.delays, given.delays))
    context.emulator.change_settings(
        settings,
        refill="balance" in given.model_fields_set,
        grant="voucher" in given.model_fields_set,
    )
    context.rows.clear()
    return show_settings(context, Nothing())


def _delays(delays: Delays, given: dict[str, tuple[float, float]]) -> Delays:
    names = {to_camel(name): name for name in Delays.names()}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ControlError(f"unknown delay: {', '.join(unknown)}; known: {', '.join(names)}")
    for name, (low, high) in given.items():
        if low > high:
            raise ControlError(f"delays.{name}: the minimum must not exceed the maximum")
    return replace(delays, **{names[name]: value for name, value in given.items()})


ENDPOINTS: list[Endpoint] = [
    endpoint("POST", "/reset", Nothing, reset),
    endpoint("GET", "/clock", Nothing, show_clock),
    endpoint("POST", "/clock", ClockChange, change_clock),
    endpoint("GET", "/settings", Nothing, show_settings),
    endpoint("PATCH", "/settings", SettingsChange, change_settings),
]
