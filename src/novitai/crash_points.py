# SPDX-License-Identifier: Apache-2.0
"""Named places at which a test can end the process, as `kill -9` would.

They stand before and after each effect that the outside can see: a commit, a call to Novita, the
sending of a message. The tests kill a process at each of them and check that nothing is lost or
done twice. Without `arm` or `install`, which only tests call, `reach` does nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn


class CrashPoint(StrEnum):
    """The crash points; the comment says what the subject of `reach` is."""

    # The change of a request: its method's name is not known here, so there is no subject.
    REQUEST_COMMITTING = "request.committing"
    REQUEST_COMMITTED = "request.committed"
    # A step of an operation: its kind.
    STEP_CLAIMED = "step.claimed"
    STEP_DECIDED = "step.decided"
    STEP_APPLIED = "step.applied"
    # A create attempt.
    ATTEMPT_COMMITTING = "attempt.committing"
    ATTEMPT_COMMITTED = "attempt.committed"
    ATTEMPT_RECORDING = "attempt.recording"
    ATTEMPT_RECORDED = "attempt.recorded"
    # A call that must not be repeated, stored before it is sent: the kind of its operation.
    INTENT_COMMITTING = "intent.committing"
    INTENT_COMMITTED = "intent.committed"
    # A call to Novita: its endpoint's label. Sent: all of the request; answered: all of the reply.
    CALL_SENDING = "call.sending"
    CALL_SENT = "call.sent"
    CALL_ANSWERED = "call.answered"
    # An event, inside its transaction: its type.
    EVENT_WRITING = "event.writing"
    EVENT_WRITTEN = "event.written"
    # A listing of the account. Applied: its rows are stored, but not that it took place.
    LISTING_READ = "listing.read"
    LISTING_APPLIED = "listing.applied"
    LISTING_RECORDED = "listing.recorded"
    # An instance that is deleted outside of an operation, such as a surplus one.
    STRAY_DELETING = "stray.deleting"
    STRAY_DELETED = "stray.deleted"
    # A call that was sent after its claim had ended: the kind of its operation.
    LATE_CALL_NOTING = "late_call.noting"
    LATE_CALL_NOTED = "late_call.noted"
    # A message to a webhook: the type of its event.
    DELIVERY_CLAIMED = "delivery.claimed"
    DELIVERY_SENDING = "delivery.sending"
    DELIVERY_SENT = "delivery.sent"
    DELIVERY_APPLIED = "delivery.applied"


@dataclass(frozen=True, slots=True)
class CrashAt:
    """Where to end the process.

    Attributes:
        point: The crash point.
        subject: The subject it must have; empty for any.
        nth: How often it must be reached, counted from 1.
    """

    point: CrashPoint
    subject: str = ""
    nth: int = 1

    @classmethod
    def parse(cls, text: str) -> CrashAt:
        """Read `POINT`, `POINT/SUBJECT`, `POINT:NTH` or `POINT/SUBJECT:NTH`.

        Raises:
            ValueError: there is no such point, or the number is not a positive integer.
        """
        name, _, nth = text.partition(":")
        point, _, subject = name.partition("/")
        count = int(nth or 1)
        if count < 1:
            raise ValueError("the number of a crash point begins at 1")
        return cls(CrashPoint(point), subject, count)

    def matches(self, point: CrashPoint, subject: str) -> bool:
        """Return whether this point is meant; the count is left to the caller."""
        return point is self.point and self.subject in {"", subject}


_reached: Callable[[CrashPoint, str], None] | None = None


def reach(point: CrashPoint, subject: str = "") -> None:
    """Report that the process is at a crash point; end it here if a test asked for that."""
    if _reached is not None:
        _reached(point, subject)


def install(reached: Callable[[CrashPoint, str], None] | None) -> None:
    """Have a function called at each crash point; None removes it. For in-process tests."""
    global _reached  # noqa: PLW0603 - one hook for the process, so that `reach` costs next to nothing
    _reached = reached


def arm(at: CrashAt) -> None:
    """Kill this process with SIGKILL when the point is reached."""
    left = at.nth

    def count(point: CrashPoint, subject: str) -> None:
        nonlocal left
        if at.matches(point, subject):
            left -= 1
            if left == 0:
                _die(point, subject)

    install(count)


def _die(point: CrashPoint, subject: str) -> NoReturn:
    os.write(2, f"crash point reached: {point} {subject}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
    # Another thread may get the signal first; this one must not go on.
    os._exit(128 + signal.SIGKILL)
