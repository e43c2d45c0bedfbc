"""A worker: takes ranges of its slots, has its command work on each, places what it wrote, and confirms.

One thread does all of it but the session's listening, so a worker that stands still loses its slots. What decides is in
core/readers/shared.py; how a command runs in streams/running/command.py.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from streams.consuming.session import ReaderSession
from streams.core import records as m
from streams.core.names import IntentId, Lfn, Site, Text, shown
from streams.core.readers.ranges import Meant, meant, output_of
from streams.core.readers.shared import Hand, SharedReader
from streams.errors import (
    NeverWorks,
    StorageError,
    Temporary,
    UsageError,
    WireError,
)
from streams.kafka.publish import wall_ms
from streams.pools import outputs, scratch
from streams.pools.group_slots import GroupSlots, slots_of
from streams.pools.job import Job, RangeOutcome
from streams.running.command import RunningCommand
from streams.settings import Settings
from streams.storage import open_named
from streams.storage.endpoint import Endpoint, PlacedFile

log = logging.getLogger(__name__)

BEAT_S = 0.5
_FETCHING_S, _IDLE_S = 0.02, 0.2
"""How long the worker sleeps while entries come, and while there is nothing to do."""
_BUSY_S, _BUSY_SHARE = (0.005, 0.1), 0.1
"""How long while its command works: least and most, and in between a share of the time that took so far."""


@dataclass(eq=False)
class _Run:
    """A range at work. `tries` counts the runs so far."""

    hand: Hand
    of: Meant
    lfn: Lfn
    folder: str
    running: RunningCommand
    tries: int = 1
    since_s: float = field(default_factory=time.monotonic)


class PoolWorker:
    """`run` until the pool has nothing left to do. `on_range` is told of each range, `on_beat` called twice a second.

    Raises NotFound (no such intent or pool here), NeverWorks (refused, or a stream reads under the name),
    TransferFailed (cancelled), PartlyDone or TransferFailed in the end where files failed, Temporary where this machine
    cannot go on.
    """

    def __init__(
        self,
        settings: Settings,
        site: Site,
        intent: str,
        name: str | None,
        job: Job,
        *,
        on_range: Callable[[RangeOutcome], None] = lambda told: None,
        on_beat: Callable[[PoolWorker], None] = lambda worker: None,
    ) -> None:
        if not settings.endpoint_url:
            raise UsageError(f"no storage of {site} is known here", next="set endpoint.url in its site.toml")
        self.settings, self.site, self.intent, self.job = settings, site, IntentId(intent), job
        self.own = 0
        """Ranges that this worker confirmed."""
        self._name, self._on_range, self._on_beat = name, on_range, on_beat
        self._run: _Run | None = None
        self._runs = 0
        self._session: ReaderSession
        self._pool: SharedReader
        self._store: Endpoint
        self._scratch: str

    @property
    def counts(self) -> tuple[int, int]:
        with self._session.news:
            return self._pool.counts

    @property
    def waits_for(self) -> str:
        with self._session.news:
            return self._pool.waits_for

    @property
    def slots(self) -> int:
        return len(self._pool.mine)

    @property
    def away(self) -> str:
        return self._session.away

    def run(self) -> None:
        with ExitStack() as stack:
            self._scratch = stack.enter_context(scratch.folder())
            self._store = stack.enter_context(open_named(self.settings.endpoints))
            self._session = session = stack.enter_context(closing(ReaderSession(self.settings, self.site, self.intent)))
            session.recall()
            self._pool = SharedReader(session.known, session.named(self._name), slots_of(self.settings))
            session.begin(self._pool)
            slots = stack.enter_context(GroupSlots(self.settings, self.site, self.intent, self._pool.destination))
            stack.callback(self._stop)
            beaten_s = 0.0
            while not self._step(slots):
                if time.monotonic() - beaten_s >= BEAT_S:
                    beaten_s = time.monotonic()
                    self._on_beat(self)
            session.commit()
            self._on_beat(self)
            self._pool.check_end("not all was worked on")

    def _step(self, slots: GroupSlots) -> bool:
        """Some of what there is to do; whether nothing is left."""
        pool = self._pool
        slots.poll(self._rest_s())
        self._session.check()
        with self._session.news:
            if slots.mine != pool.mine:
                pool.assigned(slots.mine)
            taken = pool.fill(wall_ms())
            over, urgent = pool.over, pool.urgent
        if over:
            return True
        if urgent:
            self._session.commit()
        for hand in taken:
            self._look(hand)
        if self._run is not None:
            self._watch(self._run)
        if self._run is None:
            self._begin()
        return False

    def _rest_s(self) -> float:
        if self._run is None:
            return _FETCHING_S if self._pool.hands else _IDLE_S
        least, most = _BUSY_S
        return min(most, max(least, _BUSY_SHARE * (time.monotonic() - self._run.since_s)))

    # one range

    def _look(self, hand: Hand) -> None:
        """Whether its output is there already: whoever placed it died before it was confirmed."""
        try:
            of, lfn = self._named(hand)
            found = outputs.find(self._store, lfn)
        except (StorageError, NeverWorks, UsageError) as error:
            self._fail(hand, m.FailureClass.PERMANENT, str(error))
            return
        if found is not None:
            self._confirm(hand, of, found, 0, 0.0)

    def _named(self, hand: Hand) -> tuple[Meant, Lfn]:
        of = meant(hand.row.manifest, hand.part)
        return of, output_of(hand.row.id, self._pool.destination, of, self.job.suffix)

    def _begin(self) -> None:
        """Start on the first range that is here."""
        with self._session.news:
            ready = next((hand for hand in self._pool.hands if hand.refused or hand.gather()), None)
            refused = None if ready is None else ready.refused
        if ready is None:
            return
        if refused is not None:
            self._tell_failed(ready, refused)
            return
        try:
            self._start(ready)
        except (StorageError, WireError) as error:
            kind = getattr(error, "failure_class", "data-bad")
            if kind in outputs.PASSING:
                raise Temporary(error.what, error.where, error.next) from error
            self._fail(ready, m.FailureClass(kind), str(error))
        except OSError as error:
            what = f"a range cannot be kept for the command: {error.strerror or error}"
            raise Temporary(what, self._scratch, "is the disk full? see TMPDIR") from error

    def _start(self, hand: Hand) -> None:
        from streams.events.provenance import Provenance
        from streams.events.range_files import entries_of, write_range

        pieces = [(came.payload, at - came.start, came.stop - came.start) for came, at in hand.came]
        batches = entries_of((payload, at, self._rows(hand, stop)) for payload, at, stop in pieces)
        of, lfn = self._named(hand)
        if not any(batch.num_rows for batch in batches):  # an item without entries
            self._confirm(hand, of, None, 0, 0.0)
            return
        self._runs += 1
        folder = os.path.join(self._scratch, str(self._runs))
        os.mkdir(folder)
        about = Provenance(of.lfn, of.tree, of.start, of.stop, of.selection)
        write_range(self.job.input_path(folder), self.job.kind, batches, about)
        hand.busy, hand.came = True, []
        self._run = _Run(hand, of, lfn, folder, self.job.start(folder, of))

    @staticmethod
    def _rows(hand: Hand, stop: int) -> int | None:
        """A lone position may stand for an item without entries, whose payload only tells the columns."""
        return None if hand.row.manifest.items[hand.part.item].length == 1 else stop

    def _watch(self, run: _Run) -> None:
        with self._session.news:
            wanted = run.hand.is_open
        if not wanted:
            self._stop()
            return
        ended = run.running.ended()
        if ended is None:
            return
        path = self.job.output_path(run.folder)
        why = outputs.fault_of(path, allow_empty=self.job.allow_empty) if ended.ok else ended.words
        if why is not None and ended.ok and ended.tail:
            why = f"{why}: {ended.tail}"
        if why is not None and run.tries < self.job.tries:
            log.info("%s [%d, %d), try %d: the command %s", run.of.lfn, run.of.start, run.of.stop, run.tries, why)
            run.tries += 1
            self.job.clear(run.folder)
            run.running = self.job.start(run.folder, run.of)
            return
        seconds = time.monotonic() - run.since_s
        if why is None:
            try:
                self._confirm(run.hand, run.of, outputs.place(self._store, run.lfn, path), run.tries, seconds)
            except StorageError as error:
                why = f"wrote what cannot be placed: {error}"
        if why is not None:
            what = f"entries [{run.of.start}, {run.of.stop}): the command {why}"
            self._fail(run.hand, m.FailureClass.PERMANENT, what, run.tries, seconds)
        self._stop()

    def _confirm(self, hand: Hand, of: Meant, output: PlacedFile | None, tries: int, seconds: float) -> None:
        """Book the output, then say that the range is done; each is in the log before the next."""
        if output is not None:
            self._session.publish(outputs.booking(self.site, hand, of, output))
        with self._session.news:
            done = self._pool.settle(hand)
        self._session.publish(done)
        self.own += 1
        self._on_range(RangeOutcome(of, output, None, tries, seconds))

    def _fail(self, hand: Hand, kind: m.FailureClass, why: str, tries: int = 0, seconds: float = 0.0) -> None:
        reason = m.Reason(m.Scope.AGENT, kind, "work", Text(shown(why, 390)))
        self._tell_failed(hand, reason, tries, seconds)

    def _tell_failed(self, hand: Hand, reason: m.Reason, tries: int = 0, seconds: float = 0.0) -> None:
        with self._session.news:
            lost = self._pool.settle(hand, reason)
        self._session.publish(lost)
        part, first = hand.part, hand.row.manifest.line.starts[hand.part.item]
        item = hand.row.manifest.items[part.item]
        of = Meant(item.lfn, "", part.start - first, part.stop - first, item.selection)
        self._on_range(RangeOutcome(of, None, reason, tries, seconds))

    def _stop(self) -> None:
        """Let go of what is at work, if anything is."""
        run, self._run = self._run, None
        if run is None:
            return
        run.running.stop()
        with self._session.news:
            self._pool.drop(run.hand)
        shutil.rmtree(run.folder, ignore_errors=True)
