"""Replicas against disks, both ways: what a site holds is on its disk, whole; what is on its disk it holds. Read-only.

1. The site's `replicas` journal is folded as it stands (replicas.py), and each file it holds is looked for.
2. The disk is walked: a name that is no replica and older than the walk may be dark. What an open transfer has landed
   (its parts, files sealed before it closed) is not; the site's `transfers` journal says so, read only where needed.
3. The journal is read on from where the fold stopped: what was held, given up or registered anew meanwhile is dropped.
   Missing is what was held before and after and is not on the disk, looked for once more; dark what is on the disk and
   was in neither.

Candidates of any number stand in the database of the moment. Keys of stores are looked for, never walked. Where the
site remembers another storage than the one that is mounted there (storage/marker.py), nothing is said of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from streams import waits, wire
from streams.auditing.disks import Disks, endpoint_url
from streams.auditing.replicas import AuditedReplica, AuditedReplicas, names_of
from streams.core import records as m
from streams.core.endpoint_config import DEFAULT_ENDPOINT
from streams.core.ledger.findings import CLOCK_TOLERANCE_MS, FindingList, Invariant, LogPosition
from streams.core.names import Site, shown
from streams.core.sampling import Sample
from streams.core.topics import REPLICAS, TRANSFERS, LogPartition
from streams.errors import StorageError, Transfer2goError, WireError
from streams.kafka.replay import StartAt, end_offsets, replay
from streams.settings import Settings
from streams.storage import marker
from streams.storage.endpoint import Endpoint, OnDisk, item_tag
from streams.views import rows, scratch

_MISSING, _DARK = Invariant.NO_LIE, Invariant.CONSERVATION
_BATCH = 1000
_AHEAD_NS = CLOCK_TOLERANCE_MS * 10**6
"""What a disk dates later than so far from now is old: its clock, or ours, is wrong."""
_NAME_CHARS = 1024


@dataclass(frozen=True, slots=True)
class StorageTally:
    """What was looked at. `files`, `bytes`: whose contents were read. `unreachable`: sites of which not all was seen.

    `replicas`: how many were looked for, `registered` of them by registration. `walked`: names met on the disks.
    """

    files: int
    bytes: int
    unreachable: tuple[Site, ...]
    registered: int
    replicas: int
    walked: int


class WrongReplica(NamedTuple):
    """A file that is held and is not on the disk as it is held. `gone`: at two looks nothing was there."""

    replica: AuditedReplica
    why: str
    gone: bool


class DarkFile(NamedTuple):
    """What is on the disk and in no replica; `path` as a walk names it."""

    path: str
    version: str


def check_storage(
    settings: Settings,
    sites: Iterable[Site],
    findings: FindingList,
    *,
    sample: Sample | None = None,
    now_ms: int | None = None,
    unread: Collection[Site] = (),
) -> StorageTally:
    """Hold the replicas of `sites` against their disks; faults go to `findings`, nothing is raised for a site away.

    `sample`: contents are read only of the files whose turn is on the day of `now_ms`. `unread`: sites whose journals
    are known to be out of reach, which are not tried again.
    """
    now_ms = int(time.time() * 1000) if now_ms is None else now_ms
    replicas = registered = walked = 0
    with waits.on("files to be read back") as wait, closing(Disks(settings, findings, wait)) as disks:
        for site in sorted(sites):
            if site in unread:
                findings.cannot(_MISSING, f"what {site} holds: its journals were not read")
                continue
            with scratch.database() as db:
                look = DiskLook(settings, site, findings, disks, db, wait)
                try:
                    look.run(sample or Sample.ALL, now_ms)
                    _tell(look, findings)
                except Transfer2goError as error:
                    disks.unreachable.add(site)
                    findings.cannot(_MISSING, f"what {site} holds: {error}")
                replicas += look.replicas
                registered += look.registered
                walked += look.walked
        return StorageTally(disks.files, disks.bytes, tuple(sorted(disks.unreachable)), registered, replicas, walked)


def _tell(look: DiskLook, findings: FindingList) -> None:
    site = look.site
    for replica, why, _ in look.wrong():
        how = f"brought by {replica.manifest}" if replica.manifest else f"registered in {replica.block}"
        place = LogPosition(site, REPLICAS, replica.partition, replica.offset)
        findings.find(_MISSING, f"{replica.lfn} at {site}, {how}, {why}", place)
    for path, _ in look.dark():
        name = shown("/" + path, _NAME_CHARS)
        findings.find(_DARK, f"{name} at {site} is on the disk and in no replica of it")


class DiskLook:
    """One look at a site's journals and disk: `run` first, then what is wrong, as often as it is asked for.

    Rows beside the replicas': `w LFN \\0 DATASET` wrong, a letter for gone or not, and why · `v VERSION` seen
    · `d PATH` maybe dark · `p TAG` parts' paths · `o PATH \\0 MANIFEST` of a transfer · `c MANIFEST` closed.
    """

    def __init__(
        self, settings: Settings, site: Site, findings: FindingList, disks: Disks, db: Any, wait: waits.Wait
    ) -> None:
        self._settings, self.site, self._findings, self._disks, self._db = settings, site, findings, disks, db
        self._wait = wait
        self._held = AuditedReplicas(db, settings, site)
        self._planned: dict[LogPartition, int] = {}
        """The next offset to read of the transfers' journal."""
        self._began_ns = 0
        self.endpoint: Endpoint | None = None
        self.marked = False
        """Whether the storage has the site's marker."""
        self.replicas = self.registered = self.walked = 0

    def run(self, sample: Sample | None, now_ms: int) -> None:
        """Look, and note what may be wrong. `sample` None reads no contents.

        Raises Transfer2goError where the journals cannot be read, or another storage is mounted.
        """
        site = self.site
        self.endpoint = endpoint = self._disks.endpoint(site)
        if endpoint is not None:
            remembered = marker.Remembered.of(self._settings.state, site, DEFAULT_ENDPOINT)
            self.marked = marker.check(endpoint, remembered) is not None
        noted = end_offsets(self._settings, site, [TRANSFERS])
        self._planned = dict(noted)
        self._held.fold()
        self._began_ns = time.time_ns()
        self._look_for(sample, now_ms)
        if endpoint is None:
            # Disks has told so of each file; a site that holds none, and names no storage, may have none.
            if endpoint_url(self._settings, site) is not None:
                self._disks.unreachable.add(site)
            self._findings.cannot(_DARK, f"what lies on the disk of {site}: its storage is not reachable from here")
        elif self._walk(endpoint):
            self._land(endpoint, noted)
        self._drop_changed(endpoint)

    # replicas on the disk

    def _look_for(self, sample: Sample | None, now_ms: int) -> None:
        for some in rows.batched(self._held.all(), _BATCH):
            self._wait.what = f"files of {self.site} to be looked for ({self.replicas:,} so far)"
            seen: dict[bytes, bytes | None] = {}
            for replica in some:
                self.replicas += 1
                self.registered += not replica.manifest
                contents = sample is not None and sample.reads(replica.lfn, now_ms)
                look = self._disks.look(self.site, replica.lfn, replica.bytes, replica.adler32, contents=contents)
                if look.version:
                    seen[b"v" + look.version.encode()] = b""
                if look.fault:
                    letter = "g" if look.gone else "t"
                    seen[_wrong(replica.lfn, replica.dataset)] = (letter + look.fault).encode(errors="backslashreplace")
            rows.write(self._db, seen)

    def wrong(self) -> Iterator[WrongReplica]:
        """By LFN. What was not there is looked for once more."""
        for key, row in rows.scan(self._db, b"w"):
            lfn, _, dataset = key[1:].decode().partition("\0")
            replica, gone = self._held.of(lfn)[dataset], row[:1] == b"g"
            if gone and not self.is_gone(replica):
                self._db.delete(key)
                self._findings.wait(_MISSING, f"files of {self.site} that were there at the second look")
            else:
                yield WrongReplica(replica, row[1:].decode(), gone)

    def lost_before(self) -> Iterator[AuditedReplica]:
        """What was lost by accident, is held no more, and is not on the disk now. By LFN."""
        return (replica for replica in self._held.lost() if self.is_gone(replica))

    def is_gone(self, replica: AuditedReplica) -> bool:
        """Whether nothing is in its place now, as far as can be told."""
        return self._disks.look(self.site, replica.lfn, replica.bytes, replica.adler32, contents=False).gone

    def is_whole(self, replica: AuditedReplica) -> bool:
        """Whether it is there as it is held, by its contents."""
        look = self._disks.look(self.site, replica.lfn, replica.bytes, replica.adler32)
        return bool(look.version) and not look.fault

    # the disk

    def _walk(self, endpoint: Endpoint) -> bool:
        """Note what may be dark; whether there is any."""

        def refuse(path: str, why: str) -> None:
            self._disks.unreachable.add(self.site)
            self._findings.cannot(_DARK, f"what lies below {shown('/' + path)} at {self.site}: {why}")

        strays = 0
        for some in rows.batched(endpoint.walk(refuse), _BATCH):
            self.walked += len(some)
            self._findings.check(_DARK, len(some))
            self._wait.what = f"the disk of {self.site} to be walked ({self.walked:,} names so far)"
            named = [one for one in some if one.lfn is not None]
            known = self._held.held([str(one.lfn) for one in named])
            held = {one.path for one, is_held in zip(named, known, strict=True) if is_held}
            for one in some:
                if one.path not in held and self._may_be_dark(endpoint, one):
                    strays += 1
        return strays > 0

    def _may_be_dark(self, endpoint: Endpoint, one: OnDisk) -> bool:
        version = self._old(endpoint, one.path)
        # A replica's file under another name: a link, or a directory that a link of the LFN leads to.
        if version is None or self._db.get(b"v" + version) is not None:
            return False
        self._db[b"d" + os.fsencode(one.path)] = version
        if one.item:
            key = b"p" + one.item.encode()
            self._db[key] = b"\0".join(filter(None, (self._db.get(key), os.fsencode(one.path))))
        return True

    def _old(self, endpoint: Endpoint, path: str) -> bytes | None:
        """Its version, if it has not changed since the walk began."""
        try:
            dated = endpoint.dated(path)
        except StorageError as error:
            self._findings.cannot(_DARK, f"names at {self.site} that could not be looked at: {error.what}")
            return None
        if dated is None or self._began_ns <= dated.changed_ns < time.time_ns() + _AHEAD_NS:
            return None
        return dated.version.encode()

    def dark(self) -> Iterator[DarkFile]:
        """By path. Each is looked at once more: a plane deletes the parts of what has just ended."""
        endpoint = self.endpoint
        if endpoint is None:
            return
        for key, version in rows.scan(self._db, b"d"):
            path = os.fsdecode(key[1:])
            if self._old(endpoint, path) == version and not self._has_landed(key[1:]):
                yield DarkFile(path, version.decode())

    # open transfers

    def _land(self, endpoint: Endpoint, noted: dict[LogPartition, int]) -> None:
        """Which transfers bring what may be dark, and which transfers had ended.

        What closed since `noted` counts as open: its replicas or its cleaning up may be on their way.
        """
        for place, fact in self._transfers("beginning"):
            if isinstance(fact, m.TransferClosed):
                if fact.acknowledged and place[1] < noted.get(place[0], 0):
                    self._db[b"c" + fact.manifest.encode()] = b""
                continue
            for some in rows.batched(enumerate(fact.body.items), _BATCH):
                files = [_dark(endpoint, item.target) for _, item in some]
                parts = [b"p" + item_tag(fact.manifest, no).encode() for no, _ in some]
                paths = [key[1:] for key, row in zip(files, self._db.get(files), strict=True) if row is not None]
                paths += [path for row in self._db.get(parts) if row is not None for path in row.split(b"\0")]
                for path in paths:
                    self._db[b"o%b\0%b" % (path, fact.manifest.encode())] = b""

    def _transfers(
        self, start: StartAt
    ) -> Iterator[tuple[tuple[LogPartition, int], m.TransferPlanned | m.TransferClosed]]:
        """Plans and ends, each with its partition and offset."""
        for record in replay(self._settings, self.site, [TRANSFERS], start=start):
            place = record.topic, record.partition
            self._planned[place] = record.offset + 1
            with suppress(WireError):  # the site's workers file it as a dead letter
                fact = wire.decode(TRANSFERS, record.key, record.value, record.headers, self.site).message
                if isinstance(fact, m.TransferPlanned | m.TransferClosed):
                    yield (place, record.offset), fact

    def _has_landed(self, path: bytes) -> bool:
        """Whether a transfer that is open brings this."""
        prefix = b"o%b\0" % path
        return any(self._db.get(b"c" + key[len(prefix) :]) is None for key, _ in rows.scan(self._db, prefix))

    # meanwhile

    def _drop_changed(self, endpoint: Endpoint | None) -> None:
        words = f"files of {self.site} held or given up while its disk was looked at"
        for fact in self._held.since():
            for lfn in names_of(fact):
                wrong, dark = _wrong(lfn, fact.dataset), _dark(endpoint, lfn)
                for key, invariant in ((wrong, _MISSING), (dark, _DARK)):
                    if self._db.get(key) is not None:
                        self._db.delete(key)
                        self._findings.wait(invariant, words)

    def named_since(self, endpoint: Endpoint, paths: Collection[str]) -> set[str]:
        """Those of these paths that the journals have named since the look: held, or planned to land there."""
        named: set[str] = set()

        def note(lfns: Sequence[str]) -> None:
            named.update(path for lfn in lfns if (path := os.fsdecode(_dark(endpoint, lfn)[1:])) in paths)

        for fact in self._held.since():
            if isinstance(fact, m.FilesHeld):
                note(names_of(fact))
        for _, plan in self._transfers(dict(self._planned)):
            if isinstance(plan, m.TransferPlanned):
                note([item.target for item in plan.body.items])
        return named


def _wrong(lfn: str, dataset: str) -> bytes:
    return f"w{lfn}\0{dataset}".encode()


def _dark(endpoint: Endpoint | None, lfn: str) -> bytes:
    """The key of the row of what lies where `lfn` does. No row has the one of a name that has no place."""
    try:
        return b"d" + os.fsencode(endpoint.path_of(lfn)) if endpoint is not None else b"d"
    except StorageError:
        return b"d"
