"""The part file of an item of entries: batches in any order, repeated or overlapping, kept until the item is whole.

Entries are counted from 0 within the item. Not here: the final file (writing.py), names and directories (the caller's).

The file is a head with a random salt, then records, only ever appended: a head (start, stop, length, crc32c, and a
crc32c of itself that the salt goes into, so nothing inside a payload can pass for a record) and the payload as it came.
An entry is taken from the first record that brought it. What a crash leaves, at each point:
- before the first sync: maybe no file, or less of it. Nothing was reported.
- while appending: a torn record at the end; it is cut off, and asked for again.
- after the sync, before the report: durable entries nobody counts; they come again and are skipped.
- after the report: opening reads every record back. What was reported and is not there is `PartFileLost`.
Two writers never: the file stays locked while it is open, and before each append its name must still lead to it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from itertools import count

import pyarrow as pa

from streams.core.closing import Closing
from streams.core.names import shown
from streams.core.ranges import EMPTY, Ranges, Span
from streams.errors import StorageError, WireError, data_bad, permanent
from streams.events.batches import PAYLOAD_BYTES_CAP, compression_of, pack, stream_bytes, unpack
from streams.events.spool_records import (
    FILE_HEAD_BYTES,
    HEAD_BYTES,
    RECORD_BYTES_MAX,
    Cover,
    Index,
    Recent,
    SpoolHead,
    file_head,
    pread_all,
    pwrite_all,
    salt_of,
    same_file,
)
from streams.storage import oserrors
from streams.storage.checksums import crc32c
from streams.storage.endpoint import PartFileLost
from streams.storage.writeback import sync_name

_NUMBERS = count(1)


class Spool(Closing):
    """One thread may add while another syncs and reads (a `Sealing`); it is closed when neither is at work.

    After any error but `PartFileLost` it can be used further.
    """

    def __init__(
        self,
        path: str,
        *,
        cap_bytes: int = PAYLOAD_BYTES_CAP,
        verified: Ranges = EMPTY,
        recent: Recent | None = None,
    ) -> None:
        """Create or resume the part at `path`; `verified`: entries that an earlier process synced and reported.

        `recent`: where a sealing that follows closely finds batches without reading them back. `PartFileLost` if
        verified entries are missing; StorageError (transient) while another process has it open.
        """
        self.path = path
        self.cap_bytes = cap_bytes
        self.schema: pa.Schema | None = None
        self.durable = EMPTY
        """Entries that are synced."""
        self.lost: PartFileLost | None = None
        self._index = Index()
        self._cover = Cover()
        self._recent = recent
        self._number = next(_NUMBERS)
        self._last: tuple[int, int, pa.RecordBatch] | None = None
        self._end = 0
        self._name_durable = False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        except OSError as error:
            raise oserrors.writing(error, path) from error
        try:
            self._open(verified)
        except OSError as error:
            self.close()
            raise oserrors.writing(error, path) from error
        except BaseException:
            self.close()
            raise

    @property
    def taken(self) -> Ranges:
        """Entries written so far."""
        return self._cover.ranges()

    @property
    def file_bytes(self) -> int:
        return self._end

    def whole(self, count: int) -> bool:
        """Whether all of the entries `[0, count)` are taken."""
        return not self._cover.missing(0, count)

    def add(self, start: int, stop: int, payload: bytes | memoryview) -> int:
        """Take the entries `[start, stop)` whose checksum agreed already; how many were new.

        A payload of no entries only tells the schema. WireError: not a sound batch of that many entries. StorageError:
        data-bad for another schema than before, else of the disk; what is taken stays taken.
        """
        self._still_usable()
        if not 0 <= start <= stop < 1 << 63 or len(payload) > RECORD_BYTES_MAX:
            raise WireError(f"entries [{start}, {stop}) of {len(payload):,} bytes are not a payload's")
        gaps = self._cover.missing(start, stop)
        if not gaps and (start < stop or self.schema is not None):
            return 0
        batch = unpack(payload, self.cap_bytes)
        if batch.num_rows != stop - start:
            raise WireError(f"entries [{start}, {stop}) come as a batch of {batch.num_rows}")
        self._agree(batch.schema)
        news = sum(end - begin for begin, end in gaps)
        try:
            self._still_ours()
            if 2 * news >= stop - start:
                offset = self._end
                self._append(start, stop, payload, gaps)
                if self._recent is not None:
                    self._recent.keep(self._number, offset, start, batch, stream_bytes(payload))
            else:  # the same entries again and again, cut otherwise, must not fill the disk
                for begin, end in gaps:
                    piece = pack(batch.slice(begin - start, end - begin), compression_of(payload))
                    self._append(begin, end, piece, [(begin, end)])
        except OSError as error:
            raise self._failed(error) from error
        self.schema = self.schema or batch.schema
        return news

    def sync(self) -> Ranges:
        """Make durable what is taken; returns the entries that are. Any failure is `PartFileLost`."""
        self._still_usable()
        taken = self.taken  # what another thread adds from now on may be too late
        if taken != self.durable or not self._name_durable:
            try:
                os.fdatasync(self._fd)
                if not self._name_durable:
                    sync_name(self.path)
            except OSError as error:
                raise self._lose(oserrors.syncing(error, self.path)) from error
            self._name_durable = True
            self.durable = taken
        return taken

    def read(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """The entries `[start, stop)` in order, as the slices they are kept in; all of them must be taken."""
        self._still_usable()
        for begin, end, offset, length in self._index.spans(start, stop):
            first, batch = self._batch(offset, length)
            yield batch.slice(begin - first, end - begin)

    def discard(self) -> None:
        """Delete the part, if it still is ours, and close."""
        try:
            if self._fd >= 0 and same_file(os.lstat(self.path), os.fstat(self._fd)):
                os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise oserrors.writing(error, self.path) from error
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it, leaving it on disk for whoever resumes it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._recent is not None:
            self._recent.forget(self._number)
        self.lost = self.lost or PartFileLost("the part was closed", self.path)

    # opening

    def _open(self, verified: Ranges) -> None:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise permanent("not a regular file", self.path)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError("another process is writing this part", self.path) from None
        self._still_ours()
        if os.fstat(self._fd).st_size < FILE_HEAD_BYTES:
            os.ftruncate(self._fd, 0)
            self._salt = os.urandom(8)
            pwrite_all(self._fd, [file_head(self._salt)], 0)
            self._end = FILE_HEAD_BYTES
        else:
            self._resume()
        missing = verified - self.durable
        if missing:
            start, stop = missing.spans[0]
            raise PartFileLost(f"{missing.size} verified entries are gone, the first [{start}, {stop})", self.path)

    def _resume(self) -> None:
        """Read every record back, cut what is torn, and make the rest durable: a killed process may not have."""
        salt = salt_of(pread_all(self._fd, FILE_HEAD_BYTES, 0))
        if salt is None:
            raise PartFileLost("not a part of entries", self.path, failure_class="data-bad")
        self._salt = salt
        at, size = FILE_HEAD_BYTES, os.fstat(self._fd).st_size
        while at + HEAD_BYTES <= size:
            head = SpoolHead.parsed(pread_all(self._fd, HEAD_BYTES, at), salt)
            if head is None or at + HEAD_BYTES + head.length > size:
                break
            payload = pread_all(self._fd, head.length, at + HEAD_BYTES)
            if crc32c(payload) == head.crc32c:
                self._believe(head, at, payload)
            at += HEAD_BYTES + head.length
        os.ftruncate(self._fd, at)
        self._end = at
        self.sync()

    def _believe(self, head: SpoolHead, offset: int, payload: bytes) -> None:
        if self.schema is None:
            try:
                self.schema = unpack(payload, self.cap_bytes).schema
            except WireError:
                return  # kept by a process that allowed more, or knew another version
        self._index_gaps(self._cover.missing(head.start, head.stop), offset, head.length)

    # writing and reading

    def _append(self, start: int, stop: int, payload: bytes | memoryview, gaps: list[Span]) -> None:
        head = SpoolHead(len(payload), start, stop, crc32c(payload))
        try:
            pwrite_all(self._fd, [head.packed(self._salt), payload], self._end)
        except OSError:
            os.ftruncate(self._fd, self._end)
            raise
        self._index_gaps(gaps, self._end, head.length)
        self._end += HEAD_BYTES + head.length

    def _index_gaps(self, gaps: list[Span], offset: int, length: int) -> None:
        for begin, end in gaps:
            self._index.add(begin, end, offset, length)
            self._cover.add(begin, end)  # only now a reader may look for it

    def _batch(self, offset: int, length: int) -> tuple[int, pa.RecordBatch]:
        """A record's first entry and its batch, checked as if it came from anywhere: disks rot."""
        if self._last is not None and self._last[0] == offset:
            return self._last[1:]
        kept = self._recent.take(self._number, offset) if self._recent is not None else None
        if kept is not None:
            self._last = (offset, *kept)
            return kept
        try:
            record = pread_all(self._fd, HEAD_BYTES + length, offset)
        except OSError as error:
            raise self._failed(error) from error
        head = SpoolHead.parsed(record[:HEAD_BYTES], self._salt)
        payload = memoryview(record)[HEAD_BYTES:]
        if head is None or head.length != length or crc32c(payload) != head.crc32c:
            what = f"a record at byte {offset} is not as it was written"
            raise self._lose(PartFileLost(what, self.path, failure_class="data-bad"))
        try:
            self._last = (offset, head.start, unpack(payload, self.cap_bytes))
        except WireError as error:
            what = f"a record at byte {offset} cannot be read: {error}"
            raise self._lose(PartFileLost(what, self.path, failure_class="data-bad")) from error
        return self._last[1:]

    # failing

    def _agree(self, schema: pa.Schema) -> None:
        mine = self.schema
        if mine is None or schema is mine or schema.equals(mine, check_metadata=True):
            return
        pairs = ((a, b) for a, b in zip(mine, schema, strict=False) if not a.equals(b, check_metadata=True))
        a, b = next(pairs, (None, None))
        how = (
            f"{shown(str(b), 80)!r} instead of {shown(str(a), 80)!r}"
            if a
            else f"{len(schema)} columns instead of {len(mine)}"
        )
        raise data_bad(
            f"the schema changed within the item: {how}",
            self.path,
            "ask for files of one schema, or name the columns they share",
        )

    def _still_usable(self) -> None:
        if self.lost is not None:
            raise self.lost

    def _still_ours(self) -> None:
        try:
            ours = same_file(os.lstat(self.path), os.fstat(self._fd))
        except FileNotFoundError:
            raise self._lose(PartFileLost("the part file is gone", self.path)) from None
        if not ours:
            raise self._lose(PartFileLost("another file took the part's name", self.path))

    def _failed(self, error: OSError) -> StorageError:
        failure = oserrors.writing(error, self.path)
        return self._lose(failure) if isinstance(failure, PartFileLost) else failure

    def _lose(self, lost: PartFileLost) -> PartFileLost:
        self.lost = lost
        return lost
