"""The audit's index: rows of facts in RocksDB, and beside them the cut that they were read to, where it goes on.

    facts/    the rows (core/ledger/rows.py says which), put and never changed
    index     JSON: of which federation, by which version, the salt of its hashes
    cut       SHA-256 of what follows, then the ledger as it stood; written anew and put in its place in one step
    sums      JSON: SHA-256 of each file of rows and of the cut, while no audit is at work

The log is the truth and this a cache of it: it may be deleted. Rows that a killed audit put behind its cut are dropped
at the next start, and their records are read again. One audit at a time: a lock says so.

RocksDB finds a flipped bit by its own checksums, and not a row that somebody put by its own means. So an audit that
ends leaves sums of all files, and the next one begins with them. An audit that was killed leaves none.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import marshal
import os
import pickle
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from heapq import merge
from io import BufferedReader
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, cast

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from streams.core.ledger import Ledger
from streams.errors import NeverWorks, NotFound, Temporary, Transfer2goError
from streams.settings import Settings

FORMAT = 4
"""Of rows and cuts; another one is refused, and read anew."""
ROWS_MAX = 8_000
"""Rows put before they are written."""
_CACHE_BYTES, _BUFFER_BYTES = 8 << 20, 8 << 20
_ROOM_BYTES = 4 * _BUFFER_BYTES
"""Free on the disk, or no row is taken. A buffer that RocksDB finds no room for may leave who writes next waiting for
ever (seen once in some hundred full disks): no error is told without a log of what was written."""
_UNDER_WAY = b"!"
"""A row while rows may stand behind the cut."""
_FRESH = "`transfer2go audit --fresh` reads all journals again"
_DIGEST = 32
_ALLOWED = {
    "array": {"_array_reconstructor", "array"},
    "builtins": {"bytearray", "frozenset", "set"},
    "collections": {"Counter", "OrderedDict", "defaultdict"},
}
"""What a cut may name beside the classes of the core: nothing that acts."""


def kept_index(settings: Settings) -> Path:
    """Where `transfer2go audit` keeps the index of the federation."""
    return settings.state / "audit-index"  # no site has such a name


class AuditIndex:
    """Rows, and the cut. Opened by `open_index`; Temporary for a full disk, NeverWorks for what is damaged."""

    def __init__(self, path: Path, salt: bytes, *, read_only: bool = False) -> None:
        self.path, self.salt = path, salt
        self.fault: Transfer2goError | None = None
        """Why it cannot be used any more."""
        self._is_whole = False
        """Whether its cut has all of its rows, and no audit goes on."""
        self._written = cast(Any, WriteOptions())  # its stubs take a property for a method
        self._written.disable_wal = True  # what is lost behind a cut is read again
        with self._told():
            how = AccessType.read_only() if read_only else AccessType.read_write()
            self._db: Any = Rdict(str(path / "facts"), _options(), access_type=how)
        self._batch, self._rows = WriteBatch(raw_mode=True), 0

    # rows

    def put(self, key: bytes, row: bytes) -> None:
        self._batch.put(key, row)
        self._rows += 1
        if self._rows >= ROWS_MAX:
            self._write()

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._write()
        with self._told():
            # No upper bound: rocksdict lets it dangle once the ReadOptions are collected (streams/views/rows.py).
            for key, row in self._db.items(from_key=prefix):
                if not key.startswith(prefix):
                    return
                yield key, row

    def _write(self) -> None:
        if self._rows:
            with self._told():
                if shutil.disk_usage(self.path).free < _ROOM_BYTES:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._db.write(self._batch, self._written)
            self._batch, self._rows = WriteBatch(raw_mode=True), 0

    def _sync(self) -> None:
        self._write()
        with self._told():
            self._db.flush()

    # cuts

    def go_on(self, ledger: Ledger) -> bool:
        """Bring the ledger to where the last audit stopped; whether there is such a cut."""
        with self._told():
            is_under_way = self._db.get(_UNDER_WAY) is not None
            try:
                stored = self._cut_path.open("rb")
            except FileNotFoundError:
                stored = None
        if stored is not None:
            with stored, self._told():
                ledger.go_on(self._loaded(stored))
        if is_under_way:
            for key in ledger.beyond():
                self._batch.delete(key)
                self._rows += 1
                if self._rows >= ROWS_MAX:
                    self._write()
        self._batch.put(_UNDER_WAY, b"")
        self._rows += 1
        self._sync()
        return stored is not None

    def save(self, ledger: Ledger, *, is_last: bool = True) -> None:
        """Make what was read so far the cut. Not `is_last`: more rows are put behind it."""
        kept = ledger.kept()
        self._sync()
        with self._told():
            beside = self._cut_path.with_suffix(".new")
            with beside.open("wb") as file:
                file.write(bytes(_DIGEST))
                summed = _Summed(file)
                pickle.dump(kept, summed, protocol=5)
                file.seek(0)
                file.write(summed.digest)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._cut_path)
        if is_last:
            self._batch.delete(_UNDER_WAY)
            self._rows += 1
            self._sync()
        self._is_whole = is_last

    def flush(self) -> None:
        """Have all rows on the disk, for another process to read."""
        self._sync()

    def close(self) -> None:
        if self._is_whole:
            with suppress(Exception):
                # All is on the disk; a scan that was not read to its end keeps the database open, and it would go on.
                self._db.cancel_all_background(True)
        with suppress(Exception):  # told where it was met
            self._db.close()
        self._db = None
        if self._is_whole:
            with suppress(OSError):
                _replace(self.path / "sums", json.dumps(_sums(self.path), indent=1))

    @property
    def _cut_path(self) -> Path:
        return self.path / "cut"

    def _loaded(self, file: BufferedReader) -> Any:
        digest = file.read(_DIGEST)
        if hashlib.file_digest(file, "sha256").digest() != digest:
            raise NeverWorks("the cut of the audit's index is not as it was written", str(self._cut_path), _FRESH)
        file.seek(_DIGEST)
        return _Kept(file).load()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Transfer2goError:
            raise
        except Exception as error:
            self.fault = _worded(error, self.path)
            raise self.fault from error


class RowsOver:
    """Rows over those of another process's index, which are only read: what is put goes into an index of its own."""

    def __init__(self, own: AuditIndex, path: Path) -> None:
        """`path`: of the index below. It must not put rows meanwhile."""
        self.own, self.path, self.salt = own, path, own.salt
        chosen = _options()
        chosen.create_if_missing(False)
        chosen.set_max_open_files(-1)  # none may have to be opened after its index has removed it
        self._under: Any = Rdict(str(path / "facts"), chosen, access_type=AccessType.read_only())

    @property
    def fault(self) -> Transfer2goError | None:
        return self.own.fault

    def put(self, key: bytes, row: bytes) -> None:
        self.own.put(key, row)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """By key; of a key that both have the own row comes last."""
        return merge(self._scan_under(prefix), self.own.scan(prefix), key=itemgetter(0))

    def _scan_under(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, row in self._under.items(from_key=prefix):
            if not key.startswith(prefix):
                return
            yield key, row

    def close(self) -> None:
        self.own.close()
        self._under.close()


class _Summed:
    """Writes through, and sums up."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sum = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._sum.update(data)
        return self._file.write(data)

    @property
    def digest(self) -> bytes:
        return self._sum.digest()


class _Kept(pickle.Unpickler):
    """Loads the ledger's own classes, and nothing that does anything."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("streams.core.") or name in _ALLOWED.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a cut")


@contextmanager
def open_index(
    path: Path, identity: Mapping[str, str], *, fresh: bool = False, read_only: bool = False
) -> Iterator[AuditIndex]:
    """The index at `path`, made where there is none. `identity`: what it is of, each in words.

    NeverWorks for an index of something else, or one that is damaged; Temporary where another audit is at work on it,
    or the disk is full. `fresh`: what is there is thrown away first. `read_only`: of one that is there nothing is
    changed, nor are its files summed up.
    """
    with ExitStack() as opened:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)  # the salt is a secret of whoever audits
            lock = opened.enter_context((path / "lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Temporary("another audit is at work on this index", str(path), "wait for its end") from error
            if fresh or not (path / "cut").exists():
                _clear(path)
            salt = _salt(path, identity)
            if not read_only:
                _refuse_edited(path)
            index = AuditIndex(path, salt, read_only=read_only)
        except OSError as error:
            raise _worded(error, path) from error
        opened.callback(index.close)
        yield index


@contextmanager
def last_read(path: Path) -> Iterator[tuple[AuditIndex, int]]:
    """The index at `path` as the last audit left it, and when that ended (ms). NotFound where none was kept."""
    cut = path / "cut"
    if not cut.exists():
        raise NotFound("no audit has been kept here", str(path), "run `transfer2go audit` first")
    read_ms = int(cut.stat().st_mtime * 1000)
    with open_index(path, {}, read_only=True) as index:
        yield index, read_ms


def _clear(path: Path) -> None:
    for name in ("cut", "cut.new", "index", "sums"):
        (path / name).unlink(missing_ok=True)
    if (path / "facts").exists():
        shutil.rmtree(path / "facts")


def _sums(path: Path) -> dict[str, str]:
    """SHA-256 (hex) of the cut and of each file that RocksDB keeps rows in, by name."""
    found = {}
    kept = [path / "cut", *(file for file in (path / "facts").iterdir() if file.suffix in (".sst", ".log"))]
    for one in sorted(kept):
        if one.suffix == ".log" and not one.stat().st_size:
            continue  # which file it writes to next is no row
        with one.open("rb") as file:
            found[one.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _refuse_edited(path: Path) -> None:
    """NeverWorks where an index is not as the last audit left it. From here on it may change."""
    sums = path / "sums"
    try:
        then = dict(json.loads(sums.read_text()))
    except FileNotFoundError:
        return  # a new one, or that audit was killed
    except (ValueError, TypeError) as error:
        raise NeverWorks("the audit's index is damaged", str(sums), _FRESH) from error
    now = _sums(path)
    if then != now:
        changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
        raise NeverWorks("the audit's index is not as the last audit left it", str(path / changed[0]), _FRESH)
    sums.unlink()


def _salt(path: Path, identity: Mapping[str, str]) -> bytes:
    """Of the index that is there, which must be of this; of a new one a new one."""
    now = {"format": str(FORMAT), "python": f"{sys.implementation.cache_tag}, marshal {marshal.version}", **identity}
    file = path / "index"
    try:
        stored = json.loads(file.read_text())
        then, salt = dict(stored["of"]), bytes.fromhex(stored["salt"])
    except FileNotFoundError as error:
        if (path / "cut").exists():
            raise NeverWorks("the audit's index is damaged", str(file), _FRESH) from error
        salt = secrets.token_bytes(32)
        _keep(file, now, salt)
        return salt
    except (ValueError, KeyError, TypeError) as error:
        raise NeverWorks("the audit's index is damaged", str(file), _FRESH) from error
    for name in sorted(now.keys() & then.keys()):
        if now[name] != then[name]:
            words = f"the audit's index is of {name} {then[name]}, and this is {now[name]}"
            raise NeverWorks(words, str(path), _FRESH)
    if then.keys() != now.keys() | then.keys():
        _keep(file, {**then, **now}, salt)
    return salt


def _keep(file: Path, identity: Mapping[str, str], salt: bytes) -> None:
    _replace(file, json.dumps({"of": dict(identity), "salt": salt.hex()}, indent=1))


def _replace(file: Path, text: str) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.replace(file)


def _worded(error: Exception, path: Path) -> Transfer2goError:
    said = str(error)
    if "No space left" in said:
        words = f"no room for the audit's index: the disk is full, and {_ROOM_BYTES >> 20} MB must be free"
        return Temporary(words, str(path), "make room, then audit again")
    if isinstance(error, OSError) and error.strerror is not None:
        words = f"the audit's index cannot be used: {error.strerror}"
        return Temporary(words, str(path), "give another --state, or name sites with --site: nothing is kept then")
    return NeverWorks(f"the audit's index is damaged: {said[:300]}", str(path), _FRESH)


def _options() -> Options:
    """Bounded memory: two write buffers, a cache, indexes and filters in it."""
    table = BlockBasedOptions()
    table.set_block_cache(Cache(_CACHE_BYTES))
    table.set_cache_index_and_filter_blocks(True)
    table.set_block_size(16 << 10)
    chosen = Options(raw_mode=True)
    chosen.create_if_missing(True)
    chosen.set_block_based_table_factory(table)
    chosen.set_compression_type(DBCompressionType.lz4())
    chosen.set_bottommost_compression_type(DBCompressionType.zstd())
    chosen.set_write_buffer_size(_BUFFER_BYTES)
    chosen.set_max_write_buffer_number(2)
    chosen.set_max_open_files(128)
    chosen.set_max_background_jobs(2)
    chosen.set_keep_log_file_num(2)
    return chosen
