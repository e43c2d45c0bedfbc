"""The storage contract, in prose and types: what every backend does, so that planes need to know none of them.

Two contracts: `ReadableStorage`, which a store of keys keeps too, and `WritableStorage`. An `Endpoint` keeps both. Each
has a suite of tests, the same for every backend. Not here: any system call, any decision about retries or sources.

**Names.** Callers speak LFNs; the endpoint's rules give the PFN. No name, rule or symbolic link makes a backend touch
anything outside its root: such a request is a `StorageError`, permanent. One LFN is one PFN, and one PFN is one LFN: a
name to which a rule gives the place of another is refused. What only stands before other names, as a directory, is no
file: "not a regular file" where there are directories, and `FileMissing` where there are none, as in a store of keys.

**Reading.** A reader is bound to one `version` of the file. Bytes come whole or not at all: a file that changed or
shrank is data-bad, one that is gone is `FileMissing`, each with a reason in words. (A change within one tick of the
filesystem's clock can escape the version; it cannot escape the checksum.) Where asking takes its time, as of a store
over a network, a reader of a given version may notice that at its first read, and bytes of that version that were
fetched before the change may be given after it. Files of such a store have no `local_path`, are never written, and are
found by `find_keys`.

**Writing.** Bytes of a file grow in a *part* beside the target, never under the final name:
1. `present`: maybe the file is there already (then `discard` the own tag: a crash may have left its part); a different
   file there is a permanent failure.
2. `open_part(lfn, tag, …)`, the tag from `part_tag`. With `verified` ranges it must find them, else `PartFileLost`.
   Of a file that comes in one piece `write_part` is this and the next step.
3. `write` in any order. A byte is taken once: what is covered already is skipped, so checksum and disk agree.
4. `sync`, or `sync_group` for many: returns what is durable; only that may be reported as progress.
5. `seal`, or `seal_group` for many: syncs, compares size and adler32, gives the final name without replacing, makes
   the name durable. The same bytes already there is a success (`already`).
What is made of a part and is no copy of it (entries) is written in the room beside the target, `open_beside`; the same
rules hold for it. A program that is not ours writes in a directory of its own beside the target, `open_workroom`; what
it wrote is read back and written to a part. Where files are on no disk there is no such room: a permanent failure.
6. Of a part whose bytes are not the file, most are right. `leave_seed` keeps them for the part of another tag, which
   takes them over with `take_seed`: none of them counts until `adopt` has compared it. Not after a failed sync: what
   can be read may not be what the disk has.
7. A damaged file is repaired by a part that `replaces` it: both change places in one step, so that the name is never
   without a file, and the damaged one is deleted.
8. `remove_group` deletes what has its final name, as the version that was asked for and no other. It and 7 hold the
   lock of the name from their last look on.
9. `set_aside` moves what a walk named, under the lock of the name, into a room of the endpoint's own, whence
   `bring_back` brings it; nothing is replaced. `read_own` and `write_own` are of small files there.
A whole file under its final name is never deleted or changed in another way. The only files ever deleted besides are an
item's own parts: by `discard`, and by a seal that ended (already there, different file).

**Walking.** `walk` names what is on the disk below the root, known or not, and `dated` says when a name last changed;
keys of a store are no part of it. Nothing is opened but directories. `path_of` and `lfn_of` translate between LFNs and
the names of a walk; each undoes the other.

**Failing.** `StorageError.failure_class` says whether to come back. `PartFileLost` (a StorageError): this part is
useless, `discard` it and take the next attempt; but ask `present` first: another writer of the same item may have
sealed it. After any error but `PartFileLost` a part can be used further. In a group one item's failure never touches
another's.

**Threads.** Endpoints may be shared; a reader is used by one thread at a time. A part may be written by several at
once, of which none waits for another but where both bring the same bytes, and synced meanwhile; the rest of it is for
one thread at a time. Where several processes write to one part (a worker that was taken for dead), no seal believes
what either knows of the bytes: they are read back.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from streams.core.closing import Closing
from streams.core.names import Lfn, shown
from streams.core.ranges import Ranges
from streams.errors import NeverWorks, StorageError, UsageError, data_bad, permanent
from streams.storage.checksums import ADLER32_EMPTY, Buffer, adler32, adler32_hex

READ_BYTES = 1 << 20
SINCE_LISTED = "since it was listed"
WHILE_READ = "while it was read"
_SIZED_VERSION = re.compile(r"([0-9]{1,20})[:@][-:0-9]{1,42}")
_TAG = re.compile(r"[0-9a-f]{16}-(?:0|[1-9][0-9]{0,9})")


class FileMissing(StorageError):
    """No such file (permanent)."""


class DifferentFile(StorageError):
    """Under the final name is a file that is not the one that is wanted (permanent)."""


class PartFileLost(StorageError):
    """The part's bytes cannot be trusted or are gone; only a new attempt helps."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """Size in bytes, and an opaque version that changes when the file does."""

    bytes: int
    version: str


@dataclass(frozen=True, slots=True)
class FileUrl:
    """Where one version of a file of `bytes` bytes may be fetched, by whoever has the `url`, if he asks for the `etag`.

    What the query of the URL holds is a secret.
    """

    url: str
    bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A name below the root that is no directory. `path`: from the root, bytes that are no UTF-8 as lone surrogates.

    `lfn`: None where no LFN can mean it. `item`: of an item's part its `item_tag`, else "".
    """

    path: str
    lfn: Lfn | None
    item: str = ""


@dataclass(frozen=True, slots=True)
class Dated:
    """The version of the file that a name, or a link, leads to; when what has the name changed: ns of the epoch."""

    version: str
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A whole file somebody wants to exist; `adler32` None where the source does not know it."""

    lfn: str
    bytes: int
    adler32: str | None


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file that is durable under its final name. `already`: it was there before this seal."""

    lfn: str
    bytes: int
    adler32: str
    already: bool


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """A user's file brought under the root. `how`: link, clone, copy, or already."""

    lfn: str
    bytes: int
    adler32: str
    version: str
    how: str


def part_tag(manifest_id: str, item: int, attempt: int) -> str:
    """The tag of an item's part: 16 hex digits of manifest and item, and the attempt, its epoch."""
    return f"{item_tag(manifest_id, item)}-{attempt}"


def item_tag(manifest_id: str, item: int) -> str:
    """What the tags of all attempts at an item begin with: 16 hex digits."""
    return hashlib.sha256(f"{manifest_id}#{item}".encode()).hexdigest()[:16]


class Reader(Closing, ABC):
    """An open source file, bound to one version."""

    lfn: str
    stat: FileStat

    @abstractmethod
    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset`. Raises StorageError if the file no longer holds these bytes of this version."""

    @property
    def descriptor(self) -> int | None:
        """Where the kernel can read the file by itself, from `[0, stat.bytes)`; None of one that is on no disk.

        Who reads so calls `check` before and after it.
        """
        return None

    def check(self) -> None:
        """Raises StorageError if the file is no longer this version. Where `readinto` alone reads, it looks itself."""

    def ready(self, offset: int, count: int, wait_s: float) -> int:
        """How many of these bytes can be read by now, waiting up to `wait_s` for the first: of a whole file all."""
        return count

    def begin(self) -> bool:
        """Ask for what will be read soon, from the front, without waiting; False where nothing has to be waited for."""
        return False

    def pread(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        into = bytearray(length)
        self.readinto(offset, memoryview(into))
        return bytes(into)

    def adler32(self, take: Callable[[memoryview], None] | None = None) -> str:
        """Of the whole, read now in pieces of 1 MiB, each of which is given to `take`."""
        block = memoryview(bytearray(min(READ_BYTES, max(1, self.stat.bytes))))
        value = ADLER32_EMPTY
        for start in range(0, self.stat.bytes, len(block)):
            piece = block[: self.stat.bytes - start]
            self.readinto(start, piece)
            value = adler32(piece, value)
            if take is not None:
                take(piece)
        return adler32_hex(value)


class Part(Closing, ABC):
    """A file growing towards its final name."""

    lfn: str
    bytes: int
    adler32: str | None

    @property
    @abstractmethod
    def covered(self) -> Ranges:
        """Bytes written so far, by this process or verified by an earlier one; durable only after a sync."""

    @abstractmethod
    def write(self, offset: int, segment: Buffer) -> None:
        """Take bytes whose checksum agreed already. What is covered is skipped; beyond the end is data-bad."""

    @abstractmethod
    def adopt(self, offset: int, stop: int, is_right: Callable[[memoryview], bool]) -> bool:
        """Take `[offset, stop)` as written if it is there, in a part that took over a seed, and is right.

        What is covered already stays. The predicate is given all of it, in memory: a block, not more.
        """

    @abstractmethod
    def open_reader(self) -> Reader:
        """Of what is covered, while more is written and after the seal; no version binds it.

        Transient where its file has the part's name no more. Any thread.
        """

    @abstractmethod
    def sync(self) -> Ranges:
        """Make it durable; returns the ranges (of the file's bytes) that are. Any failure is `PartFileLost`."""

    @abstractmethod
    def seal(self) -> SealedFile:
        """Give the file its final name. Transient while bytes are missing; `PartFileLost` data-bad if adlers differ:
        then the part stays, to be discarded or left as a seed."""

    @abstractmethod
    def leave_seed(self) -> bool:
        """Close, and leave what is written as a seed of this tag, durably; where that cannot be, discard: False."""

    @abstractmethod
    def discard(self) -> None:
        """Delete this part, if it still is ours, and close."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it, leaving it on disk; a later `open_part` resumes it."""


class Beside(ABC):
    """Room beside a target for files that somebody else writes, one of which becomes the target: part, final.part.

    They bear an item's tag, and `WritableStorage.discard` deletes them all.
    """

    lfn: str
    pfn: str

    @abstractmethod
    def path(self, kind: str) -> str:
        """Where to open one of the files, while this is open. It may mean nothing to a user: say the `pfn`."""

    @abstractmethod
    def name(self, kind: str) -> bool:
        """Give a file, synced by who wrote it, the final name; False if something has it.

        Durable only after `WritableStorage.settle_names`.
        """

    @abstractmethod
    def close(self) -> None: ...


class Workroom(Closing, ABC):
    """A directory beside a target, in which a program that is not ours writes a file: what it wrote is read from there
    and written to a part, as any bytes. It bears an item's tag, and `WritableStorage.discard` deletes it too.
    """

    lfn: str
    path: str
    """Where the program is to write its file. Nothing is there yet."""

    @abstractmethod
    def used(self) -> int:
        """Bytes of all files in it, now."""

    @abstractmethod
    def open_reader(self) -> Reader:
        """Of the file. StorageError where there is none, or no regular one: transient, or permanent for a link."""

    @abstractmethod
    def close(self) -> None:
        """Delete it with all that is in it."""


class ReadableStorage(Closing, ABC):
    """Files of one storage as who reads sees them."""

    name: str

    @abstractmethod
    def pfn(self, lfn: str) -> str:
        """Where this storage keeps `lfn`. Raises StorageError (permanent) for a name that leads out of the root."""

    def local_path(self, lfn: str) -> str:
        """Where a library may open the file by itself. StorageError (permanent) for one that is on no disk."""
        raise permanent(
            "entries and objects are read from files on disk, and this one is on none", lfn, "ask for whole files"
        )

    def local_file(self, lfn: str, version: str) -> tuple[str, str]:
        """`local_path` of one version of a file (any for ""), and which it is. Never out of the root."""
        path = self.local_path(lfn)
        with self.open_reader(lfn, version or None) as reader:  # links are followed as the storage does
            return path, reader.stat.version

    @abstractmethod
    def stat(self, lfn: str) -> FileStat: ...

    @abstractmethod
    def open_reader(self, lfn: str, version: str | None = None) -> Reader:
        """Open for reading; with `version`, only that one."""

    def checksum(self, lfn: str, version: str | None = None) -> str:
        """adler32 of the bytes at rest, read now, in constant memory."""
        with self.open_reader(lfn, version) as reader:
            return reader.adler32()

    def url_of(self, lfn: str, version: str, life_s: int) -> FileUrl | None:
        """Of a version, for `life_s` seconds; None where files are only given by who has this storage.

        StorageError for what cannot be a version of it, or where it cannot be made now.
        """
        return None

    def find_keys(self, asked: str, refuse: Callable[[str, str], None]) -> Iterator[tuple[Lfn, FileStat]]:
        """Files that `s3://NAME/PATTERN` means; `refuse(name, why)` what cannot be one. UsageError where none can."""
        raise UsageError("this site reads no store", next="name one in its settings: [stores.NAME] with url and bucket")

    def walk(self, refuse: Callable[[str, str], None]) -> Iterator[OnDisk]:
        """Everything on the disk below the root, in no order, in bounded memory; links to directories not followed.

        `refuse(path, why)`: a directory that cannot be read; the walk goes on. StorageError where no walk is possible.
        """
        raise _no_disk(self.name)

    def dated(self, path: str) -> Dated | None:
        """Of a `path` that a walk named, now. None if it is gone; StorageError where the disk does not tell."""
        raise _no_disk(path)

    def path_of(self, lfn: str) -> str:
        """What a walk calls the file `lfn`. StorageError (permanent) for a name that no walk meets."""
        raise _no_disk(lfn)

    def read_own(self, name: str) -> bytes | None:
        """A small file that the storage keeps for itself; None where it has none of this name."""
        raise _no_disk(name)

    def lfn_of(self, path: str) -> Lfn | None:
        """The LFN of a file that a walk calls `path`; None where rules give that place to none.

        Raises InvalidName where it would be no legal LFN.
        """
        raise _no_disk(path)


class WritableStorage(ABC):
    """Files of one storage as who brings them sees them."""

    root: str
    """What holds the files, in the words of who has to make room there."""

    @abstractmethod
    def present_group(self, wanted: Sequence[Wanted]) -> list[bool | StorageError]:
        """For each: True if it is there whole and durable, False if not, or the error (a different file is there).

        A file of the right size where no adler32 is known is False: only a seal can tell.
        """

    def present(self, lfn: str, bytes: int, adler32: str | None) -> bool:
        """`present_group` of one; raises its error."""
        (answer,) = self.present_group([Wanted(lfn, bytes, adler32)])
        if isinstance(answer, StorageError):
            raise answer
        return answer

    @abstractmethod
    def place(self, lfn: str, source_path: str, *, link: bool = True) -> PlacedFile:
        """Bring a local file under the root, atomically, never replacing. `link=False`: always an own copy."""

    @abstractmethod
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
    ) -> Part:
        """Create or resume a part. `verified`: half-open ranges that an earlier process synced and reported.

        `replaces`: what is under the final name now is damaged: it may be adopted from, and the seal puts the part in
        its place, unless another file took it meanwhile.
        """

    def write_part(self, lfn: str, tag: str, content: Buffer, *, adler32: str | None) -> Part:
        """A part of which nothing was told yet, with all of its bytes: as `open_part` and one `write`."""
        part = self.open_part(lfn, tag, bytes=len(content), adler32=adler32)
        try:
            part.write(0, content)
        except BaseException:
            part.close()
            raise
        return part

    @abstractmethod
    def take_seed(self, lfn: str, left: str, tag: str) -> bool:
        """Make the seed that the tag `left` has the part of `tag`, to be opened; False where there is none."""

    @abstractmethod
    def sync_group(self, parts: Sequence[Part]) -> list[Ranges | StorageError]:
        """`sync` of each, together."""

    @abstractmethod
    def seal_group(self, parts: Sequence[Part]) -> list[SealedFile | StorageError]:
        """`seal` of each, together: one sync of the disk, all names, each directory once."""

    @abstractmethod
    def open_beside(self, lfn: str, tag: str) -> Beside:
        """Room beside `lfn`, whose directory is made. StorageError (permanent) where there is no disk."""

    @abstractmethod
    def open_workroom(self, lfn: str, tag: str) -> Workroom:
        """An empty directory for a program, beside `lfn`. StorageError (permanent) where there is no disk."""

    @abstractmethod
    def settle_names(self, lfns: Sequence[str]) -> list[StorageError | None]:
        """Make the names in the directories of these durable, each directory once; what failed."""

    @abstractmethod
    def remove_group(
        self, lfns: Sequence[str], why_not: Callable[[str, str], str | None]
    ) -> list[str | StorageError | None]:
        """Delete files under their final names, and make that durable, each directory once.

        `why_not(lfn, version)` is asked of what is there, under the lock of the name; None lets it go. For each: None
        where it is gone, by this call or before, else why it stays, or the error.
        """

    @abstractmethod
    def write_own(self, name: str, content: bytes, *, once: bool = False) -> None:
        """Keep a small file for itself, whole and durable, or none; with `once` one that is there already stays."""

    @abstractmethod
    def aside_path(self, folder: str) -> str:
        """Where `set_aside` moves things to, in the words of who looks for them."""

    @abstractmethod
    def set_aside(self, found: Sequence[tuple[str, str]], folder: str) -> list[str | StorageError | None]:
        """Move what a walk named, each (path, version), out of all walks, keeping its path below `folder`.

        Under the lock of the name, while it is this version. For each: None, else why it stays, or the error.
        """

    @abstractmethod
    def lies_aside(self, path: str) -> tuple[str, int] | None:
        """The folder, of several the last by name, where something with this path was set aside, and its bytes."""

    @abstractmethod
    def bring_back(self, paths: Sequence[str], folder: str) -> list[StorageError | None]:
        """Undo `set_aside`. What has taken a name meanwhile keeps it: an error, and what was moved stays there."""

    @abstractmethod
    def discard(self, lfn: str, tag: str) -> bool:
        """Delete an own part (an older attempt's), and what bears its tag beside it; whether something was there."""


class Endpoint(ReadableStorage, WritableStorage):
    """One storage of one site: both contracts."""


def outside(lfn: str) -> StorageError:
    """The refusal of a name that is none here."""
    return permanent(f"the name {shown(lfn)!r} does not lead to a file under the storage root")


def checked_tag(tag: str) -> str:
    """`tag` if it is one of `part_tag`; NeverWorks if not."""
    if not _TAG.fullmatch(tag):
        raise NeverWorks(f"not a part's tag: {shown(tag)!r}")
    return tag


def changed(before_bytes: int, now_bytes: int, when: str) -> str:
    """What happened to a file whose size changed, in words."""
    return f"{'shrank' if now_bytes < before_bytes else 'grew'} from {before_bytes} to {now_bytes} bytes {when}"


def other_version(version: str, opened: FileStat, when: str, where: str) -> StorageError:
    """What happened to a file, for back ends whose versions begin with its size.

    `version`: the older one where a caller remembered it (SINCE_LISTED), else the one found since (WHILE_READ).
    """
    told = _SIZED_VERSION.fullmatch(version)
    if told is None or int(told[1]) == opened.bytes:
        same = told is not None and when == SINCE_LISTED
        what = f"was changed {when}" + (" (same size, other time)" if same else "")
    else:
        sizes = int(told[1]), opened.bytes
        what = changed(*(sizes if when == SINCE_LISTED else sizes[::-1]), when)
    return data_bad(f"the file {what}", where, "register it again")


def different_file(what: str, pfn: str) -> DifferentFile:
    """Something else than what is wanted has the final name."""
    return DifferentFile(
        f"a different file is already at the destination: {what}",
        pfn,
        "remove it there, or choose another destination",
        failure_class="permanent",
    )


def _no_disk(where: str) -> StorageError:
    return permanent("this storage is no disk that can be walked", where)
