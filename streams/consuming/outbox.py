"""What a consumer has to say, owed until it is in the log. No client, no clock; thread-safe.

Of each subject (the progress of a manifest, its report, its last word) only the newest is kept, since it says all that
older ones did; one record of a subject is on its way at a time, so that nothing grows while a broker is away. What is
given up on its way is sent again, as it stands by then. A last word waits until the place that it rests on is settled.

A record is settled when the broker acknowledges it or it is heard back from the log. Progress of a consumer whose name
is one process's (`heard_back`) is settled by hearing alone: only then is it known that no later process's word stands
before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial

from streams.core import records as m
from streams.errors import CLUSTER_AWAY, Transfer2goError

OnAck = Callable[[Exception | None], None]
Subject = Hashable
Marks = Mapping[Subject, int]
"""Subjects that were owed, each with the number of what was to be said of it then."""


def subject_of(message: m.Message) -> Subject:
    """What a record replaces the older records of. Others stand for themselves, as what was booked does."""
    match message:
        case m.TransferProgress():
            return m.TransferProgress, message.manifest, message.attempt
        case m.CompletionRecord() | m.TransferReported():
            return type(message), message.manifest
        case _:
            return message


@dataclass(slots=True)
class _Owed:
    """The newest that is to be said of a subject, its number, and what of it is on its way (None: nothing).

    Everything up to `settled_no` is in the log.
    """

    message: m.Message
    no: int
    settled_no: int
    sent: m.Message | None = None
    sent_no: int = 0


class Outbox:
    """`put` what is to be said, `send` what is due; `wait` for what was owed."""

    def __init__(self, send: Callable[[m.Message, OnAck], None], *, heard_back: bool) -> None:
        self._send, self._heard_back = send, heard_back
        self._owed: dict[Subject, _Owed] = {}
        self._said: dict[Subject, m.Message] = {}
        """The last that is in the log of subjects that are heard back."""
        self._changed = threading.Condition()
        self._no = 0
        self._closed = False
        self.error: Exception | None = None
        """Why the last record that was given up was not taken."""

    def put(self, message: m.Message) -> Marks:
        """Owe it. Its marks, to `wait` for."""
        subject = subject_of(message)
        with self._changed:
            found = self._owed.get(subject)
            if found is None and self._said.get(subject) == message:
                return {}
            if found is None or found.message != message:
                self._no += 1
                if found is None:  # whatever was owed of it before is settled
                    found = self._owed[subject] = _Owed(message, self._no, self._no - 1)
                found.message, found.no = message, self._no
            if isinstance(message, m.CompletionRecord):  # nobody asks how far it is any more
                self._owed.pop((m.TransferReported, message.manifest), None)
            return {subject: found.no}

    def send(self, *, at_once: bool = False) -> None:
        """Send what is due. `at_once`: also what is newer than a record on its way, for there is no later.

        Raises what trying again cannot help, as a record that may not travel or a login that is refused.
        """
        with self._changed:
            if self._closed:
                return
            if isinstance(self.error, Transfer2goError) and not isinstance(self.error, CLUSTER_AWAY):
                raise self.error
            for subject, owed in list(self._owed.items()):
                newer = at_once and owed.sent_no != owed.no
                if (owed.sent is not None and not newer) or self._waits(owed.message):
                    continue
                owed.sent, owed.sent_no = owed.message, owed.no
                try:
                    self._send(owed.message, partial(self._answered, subject, owed.no))
                except CLUSTER_AWAY as error:
                    owed.sent, self.error = None, error
                    return

    def heard(self, message: m.Message) -> None:
        """A record of this process stands in the log."""
        with self._changed:
            owed = self._owed.get(subject_of(message))
            if owed is not None and message == owed.sent:
                self._settle(subject_of(message), owed.sent_no)
            elif owed is not None and message == owed.message:  # it was given up, and had arrived
                self._settle(subject_of(message), owed.no)

    def marks(self) -> Marks:
        """All that is owed now."""
        with self._changed:
            return {subject: owed.no for subject, owed in self._owed.items()}

    def wait(self, marks: Marks, timeout_s: float) -> bool:
        """Whether all of it is settled, or a later word on it; waits at most until something changes."""
        with self._changed:
            if self._left(marks):
                self._changed.wait(timeout_s)
            return not self._left(marks)

    def close(self) -> None:
        """Say nothing more, whatever is owed."""
        with self._changed:
            self._closed = True
            self._owed.clear()
            self._changed.notify_all()

    def _answered(self, subject: Subject, no: int, error: Exception | None) -> None:
        with self._changed:
            owed = self._owed.get(subject)
            if owed is None or owed.sent is None or owed.sent_no != no:
                return
            if error is not None:
                owed.sent, self.error = None, error
                self._changed.notify_all()
            elif not (self._heard_back and isinstance(owed.sent, m.TransferProgress)):
                self._settle(subject, no)

    def _settle(self, subject: Subject, no: int) -> None:
        owed = self._owed[subject]
        if isinstance(owed.sent, m.TransferProgress | m.CompletionRecord):
            self._said[subject] = owed.sent
        owed.settled_no, owed.sent, self.error = no, None, None
        if owed.no == no:
            del self._owed[subject]
        self._changed.notify_all()

    def _left(self, marks: Marks) -> bool:
        found = ((self._owed.get(subject), no) for subject, no in marks.items())
        return any(owed is not None and owed.settled_no < no for owed, no in found)

    def _waits(self, message: m.Message) -> bool:
        return isinstance(message, m.CompletionRecord) and any(
            isinstance(owed.message, m.TransferProgress) and owed.message.manifest == message.manifest
            for owed in self._owed.values()
        )
