"""Files looked at before a removal: what is there, read back for who answers an ask; what is not, in words."""

from __future__ import annotations

from dataclasses import replace

from streams.core.names import Dataset, Lfn, Site
from streams.core.records import SeenFile
from streams.errors import StorageError
from streams.planes.orders import Check
from streams.planes.source.checking import checked
from tests.storage.contract import adler_of, land, noise
from tests.storage.memory import MemoryEndpoint

A, B = Site("T1_A"), Site("T2_B")
DATASET = Dataset("/Checked/Here/RAW")


def order(*lfns: str, noted_no: int = 7) -> Check:
    return Check(DATASET, A, 3, "ab" * 32, noted_no, tuple(map(Lfn, lfns)))


def test_each_file_is_read_or_said_to_be_missing() -> None:
    endpoint = MemoryEndpoint()
    land(endpoint, "/store/one", noise(3000), item=1)
    land(endpoint, "/store/empty", b"", item=2)
    said = checked(B, endpoint, order("/store/one", "/store/gone", "/store/empty"))
    assert (said.site, said.dataset, said.asker, said.ask_no, said.ask_sha256) == (B, DATASET, A, 3, "ab" * 32)
    assert said.noted_no == 7
    assert [(file.lfn, file.bytes, file.adler32) for file in said.found] == [
        ("/store/one", 3000, adler_of(noise(3000))),
        ("/store/empty", 0, adler_of(b"")),
    ]
    assert said.found[0].version == endpoint.stat("/store/one").version
    assert [(file.lfn, file.reason) for file in said.missing] == [("/store/gone", "no such file")]


def test_who_would_remove_his_own_looks_at_size_and_version() -> None:
    endpoint = MemoryEndpoint()
    land(endpoint, "/store/one", noise(3000))
    endpoint.checksum = None  # type: ignore[method-assign, assignment]
    said = checked(B, endpoint, replace(order("/store/one", "/store/gone"), asker=B, read_back=False))
    assert said.found == ()
    assert said.seen == (SeenFile(Lfn("/store/one"), 3000, endpoint.stat("/store/one").version),)
    assert [file.lfn for file in said.missing] == ["/store/gone"]


def test_a_file_that_changes_while_it_is_read_is_none_that_could_be_promised() -> None:
    endpoint = MemoryEndpoint()
    land(endpoint, "/store/one", noise(3000))
    stat = endpoint.stat

    def changing(lfn: str) -> object:
        found = stat(lfn)
        endpoint.files[lfn].touch()
        return found

    endpoint.stat = changing  # type: ignore[method-assign, assignment]
    said = checked(B, endpoint, order("/store/one"))
    assert said.found == ()
    assert "was changed" in said.missing[0].reason


def test_a_storage_that_fails_is_a_reason() -> None:
    endpoint = MemoryEndpoint()

    def broken(lfn: str) -> object:
        raise StorageError("the disk reports an input/output error", "/secret/place")

    endpoint.stat = broken  # type: ignore[method-assign, assignment]
    said = checked(B, endpoint, order("/store/one"))
    assert [file.reason for file in said.missing] == ["the disk reports an input/output error"]
