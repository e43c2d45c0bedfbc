"""A plane removes the version that a step orders, while its worker lives; it says what has ended."""

from __future__ import annotations

from streams import wire
from streams.core.keeping.chains import CountedRemoval
from streams.core.names import Block, Dataset, Lfn, Site, Text
from streams.errors import StorageError
from streams.planes.destination.removing import removed
from streams.planes.orders import Remove
from tests.storage.contract import land, noise
from tests.storage.memory import MemoryEndpoint

B = Site("T2_B")
DATASET = Dataset("/Removed/Here/RAW")
SHA256 = "ab" * 32
ONE, TWO, OTHER, GONE = (Lfn(f"/store/{name}") for name in ("one", "two", "other", "gone"))


def removal(lfn: Lfn, version: str) -> CountedRemoval:
    return CountedRemoval(5, SHA256, Block(f"{DATASET}#1"), lfn, "", version, (f"w{lfn[-1]}",), 10)


def order(endpoint: MemoryEndpoint) -> Remove:
    versions = {
        lfn: endpoint.stat(lfn).version if lfn in (ONE, TWO) else "of before" for lfn in (ONE, TWO, OTHER, GONE)
    }
    return Remove(DATASET, tuple(removal(lfn, version) for lfn, version in versions.items()), "p", Text("full"))


def filled() -> MemoryEndpoint:
    endpoint = MemoryEndpoint()
    for number, lfn in enumerate((ONE, TWO, OTHER)):
        land(endpoint, lfn, noise(10 + number), item=number)
    return endpoint


def test_what_is_gone_or_another_file_has_ended_and_its_words_are_taken_back() -> None:
    endpoint = filled()
    said = removed(B, endpoint, order(endpoint), lambda: "p")
    assert said is not None
    assert said.lfns == (ONE, TWO, OTHER, GONE)
    assert [taken.words for taken in said.taken] == [("we",), ("wo",), ("wr",), ("we",)]
    assert (said.dataset, said.site, said.removal_sha256, said.reason.text) == (DATASET, B, SHA256, "full")
    wire.encode(said)
    assert set(endpoint.files) == {OTHER}, "another version is left alone"
    again = removed(B, endpoint, order(filled()), lambda: "p")
    assert again == said, "told once more, it says the same"


def test_nothing_is_deleted_once_the_worker_is_gone() -> None:
    endpoint = filled()
    told = order(endpoint)
    above = iter(("p", ""))
    said = removed(B, endpoint, told, lambda: next(above, ""))
    assert said is not None
    assert said.lfns == (ONE, GONE)
    assert set(endpoint.files) == {TWO, OTHER}


def test_what_cannot_be_deleted_is_not_said() -> None:
    endpoint = filled()
    told = order(endpoint)
    remove_group = endpoint.remove_group

    def failing(lfns, why_not):  # type: ignore[no-untyped-def]
        return [StorageError("permission denied"), *remove_group(lfns[1:], why_not)]

    endpoint.remove_group = failing  # type: ignore[method-assign]
    said = removed(B, endpoint, told, lambda: "p")
    assert said is not None
    assert ONE not in said.lfns
    endpoint.remove_group = lambda lfns, why_not: [StorageError("read-only")] * len(lfns)  # type: ignore[method-assign]
    assert removed(B, endpoint, told, lambda: "p") is None
