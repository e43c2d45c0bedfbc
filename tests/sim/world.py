"""N sites over a mirror that repeats, delays and reorders between topics; every part may crash between any two steps.

Dispatcher, turns, scheduler, effects, gate and core are the product's own, and so is what the source of an open intent
looks for; the broker, mirror, catalogue, disk and the rest of the plane are models. One `random.Random(seed)` decides
everything, so a seed is a case.
"""

from __future__ import annotations

import random
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from keeping import SimView

from agents.families import intent_topics, request_topics, transfer_topics
from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.channel import DOOR, LOG, URLS
from streams.core.commands import WriteManifests
from streams.core.intent import IntentRow
from streams.core.manifest import Manifest, digest
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, ManifestId, Site, Text
from streams.core.policy import Policy
from streams.core.ranges import EMPTY, Ranges
from streams.core.routing import Holders, decide
from streams.core.selections import parts
from streams.core.selectors import Kind, Selector
from streams.core.transfer import TransferRow, merge_failed
from streams.errors import Temporary
from streams.planes import orders
from streams.planes.inventory.open_intents import OpenIntents
from streams.views.catalogue import CatalogueFile, Replica
from streams.worker import rows
from streams.worker.dispatcher import Dispatcher
from streams.worker.effects import Effects
from streams.worker.keeping import KeepingTasks
from streams.worker.landing_claims import LandingClaimTasks
from streams.worker.scheduler import SLICE_S, Scheduler
from streams.worker.turn import Turns, intent_of

PARTITIONS = 2
POLICY = Policy(
    settle_s=2.0,
    lease_s=5.0,
    source_retry_s=3.0,
    request_bytes=600,
    requests_in_flight=2,
    credit_bytes=1500,
    report_s=2.0,
    plans_open_max=2,
    manifest_bytes=2000,
    undecided_s=10.0,
    look_s=0.5,
    renew_s=2.0,
    door_bytes_min=300,
    door_request_bytes=900,
    door_credit_bytes=1800,
    door_rest_s=2.0,
    door_rest_max_s=30.0,
)
LINK_TOOL = "copy"
GROWING = Dataset("/Sim/Growing/RAW")
"""What open intents ask for; the others' files are in another."""


DIFFERS = m.Reason(m.Scope.SOURCE, m.FailureClass.DATA_BAD, "seal", Text("checksum differs"))
AWAY = m.Reason(m.Scope.SOURCE, m.FailureClass.TRANSIENT, "read", Text("the store is away"))


class Crash(BaseException):
    """The process ended here."""


@dataclass(frozen=True, slots=True)
class Record:
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass
class File:
    lfn: Lfn
    size: int
    adler32: Adler32
    version: str = "1:1:1"


def became(item: m.Item) -> File:
    """The file an item lands as: what the manifest says or, of entries, what only who lands them knows."""
    if item.adler32 is not None:
        return File(item.target, item.bytes, item.adler32)
    return File(item.target, 3 * item.length + 7, Adler32(f"{zlib.adler32(item.target.encode()):08x}"))


@dataclass(slots=True)
class Flow:
    """One partition of a topic and its copy at another site."""

    source: list[Any]
    copy: list[Any]
    copied: int = 0


@dataclass
class World:
    """Everything outside the product: time, chance, logs, disks. `faults` may be switched off to heal."""

    seed: int
    names: tuple[Site, ...]
    faults: bool = True
    stale: bool = True
    now_ms: int = 1_000_000
    approving: frozenset[Site] = frozenset()
    """Sites that let people decide on what is asked of them."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.files: dict[Site, dict[Lfn, File]] = {name: {} for name in self.names}
        """What is on each disk under its final name."""
        self.listed: dict[tuple[Site, Lfn], File] = {}
        """What the catalogue says is there."""
        self.spoilt: set[tuple[Site, Lfn]] = set()
        """Copies whose bytes are not the file's."""
        self.lacked: set[tuple[Site, Lfn]] = set()
        """What a site never had, or had spoilt, when it was registered."""
        self.logs: dict[tuple[Site, str, int], list[Record]] = defaultdict(list)
        self.payload: dict[tuple[Site, str, int], list[m.ChunkHeader | m.ChunksOffered | m.UrlsOffered]]
        self.payload = defaultdict(list)
        self.registered: dict[tuple[Site, str, int], int] = defaultdict(int)
        """The next number of who registers files."""
        self.at_close: dict[IntentId, frozenset[Lfn]] = {}
        """What was listed when an open intent was asked to take no more."""
        self.asked: dict[IntentId, m.TransferIntent] = {}
        self.doors = frozenset(name for name in self.names if self.rng.random() < 0.75)
        """Sites that have a door."""
        named = random.Random(f"{self.seed} other makes")
        self.foreign = frozenset(name for name in sorted(self.doors) if named.random() < 0.15)
        """Of these, whose doors are of another make."""
        linked = random.Random(f"{self.seed} tools")
        self.tools = {
            here: {there: LINK_TOOL for there in self.names if there != here and linked.random() < 0.6}
            for here in self.names
        }
        """Tools on the links of each site, by the other end."""
        self.landings: dict[tuple[Site, Lfn], int] = defaultdict(int)
        """How often a file was put under its name: its version."""
        self.fetched = self.repaired = self.relayed = self.brought = self.removed = self.moved = self.by_url = 0
        """Offers and requests of which something came."""
        self.sites = {name: SimSite(self, name) for name in self.names}
        self._us = 0
        self.readers: list[Beside] = []
        """Processes beside the sites' workers: each crashes and begins again by itself."""

    def clock_us(self) -> int:
        """The time in microseconds, in none of which two parts look at it."""
        self._us = max(self._us + 1, self.now_ms * 1000)
        return self._us

    def policy(self, site: Site) -> Policy:
        return replace(POLICY, approvers="sim") if site in self.approving else POLICY

    def version(self, site: Site, lfn: Lfn) -> str:
        return f"v{self.landings[site, lfn]}"

    def chance(self, probability: float) -> bool:
        return self.faults and self.rng.random() < probability

    def fuse(self) -> None:
        """May blow at any effect, put or send."""
        if self.chance(0.004):
            raise Crash

    def register(self, site: Site, file: File, *, on_disk: bool = True, spoilt: bool = False) -> None:
        """A copy that a site says it has; `on_disk`: whether it has one, `spoilt`: whether its bytes are others."""
        self.listed[site, file.lfn] = file
        self._say_held(site, file)
        if on_disk:
            self.files[site][file.lfn] = file
            self.landings[site, file.lfn] += 1
        if spoilt and file.size and on_disk:
            self.spoilt.add((site, file.lfn))
        if file.lfn not in self.files[site] or (site, file.lfn) in self.spoilt:
            self.lacked.add((site, file.lfn))

    def _say_held(self, site: Site, file: File) -> None:
        """As who registers it does, who is no part of the site's workers."""
        block = block_of(file.lfn)
        said = m.FilesHeld(block.dataset, site, (m.HeldFile(file.lfn, block, file.size, file.adler32, file.version),))
        framed = wire.framed(said)
        place = site, framed.topic, topics.partition_of(framed.key, PARTITIONS)
        origin = m.Origin(site, "register", f"register-{site}", self.registered[place], self.now_ms)
        self.registered[place] += 1
        self.logs[place].append(Record(framed.key, framed.value, tuple(wire.headers(framed.cls, origin))))

    @property
    def whole(self) -> dict[Lfn, set[Site]]:
        """Which sites had a whole copy of a file when it was registered."""
        found: dict[Lfn, set[Site]] = defaultdict(set)
        for site, lfn in self.listed:
            if (site, lfn) not in self.lacked:
                found[lfn].add(site)
        return found

    @cached_property
    def flows(self) -> list[Flow]:
        return [
            Flow(self._log(a, name, p), self._log(b, topics.remote(a, name), p))
            for a in self.names
            for b in self.names
            if a != b
            for name in topics.mirrored(b)
            for p in range(PARTITIONS)
        ]

    def _log(self, site: Site, name: str, partition: int) -> list[Any]:
        return (self.payload if "chunks-to-" in name else self.logs)[site, name, partition]

    def mirror_step(self) -> bool:
        """Copies some records of one flow, perhaps again, perhaps none."""
        behind = [flow for flow in self.flows if flow.copied < len(flow.source)]
        if not behind:
            return False
        flow = self.rng.choice(behind)
        at = flow.copied
        if self.chance(0.05):  # killed before its offsets were flushed: everything since is sent again
            at = max(0, at - self.rng.randrange(1, 6))
        stop = min(len(flow.source), at + self.rng.randrange(1, 8))
        flow.copy.extend(flow.source[at:stop])
        flow.copied = stop
        return True

    def step(self) -> None:
        """One random thing happens."""
        choice = self.rng.random()
        if choice < 0.30:
            self.mirror_step()
        elif self.readers and self.rng.random() < 0.5:
            self.rng.choice(self.readers).step()
        else:
            site = self.sites[self.rng.choice(self.names)]
            try:
                site.step(choice)
            except Crash:
                site.crash()
        self.now_ms += self.rng.choice((0, 1, 5, 20, 100))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def settle(self, rounds: int) -> bool:
        """Heals every fault, then lets things run until nothing is open; False when that does not come."""
        self.faults = False
        for _ in range(rounds):
            moved = self.mirror_step()
            for site in self.sites.values():
                moved |= site.work()
            for reader in self.readers:
                moved |= reader.work()
            if not moved:
                if all(part.idle() for part in (*self.sites.values(), *self.readers)):
                    return True
                self.now_ms += 500
        return False


class Beside(Protocol):
    """What lives beside the sites' workers."""

    def step(self) -> None:
        """One random thing, perhaps its last."""

    def work(self) -> bool:
        """Everything there is to do now, without faults; whether there was anything."""

    def idle(self) -> bool:
        """Whether all that it is for is done."""


class Store:
    """One table as dict; keeps old versions, so that a take-over may find an older one."""

    def __init__(self, world: World, owner_of: Callable[[str], str] = str) -> None:
        self.world = world
        self.owner_of = owner_of
        """Whose partition a key lies in: every key must tell."""
        self.rows: dict[str, bytes] = {}
        self.safe: dict[str, bytes] = {}
        self.old: dict[str, list[bytes | None]] = defaultdict(list)

    def get(self, key: str) -> bytes | None:
        self.owner_of(key)
        return self.rows.get(key)

    def put(self, key: str, row: bytes) -> None:
        self.owner_of(key)
        self.world.fuse()
        self.old[key].append(self.rows.get(key))
        self.rows[key] = row

    def delete(self, key: str) -> None:
        self.world.fuse()
        self.rows.pop(key, None)

    def keys(self, partition: int, prefix: str) -> Iterator[str]:
        of = (k for k in self.rows if topics.partition_of(self.owner_of(k), PARTITIONS) == partition)
        yield from sorted(key for key in of if key.startswith(prefix))

    def commit(self) -> None:
        """Offsets are committed only behind the changelog: older versions than these are heard again."""
        self.safe = dict(self.rows)

    def fall_back(self, *, zombie: bool) -> None:
        """Some rows are what they were at the last commit or, after a zombie's put, what they were any time before.

        A row and what else stands under its name (its entry among the open ones, a manifest's index) fall back to one
        moment: they are in one partition of one changelog. A zombie puts the row alone, having put its entry long ago.
        """
        for key, versions in list(self.old.items()):
            if key != rows.owner_of(key) or self.world.rng.random() >= 0.3:
                continue
            older = {name: self.safe.get(name) for name in (key, rows.open_key(key), f"{key}{rows.INDEX}")}
            if zombie and versions:
                older = {key: versions[-self.world.rng.randrange(1, min(4, len(versions)) + 1)]}
            for name, row in older.items():
                if row is None:
                    self.rows.pop(name, None)
                else:
                    self.rows[name] = row


class SimPublisher:
    """The publish gate with a buffer: a crash may lose what was not sent yet."""

    def __init__(self, site: SimSite, writer: str) -> None:
        self.site, self.writer, self.incarnation = site, writer, f"{site.world.rng.getrandbits(64):016x}"
        self.seq: dict[tuple[str, int], int] = defaultdict(int)
        self.waiting: list[tuple[str, int, Record, Callable[[Exception | None], None] | None]] = []

    def send(self, message: m.Message | wire.Framed, on_ack: Callable[[Exception | None], None] | None = None) -> None:
        world = self.site.world
        world.fuse()
        if world.chance(0.01):
            raise Temporary("buffer full")
        framed = message if isinstance(message, wire.Framed) else wire.framed(message)
        name, partition = framed.topic, topics.partition_of(framed.key, PARTITIONS)
        origin = m.Origin(self.site.name, self.writer, self.incarnation, self.seq[name, partition], world.now_ms)
        self.seq[name, partition] += 1
        record = Record(framed.key, framed.value, tuple(wire.headers(framed.cls, origin)))
        self.waiting.append((name, partition, record, on_ack))

    def flush(self, count: int | None = None) -> bool:
        sent = len(self.waiting[:count])
        for _ in range(sent):  # one by one: an acknowledgement may end the process, and what is behind may still go
            name, partition, record, on_ack = self.waiting.pop(0)
            self.site.world.logs[self.site.name, name, partition].append(record)
            if on_ack is not None:
                on_ack(None)
        return bool(sent)


@dataclass
class Part:
    manifest: Manifest
    attempt: int
    synced: Ranges = EMPTY
    written: Ranges = EMPTY
    sealed: Ranges = EMPTY
    failed: tuple[m.FailedItems, ...] = ()
    """Of every progress, not only the first: a lost report is healed by the next."""
    resumed: Ranges = EMPTY
    """What an earlier process brought: of whom is not known."""
    spoilt: Ranges = EMPTY
    """Bytes of spoilt copies, and what flipped."""
    seed: Ranges = EMPTY
    """What the attempt before had written where data were wrong, or a damaged file has, but what of it is wrong."""
    repair: bool = False
    adopted: Ranges = EMPTY
    summed: dict[tuple[int, Site], Ranges] = field(default_factory=lambda: defaultdict(Ranges))
    """Of items that had a seed: of what their sources said sums."""
    givers: dict[int, dict[tuple[Site, str], int]] = field(default_factory=lambda: defaultdict(dict))

    def take(
        self, spoilt: set[tuple[Site, Lfn]], source: Site, plane: str, number: int, came: Ranges, flipped: int = -1
    ) -> None:
        """What comes of a source, an item of it with a bit flipped on its way; what is there is not written again."""
        line, new = self.manifest.line, came - self.written
        self.written = self.written | new
        for n in line.items_in(new):
            self.givers[n][source, plane] = number
            of_item, differs = new & Ranges([line.span(n)]), (source, self.manifest.items[n].lfn) in spoilt
            if plane == DOOR and self.seed & Ranges([line.span(n)]):
                self.summed[n, source] = self.summed[n, source] | of_item
                right = EMPTY if differs else of_item & self.seed
                self.adopted, of_item = self.adopted | right, of_item - right
            if n == flipped or differs:
                self.spoilt = self.spoilt | of_item

    @property
    def said(self) -> tuple[m.FailedItems, ...]:
        left = (m.FailedItems(group.items - self.sealed, group.reason) for group in self.failed)
        return tuple(group for group in left if group.items)

    @property
    def bad(self) -> Ranges:
        return Ranges(span for group in self.failed for span in group.items)


class SimPlane:
    """Both halves of a plane over a modelled disk: `disk` and `parts_on_disk` survive a crash, the rest does not."""

    def __init__(self, site: SimSite) -> None:
        self.site = site
        self.incarnations = 0
        self.restart()

    def restart(self) -> None:
        self.incarnations += 1
        self.writer = f"plane-0-{self.incarnations}"
        self.publisher = SimPublisher(self.site, self.writer)
        self.queue: list[orders.Order] = []
        self.parts: dict[ManifestId, Part] = {}
        self.positions: dict[tuple[str, int], int] = {}
        self.served: set[tuple[object, ...]] = set()
        self.tickets: dict[str, m.ChunksRequested] = {}
        self.stopped: set[ManifestId] = set()
        self.served_to_tell: list[m.ChunksServed] = []
        self.waiting: list[m.ChunksOffered] = []
        """Of relays that have not all of it yet."""
        self.bringing: list[orders.Bring] = []
        """What tools are at work on."""
        world = self.site.world
        self.growing = OpenIntents(
            self.site.name,
            POLICY,
            SimCutting(self.site),
            lambda: SimListing(self.site),
            self.publisher.send,  # of a chain nothing follows what was dropped
            self.site.own_manifests,
            lambda: world.now_ms / 1000,
            lambda: world.now_ms,
        )

    def tell(self, order: orders.Order) -> bool:
        self.site.world.fuse()
        self.queue.append(order)
        return True

    def step(self) -> bool:
        try:
            if self.served_to_tell:  # waits for room, as the plane does
                self.publisher.send(self.served_to_tell[0])
                self.served_to_tell.pop(0)
                return True
            if self.queue:
                self._obey(self.queue.pop(0))
                return True
            if self.growing.idle_s() == 0 and (self.growing.look() or self.growing.idle_s() == 0):
                return True
            if self.bringing and self.site.world.rng.random() < 0.5:
                return self._bring(self.bringing.pop(0))
            return self._read() or (bool(self.bringing) and self._bring(self.bringing.pop(0)))
        except Temporary:
            return True  # its buffer was full: the fact is lost, and owed again

    def _publish(self, message: m.Message) -> None:
        """As the plane does: what has no room is dropped."""
        with suppress(Temporary):
            self.publisher.send(message)

    def _obey(self, order: orders.Order) -> None:
        match order:
            case orders.Assign(partitions):
                names = [topics.chunks_to(self.site.name)]
                names += [topics.remote(p, names[0]) for p in self.site.peers]
                world = self.site.world
                for name in names:
                    for p, since in partitions.items():
                        end = len(world.payload[self.site.name, name, p])
                        start = end if since is None else max(0, end - 40)
                        self.positions.setdefault((name, p), start)
                for place in [k for k in self.positions if k[1] not in partitions]:
                    del self.positions[place]
            case orders.Open():
                self._open(order)
            case orders.Stop(manifest, attempt, reason):
                self.parts.pop(manifest, None)
                self.site.parts_on_disk.pop((manifest, attempt), None)
                self.publisher.send(m.PartLost(manifest, attempt, reason))
            case orders.Forget(manifest):
                self.parts.pop(manifest, None)
            case orders.Fail(manifest, failed):
                if (part := self.parts.get(manifest)) is not None:
                    left = (m.FailedItems(group.items - part.sealed - part.bad, group.reason) for group in failed)
                    part.failed = merge_failed(part.failed, (group for group in left if group.items))
                    self._seal(manifest, part)
            case orders.Serve(request):
                self._serve(request)
            case orders.Bring():
                if order not in self.bringing:
                    self.bringing.append(order)
            case orders.Write(command):
                self._write(command)
            case orders.Check():
                self._check(order)
            case orders.Remove():
                self._remove(order)

    def _check(self, order: orders.Check) -> None:
        world, here = self.site.world, self.site.name
        found, seen, missing = list[m.CheckedFile](), list[m.SeenFile](), list[m.KeptFile]()
        for lfn in order.lfns:
            file, version = world.files[here].get(lfn), world.version(here, lfn)
            if file is None:
                missing.append(m.KeptFile(lfn, Text("no such file")))
            elif not order.read_back:
                seen.append(m.SeenFile(lfn, file.size, version))
            else:
                adler32 = Adler32("deadbeef") if (here, lfn) in world.spoilt else file.adler32
                found.append(m.CheckedFile(lfn, file.size, adler32, version))
        ask = (order.asker, order.ask_no, order.ask_sha256, order.noted_no)
        self._publish(m.ReplicasChecked(here, order.dataset, *ask, tuple(found), tuple(missing), tuple(seen)))

    def _remove(self, order: orders.Remove) -> None:
        """A crash may leave some deleted and nothing said."""
        world, here = self.site.world, self.site.name
        for removal in order.removals:
            world.fuse()
            if removal.lfn in world.files[here] and world.version(here, removal.lfn) == removal.version:
                del world.files[here][removal.lfn]
                world.spoilt.discard((here, removal.lfn))
                world.removed += 1
        world.fuse()
        why = m.Reason(m.Scope.POLICY, m.FailureClass.PERMANENT, "remove", order.reason)
        lfns = tuple(removal.lfn for removal in order.removals)
        taken = tuple(m.TakenWords(removal.words) for removal in order.removals)
        self._publish(m.FilesLost(order.dataset, here, lfns, why, "", taken, order.removals[0].sha256))

    def _open(self, order: orders.Open) -> None:
        manifest = Manifest(wire.decode_stored(m.ManifestWritten, order.manifest))
        key = order.manifest_id
        part = self.parts.get(key)
        if part is None or part.attempt < order.attempt:
            on_disk = self.site.parts_on_disk.get((key, order.attempt))
            claimed = order.verified - manifest.line.ranges_of(order.sealed | order.failed)
            if claimed and (on_disk is None or self.site.world.chance(0.02)):
                self.site.parts_on_disk.pop((key, order.attempt), None)
                why = m.Reason(m.Scope.DESTINATION, m.FailureClass.TRANSIENT, "open", Text("part file gone"))
                self.publisher.send(m.PartLost(key, order.attempt, why))
                return
            part = self.parts[key] = Part(manifest, order.attempt, resumed=order.verified, repair=order.repair)
            if not order.verified:
                part.seed = self.site.seeds_on_disk.pop((key, order.attempt), EMPTY)
            part.spoilt = self.site.spoilt_on_disk.get((key, order.attempt), EMPTY) & order.verified
            self.site.parts_on_disk.setdefault((key, order.attempt), EMPTY)
        part.sealed = part.sealed | order.removed
        part.failed = merge_failed(part.failed, self._present(part), order.refused)
        # What is there is told as verified too, as LandingProgress.found does: PartOpened may be lost.
        there = manifest.line.ranges_of(part.sealed)
        part.synced = part.written = part.synced | order.verified | there
        told = self._landed(part)
        self.publisher.send(m.PartOpened(key, part.attempt, "default", part.sealed, part.said, told))
        self._seal(key, part)

    def _present(self, part: Part) -> tuple[m.FailedItems, ...]:
        other = EMPTY
        for n, item in enumerate(part.manifest.items):
            there = self.site.world.files[self.site.name].get(item.target)
            if there is None or item.reason is not None:
                continue
            spoilt = (self.site.name, item.target) in self.site.world.spoilt
            if there == became(item) and not spoilt:
                part.sealed = part.sealed | Ranges.of(n)
            elif part.repair and there == became(item):
                start, stop = part.manifest.line.span(n)
                part.seed = part.seed | Ranges([(start, (start + stop) // 2)])
            else:
                other = other | Ranges.of(n)
        why = m.Reason(m.Scope.DESTINATION, m.FailureClass.PERMANENT, "seal", Text("another file is there"))
        return (m.FailedItems(other, why),) if other else ()

    def _seal(self, key: ManifestId, part: Part) -> None:
        line, world = part.manifest.line, self.site.world
        wrong: list[int] = []
        for n, item in enumerate(part.manifest.items):
            if n in part.sealed or n in part.bad or item.reason is not None or not part.synced.covers(*line.span(n)):
                continue
            world.fuse()
            if part.spoilt & Ranges([line.span(n)]):
                wrong.append(n)
                continue
            if item.target not in world.files[self.site.name]:
                world.landings[self.site.name, item.target] += 1
            assert world.files[self.site.name].setdefault(item.target, became(item)) == became(item)
            part.sealed = part.sealed | Ranges.of(n)
            if part.repair:
                world.repaired += (self.site.name, item.target) in world.spoilt
                if (self.site.name, item.target) in world.spoilt:
                    world.landings[self.site.name, item.target] += 1
                world.spoilt.discard((self.site.name, item.target))
        self.publisher.send(
            m.TransferProgress(
                key,
                self.site.name,
                part.attempt,
                "default",
                part.synced,
                part.sealed,
                part.said,
                self._landed(part),
                part.adopted & part.synced,
            )
        )
        if wrong:
            self._wrong(key, part, wrong)

    def _wrong(self, key: ManifestId, part: Part, wrong: list[int]) -> None:
        """Items that were not the file: they fail where nothing can bring them, else their givers are told of."""
        again = [n for n in wrong if self._may_come_again(part, n)]
        alone = Ranges.of(*(n for n in wrong if n not in again))
        part.failed = merge_failed(part.failed, [m.FailedItems(alone, DIFFERS)] if alone else [])
        if not again:
            self._seal(key, part)
            return
        for n in again:
            span = part.manifest.line.span(n)
            differ = {s for s, _ in part.givers[n] if self._copy_differs(part, n, s)}
            resumed = bool(part.resumed & Ranges([span]))
            checked = not resumed and [plane for _, plane in part.givers[n]] == [LOG]
            for (source, plane), number in part.givers[n].items():
                if source not in differ and (differ or resumed):
                    continue
                sure = checked or source in differ
                why = DIFFERS if sure else replace(DIFFERS, failure_class=m.FailureClass.TRANSIENT)
                now_ms = self.site.world.now_ms
                self._publish(m.SourceFailed(key, source, number, plane, Ranges.of(n), why, now_ms))
        self.parts.pop(key)
        self.site.parts_on_disk.pop((key, part.attempt), None)
        if not self.site.world.chance(0.2):
            self.site.seeds_on_disk[key, part.attempt + 1] = part.written - part.spoilt
        self._publish(m.PartLost(key, part.attempt, DIFFERS))

    def _copy_differs(self, part: Part, n: int, source: Site) -> bool:
        """Whether by its own sums a source's copy is not the file."""
        spoilt = (source, part.manifest.items[n].lfn) in self.site.world.spoilt
        return spoilt and part.summed[n, source].covers(*part.manifest.line.span(n))

    def _may_come_again(self, part: Part, n: int) -> bool:
        unknown = bool(part.resumed & Ranges([part.manifest.line.span(n)]))
        return unknown or bool(part.manifest.items[n].others) or DOOR in {plane for _, plane in part.givers[n]}

    def _landed(self, part: Part) -> tuple[m.Landed, ...]:
        if part.manifest.body.unit is m.Unit.BYTES:
            return ()
        files = self.site.world.files[self.site.name]
        there = ((n, files[part.manifest.items[n].target]) for n in part.sealed.numbers())
        return tuple(m.Landed(n, file.size, file.adler32) for n, file in there)

    def _read(self) -> bool:
        world = self.site.world
        behind = [k for k, at in self.positions.items() if at < len(world.payload[self.site.name, k[0], k[1]])]
        if self.waiting and (not behind or world.rng.random() < 0.2):
            return self._ask_again(self.waiting.pop(0))
        if not behind:
            return False
        place = world.rng.choice(behind)
        header = world.payload[self.site.name, place[0], place[1]][self.positions[place]]
        self.positions[place] += 1
        part = self.parts.get(header.manifest)
        if part is None or header.destination != self.site.name:
            return True
        if isinstance(header, m.UrlsOffered):
            self._fetch_by_url(header, part)
            return True
        if isinstance(header, m.ChunksOffered):
            self._fetch(header, part)
            return True
        source = topics.split(place[0])[0] or self.site.name
        unread = [s for s in header.segments if s.reason is not None and s.reason.failure_class == "transient"]
        if not world.chance(0.02):  # else: a corrupted chunk, dropped
            starts = part.manifest.line.starts
            lacking = Ranges((starts[s.item] + s.offset, starts[s.item] + s.offset + s.length) for s in unread)
            gone = Ranges.of(*(s.item for s in header.segments if s.reason is not None and s not in unread))
            came = Ranges([(header.start, header.stop)]) - lacking - part.manifest.line.ranges_of(gone)
            part.take(world.spoilt, source, LOG, header.request_no, came)
        self._say_unread(source, header, unread)
        for segment in header.segments:
            if segment.reason is not None and segment not in unread:
                self._never(part, source, LOG, header.request_no, segment.item, segment.reason)
        if header.last or world.rng.random() < 0.2:
            self._synced(header.manifest, part)
        return True

    def _fetch(self, offer: m.ChunksOffered, part: Part) -> None:
        """What comes from a door: all, half and then nothing, or nothing; and nothing after its plane began anew."""
        world, key = self.site.world, offer.manifest

        def failed(items: Ranges, why: m.Reason) -> None:
            self._publish(m.SourceFailed(key, offer.source, offer.request_no, DOOR, items, why, world.now_ms))

        source = world.sites[offer.source]
        request = source.plane.tickets.get(offer.doors[0].ticket) if offer.doors else None
        if request is None:
            failed(EMPTY, offer.reason or AWAY)
            return
        if world.chance(0.05):
            return  # it stalls, and whoever pulled died: the lease ends
        if not part.manifest.index.holds(offer.source):
            self._fetch_from_relay(offer, part, source, request)
            return
        world.fetched += 1
        came = offer.ranges.first(offer.ranges.size // 2) if world.chance(0.15) else offer.ranges
        items = {item.no: item for item in request.items}
        lacking = Ranges.of(*(no for no, item in items.items() if source.plane._missing(item) is not None))
        away = Ranges.of(*(no for no in items if world.chance(0.1))) - lacking
        came = came - part.manifest.line.ranges_of(lacking | away)
        flipped = world.rng.choice(list(items)) if world.chance(0.15) else -1
        part.take(world.spoilt, offer.source, DOOR, offer.request_no, came, flipped)
        source.plane._is_served(request, came, DOOR)
        for no in lacking.numbers():
            why = source.plane._missing(items[no])
            assert why is not None
            self._never(part, offer.source, DOOR, offer.request_no, no, why)
        if came != offer.ranges:
            failed(EMPTY, AWAY)
        elif away:
            failed(away, AWAY)
        self._synced(key, part)

    def _fetch_by_url(self, offer: m.UrlsOffered, part: Part) -> None:
        """What a door of another make gives: all, half and then nothing, or nothing; its source's plane may be gone."""
        world, key, line = self.site.world, offer.manifest, part.manifest.line
        for group in offer.failed:
            for no in group.items.numbers():
                self._never(part, offer.source, DOOR, offer.request_no, no, group.reason)
        given = offer.ranges & line.ranges_of(Ranges.of(*(one.item for one in offer.urls)))
        if not given or world.chance(0.05):
            return  # whoever pulled died
        world.by_url += 1
        came = given.first(given.size // 2) if world.chance(0.15) else given
        flipped = world.rng.choice(line.items_in(given)) if world.chance(0.15) else -1
        seed, part.seed = part.seed, EMPTY  # it has no sums
        part.take(world.spoilt, offer.source, DOOR, offer.request_no, came, flipped)
        part.seed = seed
        if came != given:
            self._publish(m.SourceFailed(key, offer.source, offer.request_no, DOOR, EMPTY, AWAY, world.now_ms))
        self._synced(key, part)

    def _bring(self, order: orders.Bring) -> bool:
        """What a tool brings: whole files, or it works still, fails, or writes something else, which is not taken."""
        world, part = self.site.world, self.parts.get(order.manifest_id)
        if part is None or part.attempt != order.attempt:
            return True
        if world.chance(0.3):
            self.bringing.append(order)
            self._seal(order.manifest_id, part)  # it is told that it works still
            return True
        line, items = part.manifest.line, part.manifest.items
        came, broken = EMPTY, world.chance(0.15)
        for n in line.items_in(order.ranges - part.written):
            there = items[n].lfn in world.files[order.source] and (order.source, items[n].lfn) not in world.spoilt
            if there and not broken and not world.chance(0.1):
                came = came | (order.ranges & Ranges([line.span(n)]))
        world.brought += bool(came)
        part.take(set(), order.source, order.plane, order.request_no, came)
        if order.ranges - part.written:
            why = replace(AWAY, scope=m.Scope.NETWORK)
            now_ms = world.now_ms
            self._publish(
                m.SourceFailed(order.manifest_id, order.source, order.request_no, order.plane, EMPTY, why, now_ms)
            )
        self._synced(order.manifest_id, part)
        return True

    def _fetch_from_relay(
        self, offer: m.ChunksOffered, part: Part, source: SimSite, request: m.ChunksRequested
    ) -> bool:
        """What another destination has of it by now, wrong bytes too; the rest is waited for. Whether anything came."""
        world, key, line = self.site.world, offer.manifest, part.manifest.line
        theirs = source.plane.parts.get(key)
        if theirs is not None:
            there, spoilt = theirs.written | line.ranges_of(theirs.sealed), theirs.spoilt
            never = offer.ranges & line.ranges_of(theirs.bad)
        else:
            files = world.files[source.name]
            have = [n for n, item in enumerate(part.manifest.items) if files.get(item.target) == became(item)]
            wrong = Ranges.of(*(n for n in have if (source.name, part.manifest.items[n].target) in world.spoilt))
            there, spoilt = line.ranges_of(Ranges.of(*have)), line.ranges_of(wrong)
            never = offer.ranges - there
        came = (offer.ranges & there) - part.written
        if came:
            world.relayed += 1
            seed, part.seed = part.seed, EMPTY  # it has no sums of what is still to come
            flipped = world.rng.choice([item.no for item in request.items]) if world.chance(0.05) else -1
            part.take(set(), offer.source, DOOR, offer.request_no, came, flipped)
            part.spoilt, part.seed = part.spoilt | (came & spoilt), seed
            source.plane._is_served(request, came, DOOR)
            self._synced(key, part)
        if never - part.written or world.chance(0.1):
            self._publish(m.SourceFailed(key, offer.source, offer.request_no, DOOR, EMPTY, AWAY, world.now_ms))
        elif offer.ranges - part.written:
            self.waiting.append(offer)
        return bool(came)

    def _ask_again(self, offer: m.ChunksOffered) -> bool:
        """A relay that had not all of it; that it waits still is told now and then. Whether anything came."""
        world, part = self.site.world, self.parts.get(offer.manifest)
        source = world.sites[offer.source]
        request = source.plane.tickets.get(offer.doors[0].ticket)
        if part is None:
            return True
        if request is None:
            why = m.SourceFailed(offer.manifest, offer.source, offer.request_no, DOOR, EMPTY, AWAY, world.now_ms)
            self._publish(why)
            return True
        if self._fetch_from_relay(offer, part, source, request):
            return True
        if world.chance(0.3):
            self._seal(offer.manifest, part)
        return offer not in self.waiting

    def _synced(self, key: ManifestId, part: Part) -> None:
        self.site.world.fuse()
        part.synced = part.written
        self.site.parts_on_disk[key, part.attempt] = part.synced
        self.site.spoilt_on_disk[key, part.attempt] = part.spoilt
        self._seal(key, part)

    def _never(self, part: Part, source: Site, plane: str, number: int, item: int, why: m.Reason) -> None:
        """A source will never give an item: it fails where nobody else has it."""
        if item in part.bad or item in part.sealed:
            return
        if part.manifest.items[item].others:
            key, now_ms = part.manifest.body.manifest, self.site.world.now_ms
            self._publish(m.SourceFailed(key, source, number, plane, Ranges.of(item), why, now_ms))
        else:
            part.failed = merge_failed(part.failed, [m.FailedItems(Ranges.of(item), why)])

    def _say_unread(self, source: Site, header: m.ChunkHeader, unread: list[m.Segment]) -> None:
        """What the source cannot read now: of the whole rest of the request, or these items of it."""
        if not unread:
            return
        assert unread[0].reason is not None
        rest = header.last and len(unread) == len(header.segments)
        items = EMPTY if rest else Ranges.of(*(segment.item for segment in unread))
        now_ms, why = self.site.world.now_ms, unread[0].reason
        self._publish(m.SourceFailed(header.manifest, source, header.request_no, LOG, items, why, now_ms))

    def _serve(self, request: m.ChunksRequested) -> None:
        world = self.site.world
        key = (request.manifest, request.destination, request.request_no)
        if key in self.served or request.until_ms <= world.now_ms:
            return
        self.served.add(key)
        if request.plane == DOOR:
            self._offer(request)
            return
        away = {item.no for item in request.items if world.chance(0.1)}
        spans = [(a, min(a + 150, stop)) for start, stop in request.ranges for a in range(start, stop, 150)]
        for number, (start, stop) in enumerate(spans):
            segments = []
            for item in request.items:
                low, high = max(start, item.start), min(stop, item.start + item.length)
                if low >= high:
                    continue
                why = AWAY if item.no in away else self._missing(item)
                segments.append(m.Segment(item.no, low - item.start, high - low, 0, None if why else 0, why))
            header = m.ChunkHeader(
                request.manifest,
                request.destination,
                request.request_no,
                start,
                stop,
                tuple(segments),
                number == len(spans) - 1,
            )
            world.fuse()
            partition = topics.partition_of(request.manifest, PARTITIONS)
            world.payload[self.site.name, topics.chunks_to(request.destination.site), partition].append(header)
        gone = Ranges((item.start, item.start + item.length) for item in request.items if item.no in away)
        sent = request.ranges - gone
        self._is_served(request, sent, LOG)

    def _offer(self, request: m.ChunksRequested) -> None:
        world, here = self.site.world, self.site.name
        is_here = request.manifest not in self.parts or all(item.version for item in request.items)
        if here in world.foreign and request.capability == m.READS_URLS and is_here:
            self._offer_urls(request)
            return
        ticket = f"{self.writer}-{len(self.tickets)}"
        closed = AWAY if world.chance(0.1) or here in world.foreign else None
        doors = () if closed is not None else (m.OfferedDoor("t2g", "http://door", ticket),)
        self.tickets[ticket] = request
        offer = m.ChunksOffered(
            request.manifest, request.destination, here, request.request_no, request.ranges, 0, doors, closed
        )
        world.fuse()
        partition = topics.partition_of(request.manifest, PARTITIONS)
        world.payload[here, topics.chunks_to(request.destination.site), partition].append(offer)

    def _offer_urls(self, request: m.ChunksRequested) -> None:
        """Of what is here; what others send, nobody counts."""
        world, here, to, number = self.site.world, self.site.name, request.destination, request.request_no
        missing = [(item.no, why) for item in request.items if (why := self._missing(item)) is not None]
        gone = Ranges.of(*(no for no, _ in missing))
        failed = merge_failed([m.FailedItems(Ranges.of(no), why) for no, why in missing])
        urls = tuple(m.ItemUrl(item.no, f"http://door{item.lfn}") for item in request.items if item.no not in gone)
        offer = m.UrlsOffered(request.manifest, to, here, number, request.ranges, 0, urls, failed=failed)
        world.fuse()
        partition = topics.partition_of(request.manifest, PARTITIONS)
        world.payload[here, topics.chunks_to(to.site), partition].append(offer)
        given = Ranges((item.start, item.start + item.length) for item in request.items if item.no not in gone)
        told = m.ChunksServed(request.manifest, here, to, number, request.ranges & given, 0, URLS)
        self.served_to_tell.append(told)

    def _is_served(self, request: m.ChunksRequested, sent: Ranges, plane: str) -> None:
        here, to, number = self.site.name, request.destination, request.request_no
        told = m.ChunksServed(request.manifest, here, to, number, sent, sent.size, plane)
        self.served_to_tell.append(told)

    def _missing(self, item: m.RequestedItem) -> m.Reason | None:
        if item.lfn in self.site.world.files[self.site.name]:
            return None
        return m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "read", Text("no such file at the source"))

    def _write(self, command: WriteManifests) -> None:
        if command.body.open:
            self.growing.tell(command)
        else:
            self.site.write_manifests(command, self.publisher)


class SimSite:
    """One site: worker (dispatcher, tables), plane, disk, and the positions of its consumer."""

    def __init__(self, world: World, name: Site) -> None:
        self.world, self.name = world, name
        self.peers = tuple(n for n in world.names if n != name)
        owners = {"waiting": intent_of}
        self.tables = {table: Store(world, owners.get(table, rows.owner_of)) for table in rows.NAMES}
        self.parts_on_disk: dict[tuple[ManifestId, int], Ranges] = {}
        self.spoilt_on_disk: dict[tuple[ManifestId, int], Ranges] = {}
        self.seeds_on_disk: dict[tuple[ManifestId, int], Ranges] = {}
        """By the attempt that may adopt from it."""
        self.read = [*intent_topics(self.peers), *transfer_topics(name, self.peers), *request_topics(name, self.peers)]
        self.committed: dict[tuple[str, int], int] = defaultdict(int)
        places = [(topic, partition) for topic in self.read for partition in range(PARTITIONS)]
        self.journals = [(place, world.logs[name, *place]) for place in places]
        self.dead = 0
        self.view = SimView(world, name, PARTITIONS)
        self.plane = SimPlane(self)
        self.seats = self.looks = 0
        self.sit()

    def sit(self) -> None:
        """A new worker process: nothing in memory, positions where the old one committed."""
        self.seats += 1
        self.publisher = SimPublisher(self, f"worker-{self.seats}")
        turns = Turns(rows.Tables(**self.tables), self.name)
        process = f"{self.name}-{self.seats}"
        self.keeping = KeepingTasks(
            self.name,
            self.view,
            self.plane,
            self.publisher.send,
            lambda dataset: self.scheduler.is_awake(topics.partition_of(dataset, PARTITIONS)),
            process,
            lambda: self.world.now_ms,
            lambda: self.world.now_ms / 1000,
            removals=self.view,
        )
        self.landing = LandingClaimTasks(
            self.name,
            self.view,
            self.publisher.send,
            process,
            lambda: self.world.now_ms,
            self._may_be_opened,
            lambda: self.world.now_ms / 1000,
            has_ended=self._has_ended,
        )
        self.view.on_fact = self._keeping_heard
        self.view.intent_row, self.view.decisions = self._intent_row, self._removals
        self.effects = Effects(
            self.name,
            self.world.policy(self.name),
            self.publisher,
            self.plane,
            SimConsulting(self),
            turns,
            lambda: self.world.now_ms,
            doors=lambda: self.world.doors,
            dials=self._dials,
            tools=self.world.tools[self.name],
            foreign=lambda: self.world.foreign,
            landing=self.landing,
        )
        self.scheduler = Scheduler(
            self.name,
            self.world.policy(self.name),
            PARTITIONS,
            self.effects,
            lambda: self.world.now_ms,
            self._elapsed_s,
            turns.keeps,
            lambda: self.world.doors | self._dials(),
            tools=self.world.tools[self.name],
        )
        self.dispatcher = Dispatcher(
            self.name, turns, self.scheduler, self.effects, self.plane, lambda: self.world.now_ms
        )
        self.scan_ms = 0
        self.waking: dict[int, Iterator[None]] = {}
        self.positions = self.committed.copy()
        for partition in range(PARTITIONS):
            self.scheduler.own(partition)
        self.ends = {place: len(log) for place, log in self.journals}
        """Where the journals ended when it sat down."""

    def _keeping_heard(self, fact: m.ChainStep | m.FilesHeld | m.FilesLost | m.ReplicasChecked) -> None:
        if isinstance(fact, m.FilesHeld):
            self.keeping.removals.landed(fact)
            return
        if not isinstance(fact, m.ReplicasChecked):
            self.landing.heard(fact)
        self.keeping.heard(fact)

    def _intent_row(self, intent: IntentId) -> IntentRow | None:
        return rows.intent_row(self.tables["intents"].rows.get(intent))

    def _removals(self) -> Iterator[m.IntentDecided]:
        """Those that are open here, as their home decided last."""
        for row in list(self.intent_rows()):
            if row.body is not None and self.name in m.leaving_sites(row.body) and (last := row.decision) is not None:
                said = (last.decision_no, last.verdict, row.body, last.source, last.source_no, last.priority)
                yield m.IntentDecided(row.intent, *said)

    def keep(self) -> bool:
        """What is due of keeping: one dataset; whether there was one."""
        due = self.keeping._due.first()
        if due is None or due[0] > self.world.now_ms / 1000:
            return False
        self.keeping.attend(self.keeping._due.take())
        return True

    def _has_ended(self, intent: IntentId) -> bool:
        partition = self.scheduler.partition(intent)
        open_transfers = self.tables["transfers"].keys(partition, rows.open_key(f"{intent}."))
        return self.scheduler.is_awake(partition) and next(open_transfers, None) is None

    def _may_be_opened(self, manifest: ManifestId) -> None:
        self.scheduler.fall_due(self.scheduler.partition(manifest), manifest)

    def _dials(self) -> frozenset[Site]:
        """Sites without a door that connect to the one here."""
        own = self.world.doors - self.world.foreign
        return frozenset(self.world.names) - self.world.doors if self.name in own else frozenset()

    def _elapsed_s(self) -> float:
        """Time as slices see it: now and then one is over after any step."""
        self.looks += 1
        if self.world.faults and self.world.rng.random() < 0.2:
            self.looks += 1000
        return self.looks * SLICE_S / 100

    def crash(self) -> None:
        """kill -9 of the worker and, since its pipe closes, of its plane; a row may be an older one afterwards."""
        for publisher in (self.publisher, self.plane.publisher):
            with suppress(Crash):  # an acknowledgement may have something sent
                publisher.flush(self.world.rng.randrange(0, len(publisher.waiting) + 1))
        if self.world.stale and self.world.chance(0.5):
            for table, store in self.tables.items():
                store.fall_back(zombie=table == "transfers")
        self.plane.restart()
        try:
            self.sit()
        except Crash:
            self.crash()

    def step(self, choice: float) -> None:
        if self.world.chance(0.002):
            raise Crash
        if self.world.chance(0.002):
            self.plane.restart()
            self.dispatcher.plane_restarted()
            self.keeping.plane_restarted()
        elif choice < 0.60:
            self.hear_one()
            if self.world.rng.random() < 0.7:  # threads of their own
                self.view.hear_some()
                self.landing.step()
        elif choice < 0.65:
            self.view.hear_some()
            self.landing.step()
            if self.world.rng.random() < 0.1:
                self.keeping.scan()
            self.keep()
        elif choice < 0.80:
            self.plane.step()
        elif choice < 0.90:
            self.publisher.flush(self.world.rng.randrange(1, 6))
            self.plane.publisher.flush(self.world.rng.randrange(1, 6))
        elif choice < 0.95:
            self.dispatcher.tick()
        else:
            self.commit()

    def commit(self) -> None:
        self.committed.update(self.positions)
        for store in self.tables.values():
            store.commit()

    def hear_one(self) -> bool:
        positions = self.positions
        behind = [(place, log) for place, log in self.journals if positions[place] < len(log)]
        self._wake()
        if not behind:
            return False
        place, log = self.world.rng.choice(behind)
        at = positions[place]
        self.hear(*place, at, log[at])
        positions[place] = at + 1
        return True

    def hear(self, topic: str, partition: int, offset: int, record: Record) -> None:
        letter = self.dispatcher.hear(topic, partition, offset, record.key, record.value, record.headers)
        self.dead += letter is not None
        if letter is None and topic.rpartition(".")[2] in topics.OF_INTENTS:
            self._moved(IntentId(record.key.decode()) if record.key is not None else None)
        if letter is None and topic.rpartition(".")[2] == topics.DECISIONS:
            decision = wire.decode(topic, record.key, record.value, record.headers, self.name).message
            if isinstance(decision, m.IntentDecided):  # the view of intents hears it too
                self.keeping.removals.decided(decision)
                self.landing.decided(decision)

    def _moved(self, intent: IntentId | None) -> None:
        """The view of intents hears it too."""
        row = None if intent is None else self._intent_row(intent)
        if row is not None and self.name in row.leaving:
            self.keeping.removals.arrived(row.intent)
            self.landing.moved(row.intent)

    def _wake(self) -> None:
        for partition in range(PARTITIONS):
            if (
                partition not in self.waking
                and not self.scheduler.is_awake(partition)
                and all(self.positions[p] >= end for p, end in self.ends.items() if p[1] == partition)
            ):
                self.waking[partition] = self.dispatcher.waking(partition)
        for partition, steps in list(self.waking.items()):
            for _ in range(self.world.rng.randrange(1, 4) if self.world.faults else 1000):
                if next(steps, self) is self:
                    del self.waking[partition]
                    break

    def work(self) -> bool:
        """Everything there is to do now, without faults."""
        moved = False
        while self.view.hear_some(100):
            moved = True
        self.landing.step()
        if self.world.now_ms >= self.scan_ms:
            self.scan_ms = self.world.now_ms + 30_000
            self.keeping.scan()
        while self.keep():
            moved = True
        for act in (self.hear_one, self.plane.step, self.publisher.flush, self.plane.publisher.flush):
            while act():
                moved = True
        due = self.scheduler.next_due_ms()
        if due is not None and due <= self.world.now_ms:
            self.dispatcher.tick()
            moved = True
        self.commit()
        return moved

    def idle(self) -> bool:
        """Nothing open in the tables, no ask or removal that has not ended, and nothing to hear."""
        rows_ = self.view.rows.values()
        if self.view.going_now or any(row.asks or not all(claim.lands for claim in row.claims) for row in rows_):
            return False
        for row in self.intent_rows():
            if not row.ended:
                return False
        for transfer in self.transfer_rows():
            if transfer.state != "closed" and not self._orphan(transfer.manifest):
                return False
        return True

    def intent_rows(self) -> Iterator[IntentRow]:
        for key, raw in self.tables["intents"].rows.items():
            if not key.startswith(rows.OPEN) and (row := rows.intent_row(raw)) is not None:
                yield row

    def transfer_rows(self) -> Iterator[TransferRow]:
        for key, raw in self.tables["transfers"].rows.items():
            if not key.startswith(rows.OPEN) and (row := rows.transfer_row(raw)) is not None:
                yield row

    def _orphan(self, manifest: ManifestId) -> bool:
        """A row that fell back behind its close, whose intent has the completion.

        Its manifest is gone or, after a zombie's put, its entry among the open rows: nobody asks it any more.
        """
        row = rows.intent_row(self.tables["intents"].rows.get(manifest.intent))
        known = row is not None and row.is_closed(manifest, self.name)
        forgotten = rows.open_key(manifest) not in self.tables["transfers"].rows
        return known and (forgotten or manifest not in self.tables["manifests"].rows)

    def write_manifests(self, command: WriteManifests, publisher: SimPublisher) -> None:
        """The source's plane: two items a manifest, chained, deterministic."""
        body, no, sha256 = command.body, command.no, command.prev_sha256
        items = [self.item(Lfn(selector.name), body.selection) for selector in body.selectors]
        groups = [items[i : i + 2] for i in range(0, len(items), 2)]
        for number in range(no, len(groups)):
            written = m.ManifestWritten(
                body.intent,
                self.name,
                command.source_no,
                number,
                sha256,
                str(number + 1),
                m.Unit.ENTRIES if body.selection else m.Unit.BYTES,
                tuple(groups[number]),
                number == len(groups) - 1,
            )
            sha256 = digest(written)
            publisher.send(written)

    def own_manifests(self, intents: Collection[IntentId]) -> Iterator[m.ManifestWritten]:
        for partition in range(PARTITIONS):
            for record in self.world.logs[self.name, topics.MANIFESTS, partition]:
                heard = wire.decode(topics.MANIFESTS, record.key, record.value, record.headers, self.name).message
                if isinstance(heard, m.ManifestWritten) and heard.intent in intents:
                    yield heard

    def item(self, lfn: Lfn, selection: str | None = None) -> m.Item:
        holders = [s for s in (self.name, *self.peers) if self.world.listed.get((s, lfn))]
        block = block_of(lfn)
        dataset = block.dataset
        if not holders:
            why = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "list", Text("no site holds it"))
            return m.Item(lfn, dataset, block, lfn, "", 0, 0, None, "", None, why)
        file = self.world.listed[holders[0], lfn]
        if selection is not None:  # as many entries as bytes; one without has length 1
            target = parts.target_of(lfn, selection, "parquet")
            dataset, block = parts.filed(block)
            if holders[0] != self.name:
                why = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "list", Text("another site holds it"))
                return m.Item(lfn, dataset, block, target, selection, 0, 0, None, "", None, why)
            length = max(1, file.size)
            return m.Item(lfn, dataset, block, target, selection, length, 2 * length, None, file.version, holders[0])
        same = {
            s for s in holders if (copy := self.world.listed[s, lfn]).adler32 == file.adler32 and copy.size == file.size
        }
        others = tuple(sorted(same - {holders[0]}))
        version = file.version
        return m.Item(
            lfn, dataset, block, lfn, "", file.size, file.size, file.adler32, version, holders[0], None, others
        )


def block_of(lfn: str) -> Block:
    """A dataset's files are in three blocks, by the end of their names: later ones may have smaller names."""
    dataset = GROWING if lfn.startswith("/store/sim/g") else Dataset("/Sim/Run/RAW")
    return Block(f"{dataset}#{ord(lfn[-1]) % 3}")


class SimCutting:
    """Two items a manifest."""

    def __init__(self, site: SimSite) -> None:
        self.site = site

    def most(self, command: WriteManifests, no: int) -> int:
        return 2

    def items(self, command: WriteManifests, files: Sequence[CatalogueFile]) -> list[m.Item]:
        return [self.site.item(file.lfn, command.body.selection) for file in files]

    def objects(self, command: WriteManifests, file: CatalogueFile) -> list[m.Item] | None:
        return None


class SimListing:
    """The catalogue of a world: everybody knows at once what is listed."""

    def __init__(self, site: SimSite) -> None:
        self.site, self.world = site, site.world

    def refresh(self) -> None:
        pass

    def totals(self, selector: Selector) -> bytes:
        names = {(lfn, f.size) for (_, lfn), f in self.world.listed.items() if self._in(lfn, selector)}
        held = sorted(s for s, lfn in self.world.listed if self._in(lfn, selector))
        lines = [f"\t{len(names)}\t{sum(size for _, size in names)}", *(f"{s}\t{held.count(s)}" for s in set(held))]
        return "\n".join([lines[0], *sorted(lines[1:])]).encode() if names else b""

    def _in(self, lfn: Lfn, selector: Selector) -> bool:
        return selector.name in (block_of(lfn).dataset, block_of(lfn))

    def block_totals(self, dataset: Dataset) -> Iterator[tuple[Block, bytes]]:
        for block in sorted({block_of(lfn) for _, lfn in self.world.listed if block_of(lfn).dataset == dataset}):
            yield block, self.totals(Selector(Kind.BLOCK, block))

    def files(self, lfns: Sequence[Lfn], prefer: Site | None = None) -> list[CatalogueFile]:
        found = []
        for lfn in lfns:
            sites = [s for s in self.world.names if (s, lfn) in self.world.listed]
            replicas = [(s, self.world.listed[s, lfn]) for s in sites]
            found.append(
                CatalogueFile(
                    lfn,
                    block_of(lfn).dataset if sites else None,
                    block_of(lfn) if sites else None,
                    tuple(
                        Replica(s, block_of(lfn).dataset, block_of(lfn), f.size, f.adler32, f.version)
                        for s, f in replicas
                    ),
                )
            )
        return found

    def listing(
        self, selectors: Sequence[Selector], cursor: str = "", limit: int = 1000, *, prefer: Site | None = None
    ) -> tuple[list[CatalogueFile], str | None]:
        limit = min(limit, 3)
        lfns = sorted({lfn for _, lfn in self.world.listed if self._in(lfn, selectors[0]) and lfn > cursor})
        return self.files(lfns[:limit]), lfns[limit - 1] if len(lfns) > limit else None


class SimConsulting:
    """A catalogue that has always caught up, answering at once."""

    def __init__(self, site: SimSite) -> None:
        self.site = site

    def then(self, _key: object, act: Callable[[], object]) -> None:
        act()

    def release(self, intent: IntentId, decision_no: int) -> None:
        """The view of intents has the body, which the row has not."""
        row = rows.intent_row(self.site.tables["intents"].rows.get(intent))
        if row is None or row.decision is None or row.decision_no != decision_no - 1:
            return
        last, body = row.decision, self.site.world.asked[intent]
        verdict = m.Verdict.RELEASED
        said = m.IntentDecided(intent, decision_no, verdict, body, last.source, last.source_no, last.priority)
        self.site.publisher.send(said)

    def decide(self, body: m.TransferIntent) -> None:
        world = self.site.world
        everything = sorted({lfn for _, lfn in world.listed if block_of(lfn).dataset == GROWING})
        lfns = [Lfn(name) for s in body.selectors for name in ([s.name] if s.kind is Kind.FILE else everything)]
        per_site = {s: (sum((s, n) in world.listed for n in lfns), 0) for s in world.names}
        per_site = {s: t for s, t in per_site.items() if t[0]}
        unknown = tuple(n for n in lfns if not any((s, n) in world.listed for s in world.names))
        found = Holders(len(lfns) - len(unknown), per_site, unknown)
        decision = decide(body, found, world.names, world.names, waited=True)
        assert decision is not None
        self.site.publisher.send(decision)
