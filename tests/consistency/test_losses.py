"""Which records say what is lost: of one dataset each, of no more than a record holds, of the words that were known."""

from __future__ import annotations

import pytest

from streams import wire
from streams.auditing.replicas import AuditedReplica
from streams.consistency import losses
from streams.consistency.checking import repair_key
from streams.core.names import Site
from streams.core.policy import RECORD_BYTES_MAX

B = Site("T2_B")


def lost(n: int, dataset: str = "/P/R/AOD", words: tuple[str, ...] = ("w",), lfn: str = "/store/") -> AuditedReplica:
    return AuditedReplica(f"{lfn}{n:06}", dataset, f"{dataset}#b", 1, "00000001", "", 0, n, words)


def test_a_record_has_a_thousand_files_of_one_dataset() -> None:
    many = [lost(n, f"/P/R/{n % 2}") for n in range(5_001)]
    found = list(losses.batches(many))
    assert sorted(one.lfn for batch in found for one in batch.replicas) == [one.lfn for one in many]
    assert all(one.dataset == batch.dataset for batch in found for one in batch.replicas)
    assert [len(batch.replicas) for batch in found] == [1000, 1000, 1000, 1000, 501, 500]
    record = found[-1].record(B, losses.reason("check", "why"))
    assert [taken.words for taken in record.taken] == [("w",)] * 500


def test_of_many_datasets_a_bounded_number_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_PENDING_FILES_MAX", 10)
    taken = 0

    def counted() -> list[AuditedReplica]:
        return [lost(n, f"/P/R/{n // 3}") for n in range(100)]

    for batch in losses.batches(iter(counted())):
        taken += len(batch.replicas)
        assert len(batch.replicas) <= 10
    assert taken == 100


def test_long_names_and_many_words_still_make_records_that_may_travel() -> None:
    long = [lost(n, words=tuple(f"{word:0120}" for word in range(20)), lfn="/store/" + "x" * 900) for n in range(1000)]
    sizes = [len(wire.framed(one.record(B, losses.reason("check", "why"))).value) for one in losses.batches(long)]
    assert len(sizes) > 1
    assert max(sizes) <= RECORD_BYTES_MAX


def test_a_repair_is_called_by_what_was_lost() -> None:
    now = lost(1, words=("b", "a"))
    after = now._replace(words=(), taken=("a", "b"), lost=("a", "b"))
    assert repair_key(now) == repair_key(after)
    assert repair_key(now) != repair_key(now._replace(words=("a", "c")))
    assert repair_key(now) != repair_key(now._replace(dataset="/P/R/OTHER"))
