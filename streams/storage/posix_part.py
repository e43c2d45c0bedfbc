"""One part file on a POSIX filesystem: taking bytes, and becoming the file. Groups are put together in posix.py.

What a crash leaves, at each point:
- while writing, or before the sync: a part with holes; nothing of it was reported, so it is asked for again.
- after the sync, before the report: durable bytes nobody counts; they come again and are written again, equal.
- after the report: `verified` names them; the successor skips them and reads them back once, at the seal.
- power lost before the part's name was durable: the part is gone → `PartFileLost`, the attempt rises. Nothing was
  reported, since the first sync makes the name durable too.
- before the rename: as after the sync. The seal is owed still, and is done by the successor.
- between link and unlink (filesystems without RENAME_NOREPLACE): one file, two names; `open_part` removes ours.
- after the rename, before the directory's fsync or before the report: the final name holds the whole file; the
  successor's `present` finds it, makes it durable, and it counts as sealed. If power took the name: the part's is back.

A worker that was paused past its session may still write to a part that its successor took over, or sealed. Hence,
before each write the name must still lead to the inode that was opened. And who opens a part locks it: who finds it
locked, or has no lock because the filesystem knows none, marks the file as *shared* before its first write, in the mode
that everybody sees before each of theirs. So is a part with a modification time that is of no write of this process,
where that can be told: while none of its threads writes. Of a shared part no checksum of what was written is believed:
all of it is read back at the seal.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import Condition
from typing import Protocol

from streams.core.ranges import Ranges
from streams.errors import StorageError, data_bad, permanent
from streams.storage import oserrors, syscalls
from streams.storage.checksums import AdlerRanges, Buffer, adler32, adler32_hex
from streams.storage.endpoint import READ_BYTES, FileStat, Part, PartFileLost, SealedFile
from streams.storage.posix_beside import SEED, part_name
from streams.storage.posix_reader import PosixPartReader, PosixReader, file_stat
from streams.storage.posix_removal import name_lock
from streams.storage.tree import DirectoryTree
from streams.storage.writeback import Disk, OpenFds

UNCACHED_BYTES_MIN = 8 * 1024 * 1024
"""Of a file: nobody reads a large one back from memory at once, and new pages are what its writing costs most (2 GB in
2.0 s of CPU through the page cache, in 0.3 s past it). Of a small one each write would be a transfer of its own."""

_CANNOT_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
SHARED = modes.S_IXUSR
"""In the mode of a part: several processes may have written to it."""


class PosixStore(Protocol):
    """What parts, groups and placing ask of the backend (`PosixEndpoint`): its root, descriptors, disks and names."""

    root: str
    tree: DirectoryTree
    fds: OpenFds

    def path(self, lfn: str) -> str: ...
    def pfn(self, lfn: str) -> str: ...
    def stat(self, lfn: str) -> FileStat: ...
    def open_reader(self, lfn: str, version: str | None = None) -> PosixReader: ...
    def present(self, lfn: str, bytes: int, adler32: str | None) -> bool: ...
    def disk_of(self, device: int, directory: str) -> Disk: ...
    def unlink_part(self, directory: str, name: str) -> None: ...
    def sync_group(self, parts: Sequence[Part]) -> list[Ranges | StorageError]: ...
    def seal_group(self, parts: Sequence[Part]) -> list[SealedFile | StorageError]: ...


class PosixPart(Part):
    def __init__(self, store: PosixStore, lfn: str, tag: str, path: str, *, bytes: int, adler32: str | None) -> None:
        self.lfn = lfn
        self.bytes = bytes
        self.adler32 = adler32
        self.directory, self.name = os.path.split(path)
        self.part_name = part_name(tag)
        self._tag = tag
        self.part_path = os.path.join(self.directory, self.part_name)
        self.pfn = os.path.join(store.root, path)
        self.unsynced = False
        self.unwatched = False
        self.name_durable = False
        self.disk: Disk
        self._store = store
        self._adlers = AdlerRanges()
        self._identity = (0, 0)
        self._shared = False
        self._mtime_ns = 0
        """Of this process's last write."""
        self._disk_failures = 0
        self._lock = Condition()
        """Of what is written and of what is being written, which are disjoint."""
        self._writing: list[tuple[int, int]] = []
        self.writes = 0
        """Begun and ended: the same before and after a sync if nothing was written beside it."""
        self.lost: PartFileLost | None = None
        self._read = False
        """Whether somebody reads it while it grows: then it is written through the page cache."""
        self._replaced: str | None = None
        """Version of the damaged file under the final name, whose place this part takes."""

    # opening

    def replace(self, version: str) -> None:
        """Of the file under the final name, whose place this part is to take."""
        self._replaced = version

    def attach(self, fd: int, stat: os.stat_result, verified: Iterable[tuple[int, int]]) -> None:
        """Take over the open file; it stays the caller's to close if this raises."""
        for start, stop in Ranges(verified):
            if stop > min(self.bytes, stat.st_size):
                raise PartFileLost(f"the part is shorter ({stat.st_size} bytes) than what was verified", self.pfn)
            self._adlers.add(start, stop, None)
        self._identity = (stat.st_dev, stat.st_ino)
        self._mtime_ns = stat.st_mtime_ns
        self._share(fd, stat)
        self.disk = self._store.disk_of(stat.st_dev, self.directory)

    def fill(self, fd: int, content: Buffer) -> None:
        """Take over the file, made by this process just now, and write all of it; it stays the caller's to close if
        this raises. That its name leads to it is known from its making."""
        stat = os.fstat(fd)
        self.attach(fd, stat, ())
        self.unsynced = True
        self._disk_failures = self.disk.failures
        view = memoryview(content).cast("B")
        self._pwrite_all(fd, view, 0)
        self._mtime_ns = os.fstat(fd).st_mtime_ns
        self._adlers.add(0, self.bytes, adler32(view))
        self.writes += 2

    def reopen(self) -> int:
        """For the descriptor cache: the same file again, or `PartFileLost`."""
        try:
            fd = self._store.tree.open(self.part_path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise self._lose(PartFileLost("the part file is gone", self.pfn)) from None
        stat = os.fstat(fd)
        if (stat.st_dev, stat.st_ino) != self._identity:
            os.close(fd)
            raise self._lose(PartFileLost("another file took the part's name", self.pfn))
        self._share(fd, stat)
        return fd

    def _share(self, fd: int, stat: os.stat_result) -> None:
        """Lock the part, or mark it: before the first write, so that whoever has the lock sees the mark."""
        try:
            alone = syscalls.lock_open_file(fd)
        except OSError:
            alone = False
        self._shared = self._shared or not alone or bool(stat.st_mode & SHARED)
        if not alone:
            with suppress(OSError):  # another user's file: its writer is left with the modification time
                os.fchmod(fd, modes.S_IMODE(stat.st_mode) | SHARED)

    def closed(self, error: OSError | None) -> None:
        self.unwatched = self.unsynced
        if error is not None and self.unsynced:
            self.lost_in_sync(error)

    # the contract

    @property
    def covered(self) -> Ranges:
        with self._lock:
            return Ranges(self._adlers.spans())

    def write(self, offset: int, segment: Buffer) -> None:
        self._still_usable()
        view = memoryview(segment).cast("B")
        stop = offset + view.nbytes
        if offset < 0 or stop > self.bytes:
            raise data_bad(f"a segment [{offset}, {stop}) lies outside the file of {self.bytes} bytes", self.pfn)
        gaps = self._reserve(offset, stop)
        if not gaps:
            return
        written: list[tuple[int, int, int]] = []
        mtime_ns = 0
        try:
            fd = self._store.fds.acquire(self)
            try:
                self._still_ours(writing=len(gaps))
                for start, end in gaps:
                    piece = view[start - offset : end - offset]
                    self._pwrite_all(fd, piece, start)
                    written.append((start, end, adler32(piece)))
                # not reached after an error: the seal then reads all back, which is safe
                mtime_ns = os.fstat(fd).st_mtime_ns
            finally:
                self._store.fds.release(self)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self._wrote(gaps, written, mtime_ns)

    def adopt(self, offset: int, stop: int, is_right: Callable[[memoryview], bool]) -> bool:
        self._still_usable()
        gaps = self._reserve(offset, stop)
        if not gaps:
            return True
        found: list[tuple[int, int, int]] = []
        mtime_ns = 0
        try:
            fd = self._store.fds.acquire(self)
            try:
                self._still_ours(writing=len(gaps))
                block = memoryview(_block_of(fd, offset, stop))
                right = len(block) == stop - offset and is_right(block)
                if not right:
                    block = memoryview(self._block_of_replaced(offset, stop))
                    if len(block) == stop - offset and is_right(block):
                        right = True
                        for start, end in gaps:
                            self._pwrite_all(fd, block[start - offset : end - offset], start)
                mtime_ns = os.fstat(fd).st_mtime_ns
            finally:
                self._store.fds.release(self)
            if right:
                found = [(start, end, adler32(block[start - offset : end - offset])) for start, end in gaps]
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self._wrote(gaps, found, mtime_ns)
        return bool(found)

    def _reserve(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of `[start, stop)` this thread is to write; none of it is written by another meanwhile.

        What another is writing is waited for: whether it succeeded is known then.
        """
        with self._lock:
            while any(a < stop and start < b for a, b in self._writing):
                self._lock.wait()
            self._still_usable()
            gaps = self._adlers.uncovered(start, stop)
            if gaps:
                self._writing += gaps
                self.writes += 1
                if not self.unsynced:
                    self.unsynced = True
                    self._disk_failures = self.disk.failures
        return gaps

    def _wrote(self, gaps: list[tuple[int, int]], written: list[tuple[int, int, int]], mtime_ns: int) -> None:
        with self._lock:
            self._mtime_ns = max(self._mtime_ns, mtime_ns)
            for gap in gaps:
                self._writing.remove(gap)
            for start, end, adler in written:
                self._adlers.add(start, end, adler)
            self.writes += 1
            self._lock.notify_all()

    def open_reader(self) -> PosixPartReader:
        try:
            fd = self._store.tree.open(self.part_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise StorageError("the part is gone, or was sealed", self.pfn) from None
        except OSError as error:
            raise oserrors.reading(error, self.pfn) from error
        self._read = True
        reader = PosixPartReader(fd, self.lfn, self.pfn, self.bytes)
        stat = os.fstat(fd)
        if (stat.st_dev, stat.st_ino) != self._identity:
            reader.close()
            raise StorageError("another file has the part's name", self.pfn)
        return reader

    def sync(self) -> Ranges:
        (answer,) = self._store.sync_group([self])
        if isinstance(answer, StorageError):
            raise answer
        return answer

    def seal(self) -> SealedFile:
        (answer,) = self._store.seal_group([self])
        if isinstance(answer, StorageError):
            raise answer
        return answer

    def leave_seed(self) -> bool:
        if self.lost is None or self.lost.failure_class == "data-bad":
            try:
                self._leave_seed()
                return True
            except (OSError, StorageError):
                pass  # all of it comes again
        self.discard()
        return False

    def _leave_seed(self) -> None:
        with self._lock:
            # whoever writes still would write into the next part, which has this file
            self.lost = self.lost or PartFileLost("the part was left as a seed", self.pfn)
            while self._writing:
                self._lock.wait()
        self.fdatasync()
        if self.unsynced and self._disk_failures != self.disk.failures:
            raise PartFileLost("the disk failed while the part was being written out", self.pfn)
        self._still_ours()
        with self._store.tree.directory(self.directory) as directory:
            os.rename(self.part_name, part_name(self._tag, SEED), src_dir_fd=directory, dst_dir_fd=directory)
        self.close()

    def discard(self) -> None:
        self.close()
        try:
            stat = self._store.tree.lstat(self.part_path)
            if (stat.st_dev, stat.st_ino) == self._identity or file_stat(stat).version == self._replaced:
                self._store.unlink_part(self.directory, self.part_name)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise oserrors.writing(error, self.pfn) from error
        self.lost = self.lost or PartFileLost("the part was discarded", self.pfn)

    def close(self) -> None:
        self._store.fds.drop(self)

    def _block_of_replaced(self, start: int, stop: int) -> bytes:
        """Of the file whose place this part takes; nothing where it is not that one any more, or is shorter."""
        if self._replaced is None:
            return b""
        try:
            with self._store.open_reader(self.lfn, self._replaced) as damaged:
                return damaged.pread(start, stop - start) if stop <= damaged.stat.bytes else b""
        except StorageError:
            return b""

    # steps of a group, driven by the endpoint

    def fdatasync(self) -> None:
        fd = self._store.fds.acquire(self)
        try:
            os.fdatasync(fd)
            if self.unwatched:  # another thread closed the descriptor just before: this one is too young to know
                self.disk.sync()
        finally:
            self._store.fds.release(self)

    def settle(self, writes: int) -> None:
        """A sync has ended well, as far as its caller heard, that began when there were so many `writes`."""
        with self._lock:
            if self.unsynced and self._disk_failures != self.disk.failures:
                self._lose(PartFileLost("the disk failed while the part was being written out", self.pfn))
            if writes == self.writes and not self._writing:
                self.unsynced = self.unwatched = False

    def lost_in_sync(self, error: OSError) -> PartFileLost:
        return self._lose(oserrors.syncing(error, self.pfn))

    def verify(self) -> str:
        """The adler32 of the whole, compared with the expected one; reads only what others wrote."""
        self._still_usable()
        missing = self.covered.missing(0, self.bytes)
        if missing:
            start, stop = missing.spans[0]
            raise StorageError(f"{missing.size} bytes are not written yet, the first [{start}, {stop})", self.pfn)
        try:
            whole = self._whole_adler()
        except OSError as error:
            raise self._failed(error) from error
        if self.adler32 is not None and whole != self.adler32:
            raise self._lose(
                PartFileLost(
                    f"checksum differs: expected {self.adler32}, file has {whole}",
                    self.pfn,
                    failure_class="data-bad",
                )
            )
        return whole

    @property
    def reads_back(self) -> bool:
        """Whether `verify` has bytes to read."""
        with self._lock:
            return bool(self._adlers.unknown())

    @property
    def shared(self) -> bool:
        """Whether other processes may have written to it: what they wrote is nobody's to sync but who seals it."""
        return self._shared

    def still_as_verified(self) -> None:
        """Nobody wrote to it since `verify`. It is no part any more: the mark of a shared one goes."""
        stat = self._still_ours()
        if stat.st_mtime_ns != self._mtime_ns:
            raise StorageError("another process wrote to the part while it was being sealed", self.pfn)
        if stat.st_mode & SHARED:
            with self._store.tree.directory(self.directory) as fd, suppress(PermissionError):
                os.chmod(self.part_name, modes.S_IMODE(stat.st_mode) & ~SHARED, dir_fd=fd)

    @property
    def still_replaces(self) -> bool:
        """Whether the final name leads to the file whose place this part is to take."""
        if self._replaced is None:
            return False
        try:
            stat = self._store.tree.lstat(os.path.join(self.directory, self.name))
        except OSError:
            return False
        return file_stat(stat).version == self._replaced

    def take_name(self, directory: int) -> None:
        """Give the part, verified, its final name, in its open directory. FileExistsError where another file has it.

        The place of the file that it replaces is taken only while the name leads to that one; who put another one there
        between the two calls has it put back. A crash before the damaged file is deleted leaves it under the part's
        name, beside a whole file, which `present` finds.
        """
        tree, damaged = self._store.tree, self._replaced
        if damaged is None:
            return tree.rename_noreplace(directory, self.part_name, self.name)
        # Who deletes the damaged file must not delete the whole one between his look and his call.
        with name_lock(tree, os.path.join(self.directory, self.name)):
            return self._change_places(directory, damaged)

    def _change_places(self, directory: int, damaged: str) -> None:
        tree = self._store.tree
        if _version_at(directory, self.name) != damaged:
            return tree.rename_noreplace(directory, self.part_name, self.name)
        try:
            syscalls.rename_exchange(directory, self.part_name, self.name)
        except OSError as error:
            if error.errno not in _CANNOT_EXCHANGE:
                raise
            what = "this filesystem lets no two names change places, so the damaged file stays"
            raise permanent(what, self.pfn, "move it away, and ask for the file") from error
        if _version_at(directory, self.part_name) != damaged:
            syscalls.rename_exchange(directory, self.part_name, self.name)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.name)
        named = os.stat(self.name, dir_fd=directory, follow_symlinks=False)
        if (named.st_dev, named.st_ino) != self._identity:
            raise StorageError("another process took the file's name while it was being sealed", self.pfn)
        if (failure := tree.fsync_directories([self.directory])[self.directory]) is not None:
            raise failure
        return os.unlink(self.part_name, dir_fd=directory)

    def _whole_adler(self) -> str:
        stat = self._still_ours()
        if stat.st_size != self.bytes:
            what = f"the part has {stat.st_size} bytes instead of {self.bytes}"
            raise self._lose(PartFileLost(what, self.pfn, failure_class="data-bad"))
        if self._shared:
            self._adlers.forget()
        self._mtime_ns = stat.st_mtime_ns
        unknown = self._adlers.unknown()
        if unknown:
            fd = self._store.fds.acquire(self)
            try:
                for start, stop in unknown:
                    self._adlers.resolve(start, stop, _adler_of(fd, start, stop))
            finally:
                self._store.fds.release(self)
        whole = self._adlers.whole(self.bytes)
        assert whole is not None
        return adler32_hex(whole)

    def _still_usable(self) -> None:
        if self.lost is not None:
            raise self.lost

    def _still_ours(self, writing: int = 0) -> os.stat_result:
        """By name: one call, and no descriptor needed. `writing`: spans that this thread has reserved."""
        before = self.writes, len(self._writing)
        try:
            stat = self._store.tree.lstat(self.part_path)
        except FileNotFoundError:
            raise self._lose(PartFileLost("the part file is gone, or was sealed by another", self.pfn)) from None
        if (stat.st_dev, stat.st_ino) != self._identity:
            raise self._lose(PartFileLost("another file took the part's name", self.pfn))
        with self._lock:
            quiet = before == (self.writes, len(self._writing)) and before[1] == writing
            if stat.st_mode & SHARED or (quiet and stat.st_mtime_ns != self._mtime_ns):
                self._shared = True
        return stat

    def _pwrite_all(self, fd: int, view: memoryview, offset: int) -> None:
        uncached = self.bytes >= UNCACHED_BYTES_MIN and not self._read
        pwrite = self.disk.uncached.pwrite if uncached else os.pwrite
        while view.nbytes:
            written = pwrite(fd, view, offset)
            if written <= 0:
                raise OSError(errno.EIO, "a write of nothing")
            view = view[written:]
            offset += written

    def _lose(self, lost: PartFileLost) -> PartFileLost:
        self.lost = lost
        self._store.fds.drop(self)
        return lost

    def _failed(self, error: OSError) -> StorageError:
        failure = oserrors.writing(error, self.pfn)
        return self._lose(failure) if isinstance(failure, PartFileLost) else failure


def _version_at(directory: int, name: str) -> str | None:
    try:
        return file_stat(os.stat(name, dir_fd=directory, follow_symlinks=False)).version
    except FileNotFoundError:
        return None


def _block_of(fd: int, start: int, stop: int) -> bytes:
    """Shorter where the file ends."""
    block = os.pread(fd, stop - start, start)
    while block and len(block) < stop - start:
        more = os.pread(fd, stop - start - len(block), start + len(block))
        if not more:
            break
        block += more
    return block


def _adler_of(fd: int, start: int, stop: int) -> int:
    value = adler32(b"")
    while start < stop:
        block = os.pread(fd, min(READ_BYTES, stop - start), start)
        if not block:
            raise OSError(errno.EIO, "the file ends early")
        value = adler32(block, value)
        start += len(block)
    return value
