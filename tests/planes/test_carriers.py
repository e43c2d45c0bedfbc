"""A plane runs whatever carriers are registered, and a request says by which it is answered."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from streams.core.channel import LOG
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import (
    ChunksServed,
    FailureClass,
    ManifestWritten,
    PartOpened,
    Scope,
    SourceFailed,
    TransferProgress,
)
from streams.errors import StorageError
from streams.planes.carriers import CARRIERS
from streams.planes.host.child import Child
from streams.planes.orders import Serve, Start
from streams.planes.source.byte_reader import FileBytes
from streams.planes.source.server import ReadPiece
from tests.planes import echo
from tests.planes.conftest import Stage
from tests.planes.feed import listed
from tests.planes.stage import ALL, A, B, Clusters, Listener, PlaneHere, open_order, request_of, settings_of

NOISE = random.Random(17)


@dataclass
class Pair:
    """Two planes in this process, and no mirror: nothing that A puts into payload topics comes to B."""

    a: PlaneHere
    b: PlaneHere
    listener: Listener
    root: Path

    def ask(self, files: dict[str, bytes]) -> ManifestWritten:
        """A's files, asked for by echo."""
        body = listed(self.root / A / "storage", files)
        self.b.tell(open_order(body))
        self.listener.wait(PartOpened, lambda m: m.manifest == body.manifest)
        self.a.tell(Serve(replace(request_of(body), plane=echo.NAME)))
        return body

    def arrived(self, files: dict[str, bytes]) -> bool:
        return all((self.root / B / "storage" / lfn[1:]).read_bytes() == content for lfn, content in files.items())


@pytest.fixture
def pair(clusters: Clusters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setitem(CARRIERS, echo.NAME, echo.CARRIER)
    a, b = (PlaneHere(Child(Start(settings_of(site, clusters, tmp_path), "plane-here", "1"))) for site in (A, B))
    listener = Listener(clusters)
    b.tell(ALL)
    yield Pair(a, b, listener, tmp_path)
    for end in (a.close, b.close, listener.close):
        end()


def test_whole_files_cross_by_another_carrier(pair: Pair) -> None:
    files = {f"/store/echo/{n}": NOISE.randbytes(size) for n, size in enumerate((0, 1, 100_000, 3_000_000))}
    body = pair.ask(files)
    told = pair.listener.wait(
        TransferProgress, lambda m: m.manifest == body.manifest and m.sealed == Ranges([(0, len(files))])
    )
    assert told.failed == ()
    assert pair.arrived(files)
    served = pair.listener.wait(ChunksServed, lambda m: m.manifest == body.manifest)
    assert served.bytes == sum(map(len, files.values()))
    assert not list((pair.root / B / "storage").rglob(".t2g-*.part"))
    assert pair.a.child.publisher._chunks is None, "nobody had a use for payload topics"


def test_a_file_that_another_carrier_brings_wrong_gets_no_name(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    take = FileBytes.take

    def spoil(*of: Any) -> ReadPiece:
        read = take(*of)
        return replace(read, payload=b"!" + read.payload[1:])

    monkeypatch.setattr(FileBytes, "take", spoil)
    files = {"/store/echo/spoilt": NOISE.randbytes(1000)}
    body = pair.ask(files)
    told = pair.listener.wait(TransferProgress, lambda m: m.manifest == body.manifest and bool(m.failed))
    assert told.failed[0].reason.failure_class is FailureClass.DATA_BAD
    assert not (pair.root / B / "storage/store/echo/spoilt").exists()


def test_what_cannot_be_read_now_is_said_of_the_carrier_by_which_it_was_asked(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hung(*_: object) -> object:
        raise StorageError("the disk hangs")

    with monkeypatch.context() as patched:
        patched.setattr(FileBytes, "take", hung)
        files = {"/store/echo/hung": NOISE.randbytes(1000)}
        body = pair.ask(files)
        said = pair.listener.wait(SourceFailed, lambda m: m.manifest == body.manifest and not m.items)
    assert (said.plane, said.source, said.request_no) == (echo.NAME, A, 1)
    assert "the disk hangs" in said.reason.text
    pair.a.tell(Serve(replace(request_of(body, 2), plane=echo.NAME)))
    pair.listener.wait(TransferProgress, lambda m: m.manifest == body.manifest and m.sealed == Ranges([(0, 1)]))
    assert pair.arrived(files)


def test_a_carrier_that_a_source_does_not_have_is_refused_with_words(stage: Stage) -> None:
    """As of a destination that is a release ahead; its worker may ask again, and by another."""
    files = {"/store/pigeon/1": NOISE.randbytes(1000), "/store/pigeon/2": NOISE.randbytes(1000)}
    body = listed(stage.root_a, files)
    stage.b.tell(open_order(body))
    stage.listener.wait(PartOpened, lambda m: m.manifest == body.manifest)
    stage.a.tell(Serve(replace(request_of(body), plane="pigeon")))
    over = stage.listener.wait(SourceFailed, lambda m: m.manifest == body.manifest and not m.items)
    assert (over.source, over.request_no) == (A, 1)
    assert (over.reason.scope, over.reason.failure_class) == (Scope.SOURCE, FailureClass.TRANSIENT)
    assert f"{A} has no carrier pigeon; it has {LOG}" in over.reason.text
    served = stage.listener.wait(ChunksServed, lambda m: m.manifest == body.manifest)
    assert (served.ranges, served.bytes) == (EMPTY, 0)
    stage.a.tell(Serve(request_of(body, 2)))
    stage.listener.wait(TransferProgress, lambda m: m.manifest == body.manifest and m.sealed == Ranges([(0, 2)]))
    assert all((stage.root_b / lfn[1:]).read_bytes() == content for lfn, content in files.items())
