"""Files cross storages with path rules (names are the same everywhere, places are each storage's own) and in memory."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from streams.core.path_rules import PathRules
from streams.core.ranges import Ranges
from streams.core.records import FailureClass, TransferProgress
from streams.storage import open_endpoint
from streams.storage.endpoint import Endpoint
from tests.planes.feed import Receiver, Sender, listed
from tests.planes.stage import request_of
from tests.storage.memory import MemoryEndpoint

FILES = {"/store/mc/Run1/a.root": b"simulated" * 20_000, "/store/mc/b.root": b"", "/user/me/c.root": b"mine"}
PLACES = {
    "/store/mc/Run1/a.root": "sim/Run1/a.root",
    "/store/mc/b.root": "sim/b.root",
    "/user/me/c.root": "user/me/c.root",
}


def ruled(root: Path) -> Endpoint:
    root.mkdir(exist_ok=True)
    rules = PathRules.configured([{"lfn": "/+store/mc/(.*)", "pfn": f"{root}/sim/$1"}, {"prefix": str(root)}])
    return open_endpoint(root.as_uri(), name="default", rules=rules)


def test_files_land_and_are_sent_on_where_rules_place_them(sender: Sender, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", FILES)
    receiver = Receiver(tmp_path / "b", endpoint=ruled(tmp_path / "b"))
    receiver.open(body)
    receiver.take(sender.serve(request_of(body)))
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges([(0, len(FILES))])
    root = tmp_path / "b"
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert found == {PLACES[lfn]: content for lfn, content in FILES.items()}
    with closing(Sender(root, endpoint=ruled(root))) as onward:
        items = tuple(replace(item, version=onward.endpoint.stat(item.lfn).version) for item in body.items)
        body = replace(body, items=items)
        third = Receiver(tmp_path / "c")
        third.open(body)
        third.take(onward.serve(request_of(body)))
        third.sync()
        assert all(third.bytes_of(lfn) == content for lfn, content in FILES.items())


def test_a_name_without_a_place_of_its_own_fails_alone(sender: Sender, tmp_path: Path) -> None:
    """`/sim/b.root` would lie where `/store/mc/b.root` does."""
    files = {"/store/mc/b.root": b"theirs", "/sim/b.root": b"another"}
    body = listed(tmp_path / "a", files)
    receiver = Receiver(tmp_path / "b", endpoint=ruled(tmp_path / "b"))
    receiver.open(body)
    receiver.take(sender.serve(request_of(body)))
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert told.sealed == Ranges([(0, 1)])
    (failed,) = told.failed
    assert (failed.items, failed.reason.failure_class) == (Ranges([(1, 2)]), FailureClass.PERMANENT)
    assert "give the place of this name to /store/mc/b.root" in failed.reason.text
    assert (tmp_path / "b/sim/b.root").read_bytes() == b"theirs"


def test_files_cross_from_memory_to_memory(sender: Sender, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", FILES)
    first, second = MemoryEndpoint(name="default"), MemoryEndpoint(name="default")
    receiver = Receiver(tmp_path / "unused", endpoint=first)
    receiver.open(body)
    receiver.take(sender.serve(request_of(body)))
    receiver.sync()
    with closing(Sender(tmp_path / "unused", endpoint=first)) as onward:
        items = tuple(replace(item, version=first.stat(item.lfn).version) for item in body.items)
        body = replace(body, items=items)
        third = Receiver(tmp_path / "unused", endpoint=second)
        third.open(body)
        third.take(onward.serve(request_of(body)))
        third.sync()
    assert third.last(TransferProgress).sealed == Ranges([(0, len(FILES))])
    assert {lfn: bytes(blob.content) for lfn, blob in second.files.items()} == FILES
    assert (first.parts, second.parts) == ({}, {})
    assert list((tmp_path / "unused").iterdir()) == []
