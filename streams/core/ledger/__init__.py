"""The audit's ledger: facts of all sites in, findings out. Pure; it never imports the machines it judges.

    hear / copy / refuse   fold one record of one partition at one site   (any order of partitions, any repeats)
    kept / go_on           stop after any record, and go on in another process over the same rows
    kept / absorb          hear shares of the partitions in several processes, and bring them together
    wanted / locate        a second, narrow reading that finds the records which prove a gap
    judge                  Judgement: findings, what waits, what cannot be checked from here

What is sealed is heard first, since a tree keeps no root of a size that it has passed.

Facts lie in rows (rows.py), and are judged by a scan: one intent, one name of a file, or one dataset, at a time.

Parts: findings (values) · coverage (what was read) · rows, facts (what is kept of a record) · spans · numbering, tags
(numbers and contents) · copies (I7) · trees, orders, cuts (I7: a copy's order; the digest) · seals, sealed_sizes (what
was sealed) · journals, classes, dead_letters, odd_records (I6) · claims, traces, digests (facts folded) · transfers,
intents, decisions (I1, I2, I4) · links, landed (I2: bytes) · files (replicas) · keeping_facts, keeping_chains, keeping
(I13, I14, I18: what is kept and removed) · clocks · stale (what is open without news) · verdicts (what need not be
judged again) · custody, keeping_custody (histories) · accounts, quantiles (sums) · shares (several ledgers) · live,
telling (of who follows) · traffic (bytes by link and day). Memory: 0.3 bytes a record, 50 a seal and as many for each
journal in it, and the facts of one intent, or the steps of one dataset and a slice of its files. The gate has checked
each record before: whose word it is, and that it does not contradict itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from streams.core import records as m
from streams.core.ledger.claims import IntentClaims, claims_of
from streams.core.ledger.classes import not_applied
from streams.core.ledger.clocks import judge_clocks
from streams.core.ledger.copies import CopyJudge, GapJudge, Number, Whereabouts, judge_conflicts, wanted
from streams.core.ledger.coverage import Coverage
from streams.core.ledger.cuts import JournalId, JournalRoot
from streams.core.ledger.dead_letters import DeadLetters
from streams.core.ledger.facts import Fact, Facts, Kind
from streams.core.ledger.files import ReplicaJudge
from streams.core.ledger.findings import FindingList, Invariant, Judgement, LogPosition, PartitionCount
from streams.core.ledger.intents import IntentJudge
from streams.core.ledger.journals import GRACE_MS, Journal, PartitionId, Reached, RefusedRecord
from streams.core.ledger.journals import judge as judge_journal
from streams.core.ledger.keeping import KeepingJudge
from streams.core.ledger.keeping_facts import OF_KEEPING, KeepingFact
from streams.core.ledger.links import LinkJudge, Lives
from streams.core.ledger.numbering import Class, ClockReading, LastAnnounced, Stream, StreamId
from streams.core.ledger.odd_records import OddRecords
from streams.core.ledger.orders import OrderJudge
from streams.core.ledger.rows import Codec, MemoryRows, Names, Rows, beyond
from streams.core.ledger.seals import Seals
from streams.core.ledger.shares import Share, numbering, renumbered
from streams.core.ledger.stale import Staleness
from streams.core.ledger.tags import Tags
from streams.core.ledger.traces import SiteNumbers
from streams.core.ledger.traffic import Traffic, traffic_of
from streams.core.ledger.trees import JournalTree, RecentTree
from streams.core.ledger.verdicts import Verdicts
from streams.core.names import IntentId, ManifestId, Site
from streams.core.topics import SEALS, is_chunks, split

_OF_FILES = (m.FilesHeld, m.FilesLost)
_CONTENT_MASK = (1 << 64) - 1
_BY_PLANES = frozenset((m.ChunksServed, m.PartOpened, m.PartLost, m.ManifestWritten))
"""Facts that only planes write, and no process beside them."""


class Ledger:
    """One audit. `sites`: all of the federation; `read`: those whose journals are replayed. `release`: today's."""

    def __init__(
        self,
        sites: Iterable[Site],
        *,
        partitions: int,
        read: Iterable[Site] | None = None,
        auditors: Iterable[Site] = (),
        release: int = 1,
        seals: Seals | None = None,
        rows: Rows | None = None,
        salt: bytes = b"",
        live: bool = False,
    ) -> None:
        """`seals`: knows the keys that sites have pinned. `rows`: where facts lie; in memory, where none are given.

        `salt`: of all hashes, at most 64 bytes, a secret of whoever audits; of one that goes on, the same.
        `live`: one site is read while its journals grow, and judged every few seconds. Only what was heard of since, or
        is blamed, or has its turn is judged then, so that nothing is to be counted; trees keep their last leaves only.
        What sites promised and removed is left to an audit: a chain is judged whole, and its partitions grow unevenly.
        """
        self._sites = frozenset(sites)
        self._coverage = Coverage(self._sites if read is None else read)
        self._copies = CopyJudge(self._sites, auditors, self._coverage)
        self._rows = rows = MemoryRows() if rows is None else rows
        self._codec = Codec(Names(rows), salt)
        self._facts = Facts(rows, self._codec)
        self._live = live
        self._tree: type[JournalTree] = RecentTree if live else JournalTree
        self._verdicts = Verdicts(rows, self._facts, live=live)
        self._replicas = ReplicaJudge(rows, self._codec, live=live)
        self._keeping = KeepingJudge(rows, self._codec, self._facts.was_asked, self._reclass_step)
        self._tags = Tags(rows)
        self._site_numbers = SiteNumbers()
        self._lives = Lives()
        self._journals: dict[PartitionId, Journal] = {}
        self._streams: dict[StreamId, Stream] = {}
        self._closed: set[tuple[Site, str]] = set()
        self._dead_letters = DeadLetters(release)
        self._release = release
        self._odd_records = OddRecords(partitions)
        self._seals = Seals() if seals is None else seals
        self._orders = OrderJudge(self._streams, self._coverage.has)
        self._releases: dict[tuple[Site, str], int] = {}
        self._roles: dict[tuple[Site, str], str] = {}
        self._alive_ms: dict[Site, int] = {}
        self._wanted: frozenset[Number] = frozenset()
        self._where = Whereabouts()

    def hear(
        self,
        place: LogPosition,
        origin: m.Origin,
        message: m.Message | m.PlanOutline,
        content: int,
        leaf: bytes,
        logged_ms: int | None = None,
        release: int | None = None,
    ) -> None:
        """Fold a record that passed the gate.

        `content`: a 64-bit hash of its value, any that is the same all through one audit. `leaf`: the hash of key,
        value and headers together, as trees.py makes it. `logged_ms`: when the log took it; its writer's word where
        that is not known. `release`: of who announces itself; today's where that is not known.
        """
        journal = self._next(place, leaf)
        if journal is None:
            return
        logged_ms = origin.at_ms if logged_ms is None else logged_ms
        stream = self._stream(journal, origin)
        is_new = stream.note(origin.seq, self._codec.number_of(leaf))
        is_first = self._stand(journal, stream, origin.seq, leaf, place.offset)
        if is_new or journal.is_original:
            stream.date(place, origin.at_ms, logged_ms)
            is_original = journal.is_original
            told = self._facts.add(
                place, origin, message, content, logged_ms, is_original=is_original, is_first=is_first
            )
            if told is not None:
                self._verdicts.touch(told[0])
                if isinstance(message, m.ManifestWritten):
                    self._replicas.bring(place, origin.at_ms, content & _CONTENT_MASK, message.manifest, told[1])
            kind = type(message)
            if kind in _BY_PLANES:
                self._lives.saw(origin.site, origin.writer, origin.at_ms)
            elif isinstance(message, _OF_FILES):
                self._replicas.hear(place, origin, message)
            elif isinstance(message, m.SiteAnnounced):
                self._announced(place, origin, message, logged_ms)
                self._releases[message.site, message.incarnation] = self._release if release is None else release
            elif isinstance(message, m.JournalsSealed):
                self._seals.hear(place, message, logged_ms)
            if kind in OF_KEEPING and not self._live:
                assert not isinstance(message, m.PlanOutline)
                self._keeping.hear(place, origin, message, logged_ms, is_first=is_first)
        if journal.is_original:
            journal.date(place, logged_ms)
            self._odd_records.pass_by(place, message)
            if isinstance(message, m.DeadLetter):
                self._dead_letters.bury(place, origin, message)

    def content_of(self, value: bytes | None) -> int:
        """What `hear` and `locate` are told of a record's value: 64 bits that nobody can foresee."""
        return self._codec.content(value)

    def copy(self, place: LogPosition, origin: m.Origin, leaf: bytes) -> bool:
        """Fold a copy of a record heard at another site, without its message; False, and nothing folded, if unknown."""
        journal = self._journal(place)
        if journal.is_original or origin.site != journal.writer:
            return False
        stream = self._stream(journal, origin)
        if not stream.knows(origin.seq, self._codec.number_of(leaf)):
            return False
        if self._next(place, leaf) is not None:
            self._stand(journal, stream, origin.seq, leaf, place.offset)
        return True

    def lose(self, site: Site, topic: str | None = None) -> None:
        """A journal of a site, without `topic` each, is not whole: what was heard counts, the rest is unknown."""
        self._coverage.lose(site, topic)

    def lose_renewed(self, findings: FindingList) -> None:
        """Tell of journals that begin anew: the first record of a copy is not in its original, which has no hole.

        A topic was deleted and made again, or its cluster replaced. What the original lacks is no finding then.
        """
        lacks: dict[tuple[Site, str], tuple[int, set[Site]]] = {}
        for (site, _, partition), copy in sorted(self._journals.items()):
            first, origin = copy.first_stream, copy.writer
            if first is None or copy.is_original or not self._coverage.has(origin, copy.base):
                continue
            if copy.first_seq in first.here(origin) or first.id.site != origin:
                continue
            missing = sum(
                (stream.here(site) - stream.here(origin)).size
                for stream in self._streams.values()
                if (stream.id.site, stream.id.topic, stream.id.partition) == (origin, copy.base, partition)
            )
            count, where = lacks.get((origin, copy.base), (0, set()))
            lacks[origin, copy.base] = max(count, missing), where | {site}
        for (origin, base), (count, where) in sorted(lacks.items()):
            self.lose(origin, base)
            findings.unseen.append(
                f"{base} of {origin} begins anew: {', '.join(sorted(where))} has copies of {count} or more records "
                "that are not in it; was the topic deleted and made again, or the cluster replaced?"
            )

    def refuse(
        self,
        place: LogPosition,
        reason: str,
        at_ms: int,
        origin: m.Origin | None,
        leaf: bytes,
        speaks_for: Site | None = None,
    ) -> None:
        """Fold a record that the gate refused: some worker must have written a dead letter for it.

        `origin`: its own, where legible, so that its number is not missed; `leaf` as in `hear`. `speaks_for`: the
        site in whose name it was written, if that is not its writer's.
        """
        journal = self._next(place, leaf)
        if journal is None:
            return
        journal.refuse(place.offset, reason, at_ms)
        if speaks_for is not None:
            self._odd_records.forged(place, journal.writer, speaks_for, reason)
        if origin is not None and origin.site == journal.writer:
            stream = self._stream(journal, origin)
            journal.stand(stream, origin.seq)
            stream.note(origin.seq, self._codec.number_of(leaf))
            if stream.refused[place.site].add(origin.seq) and origin.seq not in stream.copies[place.site]:
                journal.grow(leaf, place.offset)

    # stop and go on

    def kept(self) -> tuple[Any, ...]:
        """What the ledger knows beside its rows: to be kept, and given to `go_on` of a ledger over the same rows.

        It puts rows that belong to it.
        """
        self._tags.write()
        return (
            *(self._journals, self._streams, self._closed, self._dead_letters, self._odd_records, self._seals),
            *(self._releases, self._roles, self._alive_ms, self._lives.seen),
            *(self._verdicts.touched, self._verdicts.conditions, self._tags.cut),
        )

    def go_on(self, kept: tuple[Any, ...]) -> None:
        """Stand where another ledger stood when this was kept. Nothing has been heard yet."""
        journals, streams, closed, self._dead_letters, self._odd_records, seals, *rest = kept
        self._journals.update(journals)
        self._streams.update(streams)
        self._closed.update(closed)
        self._seals.go_on(seals)
        for stream in self._streams.values():
            stream.go_on(self._tags)
        releases, roles, alive_ms, seen, self._verdicts.touched, self._verdicts.conditions, self._tags.cut = rest
        self._releases.update(releases)
        self._roles.update(roles)
        self._alive_ms.update(alive_ms)
        self._lives.seen.update(seen)

    def hear_a_share(self) -> None:
        """What is heard from now on is to be absorbed by a ledger that stands where this one does."""
        self._dead_letters, self._odd_records = DeadLetters(self._release), OddRecords(self._odd_records.partitions)
        self._verdicts.touched = None if self._verdicts.touched is None else set()

    def absorb(self, kept: tuple[Any, ...], rows: Rows, share: Share) -> None:
        """Know what a ledger over these rows heard of a share of all partitions, and all seals, from where this stood.

        Shares come by their numbers. A journal's streams are in its share; what a writer announced may be in any.
        """
        journals, streams, closed, dead_letters, odd_records, seals, *rest = kept
        releases, roles, alive_ms, seen, touched, _, cut = rest
        for key, row in renumbered(rows, share, self._codec.names):
            self._rows.put(key, row)
        anew = numbering(rows, self._codec.names)
        self._verdicts.absorb(None if touched is None else (anew(one[:4]) + one[4:] for one in touched))
        self._tags.cut = max(self._tags.cut, cut)
        self._journals.update((key, journal) for key, journal in journals.items() if key[2] in share)
        for stream_id, stream in streams.items():
            mine = self._streams.get(stream_id)
            if stream_id.partition in share:
                stream.go_on(self._tags, self._codec.stream(stream_id, stream.writer))
                self._streams[stream_id] = stream
            elif stream.announced is not None:
                mine, stream = stream, mine or self._stream_of(stream_id, stream.writer)
            if mine is not None and mine.announced is not None:
                stream.announce(mine.announced)
        self._closed.update(closed)
        self._keeping.absorbed()
        self._dead_letters.absorb(dead_letters)
        self._odd_records.absorb(odd_records)
        self._seals.absorb(seals, share)
        self._releases.update(releases)
        self._roles.update(roles)
        for site, at_ms in alive_ms.items():
            self._alive_ms[site] = max(at_ms, self._alive_ms.get(site, 0))
        self._lives.absorb(seen)

    def beyond(self) -> Iterator[bytes]:
        """Keys of rows that came from records which this ledger has not heard, and of all verdicts: to be dropped."""
        self._verdicts.touched = None
        ends = {self._codec.partition(*key): journal.next_offset for key, journal in self._journals.items()}
        yield from beyond(self._rows, ends, self._tags.cut)

    def next_offsets(self, site: Site) -> dict[tuple[str, int], int]:
        """Of the partitions that were heard of at a site: where to read on."""
        return {key[1:]: journal.next_offset for key, journal in self._journals.items() if key[0] == site}

    def is_as_read(self, place: LogPosition, leaf: bytes) -> bool:
        """Of the last record that was heard of a partition: whether this, in its place, is the same."""
        journal = self._journals[place[:3]]
        return place.offset != journal.next_offset - 1 or journal.leaf == leaf

    def trees(self, site: Site) -> dict[JournalId, JournalTree]:
        """Of the journals and copies that were heard of at a site."""
        return {
            JournalId(journal.writer, journal.base, journal.partition): journal.tree
            for key, journal in self._journals.items()
            if key[0] == site
        }

    def traffic(self, last_day: int, days: int) -> Traffic:
        """What arrived on these days (of the epoch), the last of them `last_day`."""
        rows = (claims_of(intent, facts, self._site_numbers) for _, intent, facts in self._facts.all())
        return traffic_of(rows, last_day, days)

    @property
    def sealed_ms(self) -> dict[Site, int]:
        """When each site sealed last, by its own clock."""
        return self._seals.last_ms

    @property
    def partitions_heard(self) -> int:
        """Of all sites."""
        return len(self._journals)

    def watches(self, place: LogPosition) -> bool:
        """Whether `locate` is to hear also what is written there later."""
        return self._dead_letters.watches(place[:3])

    @property
    def must_look_up(self) -> bool:
        """Whether a judgement leaves out what only a second reading shows."""
        return self._dead_letters.unlooked(self._journals)

    @property
    def records(self) -> int:
        """How many were heard."""
        return sum(journal.records for journal in self._journals.values())

    def wanted(self) -> Mapping[PartitionId, set[Number]]:
        """Partitions to read once more, and the numbers to `locate` there; empty when nothing is amiss."""
        gaps = list(self._copies.gaps(self._streams, self._closed))
        found, self._where = wanted(gaps, self._streams, self._last()), Whereabouts()
        self._wanted = frozenset(number for numbers in found.values() for number in numbers)
        for partition in (
            *self._orders.asked(self._journals),
            *self._dead_letters.asked(self._journals),
            *self._replicas.asked(self._coverage.read),
            *(() if self._live else self._keeping.asked()),
        ):
            found.setdefault(partition, set())
        return found

    def locate(
        self, place: LogPosition, origin: m.Origin, content: int, message: Callable[[], m.Message | None]
    ) -> None:
        """Tell where a record stands, in each partition in order; what is not wanted is ignored.

        `content` as in `hear`; `message` gives the record, None if the gate refuses it.
        """
        self._dead_letters.locate(place, content, message)
        self._replicas.locate(place, message)
        self._keeping.locate(place, message)
        writer, base = split(place.topic)
        stream = StreamId(origin.site, origin.incarnation, base, place.partition)
        if origin.site == (writer or place.site):
            self._orders.locate(place, stream, origin.seq)
        if (stream, origin.seq) in self._wanted:
            self._where.add(stream, origin.seq, place, origin.at_ms)

    def roots(self) -> list[JournalRoot]:
        """Of each journal, by its original where that was read, else by its longest copy."""
        best: dict[JournalId, Journal] = {}
        for _, journal in sorted(self._journals.items()):
            name = JournalId(journal.writer, journal.base, journal.partition)
            known = best.get(name)
            longer = known is not None and not known.is_original and journal.tree.size > known.tree.size
            if journal.tree.size and (known is None or journal.is_original or longer):
                best[name] = journal
        return [JournalRoot(name, one.tree.size, one.tree.root.hex()) for name, one in sorted(best.items())]

    def judge(
        self,
        now_ms: int,
        *,
        committed: Mapping[PartitionId, int] | None = None,
        staleness: Staleness | None = None,
        findings: FindingList | None = None,
        lengths: bool = True,
    ) -> Judgement:
        """`now_ms`: when reading began. `committed`: offsets of the workers' groups, where known.

        `staleness`: of open intents without news. `findings`: holds what was found elsewhere, such as on disk.
        Without `lengths` nothing is said of journals that are shorter than sealed: they were not read to their ends.
        """
        findings = FindingList(now_ms) if findings is None else findings
        reached = Reached(committed or {}, self._alive_ms, findings.latest_ms)
        whole = self._coverage.whole
        for site in sorted(self._sites - whole):
            for invariant in (Invariant.CONSERVATION, Invariant.NOT_SILENT, Invariant.NO_GAP):
                how = "not read whole" if site in self._coverage.read else "not read"
                findings.cannot(invariant, f"journals of {site}: {how}")
        staleness = staleness or Staleness()
        part = FindingList(findings.began_ms, findings.ended_ms, findings.moment)
        links = LinkJudge(self._sites, whole, self._site_numbers, self._lives, self._came_otherwise, part)
        intents = IntentJudge(self._sites, whole, reached, part, now_ms, staleness, links)
        conditions = tuple(sorted(whole))
        counts = self._verdicts.judge(intents, part, findings, conditions, self._reclass, self._site_numbers)
        if not self._live:
            self._keeping.judge(self._sites, self._coverage.has, now_ms, staleness, findings)
        partitions = self._judge_journals(intents.contradicting, reached, findings)
        self._dead_letters.judge(self._journals, self._claims_of, self._releases, now_ms - GRACE_MS, findings)
        self._replicas.judge(whole, self._roles, findings)
        judge_clocks(self._streams.values(), self._journals.values(), findings)
        self._odd_records.judge(self._coverage.read, findings)
        self._judge_streams(now_ms, findings)
        latest, young_ms = self._latest(), now_ms - GRACE_MS
        self._seals.judge(self._sites, self._coverage.has, latest, young_ms, findings, lengths=lengths)
        return findings.close(partitions, counts)

    def _claims_of(self, intent: IntentId) -> IntentClaims:
        return claims_of(intent, self._facts.of(intent), self._site_numbers)

    def _reclass(self, intent: IntentId, facts: list[Fact]) -> None:
        """Originals that did not change anything when they came."""
        for fact, how in not_applied(facts):
            incarnation, _ = self._codec.life_of(fact.life)
            if fact.is_first:
                self._journals[fact.place[:3]].streams[incarnation].classify(fact.seq, how)
            if fact.kind is Kind.PROGRESS and how is Class.SUPERSEDED:
                source_no, no, _, attempt, *_ = fact.words
                self._odd_records.late(fact.place, attempt, ManifestId.of(intent, source_no, no))

    def _reclass_step(self, fact: KeepingFact, how: Class) -> None:
        incarnation, _ = self._codec.life_of(fact.life)
        self._journals[fact.place[:3]].streams[incarnation].classify(fact.seq, how)

    def _came_otherwise(self, site: Site, name: int, manifest: ManifestId) -> bool:
        """Whether the site has a file of this name (a hash) by another record than those of the transfer."""
        if self._replicas.has(site, name, manifest):
            return True
        return sum(self._is_sealed(other, item, site) for other, item in self._replicas.bringing(name)) > 1

    def _is_sealed(self, manifest: ManifestId, item: int, site: Site) -> bool:
        """Whether a transfer says that an item of this manifest is sealed at the site, or was found there."""
        row = self._claims_of(manifest.intent).manifests.get((manifest.source_no, manifest.no))
        return row is not None and site in row.transfers and item in row.transfers[site].evidence

    def _judge_journals(
        self, contradicting: Mapping[LogPosition, RefusedRecord], reached: Reached, findings: FindingList
    ) -> tuple[PartitionCount, ...]:
        owed: dict[PartitionId, dict[int, RefusedRecord]] = {}
        for place, refused in contradicting.items():
            owed.setdefault(place[:3], {})[place.offset] = refused
        return tuple(
            judge_journal(journal, self._dead_letters.of(key), owed.get(key, {}), reached, findings)
            for key, journal in sorted(self._journals.items())
            if not self._live or journal.refused.size or key in owed
        )

    def _judge_streams(self, now_ms: int, findings: FindingList) -> None:
        if not self._live:
            self._copies.count(self._streams, self._closed, findings)
        judge = GapJudge(self._streams, self._where, self._last(), self._coverage.read, now_ms - GRACE_MS, findings)
        for gap in self._copies.gaps(self._streams, self._closed):
            judge.judge(gap)
        for _, stream in sorted(self._streams.items()):
            judge_conflicts(stream, self._where, findings)
        self._orders.judge(self._journals, findings)

    def _announced(self, place: LogPosition, origin: m.Origin, message: m.SiteAnnounced, logged_ms: int) -> None:
        self._roles[message.site, message.incarnation] = message.role
        if message.role == "plane":
            self._lives.saw(message.site, message.writer, origin.at_ms)
        if message.role == "worker":  # somebody reads the journals of this site
            self._alive_ms[origin.site] = max(logged_ms, self._alive_ms.get(origin.site, 0))
        for last in message.sequences:
            stream_id = StreamId(message.site, message.incarnation, last.topic, last.partition)
            stream = self._stream_of(stream_id, message.writer)
            stream.announce(LastAnnounced(last.seq, origin.at_ms, place))
        if message.closing:
            self._closed.add((message.site, message.incarnation))

    def _latest(self) -> dict[Site, ClockReading]:
        """When the log of each site took the last record of its own journals, but for its seals."""
        found: dict[Site, ClockReading] = {}
        for _, journal in sorted(self._journals.items()):
            dated = journal.dated if journal.is_original and journal.base != SEALS else None
            if dated is not None and (journal.site not in found or dated.at_ms > found[journal.site].at_ms):
                found[journal.site] = dated
        return found

    def _last(self) -> dict[PartitionId, Number]:
        """The last record of every mirrored partition."""
        return {key: last for key, journal in self._journals.items() if (last := journal.last) is not None}

    def _stand(self, journal: Journal, stream: Stream, seq: int, leaf: bytes, offset: int) -> bool:
        """Enter that the number stands in this partition; whether it did not before."""
        journal.stand(stream, seq)
        if stream.copies[journal.site].add(seq):
            if stream.id.site == journal.writer and not (stream.refused and seq in stream.refused[journal.site]):
                journal.grow(leaf, offset)
            return True
        journal.repeats += 1
        return False

    def _journal(self, place: LogPosition) -> Journal:
        key = place[:3]
        found = self._journals.get(key)
        if found is None:
            writer, base = split(place.topic)
            writer = writer or place.site
            found = self._journals[key] = Journal(*key, writer, base, tree=self._tree())
            if base != SEALS and not is_chunks(base):
                found.walk = self._seals.walk(place.site, JournalId(found.writer, base, place.partition), found.tree)
        return found

    def _next(self, place: LogPosition, leaf: bytes) -> Journal | None:
        """The record's journal, or None if it was folded already: partitions are read in order."""
        journal = self._journals.get(place[:3]) or self._journal(place)
        if place.offset < journal.next_offset:
            return None
        journal.next_offset, journal.leaf = place.offset + 1, leaf
        journal.records += 1
        return journal

    def _stream(self, journal: Journal, origin: m.Origin) -> Stream:
        stream = journal.streams.get(origin.incarnation)
        if stream is None:
            stream_id = StreamId(origin.site, origin.incarnation, journal.base, journal.partition)
            stream = journal.streams[origin.incarnation] = self._stream_of(stream_id, origin.writer)
        return stream

    def _stream_of(self, stream_id: StreamId, writer: str) -> Stream:
        if stream_id not in self._streams:
            name = self._codec.stream(stream_id, writer)
            self._streams[stream_id] = Stream(stream_id, writer, self._tags, name)
        return self._streams[stream_id]
