"""A site's storage together with the stores it may also read: each LFN goes where its name says.

Names of a store are read-only. What changes files is refused for them, permanently, and goes to the storage otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from streams.core.names import Lfn
from streams.core.ranges import Ranges
from streams.core.store_names import AskedKeys, Store
from streams.errors import StorageError, UsageError, permanent
from streams.storage.checksums import Buffer
from streams.storage.endpoint import (
    Beside,
    Dated,
    Endpoint,
    FileMissing,
    FileStat,
    FileUrl,
    OnDisk,
    Part,
    PlacedFile,
    ReadableStorage,
    Reader,
    SealedFile,
    Wanted,
    Workroom,
)
from streams.storage.s3 import S3Files


class RoutedEndpoint(Endpoint):
    """Owns `home`. Nothing is asked of a store before a name of it is."""

    def __init__(self, home: Endpoint, stores: Iterable[Store]) -> None:
        self.name, self.root = home.name, home.root
        self._home = home
        self._stores = {store.name: S3Files(store) for store in stores}

    # reading

    def pfn(self, lfn: str) -> str:
        return self._of(lfn).pfn(lfn)

    def local_path(self, lfn: str) -> str:
        return self._of(lfn).local_path(lfn)

    def stat(self, lfn: str) -> FileStat:
        return self._of(lfn).stat(lfn)

    def open_reader(self, lfn: str, version: str | None = None) -> Reader:
        return self._of(lfn).open_reader(lfn, version)

    def url_of(self, lfn: str, version: str, life_s: int) -> FileUrl | None:
        return self._of(lfn).url_of(lfn, version, life_s)

    def find_keys(self, asked: str, refuse: Callable[[str, str], None]) -> Iterator[tuple[Lfn, FileStat]]:
        store = AskedKeys.parse(asked).store
        files = self._stores.get(store)
        if files is None:
            known = ", ".join(self._stores) or "none"
            raise UsageError(f"this site has no store {store}", next=f"known stores: {known}")
        yield from files.find_keys(asked, refuse)

    def walk(self, refuse: Callable[[str, str], None]) -> Iterator[OnDisk]:
        return self._home.walk(refuse)

    def dated(self, path: str) -> Dated | None:
        return self._home.dated(path)

    def path_of(self, lfn: str) -> str:
        return self._home.path_of(lfn)

    def lfn_of(self, path: str) -> Lfn | None:
        return self._home.lfn_of(path)

    def read_own(self, name: str) -> bytes | None:
        return self._home.read_own(name)

    # writing

    def present_group(self, wanted: Sequence[Wanted]) -> list[bool | StorageError]:
        answers: dict[int, bool | StorageError] = {}
        home = [no for no, one in enumerate(wanted) if self._store(one.lfn) is None]
        answers |= zip(home, self._home.present_group([wanted[no] for no in home]), strict=True)
        return [answers[no] if no in answers else self._present_key(one) for no, one in enumerate(wanted)]

    def _present_key(self, one: Wanted) -> bool | StorageError:
        try:
            stat = self.stat(one.lfn)
            if one.adler32 is None:
                return False
            same = stat.bytes == one.bytes and self.checksum(one.lfn, stat.version) == one.adler32
        except FileMissing:
            return False
        except StorageError as error:
            return error
        return same or permanent("a different file is there", one.lfn)

    def place(self, lfn: str, source_path: str, *, link: bool = True) -> PlacedFile:
        return self._writable(lfn).place(lfn, source_path, link=link)

    def open_part(self, lfn: str, tag: str, **asked: Any) -> Part:
        return self._writable(lfn).open_part(lfn, tag, **asked)

    def write_part(self, lfn: str, tag: str, content: Buffer, *, adler32: str | None) -> Part:
        return self._writable(lfn).write_part(lfn, tag, content, adler32=adler32)

    def take_seed(self, lfn: str, left: str, tag: str) -> bool:
        return self._store(lfn) is None and self._home.take_seed(lfn, left, tag)

    def sync_group(self, parts: Sequence[Part]) -> list[Ranges | StorageError]:
        return self._home.sync_group(parts)

    def seal_group(self, parts: Sequence[Part]) -> list[SealedFile | StorageError]:
        return self._home.seal_group(parts)

    def open_beside(self, lfn: str, tag: str) -> Beside:
        return self._writable(lfn).open_beside(lfn, tag)

    def open_workroom(self, lfn: str, tag: str) -> Workroom:
        return self._writable(lfn).open_workroom(lfn, tag)

    def settle_names(self, lfns: Sequence[str]) -> list[StorageError | None]:
        return self._home.settle_names(lfns)

    def remove_group(
        self, lfns: Sequence[str], why_not: Callable[[str, str], str | None]
    ) -> list[str | StorageError | None]:
        answers: list[str | StorageError | None] = [self._read_only(lfn) for lfn in lfns]
        home = [no for no, answer in enumerate(answers) if answer is None]
        removed = self._home.remove_group([lfns[no] for no in home], why_not)
        for no, answer in zip(home, removed, strict=True):
            answers[no] = answer
        return answers

    def write_own(self, name: str, content: bytes, *, once: bool = False) -> None:
        self._home.write_own(name, content, once=once)

    def aside_path(self, folder: str) -> str:
        return self._home.aside_path(folder)

    def set_aside(self, found: Sequence[tuple[str, str]], folder: str) -> list[str | StorageError | None]:
        return self._home.set_aside(found, folder)

    def lies_aside(self, path: str) -> tuple[str, int] | None:
        return self._home.lies_aside(path)

    def bring_back(self, paths: Sequence[str], folder: str) -> list[StorageError | None]:
        return self._home.bring_back(paths, folder)

    def discard(self, lfn: str, tag: str) -> bool:
        return self._store(lfn) is None and self._home.discard(lfn, tag)

    def close(self) -> None:
        for files in self._stores.values():
            files.close()
        self._home.close()

    def _store(self, lfn: str) -> S3Files | None:
        return next((files for files in self._stores.values() if files.store.holds(lfn)), None)

    def _of(self, lfn: str) -> ReadableStorage:
        return self._store(lfn) or self._home

    def _writable(self, lfn: str) -> Endpoint:
        if (refused := self._read_only(lfn)) is not None:
            raise refused
        return self._home

    def _read_only(self, lfn: str) -> StorageError | None:
        files = self._store(lfn)
        if files is None:
            return None
        what = f"names below {files.store.base} are keys of the store {files.store.name}, which is only read here"
        return permanent(what, lfn)
