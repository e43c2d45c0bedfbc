"""Registering keys of a store over an in-process broker and a real S3 implementation."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streams.core.names import Block
from streams.core.selectors import parse
from streams.kafka.publish import Publisher
from streams.registration.registering import register, verify
from streams.settings import Settings
from streams.views.view import View
from tests.storage.s3_server import Server
from tests.views.journal import DATASET, A

BLOCK = Block(f"{DATASET}#keys")
BASE = "/store/s3/cern"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def with_store(settings: Settings, server: Server, tmp_path: Path) -> Settings:
    (tmp_path / "storage").mkdir()
    return replace(settings, endpoint_url=f"file://{tmp_path}/storage", stores=(server.store(prefix="run1/"),))


@pytest.fixture
def publisher(settings: Settings) -> Iterator[Publisher]:
    with Publisher(settings, A, "test", "cli") as made:
        yield made


def test_keys_are_replicas_with_checksum_and_version(
    with_store: Settings, publisher: Publisher, server: Server, tmp_path: Path
) -> None:
    contents = {f"{n}.dat": b"%d" % n * n for n in range(50)}
    server.put(
        {f"run1/{name}": content for name, content in contents.items()} | {"run1/a b": b"odd", "run2/x.dat": b""}
    )
    (tmp_path / "local.dat").write_bytes(b"beside")
    asked = [tmp_path / "local.dat", "s3://cern/*", "s3://cern/none/*", "s3://other/*"]
    done = register(with_store, publisher, asked, BLOCK, lfn_prefix="/store/local")
    assert (done.files, done.faults_count) == (51, 3)
    told = sorted(str(fault) for fault in done.faults)
    assert told[0].startswith("s3://cern/a b: this key is no LFN")
    assert "no key of the store cern matches 'none/*'" in told[1]
    assert "no store other" in told[2]
    view = View(with_store, with_store.datadir, lambda letter: pytest.fail(letter.reason))
    view.start()
    assert view.catch_up(20)
    files, _ = view.catalogue.listing([parse(BLOCK)])
    view.stop()
    seen = {file.lfn: (file.replicas[0].bytes, file.replicas[0].adler32, file.replicas[0].version) for file in files}
    assert seen.keys() == {"/store/local/local.dat", *(f"{BASE}/{name}" for name in contents)}
    for name, content in contents.items():
        size, adler32, version = seen[f"{BASE}/{name}"]
        assert (size, adler32) == (len(content), f"{zlib.adler32(content):08x}")
        assert version.startswith(f"{size}:")
    expected = [(file.lfn, file.replicas[0].bytes, file.replicas[0].adler32) for file in files]
    server.put({"run1/7.dat": b"changed"})
    bad = [one for one in verify(with_store, expected) if one.why]
    assert [one.lfn for one in bad] == [f"{BASE}/7.dat"]


def test_a_store_that_is_away_is_worth_another_try(with_store: Settings, publisher: Publisher) -> None:
    away = replace(with_store, stores=(replace(with_store.stores[0], url="http://127.0.0.1:1"),))
    done = register(away, publisher, ["s3://cern/*"], BLOCK)
    assert (done.files, done.faults_count) == (0, 0)
    assert "cannot be reached" in str(done.stopped)


def test_a_site_without_stores_says_so(with_store: Settings, publisher: Publisher) -> None:
    done = register(replace(with_store, stores=()), publisher, ["s3://cern/*"], BLOCK)
    assert [str(fault) for fault in done.faults] == [
        "s3://cern/*: this site reads no store; name one in its settings: [stores.NAME] with url and bucket"
    ]
