"""Keys of an S3-compatible store as files that can be read: stat, ranges read ahead, checksums, and which there are.

Nothing here writes. A file's version is its size and ETag, and each range is asked for on condition of that ETag.

Ranges are fetched in blocks that grow while the file is read from front to back, the next one while the current one is
being taken. All readers of a store together keep about `KEPT_BYTES`: the one not read for longest forgets its block.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from streams.core.names import Lfn, shown
from streams.core.selections.entries import nearest, readable
from streams.core.store_names import AskedKeys, Store
from streams.errors import InvalidName, StorageError, UsageError, data_bad, permanent
from streams.storage.endpoint import (
    SINCE_LISTED,
    WHILE_READ,
    FileStat,
    FileUrl,
    ReadableStorage,
    Reader,
    changed,
    outside,
)
from streams.storage.s3_client import KeyChanged, ObjectKey, S3Client

FIRST_BYTES = 1 << 20
BLOCK_BYTES = 8 << 20
KEPT_BYTES = 64 << 20
FETCHERS = 8
HINT_KEYS = 1000
_VERSION = re.compile(r"(\d{1,15}):([!-~]{1,128})")


def version_of(key: ObjectKey) -> str:
    return f"{key.bytes}:{key.etag}"


class S3Files(ReadableStorage):
    """The files of one store, which are only read. Thread-safe; a reader is used by one thread at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.name = store.name
        self._client = S3Client(store)
        self._ahead = ThreadPoolExecutor(FETCHERS, thread_name_prefix=f"s3-{store.name}")
        self.kept = KeptBytes(KEPT_BYTES)

    def close(self) -> None:
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def pfn(self, lfn: str) -> str:
        return f"s3://{self.store.name}/{self._key(lfn)}"

    def local_path(self, lfn: str) -> str:
        what = f"entries and objects are read from files on disk, and this one is a key of the store {self.name}"
        raise permanent(what, lfn, "ask for whole files")

    def stat(self, lfn: str) -> FileStat:
        key = self._client.head(self._key(lfn), lfn)
        return FileStat(key.bytes, version_of(key))

    def open_reader(self, lfn: str, version: str | None = None) -> S3Reader:
        """With `version`, nothing is asked of the store before the first read."""
        when = SINCE_LISTED
        if version is None:
            version, when = self.stat(lfn).version, WHILE_READ
        size, etag = _known(lfn, version)
        return S3Reader(self, self._key(lfn), lfn, FileStat(size, version), etag, when)

    def url_of(self, lfn: str, version: str, life_s: int) -> FileUrl | None:
        """Nothing is asked of the store."""
        if not self.store.direct:
            return None
        size, etag = _known(lfn, version)
        if etag.startswith("W/"):  # no condition could be made of it
            return None
        return FileUrl(self._client.url_of(self._key(lfn), etag, life_s), size, etag)

    def find_keys(self, asked: str, refuse: Callable[[str, str], None]) -> Iterator[tuple[Lfn, FileStat]]:
        """Keys that match, in the store's order; `refuse(key, why)` those that cannot be a file.

        Keys that stand for a directory (empty, ending with a slash) are passed over. UsageError where nothing matches,
        StorageError where the store cannot be listed, maybe after some.
        """
        wanted, seen = AskedKeys.parse(asked), 0
        for key in self._client.keys(self.store.prefix + wanted.begins):
            tail = key.name.removeprefix(self.store.prefix)
            if not wanted.selection.matches(tail) or (tail.endswith("/") and not key.bytes) or not tail:
                continue
            seen += 1
            where = f"s3://{self.store.name}/{tail}"
            if key.bytes < 0:
                refuse(where, "the store tells no size of it")
                continue
            try:
                lfn = self.store.lfn_of(key.name)
            except InvalidName as error:
                refuse(where, f"this key is no LFN: {error.next}")
                continue
            if _VERSION.fullmatch(version := version_of(key)) is None:
                refuse(where, "the store tells no ETag of it, and so not when it changes")
                continue
            yield lfn, FileStat(key.bytes, version)
        if not seen:
            what = f"no key of the store {self.store.name} matches {shown(readable(str(wanted.selection)))!r}"
            raise UsageError(what + self._hint(wanted), next="patterns count from the store's prefix")

    def fetch(self, reader: S3Reader, start: int, stop: int) -> bytes:
        try:
            return self._client.read(reader.key, reader.lfn, start, stop, reader.stat.bytes, reader.etag)
        except KeyChanged as error:
            raise self._said(reader, error) from error

    def _said(self, reader: S3Reader, error: KeyChanged) -> StorageError:
        """The same with what happened to the key, where the store tells that still."""
        now = self._client.size_now(reader.key)
        if now is None:
            return error
        if now == reader.stat.bytes:
            what = f"it was replaced {reader.when} (same size, other ETag)"
        else:
            what = f"it {changed(reader.stat.bytes, now, reader.when)}"
        return StorageError(f"{error.what}: {what}", error.where, error.next, failure_class=error.failure_class)

    def fetch_ahead(self, reader: S3Reader, start: int, stop: int) -> Future[bytes]:
        return self._ahead.submit(self.fetch, reader, start, stop)

    def _key(self, lfn: str) -> str:
        try:
            if self.store.holds(Lfn(lfn)):
                return self.store.key(lfn)
        except InvalidName:
            pass
        raise outside(lfn)

    def _hint(self, asked: AskedKeys) -> str:
        directory = asked.begins.rpartition("/")[0]
        names: list[str] = []
        for key in self._client.keys(self.store.prefix + (f"{directory}/" if directory else "")):
            names.append(key.name.removeprefix(self.store.prefix))
            if len(names) == HINT_KEYS:
                break
        return nearest(str(asked.selection), names)


def _known(lfn: str, version: str) -> tuple[int, str]:
    """Size and ETag. StorageError (data-bad) for the version of something else."""
    known = _VERSION.fullmatch(version)
    if known is None:
        what = f"{SINCE_LISTED} it has changed: it was registered as something else than a key of a store"
        what += f" ({shown(version, 60)})"
        raise data_bad(what, lfn, "register it again")
    return int(known[1]), known[2]


class S3Reader(Reader):
    """One version of a key. A key that has changed or gone is noticed by the first range that is fetched after."""

    def __init__(self, files: S3Files, key: str, lfn: str, stat: FileStat, etag: str, when: str) -> None:
        """`when`: since when no change is allowed, in words."""
        self.lfn, self.stat, self.key, self.etag, self.when = lfn, stat, key, etag, when
        self._files = files
        self._block: tuple[int, bytes] | None = None
        self._next: tuple[int, int, Future[bytes]] | None = None
        self._block_bytes = FIRST_BYTES

    @property
    def kept_bytes(self) -> int:
        """What it keeps, or will when what it has asked for is there."""
        block, ahead = self._block, self._next
        return (len(block[1]) if block else 0) + (ahead[1] - ahead[0] if ahead else 0)

    def readinto(self, offset: int, view: memoryview) -> None:
        if offset + view.nbytes > self.stat.bytes:
            raise permanent(f"bytes up to {offset + view.nbytes} were asked of a file of {self.stat.bytes}", self.lfn)
        while view.nbytes:
            start, content = self._at(offset)
            piece = memoryview(content)[offset - start : offset - start + view.nbytes]
            view[: len(piece)] = piece
            view, offset = view[len(piece) :], offset + len(piece)

    def adler32(self, take: Callable[[memoryview], None] | None = None) -> str:
        if not self.stat.bytes and self._files.stat(self.lfn).version != self.stat.version:
            raise data_bad("the key has changed since it was listed", self.lfn)
        return super().adler32(take)

    def begin(self) -> bool:
        if self._block is None and self._next is None and self.stat.bytes:
            stop = min(FIRST_BYTES, self.stat.bytes)
            self._next = 0, stop, self._files.fetch_ahead(self, 0, stop)
            self._files.kept.used(self)
        return True

    def forget(self) -> None:
        """Let go of what was fetched; also by another thread."""
        self._block = self._next = None  # never cancelled: the other thread may be waiting for it

    def close(self) -> None:
        self._files.kept.unused(self)
        self.forget()

    def _at(self, offset: int) -> tuple[int, bytes]:
        """The block that has this byte: where it starts, and what it holds."""
        block, ahead = self._block, self._next
        if block is not None and block[0] <= offset < block[0] + len(block[1]):
            return block
        in_order = block is not None and offset == block[0] + len(block[1])
        self._block = None
        if ahead is not None and ahead[0] <= offset < ahead[1]:
            self._next = None
            offset = ahead[0]
            try:
                block = offset, ahead[2].result()
            except StorageError:  # of a moment that may be long gone
                block = offset, self._files.fetch(self, offset, ahead[1])
        else:
            self.forget()
            self._block_bytes = min(BLOCK_BYTES, self._block_bytes * 4) if in_order else FIRST_BYTES
            if self.stat.bytes <= FIRST_BYTES:
                offset = 0  # whole, which also a store without ranges can give
            block = offset, self._files.fetch(self, offset, min(offset + self._block_bytes, self.stat.bytes))
        self._block = block
        behind = offset + len(block[1])
        if behind < self.stat.bytes and self._block_bytes == BLOCK_BYTES:
            stop = min(behind + BLOCK_BYTES, self.stat.bytes)
            self._next = behind, stop, self._files.fetch_ahead(self, behind, stop)
        self._files.kept.used(self)
        return block


class KeptBytes:
    """About `most` bytes, kept by all readers together: whoever was not read for longest lets go first. Thread-safe.

    One reader alone keeps what it likes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._used: OrderedDict[S3Reader, None] = OrderedDict()

    def used(self, reader: S3Reader) -> None:
        """Count it as read just now, and let others forget what is too much."""
        with self._lock:
            self._used[reader] = None
            self._used.move_to_end(reader)
            kept = sum(one.kept_bytes for one in self._used)
            while kept > self._most and len(self._used) > 1:
                oldest = self._used.popitem(last=False)[0]
                kept -= oldest.kept_bytes
                oldest.forget()

    def unused(self, reader: S3Reader) -> None:
        with self._lock:
            self._used.pop(reader, None)
