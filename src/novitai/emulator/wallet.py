# SPDX-License-Identifier: Apache-2.0
"""The account's money: the bills that have appeared, the vouchers that pay them, and the balance.

Nothing is counted while time passes: each sum is computed from the meters when it is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from novitai.emulator.billing import HOUR_MS, HourlyPiece, pieces, units
from novitai.emulator.metering import Meter, milliseconds


@dataclass(frozen=True, slots=True)
class Purse:
    """The money at hand from one moment on; it pays the bills of the hours from `after` on.

    Amounts are in 1/10000 USD. The voucher pays first, then the balance.
    """

    after: int
    balance: int
    voucher: int


@dataclass(frozen=True, slots=True)
class OwnedPiece:
    """A piece of an instance's hourly bill, and what the voucher pays of it."""

    owner: str
    piece: HourlyPiece
    voucher: int


class Wallet:
    """The purses of an account, the latest last, over the meters of its instances."""

    def __init__(self, balance: int, voucher: int) -> None:
        self._purses = [Purse(0, balance, voucher)]

    def refill(self, after: int, balance: int, voucher: int) -> None:
        """Set balance and voucher again, for the hours from `after` on."""
        self._purses.append(Purse(after, balance, voucher))

    def left(self, meters: Iterable[Meter], known: int) -> Purse:
        """Return what is left after the bills of all hours up to `known`; it may be negative."""
        purse = self._purses[-1]
        spent = _total(meters, purse.after, known)
        by_voucher = min(purse.voucher, spent)
        return Purse(known, purse.balance - spent + by_voucher, purse.voucher - by_voucher)

    def billed(self, meters: dict[str, Meter], begin: int, end: int) -> list[OwnedPiece]:
        """Return the pieces of the hours that begin in `[begin, end)`, in order of their hours."""
        found = [
            (piece.hour, number, owner, piece)
            for number, (owner, meter) in enumerate(meters.items())
            for line in meter.lines
            for piece in pieces(line, begin, end)
        ]
        found.sort(key=lambda each: each[:2])
        vouchers = self._vouchers(meters, [(hour, piece) for hour, _, _, piece in found])
        return [
            OwnedPiece(owner, piece, voucher)
            for (_, _, owner, piece), voucher in zip(found, vouchers, strict=True)
        ]

    def _vouchers(
        self, meters: dict[str, Meter], found: list[tuple[int, HourlyPiece]]
    ) -> Iterator[int]:
        """Return what the voucher pays of each piece, in their order."""
        afters = [purse.after for purse in self._purses]
        purse, spent = None, 0
        for hour, piece in found:
            current = self._purses[max(0, bisect_left(afters, hour + 1) - 1)]
            if current is not purse:
                purse, spent = current, 0
                if current.voucher:
                    spent = _total(meters.values(), current.after, hour)
            yield max(0, min(piece.amount, current.voucher - spent))
            spent += piece.amount


def known_until(now: float, delay: float) -> int:
    """Return the end, in milliseconds, of the last hour whose bill has appeared at `now`."""
    return milliseconds(now - delay) // HOUR_MS * HOUR_MS


def _total(meters: Iterable[Meter], after: int, until: int) -> int:
    return sum(
        units(line, until) - units(line, after)
        for meter in meters
        for line in meter.lines
        if until > after
    )
