# SPDX-License-Identifier: Apache-2.0
"""Keeps the meters of all instances and the wallet that pays their bills."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

from novitai.emulator.billing import HOUR_MS, units
from novitai.emulator.config import Settings
from novitai.emulator.instances import Instance
from novitai.emulator.metering import (
    LIST_STORAGE_PRICE,
    Meter,
    StorageTariff,
    metered,
    milliseconds,
)
from novitai.emulator.wallet import OwnedPiece, Purse, Wallet, known_until


class Books:
    """The bills of the account and the money that is left; times are virtual Unix seconds.

    Args:
        settings: The settings at the start.
        ever: Returns all instances that ever existed.
        now: The time at which the books are opened.
    """

    def __init__(
        self, settings: Settings, ever: Callable[[], Iterable[Instance]], now: float
    ) -> None:
        self._settings = settings
        self._ever = ever
        self._meters: dict[str, Meter] = {}
        self._wallet = Wallet(settings.balance, settings.voucher)
        self._left: Purse | None = None
        self._checked = known_until(now, settings.bill_delay_seconds)
        self._checked_at = now

    def note(self, old: Instance | None, new: Instance, at: float) -> None:
        """Note that an instance is new, or changes at a time from which on it is `new`."""
        if old is not None:
            self._meters[new.id] = self.meter(old, at)
            return
        self._meters[new.id] = Meter(new.created_at)
        if milliseconds(new.created_at) < self._checked:
            self._left = None

    def change(self, settings: Settings, at: float, *, refill: bool, grant: bool) -> None:
        """Change the settings; `refill` sets the balance to theirs, `grant` the voucher."""
        self._meters.update({each.id: self.meter(each, at) for each in self._ever()})
        if refill or grant:
            left = self.left(at)
            self._wallet.refill(
                left.after,
                settings.balance if refill else left.balance,
                settings.voucher if grant else left.voucher,
            )
        self._settings = settings
        self._left = None

    def meter(self, instance: Instance, at: float) -> Meter:
        """Return what an instance was billed for until a time."""
        meter = self._meters.get(instance.id) or Meter(instance.created_at)
        price = self._settings.exited_storage_price
        tariff = StorageTariff(
            LIST_STORAGE_PRICE if price is None else price, self._settings.keep_data_days
        )
        return metered(meter, instance, at, tariff)

    def known(self, at: float) -> int:
        """Return the end, in milliseconds, of the last hour whose bill has appeared."""
        return known_until(at, self._settings.bill_delay_seconds)

    def billed(self, at: float, begin: int, end: int) -> list[OwnedPiece]:
        """Return the bills that have appeared of the hours that begin in `[begin, end)`, in ms."""
        found = {each.id: each for each in self._ever()}
        # Vouchers are shared out in the order of purchase, which no removal changes.
        meters = {bought: self.meter(found[bought], at) for bought in self._meters}
        return self._wallet.billed(meters, begin, min(end, self.known(at)))

    def left(self, at: float) -> Purse:
        """Return what is left after the bills that have appeared; the balance may be negative."""
        known = self.known(at)
        if self._left is None or self._left.after != known:
            self._left = self._left_after(known, at)
        return self._left

    def pending(self, at: float, instances: Iterable[Instance]) -> int:
        """Return what no bill that has appeared contains yet, in 1/10000 USD."""
        known, now = self.known(at), milliseconds(at)
        return sum(
            units(line, now) - units(line, known)
            for each in instances
            for line in self.meter(each, at).lines
        )

    def exhausted_at(self, at: float) -> float | None:
        """Return when the balance reached 0, if it did in the time up to `at` since the last call.

        It is the moment at which the bill appeared that used it up. While nothing is left, each
        further bill is such a moment.
        """
        known, since = self.known(at), self._checked_at
        self._checked_at = max(since, at)
        if known <= self._checked and self._left is not None:
            return None
        hours = range(self._checked + HOUR_MS, known + 1, HOUR_MS)
        self._checked = max(self._checked, known)
        if self.left(at).balance > 0:
            return None
        first = bisect_left(hours, True, key=lambda hour: self._left_after(hour, at).balance <= 0)
        if first == len(hours):
            return at
        return max(since, hours[first] / 1000 + self._settings.bill_delay_seconds)

    def _left_after(self, known: int, at: float) -> Purse:
        return self._wallet.left([self.meter(each, at) for each in self._ever()], known)

    def forget_left(self) -> None:
        """Count the balance again: an instance was changed as of a time that was counted."""
        self._left = None
