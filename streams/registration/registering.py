"""Registering files: which they are, under what names, with what size and checksum, said to the log. And reading back.

A file under the storage root keeps its place and its name follows from its path; any other is placed under the root
(linked, cloned or copied). Whatever cannot be registered is one fault in one line, and the rest goes on.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from streams import waits
from streams.core.names import Adler32, Block, Lfn, Site, shown
from streams.core.records import HeldFile
from streams.core.store_names import is_asked
from streams.errors import StorageError, Temporary, UsageError, permanent
from streams.kafka.publish import Publisher
from streams.registration.discovery import Named, Renaming, find, name, place_of
from streams.registration.replica_writer import ReplicaWriter
from streams.settings import Settings
from streams.storage import open_named
from streams.storage.endpoint import Endpoint, FileMissing
from streams.storage.posix_place import measure

FAULTS_KEPT = 1000
_LOOKED_UP = 500
_THREADS = 4
_KEY_THREADS = 8
"""For keys of stores: most of their time is waiting."""

T = TypeVar("T")
R = TypeVar("R")
Replica = tuple[Lfn, Site, int, str, str]
"""(LFN, site, bytes, adler32, block)."""
ReplicasOf = Callable[[Sequence[Lfn]], Iterable[Replica]]
"""Replicas that the catalogue knows of these names, of this site too."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one path, line or name was refused."""

    where: str
    why: str

    def __str__(self) -> str:
        where = self.where.encode(errors="backslashreplace").decode()
        return f"{shown(where, 300)}: {self.why}"


@dataclass(slots=True)
class Registration:
    """What came of it: files acknowledged by the log, how they were placed, and faults (the first 1,000 kept)."""

    files: int = 0
    bytes: int = 0
    placed: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    faults_count: int = 0
    repeated: int = 0
    """Files named twice with the same content: said once."""
    stopped: Temporary | None = None
    """Why the rest was not said; `files` are in the log all the same."""
    on_fault: Callable[[Fault], None] | None = None

    def refuse(self, where: str, why: str) -> None:
        fault = Fault(where, why)
        self.faults_count += 1
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(fault)
        if self.on_fault is not None:
            self.on_fault(fault)


def register(
    settings: Settings,
    publisher: Publisher,
    paths: Iterable[str | os.PathLike[str]],
    block: Block,
    *,
    lfn_prefix: str | None = None,
    renamings: Sequence[Renaming] = (),
    endpoint: Endpoint | None = None,
    replicas_of: ReplicasOf | None = None,
    link: bool = False,
    owner: str = "",
    threads: int = _THREADS,
    on_progress: Callable[[int, int], None] | None = None,
    on_fault: Callable[[Fault], None] | None = None,
) -> Registration:
    """Register the files at `paths` (directories are walked) as replicas of the publisher's site, in `block`.

    A path `s3://NAME/PATTERN` is the keys of a store of this site that match; each is read once and stays there.

    See `discovery.name` for the LFNs. What is placed is a clone or a copy: no write to the
    user's file reaches it. `link=True` links where it can, and then such a write does. `replicas_of` finds known
    replicas: a name is one content everywhere, and in one block of a site; what contradicts that is refused before it
    is placed. `owner`: whose they are, "" nobody's. `on_progress(files, bytes)` after acknowledgements.
    Raises UsageError without an endpoint, StorageError without its root; `stopped` says that the cluster went away.
    """
    result = Registration(on_fault=on_fault)
    wanted = [os.fspath(path) for path in paths]
    if any(is_asked(path) for path in wanted):
        threads = max(threads, _KEY_THREADS)
    prefix = None if lfn_prefix is None else Lfn(lfn_prefix.rstrip("/"))
    with _endpoint(settings, endpoint) as store, waits.on("files to be read") as reading:

        def named() -> Iterator[Named]:
            shared = _shared(wanted, store, prefix, renamings) if renamings else {}
            for path in wanted:
                if is_asked(path):
                    yield from _keys(path, store, result)
                    continue
                for found in find([path], result.refuse):
                    try:
                        file = name(found, store, prefix, renamings)
                    except UsageError as error:
                        result.refuse(found.path, str(error))
                        continue
                    if (others := shared.get(file.lfn)) is None:
                        yield file
                    else:
                        other = next(path for path in others if path != found.path)
                        result.refuse(found.path, f"{file.lfn} would be {shown(other)} too: rename them apart")

        def read(one: tuple[Named, Sequence[Replica]]) -> tuple[Named, HeldFile | StorageError, str]:
            file, replicas = one
            try:
                return (file, *_read(store, file, block, replicas, publisher.site, link=link))
            except StorageError as error:
                return file, error, ""

        def held() -> Iterator[tuple[str, HeldFile]]:
            for file, answer, how in _in_threads(read, _looked_up(named(), replicas_of), threads):
                if isinstance(answer, StorageError):
                    result.refuse(file.path, str(answer))
                else:
                    result.placed[how] = result.placed.get(how, 0) + 1
                    reading.what = f"files to be read ({sum(result.placed.values()):,} so far)"
                    yield file.path, answer

        writer = ReplicaWriter(publisher, publisher.site, on_acknowledged=on_progress, owner=owner)
        try:
            for one in _without_duplicates(held(), result):
                writer.add(one)
            writer.finish()
        except Temporary as error:
            result.stopped = error
        result.files, result.bytes = writer.acknowledged, writer.acknowledged_bytes
    return result


@dataclass(frozen=True, slots=True)
class Checked:
    """A replica read back from disk. `why` is empty when size and checksum are those expected.

    `damaged`: whether it is sure that the file is another one, or gone, and not only that it cannot be read now;
    `version`: of what was found, "" of nothing.
    """

    lfn: Lfn
    bytes: int
    why: str = ""
    damaged: bool = False
    version: str = ""


def verify(
    settings: Settings,
    expected: Iterable[tuple[Lfn, int, str]],
    *,
    endpoint: Endpoint | None = None,
) -> Iterator[Checked]:
    """Read replicas (LFN, bytes, adler32) back from this site's disk, in order. Raises as `register` does."""
    with _endpoint(settings, endpoint) as store:

        def check(wanted: tuple[Lfn, int, str]) -> Checked:
            lfn, size, adler = wanted
            try:
                stat = store.stat(lfn)
                if stat.bytes != size:
                    why = f"has {stat.bytes} bytes, not {size} ({store.pfn(lfn)})"
                    return Checked(lfn, stat.bytes, why, True, stat.version)
                found = store.checksum(lfn, stat.version)
            except StorageError as error:
                return Checked(lfn, 0, str(error), isinstance(error, FileMissing))
            if found == adler:
                return Checked(lfn, size, version=stat.version)
            return Checked(lfn, size, f"has adler32 {found}, not {adler} ({store.pfn(lfn)})", True, stat.version)

        yield from _in_threads(check, expected, _THREADS)


def _shared(
    wanted: Sequence[str], store: Endpoint, prefix: Lfn | None, renamings: Sequence[Renaming]
) -> dict[Lfn, tuple[str, str]]:
    """LFNs that several files would have, each with two of these. Looks at names only; one entry a file meanwhile.

    A file given by two spellings of its path is one.
    """
    first: dict[Lfn, str] = {}
    shared: dict[Lfn, tuple[str, str]] = {}
    for found in find([path for path in wanted if not is_asked(path)], lambda *_: None):
        try:
            lfn = name(found, store, prefix, renamings).lfn
        except UsageError:
            continue
        other = first.setdefault(lfn, found.path)
        if other != found.path and place_of(other) != place_of(found.path):
            shared.setdefault(lfn, (other, found.path))
    return shared


def _keys(asked: str, store: Endpoint, result: Registration) -> Iterator[Named]:
    try:
        for lfn, stat in store.find_keys(asked, result.refuse):
            yield Named(lfn, lfn, True, stat)
    except UsageError as error:
        result.refuse(asked, str(error))
    except StorageError as error:
        if error.failure_class != "transient":
            result.refuse(asked, str(error))
        else:
            result.stopped = Temporary(
                error.what, asked, "what was found is registered; register it again for the rest"
            )


def _looked_up(files: Iterator[Named], replicas_of: ReplicasOf | None) -> Iterator[tuple[Named, Sequence[Replica]]]:
    """Each file with what is known of its name, some hundred at a time."""
    while chunk := list(islice(files, _LOOKED_UP)):
        known: dict[str, list[Replica]] = {}
        for replica in replicas_of([file.lfn for file in chunk]) if replicas_of is not None else ():
            known.setdefault(replica[0], []).append(replica)
        yield from ((file, known.get(file.lfn, ())) for file in chunk)


def _read(
    store: Endpoint, file: Named, block: Block, replicas: Sequence[Replica], site: Site, *, link: bool
) -> tuple[HeldFile, str]:
    """The file as it is now, and how it came under the root. StorageError if it changes meanwhile, or contradicts."""
    if not file.in_place:
        if replicas:
            # Read once more than else, but nothing of a file that is refused may stay under the root.
            _refuse_contradiction(file.lfn, *measure(file.path), block, replicas, site)
        placed = store.place(file.lfn, file.path, link=link)
        return HeldFile(file.lfn, block, placed.bytes, Adler32(placed.adler32), placed.version), placed.how
    stat = file.stat or store.stat(file.lfn)
    adler = store.checksum(file.lfn, stat.version)
    _refuse_contradiction(file.lfn, stat.bytes, adler, block, replicas, site)
    return HeldFile(file.lfn, block, stat.bytes, Adler32(adler), stat.version), "in place"


def _refuse_contradiction(lfn: Lfn, size: int, adler: str, block: str, replicas: Iterable[Replica], site: Site) -> None:
    """StorageError where a file may not be registered under a name that is known. A site's own may change."""
    for _, at, other_size, other_adler, other_block in replicas:
        if at == site and other_block != block:
            raise permanent(f"{lfn} is registered here in {other_block}, and a file is in one block: name that one")
        if at != site and (other_size, other_adler) != (size, adler):
            what = f"{at} holds other content as {lfn} ({other_size} bytes, adler32 {other_adler})"
            then = "a name is one content: give this one another name"
            raise permanent(what, next=then)


def _without_duplicates(held: Iterator[tuple[str, HeldFile]], result: Registration) -> Iterator[HeldFile]:
    seen: dict[int, int] = {}
    for where, file in held:
        key, content = hash(file.lfn), hash((file.bytes, file.adler32, file.block))
        if key not in seen:
            seen[key] = content
            yield file
        elif seen[key] == content:
            result.repeated += 1
        else:
            result.refuse(where, f"{file.lfn} was registered a moment ago with another size, checksum or block")


def _in_threads(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """`work` of each item, in order, a few ahead of the reader."""
    with ThreadPoolExecutor(threads, thread_name_prefix="register") as pool:
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) >= threads * 4:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


@contextmanager
def _endpoint(settings: Settings, given: Endpoint | None) -> Iterator[Endpoint]:
    if given is not None:
        yield given
        return
    if not settings.endpoint_url:
        raise UsageError("no storage is configured for this site", next="set endpoint.url in its site.toml")
    with open_named(settings.endpoints) as opened:
        yield opened
