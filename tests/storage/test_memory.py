"""The storage in memory: both contracts, and how it is opened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streams.core.endpoint_config import EndpointConfig
from streams.core.names import Lfn
from streams.core.path_rules import PathRules
from streams.errors import NeverWorks, NotFound, StorageError
from streams.storage import BACK_ENDS, open_endpoint, open_named
from streams.storage.endpoint import OnDisk, item_tag, part_tag
from tests.storage import memory
from tests.storage.contract import LFN, Backdoor, EndpointContract, land, tag
from tests.storage.memory import Blob, MemoryEndpoint


class MemoryBackdoor(Backdoor):
    def __init__(self, endpoint: MemoryEndpoint) -> None:
        self._endpoint = endpoint

    def put(self, lfn: str, content: bytes) -> None:
        self._endpoint.files[lfn] = Blob(content)

    def get(self, lfn: str) -> bytes | None:
        blob = self._endpoint.files.get(lfn)
        return None if blob is None else bytes(blob.content)

    def overwrite(self, lfn: str, offset: int, content: bytes) -> None:
        blob = self._endpoint.files[lfn]
        blob.content[offset : offset + len(content)] = content
        blob.touch()

    def truncate(self, lfn: str, length: int) -> None:
        blob = self._endpoint.files[lfn]
        blob.content[:] = blob.content[:length].ljust(length, b"\0")
        blob.touch()

    def remove(self, lfn: str) -> None:
        del self._endpoint.files[lfn]

    def parts(self) -> list[str]:
        return [name for _, name in self._endpoint.parts]

    def remove_parts(self) -> None:
        self._endpoint.parts.clear()

    def corrupt_parts(self) -> None:
        for blob in self._endpoint.parts.values():
            blob.content[0] ^= 1


@pytest.fixture
def endpoint() -> Iterator[MemoryEndpoint]:
    with MemoryEndpoint(name="in-memory") as made:
        yield made


@pytest.fixture
def backdoor(endpoint: MemoryEndpoint) -> MemoryBackdoor:
    return MemoryBackdoor(endpoint)


class TestMemoryKeepsTheContract(EndpointContract):
    pass


def test_a_back_end_is_chosen_by_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NeverWorks, match="no storage backend"):
        open_endpoint("memory://")
    monkeypatch.setitem(BACK_ENDS, memory.SCHEME, memory.__name__)
    with open_named({"default": EndpointConfig("default", "memory://")}) as endpoint:
        assert isinstance(endpoint, MemoryEndpoint)
        assert endpoint.name == "default"
        assert land(endpoint, LFN, b"abc").bytes == 3
    for url, rules in (("memory://host", None), ("memory:///x", None), ("memory://", PathRules.prefix("/"))):
        with pytest.raises(NeverWorks, match="not a storage in memory"):
            open_endpoint(url, rules=rules)
    with pytest.raises(NotFound, match=r"no endpoint tape at this site.*known endpoints: default"):
        open_named({"default": EndpointConfig("default", "memory://")}, "tape")


def test_a_walk_names_files_and_parts(endpoint: MemoryEndpoint) -> None:
    land(endpoint, LFN, b"abc")
    endpoint.open_part("/store/growing", tag(3), bytes=9, adler32=None)
    mine = part_tag("T1_A.0f0e1d9e-0000-4000-8000-000000000000.0.0", 3, 0)
    found = {one.path: one for one in endpoint.walk(lambda path, why: None)}
    part = f"store/.t2g-{mine}.part"
    assert found == {
        LFN[1:]: OnDisk(LFN[1:], Lfn(LFN)),
        part: OnDisk(part, None, item_tag("T1_A.0f0e1d9e-0000-4000-8000-000000000000.0.0", 3)),
    }
    assert all(endpoint.dated(path) is not None for path in found)
    assert endpoint.dated("store/gone") is None
    assert endpoint.lfn_of(endpoint.path_of(LFN)) == LFN


def test_what_needs_a_disk_is_refused(endpoint: MemoryEndpoint) -> None:
    for attempt in (
        lambda: endpoint.local_path(LFN),
        lambda: endpoint.open_beside(LFN, tag()),
        lambda: endpoint.open_workroom(LFN, tag()),
    ):
        with pytest.raises(StorageError, match="disk") as caught:
            attempt()
        assert caught.value.failure_class == "permanent"
