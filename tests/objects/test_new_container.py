"""A new kind of container is one module and one line: a small one is registered, listed, sent from, and gone again.

magic "BOX1" | bytes of the table (4, little-endian) | table: JSON {name: [start, bytes]} | what is in it
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from streams.core.names import Adler32, IntentId, Lfn
from streams.core.records import ManifestWritten, Unit
from streams.core.selections.objects import safe_suffix
from streams.core.selections.parts import canonical
from streams.errors import StorageError
from streams.objects import containers
from streams.objects.containers.container import Container, ContainerFormat
from streams.objects.found import Found, Scan, measured, named
from streams.objects.limits import damaged, refused
from streams.objects.reading import open_object
from streams.objects.tables import TABLES
from streams.objects.windows import Window
from streams.planes.inventory.object_items import ObjectItems
from streams.planes.source.byte_reader import FileObjects
from streams.storage import open_endpoint
from streams.storage.endpoint import Reader
from streams.views.catalogue import CatalogueFile, Replica
from tests.objects.object_files import PAYLOADS, everything, fails, refusals, taken
from tests.planes.feed import Sender
from tests.planes.stage import BLOCK, DATASET, A, request_of

MAGIC = b"BOX1"
_HEAD = struct.Struct("<4sI")


class Box(Container):
    def scan(self, scan: Scan) -> None:
        for name, (start, size) in self._table().items():
            if not scan.wants(name):
                continue
            if start + size > self.file.bytes:
                scan.refuse(name, refused("it reaches beyond the end", name, self.file.path))
                continue
            length, adler = measured([self.file.pread(start, start + size)])
            scan.add(Found(name, length, adler, safe_suffix(name)))

    def reader(self, name: str, scratch: str) -> Reader:
        start, size = named(TABLES.of(self.file, "", self._table), name, self.file.path)
        return Window(self.file.reader(), start, size)

    def _table(self) -> dict[str, tuple[int, int]]:
        _, table_bytes = _HEAD.unpack(self.file.pread(0, _HEAD.size))
        raw = self.file.pread(_HEAD.size, _HEAD.size + table_bytes)
        if len(raw) < table_bytes:
            raise damaged("the box ends within its table", self.file.path)
        found: dict[str, tuple[int, int]] = json.loads(raw)
        return found


FORMAT = ContainerFormat("box", ("box",), Box, lambda head: head.startswith(MAGIC))


@contextmanager
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(containers, "FORMATS", (*containers.FORMATS, FORMAT))
        yield


def write_box(path: Path, members: dict[str, bytes]) -> Path:
    width = len(json.dumps({name: [10**9, 10**9] for name in members}))
    at, table = _HEAD.size + width, {}
    for name, payload in members.items():
        table[name] = [at, len(payload)]
        at += len(payload)
    path.write_bytes(_HEAD.pack(MAGIC, width) + json.dumps(table).ljust(width).encode() + b"".join(members.values()))
    return path


def test_a_new_container_is_listed_and_read_like_any_other(tmp_path: Path) -> None:
    path = write_box(tmp_path / "a.dat", PAYLOADS)
    with registered():
        listing = everything(path)
        assert [found.name for found in listing.found] == sorted(PAYLOADS)
        for found in listing.found:
            assert taken(path, found, listing.version, tmp_path / "s") == PAYLOADS[found.name]
        fails(path, "permanent", ["no object 'cutflaw.csv'", "nearest: cutflow.csv"], "cutflaw.csv")
        with pytest.raises(StorageError, match="no object 'x'"):
            open_object(str(path), "x", version=listing.version, scratch=str(tmp_path / "s"))


def test_what_every_container_refuses_it_refuses(tmp_path: Path) -> None:
    path = write_box(tmp_path / "a.box", PAYLOADS)
    whole = path.read_bytes()
    with registered():
        path.write_bytes(whole[:-1])
        assert refusals(everything(path)).keys() == {list(PAYLOADS)[-1]}
        path.write_bytes(whole[:20])
        fails(path, "data-bad", ["the box ends within its table"])
        path.write_bytes(_HEAD.pack(MAGIC, 2) + b"[]")
        fails(path, "data-bad", ["cannot read the box file"])
        path.write_bytes(b"other")
        fails(path, "data-bad", ["not a box file: it begins with 'othe'"])
        fails(path.rename(tmp_path / "a.dat"), "permanent", ["holds no objects", "ROOT, zip, tar and box files do"])


def test_objects_of_a_new_container_are_listed_and_sent(tmp_path: Path) -> None:
    root = tmp_path / "a"
    (root / "store").mkdir(parents=True)
    write_box(root / "store/a.box", PAYLOADS)
    with registered(), open_endpoint(f"file://{root}") as endpoint:
        stat = endpoint.stat("/store/a.box")
        here = Replica(A, DATASET, BLOCK, stat.bytes, Adler32("00000000"), stat.version)
        held = CatalogueFile(Lfn("/store/a.box"), DATASET, BLOCK, (here,))
        items = tuple(ObjectItems(A, lambda: endpoint).of(held, canonical("objects:*")))
        assert [item.reason for item in items] == [None] * len(PAYLOADS)
        body = ManifestWritten(IntentId(f"T1_A.{uuid4()}"), A, 0, 0, "", "", Unit.BYTES, items, last=True)
        sender = Sender(root, 1 << 16, lambda endpoint: FileObjects(endpoint, str(tmp_path / "s")))
        sent = b"".join(payload for _, payload in sender.serve(request_of(body)))
        sender.close()
    assert sent == b"".join(PAYLOADS[name] for name in sorted(PAYLOADS))


def test_the_registry_is_left_as_it_was(tmp_path: Path) -> None:
    with registered():
        pass
    assert [one.name for one in containers.FORMATS] == ["ROOT", "zip", "tar"]
    fails(write_box(tmp_path / "a.box", PAYLOADS), "permanent", ["holds no objects", "ROOT, zip and tar files do"])
