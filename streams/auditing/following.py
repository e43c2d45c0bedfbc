"""`audit follow`: reads a site's own cluster on and on, seals its journals, and tells what contradicts a seal.

One process a site. It keeps a tree of each journal in memory and nothing on disk: a start reads the seals back, then
every journal from its first record, and goes on behind the last seal. The seals of all sites are held against what this
cluster has; meaning is not judged here (`audit` does).
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from streams import wire
from streams.auditing.coverage import find_journals, refuse
from streams.auditing.origins import number_of
from streams.auditing.pinned_keys import seals_of
from streams.core import records as m
from streams.core.ledger.cuts import ClusterTrees
from streams.core.ledger.findings import Finding, FindingList, IntentCounts, LogPosition
from streams.core.ledger.trees import leaf_of
from streams.core.names import Site
from streams.core.sealing import OWN_MS, SealChain, signed_bytes
from streams.core.topics import SEALS, LogPartition, split
from streams.errors import NeverWorks, NotFound, Temporary, WireError
from streams.kafka.publish import Publisher
from streams.kafka.reader import LogReader, Record
from streams.kafka.replay import replay
from streams.kafka.steady import SteadyReader
from streams.keys.files import WorkingKey, fault_of, key_for
from streams.settings import Settings

SIZES_MAX = 256
"""Sealed sizes kept of a journal: what has been compared is forgotten."""
_FETCH_WAIT_MS = 5000
_POLL_S = 1.0
_FIRST_S = 2.0
"""So long after the journals were read nothing is sealed: a process that was killed may have left a seal on its way."""
_ACK_S = 10.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SealsMade:
    """What a follower has done since its start."""

    records: int
    seals: int
    journals: int


class ClusterSeals:
    """What is known of one cluster while it is read: trees, seals, and the site's own chain. No log is touched."""

    def __init__(self, settings: Settings, site: Site, *, every_ms: int = OWN_MS) -> None:
        self.site, self._sites = site, frozenset(settings.registry.names)
        self.seals = seals_of(settings, sizes_max=SIZES_MAX)
        self.trees = ClusterTrees(site, walk=self.seals.walk)
        self.chain = SealChain(site, own_every_ms=every_ms)
        self.records = self.refused = 0
        self._known: set[tuple[str, tuple[LogPosition, ...]]] = set()

    def hear(self, record: Record) -> m.JournalsSealed | None:
        """The next record of its partition; a seal that is its site's word is returned."""
        topic, partition, offset, logged_ms, key, value, found = record
        headers = found or ()
        self.records += 1
        if not topic.endswith(SEALS):
            self.trees.hear(topic, partition, offset, number_of(headers), leaf_of(key, value, headers))
            return None
        try:
            seal = wire.decode(topic, key, value, headers, self.site).message
        except WireError:  # a worker buries it
            self.refused += 1
            return None
        assert isinstance(seal, m.JournalsSealed)
        is_good = self.seals.hear(LogPosition(self.site, topic, partition, offset), seal, logged_ms)
        return seal if is_good and topic == SEALS else None

    def news(self, now_ms: int, *, lengths: bool) -> list[Finding]:
        """Findings that were not told yet. `lengths`: all that stood there has been read."""
        findings = FindingList(now_ms)
        self.seals.judge(self._sites, lambda site, _: site == self.site, {}, 0, findings, lengths=lengths)
        found = findings.close((), IntentCounts()).findings
        new = [one for one in found if (one.words, one.records) not in self._known]
        self._known |= {(one.words, one.records) for one in new}
        return new


def follow(
    settings: Settings,
    *,
    every_s: float = OWN_MS / 1000,
    on_finding: Callable[[Finding], None],
    tell: Tell = lambda _: None,
    on_away: Tell = lambda _: None,
    made: Callable[[SealsMade], None] = lambda _: None,
) -> None:
    """Seal the site's journals each `every_s`, and its copies ten times as seldom, until something is raised.

    NotFound or NotAllowed where the site has pinned a root key and no key may sign; Temporary where another process on
    this machine seals for the site, NeverWorks where one elsewhere does. `made` hears what was done, after each seal.
    """
    site = settings.here
    with _alone(settings, site):
        key = _key(settings, site)
        if key is None:
            tell(f"sites.toml pins no root_key of {site}: its seals are unsigned")
        cluster = ClusterSeals(settings, site, every_ms=int(every_s * 1000))
        starts = _read_all(settings, cluster, tell)
        for finding in cluster.news(_now_ms(), lengths=True):
            on_finding(finding)
        with (
            Publisher(settings, site, "sealer", "sealer", opened=False) as publisher,
            SteadyReader(settings, site, starts, fetch_wait_ms=_FETCH_WAIT_MS) as reader,
        ):
            _Sealing(settings, cluster, key, publisher, reader, on_finding, on_away, made).run(every_s)


def _now_ms() -> int:
    return int(time.time() * 1000)


@contextmanager
def _alone(settings: Settings, site: Site) -> Iterator[None]:
    path = settings.keys.parent / "sealer.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Temporary(
                    f"another `audit follow` of {site} is at work", str(path), "one a site seals"
                ) from error
            yield
    except OSError as error:
        raise Temporary(f"cannot be used: {error.strerror}", str(path)) from error


def _key(settings: Settings, site: Site) -> WorkingKey | None:
    entry = settings.entry(site)
    if not entry.root_key:
        return None
    return key_for(settings.keys, m.SEALER, site, entry.root_key, entry.revoked_keys, _now_ms())


def _read_all(settings: Settings, cluster: ClusterSeals, tell: Tell) -> dict[LogPartition, int]:
    """Seals first, then every journal; where to read on."""
    found = find_journals(settings, cluster.site)
    refuse(settings, [found])
    if SEALS in found.missing:
        raise NotFound(f"no topic {SEALS} at {cluster.site}", next="run `transfer2go topic create`")
    for name in found.missing:
        tell(f"{cluster.site} has no {name}: run `transfer2go topic create`")
    with LogReader(settings, cluster.site) as reader:
        starts = reader.begin_offsets(reader.partitions_of(found.present))
    seals = [name for name in found.present if split(name)[1] == SEALS]
    for names in (sorted(seals, key=_is_copy), [name for name in found.present if name not in seals]):
        tell(f"reading {len(names)} journals at {cluster.site}")
        for record in _one_by_one(settings, cluster.site, names):
            if (seal := cluster.hear(record)) is not None:
                cluster.chain.take(seal)
            starts[record.topic, record.partition] = record.offset + 1
    return starts


def _is_copy(topic: str) -> bool:
    return "." in topic


def _one_by_one(settings: Settings, site: Site, names: Iterable[str]) -> Iterator[Record]:
    """Originals before copies."""
    own = [name for name in names if not _is_copy(name)]
    copies = [name for name in names if _is_copy(name)]
    for some in (own, copies):
        if some:
            yield from replay(settings, site, some)


@dataclass(slots=True)
class _Sealing:
    """The life of a follower behind its start."""

    settings: Settings
    cluster: ClusterSeals
    key: WorkingKey | None
    publisher: Publisher
    reader: SteadyReader
    on_finding: Callable[[Finding], None]
    on_away: Tell
    made: Callable[[SealsMade], None]
    _waiting: list[m.SealedJournal] | None = None
    """What is due and not sealed yet."""
    _pending: m.JournalsSealed | None = None
    """A seal that is not known to be in the log: the same is sent again, never another of its number."""
    _seals: int = 0
    _journals: int = 0

    def run(self, every_s: float) -> None:
        begun_s = judged_s = time.monotonic()
        while True:
            for record in self.reader.batch(min(_POLL_S, every_s)):
                self._hear(record)
            self.on_away(self.reader.away)
            if self.reader.away or time.monotonic() - begun_s < min(_FIRST_S, every_s):
                continue
            if time.monotonic() - judged_s >= every_s:
                judged_s = time.monotonic()
                for finding in self.cluster.news(_now_ms(), lengths=False):
                    self.on_finding(finding)
            if self._pending is None and not self._waiting:
                self._waiting = self.cluster.chain.due(_now_ms(), self.cluster.trees.trees)
            if self._pending is not None or self._waiting:
                self._seal()

    def _hear(self, record: Record) -> None:
        seal = self.cluster.hear(record)
        if seal is None or seal.no < self.cluster.chain.next_no:
            return
        if seal == self._pending:  # it is in the log, whatever became of its acknowledgement
            self._taken(seal)
            return
        if seal.certificate is None and self.key is not None:
            return  # an intruder's: this follower's seal of that number will show it
        raise NeverWorks(
            f"another process seals for {seal.site}: it made seal {seal.no}",
            f"{record.topic}[{record.partition}]@{record.offset}",
            "run one `audit follow` a site",
        )

    def _seal(self) -> None:
        if self._pending is None:
            assert self._waiting
            most = m.SEALED_JOURNALS_MAX
            some, self._waiting = self._waiting[:most], self._waiting[most:]
            self._pending = self._signed(some)
        if self._is_in_the_log(self._pending):
            self._taken(self._pending)

    def _taken(self, seal: m.JournalsSealed) -> None:
        self.cluster.chain.take(seal)
        self._seals, self._journals, self._pending = self._seals + 1, self._journals + len(seal.journals), None
        self.made(SealsMade(self.cluster.records, self._seals, self._journals))

    def _signed(self, journals: list[m.SealedJournal]) -> m.JournalsSealed:
        now_ms, site = _now_ms(), self.cluster.site
        entry = self.settings.entry(site)
        if self.key is not None and fault_of(
            self.key.certificate, site, entry.root_key, entry.revoked_keys, m.SEALER, now_ms
        ):
            self.key = _key(self.settings, site)
        body = self.cluster.chain.next(now_ms, journals, None if self.key is None else self.key.certificate)
        return body if self.key is None else replace(body, signature=self.key.sign(signed_bytes(body)))

    def _is_in_the_log(self, seal: m.JournalsSealed) -> bool:
        acknowledged: list[bool] = []
        try:
            self.publisher.send(seal, lambda error: acknowledged.append(error is None))
        except Temporary:
            return False
        self.publisher.flush(_ACK_S)
        return acknowledged == [True]
