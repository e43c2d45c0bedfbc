"""A small federation's journals as lists of encoded records: written as the product writes, then broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from uuid import UUID

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.ledger import Ledger
from streams.core.ledger.findings import FindingList, Judgement, LogPosition
from streams.core.ledger.seals import PinnedKey, Seals
from streams.core.ledger.trees import leaf_of
from streams.core.manifest import digest
from streams.core.names import Adler32, Block, Dataset, Destination, IntentId, Lfn, ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.selectors import Kind, Selector
from streams.errors import WireError
from streams.keys.ed25519 import is_signed
from streams.wire.release import release_of

A, B, C = Site("T1_A"), Site("T2_B"), Site("T2_C")
PARTITIONS = 4
START_MS = 1_700_000_000_000
LATER_MS = START_MS + 3_600_000
DATASET = Dataset("/P/R/AOD")
BLOCK = Block("/P/R/AOD#b")
OTHER_ADLER = Adler32("0000beef")
WHY = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "read", Text("gone"))


@dataclass(frozen=True)
class Rec:
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    at_ms: int


Log = list[tuple[int, Rec]]
"""(offset, record) in ascending order; offsets have holes, as transactions leave them."""


@dataclass
class Writer:
    """One process of a site, which numbers what it writes."""

    world: World
    site: Site
    name: str
    role: str
    incarnation: str
    next_seq: dict[tuple[str, int], int] = field(default_factory=dict)

    def say(self, message: m.Message) -> LogPosition:
        """Publish; returns where it stands at its origin."""
        key = m.key_of(message)
        raw = key if isinstance(key, bytes) else key.encode()
        topic, partition = m.topic_of(message), topics.partition_of(raw, PARTITIONS)
        seq = self.next_seq.get((topic, partition), 0)
        self.next_seq[topic, partition] = seq + 1
        origin = m.Origin(self.site, self.name, self.incarnation, seq, self.world.now_ms())
        headers = tuple(wire.headers(message, origin))
        return self.world.append(self.site, topic, partition, Rec(raw, wire.encode(message), headers, origin.at_ms))

    def announce(self, *, closing: bool = False, sequences: Iterable[m.LastSequence] | None = None) -> LogPosition:
        last = [m.LastSequence(t, p, n - 1) for (t, p), n in sorted(self.next_seq.items())]
        told = tuple(last if sequences is None else sequences)
        return self.say(
            m.SiteAnnounced(
                self.site, self.name, self.incarnation, self.role, "", "0" * 64, (), ("disk",), 30, closing, told
            )
        )


class World:
    """Sites, their logs, and a mirror that copies what it has not copied yet."""

    def __init__(self, *sites: Site, auditors: Iterable[Site] = ()) -> None:
        self.sites = sites or (A, B)
        self.auditors = frozenset(auditors)
        self.logs: dict[tuple[Site, str, int], Log] = {}
        self.mirrored: dict[tuple[Site, str, int], int] = {}
        self.clock_ms = START_MS
        self.writers: list[Writer] = []

    def now_ms(self) -> int:
        self.clock_ms += 10
        return self.clock_ms

    def writer(self, site: Site, name: str, role: str) -> Writer:
        made = Writer(self, site, name, role, f"{site}-{name}-{len(self.writers)}")
        self.writers.append(made)
        return made

    def append(self, site: Site, topic: str, partition: int, record: Rec) -> LogPosition:
        log = self.logs.setdefault((site, topic, partition), [])
        offset = log[-1][0] + 1 if log else 0
        log.append((offset, record))
        return LogPosition(site, topic, partition, offset)

    def mirror(self, *, keep: Callable[[Site, str, Rec], bool] = lambda target, topic, rec: True) -> None:
        """Copy everything new to where it belongs; `keep(target, base topic, record)` false: lost on the way."""
        for (site, topic, partition), log in sorted(self.logs.items()):
            if "." in topic:
                continue
            for target in self.sites:
                if target == site or topic not in topics.mirrored(target, target_is_auditor=target in self.auditors):
                    continue
                done = self.mirrored.get((target, f"{site}.{topic}", partition), -1)
                for offset, rec in log:
                    if offset > done and keep(target, topic, rec):
                        place = self.append(target, f"{site}.{topic}", partition, rec)
                        copies = self.logs[place[:3]]
                        copies[-1] = (copies[-1][0] + 1, rec)  # a transaction marker went before
                    self.mirrored[target, f"{site}.{topic}", partition] = max(done, offset)

    def close(self) -> None:
        for writer in self.writers:
            writer.announce(closing=True)

    # breaking

    def where(
        self, site: Site, topic: str, test: Callable[[m.Message], bool] = lambda message: True
    ) -> list[LogPosition]:
        """Places in `topic` at `site` of records that the test accepts, in partition order."""
        return [p for p, rec in self.records(site, topic) if test(self.decoded(p, rec).message)]

    def records(self, site: Site, topic: str) -> list[tuple[LogPosition, Rec]]:
        return [
            (LogPosition(s, t, partition, offset), rec)
            for (s, t, partition), log in sorted(self.logs.items())
            if (s, t) == (site, topic)
            for offset, rec in log
        ]

    def decoded(self, place: LogPosition, rec: Rec) -> wire.Heard:
        return wire.decode(place.topic, rec.key, rec.value, rec.headers, place.site)

    def at(self, place: LogPosition) -> Rec:
        return dict(self.logs[place[:3]])[place.offset]

    def drop(self, place: LogPosition) -> None:
        self.logs[place[:3]] = [(o, r) for o, r in self.logs[place[:3]] if o != place.offset]

    def put(self, place: LogPosition, rec: Rec) -> None:
        self.logs[place[:3]] = [(o, rec if o == place.offset else r) for o, r in self.logs[place[:3]]]

    def forge(self, place: LogPosition, message: m.Message) -> None:
        """Another value under the same number, key and headers."""
        self.put(place, replace(self.at(place), value=wire.encode(message)))

    # reading

    def partitions(self) -> list[tuple[Site, str, int]]:
        return sorted(self.logs)

    def facts(self) -> Iterator[tuple[LogPosition, Rec]]:
        for (site, topic, partition), log in sorted(self.logs.items(), key=seals_first):
            for offset, rec in log:
                yield LogPosition(site, topic, partition, offset), rec

    def ledger(
        self,
        facts: Iterable[tuple[LogPosition, Rec]] | None = None,
        read: Iterable[Site] | None = None,
        release: int = 1,
        keys: Mapping[Site, PinnedKey] | None = None,
    ) -> Ledger:
        seals = Seals(keys, is_signed)
        made = Ledger(
            self.sites, partitions=PARTITIONS, read=read, auditors=self.auditors, release=release, seals=seals
        )
        readable = set(self.sites if read is None else read)
        for place, rec in self.facts() if facts is None else facts:
            if place.site in readable:
                hear(made, place, rec)
        return made

    def judge(
        self,
        facts: Iterable[tuple[LogPosition, Rec]] | None = None,
        *,
        read: Iterable[Site] | None = None,
        now_ms: int = LATER_MS,
        committed: dict[tuple[Site, str, int], int] | None = None,
        release: int = 1,
        keys: Mapping[Site, PinnedKey] | None = None,
    ) -> Judgement:
        """Read, look up, judge: as the audit does, over lists."""
        made = self.ledger(facts, read, release, keys)
        for key in made.wanted():
            for offset, rec in self.logs[key]:
                locate(made, LogPosition(*key, offset), rec)
        findings = FindingList(now_ms)
        made.lose_renewed(findings)
        return made.judge(now_ms, committed=committed, findings=findings)


def seals_first(one: tuple[tuple[Site, str, int], Any]) -> tuple[int, tuple[Site, str, int]]:
    """An order of journals: seals as the audit reads them, originals before copies, then all else."""
    writer, base = topics.split(one[0][1])
    return 2 if base != topics.SEALS else writer is not None, one[0]


decode_once = lru_cache(maxsize=4096)(wire.decode)
"""What the gate makes of a record is a function of its arguments; here most are heard again and again."""


def origin_of(rec: Rec) -> m.Origin | None:
    try:
        return wire.decode_value(m.Origin, dict(rec.headers)[wire.ORIGIN] or b"")
    except (KeyError, WireError):
        return None


def locate(ledger: Ledger, place: LogPosition, rec: Rec) -> None:
    """Tell of one record in the second reading."""

    def message() -> m.Message | None:
        try:
            return decode_once(place.topic, rec.key, rec.value, rec.headers, place.site).message
        except WireError:
            return None

    if (origin := origin_of(rec)) is not None:
        ledger.locate(place, origin, hash(rec.value), message)


def hear(ledger: Ledger, place: LogPosition, rec: Rec) -> None:
    whole = leaf_of(rec.key, rec.value, rec.headers)
    try:
        heard = decode_once(place.topic, rec.key, rec.value, rec.headers, place.site)
    except WireError as error:
        ledger.refuse(place, error.what, rec.at_ms, origin_of(rec), whole, error.speaks_for)
    else:
        release = release_of(rec.headers)
        ledger.hear(place, heard.origin, heard.message, hash(rec.value), whole, rec.at_ms, release)


def judged(
    sites: Iterable[Site],
    logs: Mapping[tuple[Site, str, int], Sequence[Rec]],
    partitions: int,
    now_ms: int = 10**15,
    read: Iterable[Site] | None = None,
) -> Judgement:
    """The judgement over journals that stand whole; by default long after they were written."""
    ledger, findings = Ledger(sites, partitions=partitions, read=read), FindingList(now_ms)
    logs = logs if read is None else {key: log for key, log in logs.items() if key[0] in set(read)}
    for key, log in sorted(logs.items(), key=seals_first):
        for offset, rec in enumerate(log):
            hear(ledger, LogPosition(*key, offset), rec)
    ledger.lose_renewed(findings)
    for key in ledger.wanted():
        for offset, rec in enumerate(logs[key]):
            locate(ledger, LogPosition(*key, offset), rec)
    return ledger.judge(now_ms, findings=findings)


def body_of(intent: IntentId, *destinations: Site) -> m.TransferIntent:
    return m.TransferIntent(intent, Text("someone"), (Selector(Kind.DATASET, DATASET),), destinations, A)


def item(name: str, size: int, adler: str = "0000abcd", reason: m.Reason | None = None) -> m.Item:
    lfn = Lfn(f"/store/{name}")
    if reason is not None:
        return m.Item(lfn, DATASET, BLOCK, lfn, "", 0, 0, None, "", None, reason)
    return m.Item(lfn, DATASET, BLOCK, lfn, "", size, size, Adler32(adler), "v1", A)


class Federation(World):
    """A world with a worker and a plane a site and a producer at the home, A; and the steps of a healthy intent."""

    def __init__(self, *sites: Site, auditors: Iterable[Site] = ()) -> None:
        super().__init__(*sites, auditors=auditors)
        self.cli = self.writer(A, "cli", "cli")
        self.workers = {site: self.writer(site, "worker-0", "worker") for site in self.sites}
        self.planes = {site: self.writer(site, "plane-0", "plane") for site in self.sites}
        self.registered: set[m.Item] = set()
        for worker in self.workers.values():
            worker.announce()

    def ask(self, number: int, *destinations: Site) -> m.TransferIntent:
        body = body_of(IntentId(f"{A}.{UUID(int=number)}"), *destinations)
        self.cli.say(body)
        return body

    def decide(self, body: m.TransferIntent, no: int = 1, verdict: m.Verdict = m.Verdict.ACCEPTED) -> m.IntentDecided:
        reason = None if verdict is m.Verdict.ACCEPTED else WHY
        decided = m.IntentDecided(body.intent, no, verdict, body, A, 0, 5, reason)
        self.workers[A].say(decided)
        return decided

    def register(self, items: Iterable[m.Item]) -> None:
        """Say of the files of a manifest that A holds them, once each; of a part that it holds what it is of."""
        new = [item for item in items if item.holder == A and item not in self.registered]
        self.registered.update(new)
        by_dataset: dict[Dataset, dict[Lfn, m.Item]] = {}
        for item in new:
            by_dataset.setdefault(item.dataset, {})[item.lfn] = item
        for dataset, items_of in by_dataset.items():
            held = (m.HeldFile(i.lfn, i.block, i.bytes, i.adler32 or OTHER_ADLER, "v1") for i in items_of.values())
            self.cli.say(m.FilesHeld(dataset, A, tuple(held)))

    def write(self, body: m.TransferIntent, *lists: tuple[m.Item, ...]) -> list[m.ManifestWritten]:
        written: list[m.ManifestWritten] = []
        before = ""
        self.register(item for items in lists for item in items)
        for no, items in enumerate(lists):
            last = no == len(lists) - 1
            made = m.ManifestWritten(body.intent, A, 0, no, before, "c", m.Unit.BYTES, items, last)
            self.planes[A].say(made)
            written.append(made)
            before = digest(made)
        return written

    def transfer(self, manifest: m.ManifestWritten, site: Site, *, close: bool = True) -> m.CompletionRecord:
        """All steps of a transfer in which item 0 is already there and items with a reason fail."""
        worker, plane, name = self.workers[site], self.planes[site], manifest.manifest
        worker.say(m.TransferPlanned(name, site, 1, 5, None, (), False, manifest))
        worker.say(m.TransferPlanned(name, site, 1, 5, None, (), False, manifest))
        self.report(name, site, "planned")
        plane.say(m.PartOpened(name, 1, "disk", Ranges.of(0)))
        lacking = Ranges.of(*(n for n, i in enumerate(manifest.items) if i.reason is not None))
        everything = Ranges([(0, len(manifest.items))])
        total = self.bring(manifest, site)
        sealed = everything - lacking
        plane.say(m.TransferProgress(name, site, 1, "disk", Ranges([(0, total)]), EMPTY))
        plane.say(m.TransferProgress(name, site, 1, "disk", Ranges([(0, total)]), sealed - Ranges.of(0)))
        return self.complete(manifest, site, sealed, lacking, close=close)

    def bring(self, manifest: m.ManifestWritten, destination: Destination, *, request_no: int = 1) -> int:
        """All of a manifest asked for and served; its length."""
        name, total = manifest.manifest, sum(i.length for i in manifest.items)
        starts = [sum(i.length for i in manifest.items[:n]) for n in range(len(manifest.items))]
        asked = [
            m.RequestedItem(n, i.lfn, starts[n], i.length, i.version) for n, i in enumerate(manifest.items) if i.length
        ]
        ranges, until_ms = Ranges([(0, total)]), START_MS + 20_000
        if total:
            request = m.ChunksRequested(name, destination, A, request_no, 1, "log", tuple(asked), ranges, until_ms)
            self.workers[destination.site].say(request)
            self.planes[A].say(m.ChunksServed(name, A, destination, request_no, ranges, total))
        return total

    def report(self, name: ManifestId, site: Site, state: str) -> None:
        self.workers[site].say(m.TransferReported(name.intent, name, site, 1, state, 0, 0, 0, 0, 5, Text("")))

    def complete(
        self, manifest: m.ManifestWritten, site: Site, sealed: Ranges, lacking: Ranges = EMPTY, *, close: bool = True
    ) -> m.CompletionRecord:
        worker = self.workers[site]
        done = completion_of(manifest, site, sealed, lacking)
        held = [manifest.items[n] for n in sealed.numbers()]
        files = tuple(m.HeldFile(i.target, i.block, i.bytes, i.adler32, "") for i in held if i.adler32 is not None)
        if files:
            worker.say(m.FilesHeld(DATASET, site, files, done.manifest))
        worker.say(done)
        if close:
            worker.say(m.TransferClosed(done.manifest, done))
        return done


def completion_of(
    manifest: m.ManifestWritten, site: Site, sealed: Ranges, lacking: Ranges = EMPTY
) -> m.CompletionRecord:
    ended = m.Ended.DONE if not lacking else m.Ended.PARTLY if sealed else m.Ended.FAILED
    failed = (m.FailedItems(lacking, WHY),) if lacking else ()
    size = sum(manifest.items[n].bytes for n in sealed.numbers())
    name, items = manifest.manifest, len(manifest.items)
    return m.CompletionRecord(name.intent, name, site, ended, items, sealed, failed, EMPTY, size, digest(manifest))


def healthy(*sites: Site, auditors: Iterable[Site] = ()) -> Federation:
    """One intent of two manifests to B (and C): five files, one of which nobody holds."""
    world = Federation(*sites, auditors=auditors)
    body = world.ask(1, *(site for site in world.sites if site != A))
    world.decide(body)
    lists = (
        (item("a", 100), item("b", 200, "00000b0b"), item("empty", 0, "00000001")),
        (item("c", 50), item("gone", 0, reason=WHY)),
    )
    for manifest in world.write(body, *lists):
        for site in body.destinations:
            world.transfer(manifest, site)
    for site in body.destinations:
        for no in range(2):
            world.report(ManifestId.of(body.intent, 0, no), site, "closed")
    world.close()
    world.mirror()
    return world
