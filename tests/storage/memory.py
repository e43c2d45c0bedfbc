"""A storage in this process's memory: the example of a back end, for tests. What it holds ends with it.

Durable here means written: there is no crash that it outlives. Files are on no disk, so no library opens them by a
path, and entries, which libraries write, cannot land. Where `BACK_ENDS` has it, `memory://` opens a new and empty one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from threading import RLock
from time import time_ns
from typing import TypeVar
from urllib.parse import SplitResult

from streams.core.names import LFN_BYTES_MAX, Lfn
from streams.core.path_rules import PathRules
from streams.core.ranges import Ranges
from streams.errors import InvalidName, NeverWorks, StorageError, data_bad, permanent
from streams.storage.checksums import AdlerRanges, Buffer, adler32, adler32_hex
from streams.storage.endpoint import (
    SINCE_LISTED,
    WHILE_READ,
    Beside,
    Dated,
    Endpoint,
    FileMissing,
    FileStat,
    OnDisk,
    Part,
    PartFileLost,
    PlacedFile,
    Reader,
    SealedFile,
    Wanted,
    Workroom,
    checked_tag,
    different_file,
    other_version,
    outside,
)
from streams.storage.posix_place import open_local

_ROOT = "memory:"
_serials = count(1)


SCHEME = "memory"


def opened(url: SplitResult, *, name: str, rules: PathRules | None) -> Endpoint:
    """For the table of back ends."""
    if url.netloc or url.path or url.query or url.fragment or rules is not None:
        raise NeverWorks(f"not a storage in memory: {url.geturl()!r}", next="use memory:// and no path rules")
    return MemoryEndpoint(name=name)


class Blob:
    """The bytes of a file or part, whatever its name is, and which change was the last."""

    def __init__(self, content: Buffer = b"") -> None:
        self.content = bytearray(content)
        self.touch()

    def touch(self) -> None:
        self.serial, self.changed_ns = next(_serials), time_ns()

    @property
    def stat(self) -> FileStat:
        return FileStat(len(self.content), f"{len(self.content)}@{self.serial}")


class MemoryEndpoint(Endpoint):
    """`files` by LFN and `parts` by LFN and tag, for tests to look into and to change."""

    def __init__(self, *, name: str = "") -> None:
        self.name, self.root = name, _ROOT
        self.files: dict[str, Blob] = {}
        self.parts: dict[tuple[str, str], Blob] = {}
        self.own: dict[str, bytes] = {}
        self.aside: dict[tuple[str, str], Blob] = {}
        self.lock = RLock()

    def close(self) -> None:
        pass

    # reading

    def pfn(self, lfn: str) -> str:
        return _ROOT + self._checked(lfn)

    def stat(self, lfn: str) -> FileStat:
        with self.lock:
            return self._blob(lfn).stat

    def open_reader(self, lfn: str, version: str | None = None) -> MemoryReader:
        with self.lock:
            return MemoryReader(self.lock, lfn, self._blob(lfn), version)

    def walk(self, refuse: Callable[[str, str], None]) -> Iterator[OnDisk]:
        for lfn in list(self.files):
            try:
                yield OnDisk(self.path_of(lfn), Lfn(lfn))
            except InvalidName:
                yield OnDisk(self.path_of(lfn), None)
        for lfn, tag in list(self.parts):
            yield OnDisk(_part_path(lfn, tag), None, tag.partition("-")[0])

    def dated(self, path: str) -> Dated | None:
        blob = self.files.get("/" + path)
        if blob is None:
            blob = next((one for name, one in list(self.parts.items()) if _part_path(*name) == path), None)
        return None if blob is None else Dated(blob.stat.version, blob.changed_ns)

    def path_of(self, lfn: str) -> str:
        return self._checked(lfn)[1:]

    def lfn_of(self, path: str) -> Lfn | None:
        return Lfn("/" + path)

    # writing

    def present_group(self, wanted: Sequence[Wanted]) -> list[bool | StorageError]:
        return [self._present(one) for one in wanted]

    def place(self, lfn: str, source_path: str, *, link: bool = True) -> PlacedFile:
        self._checked(lfn)
        with open_local(lfn, source_path) as source:
            content = source.pread(0, source.stat.bytes)
        with self.lock:
            adler, how = adler32_hex(adler32(content)), "copy"
            if self.present(lfn, len(content), adler):
                how = "already"
            else:
                self.files[lfn] = Blob(content)
            return PlacedFile(lfn, len(content), adler, self.stat(lfn).version, how)

    def open_part(
        self,
        lfn: str,
        tag: str,
        *,
        bytes: int,
        adler32: str | None,
        verified: Iterable[tuple[int, int]] = (),
        preallocate: bool = False,
        replaces: bool = False,
    ) -> MemoryPart:
        name, ranges = (self._checked(lfn), checked_tag(tag)), Ranges(verified)
        with self.lock:
            if ranges and name not in self.parts:
                raise PartFileLost("the part is gone", self.pfn(lfn))
            part = MemoryPart(self, lfn, tag, self.parts.setdefault(name, Blob()), bytes, adler32, ranges)
            part.replaced = self.files.get(lfn) if replaces else None
            return part

    def take_seed(self, lfn: str, left: str, tag: str) -> bool:
        with self.lock:
            blob = self.parts.pop((self._checked(lfn), _seed(left)), None)
            if blob is not None:
                self.parts[lfn, checked_tag(tag)] = blob
            return blob is not None

    def sync_group(self, parts: Sequence[Part]) -> list[Ranges | StorageError]:
        return [_answer(part.sync) for part in parts]

    def seal_group(self, parts: Sequence[Part]) -> list[SealedFile | StorageError]:
        return [_answer(part.seal) for part in parts]

    def open_beside(self, lfn: str, tag: str) -> Beside:
        what = "entries are written into files on disk, and this storage has none"
        raise permanent(what, self.pfn(lfn), "ask for whole files")

    def open_workroom(self, lfn: str, tag: str) -> Workroom:
        raise permanent("a program writes files on disk, and this storage has none", self.pfn(lfn))

    def settle_names(self, lfns: Sequence[str]) -> list[StorageError | None]:
        return [None for _ in lfns]

    def remove_group(
        self, lfns: Sequence[str], why_not: Callable[[str, str], str | None]
    ) -> list[str | StorageError | None]:
        return [self._remove(lfn, why_not) for lfn in lfns]

    def _remove(self, lfn: str, why_not: Callable[[str, str], str | None]) -> str | StorageError | None:
        try:
            with self.lock:
                self._checked(lfn)
                why = why_not(lfn, self.stat(lfn).version)
                if why is None:
                    del self.files[lfn]
                return why
        except FileMissing:
            return None
        except StorageError as error:
            return error

    def read_own(self, name: str) -> bytes | None:
        return self.own.get(name)

    def write_own(self, name: str, content: bytes, *, once: bool = False) -> None:
        if not once or name not in self.own:
            self.own[name] = content

    def aside_path(self, folder: str) -> str:
        return f"{_ROOT}aside/{folder}"

    def set_aside(self, found: Sequence[tuple[str, str]], folder: str) -> list[str | StorageError | None]:
        answers: list[str | StorageError | None] = []
        for path, version in found:
            with self.lock:
                there = self.dated(path)
                if there is None or there.version != version:
                    answers.append("it is gone" if there is None else "it has changed since it was looked at")
                else:
                    part = next((name for name in self.parts if _part_path(*name) == path), None)
                    self.aside[folder, path] = self.files.pop("/" + path) if part is None else self.parts.pop(part)
                    answers.append(None)
        return answers

    def lies_aside(self, path: str) -> tuple[str, int] | None:
        with self.lock:
            return max(((f, one.stat.bytes) for (f, of), one in self.aside.items() if of == path), default=None)

    def bring_back(self, paths: Sequence[str], folder: str) -> list[StorageError | None]:
        answers: list[StorageError | None] = []
        for path in paths:
            with self.lock:
                if "/" + path in self.files:
                    answers.append(permanent("another file has the name", path))
                else:
                    self.files["/" + path] = self.aside.pop((folder, path))
                    answers.append(None)
        return answers

    def discard(self, lfn: str, tag: str) -> bool:
        names = [(self._checked(lfn), checked_tag(tag)), (lfn, _seed(tag))]
        with self.lock:
            return len([1 for name in names if self.parts.pop(name, None) is not None]) > 0

    def _checked(self, lfn: str) -> str:
        if len(lfn) > LFN_BYTES_MAX or not lfn.startswith("/") or not lfn.isprintable():
            raise outside(lfn)
        if any(not step or step[0] == "." for step in lfn[1:].split("/")):
            raise outside(lfn)
        return lfn

    def _blob(self, lfn: str) -> Blob:
        blob = self.files.get(self._checked(lfn))
        if blob is None and any(other.startswith(lfn + "/") for other in self.files):
            raise permanent("not a regular file", self.pfn(lfn))
        if blob is None:
            raise FileMissing("no such file", self.pfn(lfn), failure_class="permanent")
        return blob

    def _present(self, one: Wanted) -> bool | StorageError:
        with self.lock:
            try:
                blob = self._blob(one.lfn)
            except FileMissing:
                return False
            except StorageError as error:
                return error
            if len(blob.content) != one.bytes:
                return different_file(f"{len(blob.content)} bytes instead of {one.bytes}", self.pfn(one.lfn))
            adler = adler32_hex(adler32(blob.content))
            if one.adler32 is None or adler == one.adler32:
                return one.adler32 is not None
            return different_file(f"adler32 {adler} instead of {one.adler32}", self.pfn(one.lfn))


class MemoryReader(Reader):
    def __init__(self, lock: RLock, lfn: str, blob: Blob, version: str | None) -> None:
        self._lock = lock
        self.lfn, self.blob, self.stat = lfn, blob, blob.stat
        if version is not None and version != self.stat.version:
            raise other_version(version, self.stat, SINCE_LISTED, _ROOT + lfn)

    def readinto(self, offset: int, view: memoryview) -> None:
        stop = offset + view.nbytes
        with self._lock:
            now = self.blob.stat
            if now != self.stat:
                raise other_version(now.version, self.stat, WHILE_READ, _ROOT + self.lfn)
            if stop > now.bytes:
                raise permanent(f"bytes up to {stop} were asked of a file of {now.bytes}", _ROOT + self.lfn)
            view[:] = self.blob.content[offset:stop]

    def close(self) -> None:
        pass


class MemoryPartReader(Reader):
    """Of a part's blob, which is the file's once it is sealed."""

    def __init__(self, lock: RLock, lfn: str, blob: Blob, bytes: int) -> None:
        self._lock, self._blob = lock, blob
        self.lfn, self.stat = lfn, FileStat(bytes, "")

    def readinto(self, offset: int, view: memoryview) -> None:
        with self._lock:
            there = len(self._blob.content)
            if offset + view.nbytes > there:
                raise permanent(f"bytes up to {offset + view.nbytes} were asked of a part of {there}", _ROOT + self.lfn)
            view[:] = self._blob.content[offset : offset + view.nbytes]

    def close(self) -> None:
        pass


class MemoryPart(Part):
    """Two of one tag share its bytes, as two processes share a file: each notices what the other wrote."""

    def __init__(
        self, store: MemoryEndpoint, lfn: str, tag: str, blob: Blob, bytes: int, adler32: str | None, verified: Ranges
    ) -> None:
        self.lfn, self.tag, self.bytes, self.adler32 = lfn, tag, bytes, adler32
        self._store, self._blob, self._serial = store, blob, blob.serial
        self._adlers = AdlerRanges()
        self._lost: PartFileLost | None = None
        self.replaced: Blob | None = None
        for start, stop in verified:
            if stop > min(bytes, len(blob.content)):
                what = f"the part is shorter ({len(blob.content)} bytes) than what was verified"
                raise PartFileLost(what, store.pfn(lfn))
            self._adlers.add(start, stop, None)

    @property
    def covered(self) -> Ranges:
        return Ranges(self._adlers.spans())

    def write(self, offset: int, segment: Buffer) -> None:
        view = memoryview(segment).cast("B")
        stop = offset + view.nbytes
        with self._store.lock:
            self._still_ours()
            if offset < 0 or stop > self.bytes:
                raise data_bad(f"a segment [{offset}, {stop}) lies outside the file of {self.bytes} bytes", self._pfn)
            content = self._blob.content
            for start, end in self._adlers.uncovered(offset, stop):
                piece = view[start - offset : end - offset]
                content.extend(b"\0" * (end - len(content)))
                content[start:end] = piece
                self._adlers.add(start, end, adler32(piece))
                self._blob.touch()
            self._serial = self._blob.serial

    def adopt(self, offset: int, stop: int, is_right: Callable[[memoryview], bool]) -> bool:
        with self._store.lock:
            self._still_ours()
            gaps = self._adlers.uncovered(offset, stop)
            for blob in (self._blob, self.replaced) if gaps else ():
                block = b"" if blob is None else bytes(blob.content[offset:stop])
                if len(block) == stop - offset and is_right(memoryview(block)):
                    break
            else:
                return not gaps
            if blob is self._blob:
                for start, end in gaps:
                    self._adlers.add(start, end, adler32(block[start - offset : end - offset]))
        if blob is not self._blob:
            self.write(offset, block)
        return True

    def open_reader(self) -> MemoryPartReader:
        with self._store.lock:
            if self._store.parts.get((self.lfn, self.tag)) is not self._blob:
                raise StorageError("the part is gone, or was sealed", self._pfn)
            return MemoryPartReader(self._store.lock, self.lfn, self._blob, self.bytes)

    def sync(self) -> Ranges:
        if self._lost is not None:
            raise self._lost
        return self.covered

    def seal(self) -> SealedFile:
        with self._store.lock:
            try:
                adler = self._verified()
            except StorageError as error:
                return self._ended(error, self.adler32)
            if self._store.files.get(self.lfn) not in (None, self.replaced):
                return self._ended(different_file("it came meanwhile", self._pfn), adler)
            self._store.files[self.lfn] = self._store.parts.pop((self.lfn, self.tag))
            return SealedFile(self.lfn, self.bytes, adler, already=False)

    def leave_seed(self) -> bool:
        with self._store.lock:
            if self._store.parts.get((self.lfn, self.tag)) is not self._blob:
                return False
            self._store.parts[self.lfn, _seed(self.tag)] = self._store.parts.pop((self.lfn, self.tag))
            self._lost = self._lost or PartFileLost("the part was left as a seed", self._pfn)
            return True

    def discard(self) -> None:
        with self._store.lock:
            if self._store.parts.get((self.lfn, self.tag)) is self._blob:
                del self._store.parts[self.lfn, self.tag]
            self._lost = self._lost or PartFileLost("the part was discarded", self._pfn)

    def close(self) -> None:
        pass

    @property
    def _pfn(self) -> str:
        return self._store.pfn(self.lfn)

    def _still_ours(self) -> None:
        """The name still has these bytes. If somebody else wrote to them, every known adler is forgotten."""
        if self._lost is None and self._store.parts.get((self.lfn, self.tag)) is not self._blob:
            self._lost = PartFileLost("the part is gone, or was sealed by another", self._pfn)
        if self._lost is not None:
            raise self._lost
        if self._serial != self._blob.serial:
            self._adlers.forget()
            self._serial = self._blob.serial

    def _verified(self) -> str:
        """The adler32 of the whole, as expected; reads only what others wrote."""
        self._still_ours()
        if missing := self.covered.missing(0, self.bytes):
            start, stop = missing.spans[0]
            raise StorageError(f"{missing.size} bytes are not written yet, the first [{start}, {stop})", self._pfn)
        for start, stop in self._adlers.unknown():
            self._adlers.resolve(start, stop, adler32(self._blob.content[start:stop]))
        whole = self._adlers.whole(self.bytes)
        assert whole is not None
        if self.adler32 not in (None, adler32_hex(whole)):
            what = f"checksum differs: expected {self.adler32}, file has {adler32_hex(whole)}"
            self._lost = PartFileLost(what, self._pfn, failure_class="data-bad")
            raise self._lost
        return adler32_hex(whole)

    def _ended(self, failure: StorageError, adler: str | None) -> SealedFile:
        """Another writer of the item may have sealed it. Deletes the part if nothing can become of it."""
        if failure.failure_class == "transient" and not isinstance(failure, PartFileLost):
            raise failure
        (there,) = self._store.present_group([Wanted(self.lfn, self.bytes, adler)])
        if there is False and failure is self._lost and failure.failure_class == "data-bad":
            raise failure  # most of its bytes are right
        self.discard()
        if there is True and adler is not None:
            return SealedFile(self.lfn, self.bytes, adler, already=True)
        replaces = self.replaced is not None and self._store.files.get(self.lfn) is self.replaced
        raise there if isinstance(there, StorageError) and not replaces else failure


def _seed(tag: str) -> str:
    return f"{checked_tag(tag)}.seed"


_T = TypeVar("_T")


def _answer(ask: Callable[[], _T]) -> _T | StorageError:
    try:
        return ask()
    except StorageError as error:
        return error


def _part_path(lfn: str, tag: str) -> str:
    directory, _, _ = lfn[1:].rpartition("/")
    return f"{directory}/.t2g-{tag}.part" if directory else f".t2g-{tag}.part"
