"""`audit follow`: reads a site's own cluster on and on, seals its journals, and tells what its judges find.

One process a site. What it has read lies in an index on the disk (live.py), where a restart goes on. Who else seals is
seen in the announcements of the site (core/sealer_claim.py); on this machine a lock tells.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import IO

from streams.auditing.coverage import Journals
from streams.auditing.index import open_index
from streams.auditing.live import JournalChanged, LiveAudit, LiveCounts, index_of, journals_at
from streams.auditing.replaying import identity_of
from streams.core import records as m
from streams.core.ledger.findings import Finding
from streams.core.names import Site
from streams.core.sealer_claim import EVERY_S, SEALER, SealerClaim
from streams.core.sealing import OWN_MS, signed_bytes
from streams.core.topics import LogPartition
from streams.errors import CLUSTER_AWAY, NeverWorks, Temporary
from streams.kafka.publish import Publisher
from streams.kafka.reader import LogReader, Record
from streams.kafka.steady import SteadyReader
from streams.keys.files import WorkingKey, fault_of, key_for
from streams.settings import Settings

SAVED_EACH_S = 300.0
"""A follower that is killed reads again what it read since."""
SAVED_EACH = 1_000_000
"""Records, of the first reading."""
_LOOKED_EACH_S = 60.0
"""So often ends are asked for, to see that no journal is shorter than it was."""
_FETCH_WAIT_MS = 5000
_POLL_S = 1.0
_FIRST_S = 2.0
"""So long after the journals were read nothing is sealed: a process that was killed may have left a seal on its way."""
_ACK_S = 10.0
_KEPT = 20
"""Incarnations that the lock remembers."""

Tell = Callable[[str], None]


@dataclass(slots=True)
class FollowerState:
    """What a follower has done since its start. `away`: why nothing is heard now; `sealed_ms`: by site."""

    counts: LiveCounts = field(default_factory=LiveCounts)
    seals: int = 0
    journals: int = 0
    """Roots in those seals."""
    away: str = ""
    is_reading: bool = True
    """Whether it still reads what stood there at its start."""
    sealed_ms: dict[Site, int] = field(default_factory=dict)


def follow(
    settings: Settings,
    *,
    every_s: float = OWN_MS / 1000,
    on_finding: Callable[[Finding], None],
    tell: Tell = lambda _: None,
    on_away: Tell = lambda _: None,
    made: Callable[[FollowerState], None] = lambda _: None,
    state: FollowerState | None = None,
) -> None:
    """Seal the site's journals each `every_s`, and its copies ten times as seldom, until something is raised.

    NotFound or NotAllowed where the site has pinned a root key and no key may sign; Temporary where another process
    seals for the site, NeverWorks where one took over. `made` hears what was done, after each seal; `state` is kept up
    to date for who asks in another thread.
    """
    site, state = settings.here, FollowerState() if state is None else state
    with _alone(settings, site) as lock:
        key = _key(settings, site)
        if key is None:
            tell(f"sites.toml pins no root_key of {site}: its seals are unsigned")
        fresh = False
        while True:
            try:
                found = journals_at(settings, site)
                with _index(settings, found, int(every_s * 1000), fresh, tell) as live:
                    _Following(settings, live, key, lock, state, on_finding, tell, on_away, made).run(found, every_s)
            except JournalChanged as changed:
                on_finding(changed.finding)
                state.counts.told[changed.finding.invariant, changed.finding.severity] += 1
                tell(f"all journals at {site} are read anew")
                fresh = True


def _now_ms() -> int:
    return int(time.time() * 1000)


@contextmanager
def _alone(settings: Settings, site: Site) -> Iterator[IO[str]]:
    """The lock of this machine, which says the incarnations of who held it before."""
    path = settings.keys.parent / "sealer.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Temporary(
                    f"another `audit follow` of {site} is at work", str(path), "one a site seals"
                ) from error
            yield lock
    except OSError as error:
        raise Temporary(f"cannot be used: {error.strerror}", str(path)) from error


def _key(settings: Settings, site: Site) -> WorkingKey | None:
    entry = settings.entry(site)
    if not entry.root_key:
        return None
    return key_for(settings.keys, m.SEALER, site, entry.root_key, entry.revoked_keys, _now_ms())


@contextmanager
def _index(settings: Settings, found: Journals, every_ms: int, fresh: bool, tell: Tell) -> Iterator[LiveAudit]:
    """What was read before, or nothing where that is of other clusters, or damaged: the log has it all."""
    with ExitStack() as stack:
        try:
            live = _opened(stack, settings, found, every_ms, fresh)
        except NeverWorks as error:
            if fresh:
                raise
            stack.close()
            tell(f"{error.what} ({error.where}): all journals are read anew")
            live = _opened(stack, settings, found, every_ms, True)
        yield live


def _opened(stack: ExitStack, settings: Settings, found: Journals, every_ms: int, fresh: bool) -> LiveAudit:
    path = index_of(settings, found.site)
    index = stack.enter_context(open_index(path, identity_of(settings, [found]), fresh=fresh))
    live = LiveAudit(settings, found.site, index, every_ms=every_ms)
    live.go_on()
    return live


@dataclass(slots=True)
class _Following:
    """The life of a follower over one index."""

    settings: Settings
    live: LiveAudit
    key: WorkingKey | None
    lock: IO[str]
    state: FollowerState
    on_finding: Callable[[Finding], None]
    tell: Tell
    on_away: Tell
    made: Callable[[FollowerState], None]
    _waiting: list[m.SealedJournal] | None = None
    """What is due and not sealed yet."""
    _pending: m.JournalsSealed | None = None
    """A seal that is not known to be in the log: the same is sent again, never another of its number."""
    _saved_s: float = 0.0
    _saved_at: int = 0
    _looked_s: float = 0.0
    _is_full: bool = False
    """Whether it was said that not all findings are told."""
    _is_whole: bool = False
    """Whether what is in memory is between two records: only then it may be kept."""

    def run(self, found: Journals, every_s: float) -> None:
        self.live.counts.told = self.state.counts.told
        self.state.counts, self.state.is_reading = self.live.counts, True
        self._saved_s = self._looked_s = time.monotonic()
        with ExitStack() as stack:
            stack.callback(self._close)
            claim = SealerClaim(self.live.site, _before(self.lock))
            starts = self.live.read_on(found, self.tell, partial(self._read, claim))
            self._tell(self.live.first_news())
            self._save()
            self.state.is_reading, self._is_whole = False, True
            publisher = stack.enter_context(Publisher(self.settings, self.live.site, SEALER, SEALER, opened=False))
            reader = stack.enter_context(
                SteadyReader(self.settings, self.live.site, starts, fetch_wait_ms=_FETCH_WAIT_MS)
            )
            self._follow(publisher, reader, claim, every_s)

    def _close(self) -> None:
        if self._is_whole:
            self.live.close()

    def _read(self, claim: SealerClaim, record: Record) -> None:
        """One of the first reading."""
        said = self.live.hear(record)
        if isinstance(said, m.JournalsSealed):
            self.live.chain.take(said)
        elif said is not None:
            claim.hear(said, _where(record), record.timestamp_ms)
        if self.live.counts.records - self._saved_at >= SAVED_EACH:
            self._save()

    def _follow(self, publisher: Publisher, reader: SteadyReader, claim: SealerClaim, every_s: float) -> None:
        begun_s = time.monotonic()

        while True:
            batch = reader.batch(min(_POLL_S, every_s))
            self._is_whole = False
            for record in batch:
                self._hear(record, claim)
            self.state.away, self.state.sealed_ms = reader.away, self.live.sealed_ms
            self.on_away(reader.away)
            if not reader.away:
                self._judge()
            self._is_whole = True
            if reader.away or time.monotonic() - begun_s < min(_FIRST_S, every_s):
                continue
            self._claim(publisher, claim)
            if not claim.may_seal(time.monotonic()):
                continue
            if self._pending is None and not self._waiting:
                self._waiting = self.live.chain.due(_now_ms(), self.live.trees)
            if self._pending is not None or self._waiting:
                self._seal(publisher)

    def _ends(self) -> dict[LogPartition, int]:
        """Asked over a connection of its own: the other one waits for news for seconds."""
        with LogReader(self.settings, self.live.site) as reader:
            return reader.end_offsets(self.live.ledger.next_offsets(self.live.site))

    def _judge(self) -> None:
        now_s = time.monotonic()
        try:
            found = self.live.news(now_s, self._ends)
            if now_s - self._looked_s >= _LOOKED_EACH_S:
                self._looked_s = now_s
                self.live.refuse_shorter(self._ends())
        except CLUSTER_AWAY:  # the reader says so
            return
        self._tell(found)
        if found or now_s - self._saved_s >= SAVED_EACH_S:
            self._save()

    def _tell(self, found: Iterable[Finding]) -> None:
        for finding in found:
            self.on_finding(finding)
        if self.live.ledger.told.is_full and not self._is_full:
            self._is_full = True
            self.tell("more findings than are remembered: the others are not told, see `transfer2go audit`")

    def _save(self) -> None:
        self.live.save()
        self._saved_s, self._saved_at = time.monotonic(), self.live.counts.records

    def _hear(self, record: Record, claim: SealerClaim) -> None:
        said = self.live.hear(record)
        if isinstance(said, m.SiteAnnounced):
            claim.hear(said, _where(record), record.timestamp_ms)
            return
        if said is None or said.no < self.live.chain.next_no:
            return
        if said == self._pending:  # it is in the log, whatever became of its acknowledgement
            self._taken(said)
            return
        if said.certificate is None and self.key is not None:
            return  # an intruder's: this follower's seal of that number will show it
        raise NeverWorks(
            f"another process seals for {said.site}: it made seal {said.no}",
            _where(record),
            "run one `audit follow` a site",
        )

    def _claim(self, publisher: Publisher, claim: SealerClaim) -> None:
        """Say that this process seals; Temporary where another one does."""
        if (other := claim.winner) is not None:
            until = datetime.fromtimestamp(other.until_ms / 1000, UTC).isoformat(timespec="seconds")
            raise Temporary(
                f"another process seals for {self.live.site}: {other.incarnation}",
                other.where,
                f"run one `audit follow` a site; if that one has ended, start this at {until}",
            )
        if claim.is_due(now_s := time.monotonic()):
            claim.send(publisher.incarnation, now_s)
            with suppress(Temporary):  # said again when it is due
                publisher.announce(every_s=EVERY_S)
            claim.send(publisher.incarnation, now_s)  # it may have become another meanwhile
            _note(self.lock, publisher.incarnation)

    def _seal(self, publisher: Publisher) -> None:
        if self._pending is None:
            assert self._waiting
            most = m.SEALED_JOURNALS_MAX
            some, self._waiting = self._waiting[:most], self._waiting[most:]
            self._pending = self._signed(some)
        if self._is_in_the_log(publisher, self._pending):
            self._taken(self._pending)

    def _taken(self, seal: m.JournalsSealed) -> None:
        self.live.chain.take(seal)
        self._pending = None
        self.state.seals, self.state.journals = self.state.seals + 1, self.state.journals + len(seal.journals)
        self.made(self.state)

    def _signed(self, journals: list[m.SealedJournal]) -> m.JournalsSealed:
        now_ms, site = _now_ms(), self.live.site
        entry = self.settings.entry(site)
        if self.key is not None and fault_of(
            self.key.certificate, site, entry.root_key, entry.revoked_keys, m.SEALER, now_ms
        ):
            self.key = _key(self.settings, site)
        body = self.live.chain.next(now_ms, journals, None if self.key is None else self.key.certificate)
        return body if self.key is None else replace(body, signature=self.key.sign(signed_bytes(body)))

    def _is_in_the_log(self, publisher: Publisher, seal: m.JournalsSealed) -> bool:
        acknowledged: list[bool] = []
        try:
            publisher.send(seal, lambda error: acknowledged.append(error is None))
        except Temporary:
            return False
        publisher.flush(_ACK_S)
        return acknowledged == [True]


def _where(record: Record) -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"


def _before(lock: IO[str]) -> list[str]:
    """Incarnations that the lock tells of: their processes have ended, or we would not have it."""
    lock.seek(0)
    return lock.read().split()


def _note(lock: IO[str], incarnation: str) -> None:
    """Whose the lock is, and whose it was last: the one before may have left an announcement on its way."""
    known = [one for one in _before(lock) if one != incarnation][-_KEPT:]
    lock.seek(0)
    lock.truncate()
    lock.write("\n".join([*known, incarnation]) + "\n")
    lock.flush()
