"""Who is opened next: the intent that holds the fewest, and of one intent whoever waits longest."""

from __future__ import annotations

import time

import pytest

from streams.core.names import IntentId, ManifestId
from streams.worker.admission import ITEMS_MAX, TRANSFER_ITEMS, Admission
from tests.core import example as x

PARTITION = 3


def manifest(intent: int, no: int) -> ManifestId:
    return ManifestId.of(IntentId(f"{x.A}.00000000-0000-4000-8000-{intent:012}"), 0, no)


def full_with(intent: int, items: int) -> tuple[Admission, list[ManifestId], list[ManifestId]]:
    """What it holds, and what waits, of 200 transfers of one intent."""
    admission = Admission()
    all_of_it = [manifest(intent, no) for no in range(200)]
    held = [one for one in all_of_it if admission.may_hold(one, items, PARTITION)]
    assert len(held) == ITEMS_MAX // (items + TRANSFER_ITEMS)
    return admission, held, all_of_it[len(held) :]


def test_a_single_file_is_opened_before_the_rest_of_a_million() -> None:
    admission, held, waiting = full_with(1, 1_000)
    admission.may_hold(manifest(2, 0), 1_000, PARTITION)
    assert admission.gone(held[0])[0] == (PARTITION, manifest(2, 0))
    assert not admission.may_hold(waiting[0], 1_000, PARTITION), "its room is the other's"
    assert admission.may_hold(manifest(2, 0), 1_000, PARTITION)
    assert admission.gone(held[1])[0] == (PARTITION, waiting[0])
    assert admission.may_hold(waiting[0], 1_000, PARTITION)


def test_one_that_still_fits_is_opened_at_once() -> None:
    admission, _, _ = full_with(1, 1_000)
    left = ITEMS_MAX % (1_000 + TRANSFER_ITEMS)
    assert admission.may_hold(manifest(2, 0), left - TRANSFER_ITEMS, PARTITION)


def test_when_all_is_over_nothing_is_counted() -> None:
    admission, held, waiting = full_with(1, 1_000)
    opened = list(held)
    while opened:
        for _, other in admission.ended(opened.pop(0)):
            if admission.may_hold(other, 1_000, PARTITION):
                opened.append(other)
                waiting.remove(other)
    assert waiting == []
    assert not admission._by_intent
    assert not admission._waiting
    assert admission._weight == 0


def test_a_question_takes_no_longer_when_very_many_wait() -> None:
    admission, held, _ = full_with(1, 1_000)
    for number in range(2, 20_002):
        admission.may_hold(manifest(number, 0), 1_000, PARTITION)
    before_s = time.thread_time()
    for number in range(10):
        admission.may_hold(manifest(30_000 + number, 0), 1_000, PARTITION)
        admission.gone(held[number])
    assert (time.thread_time() - before_s) / 20 < 0.02, "seconds a question"


def test_with_no_room_a_question_looks_at_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every open transfer asks every few seconds."""
    admission, _, _ = full_with(1, 1_000)
    monkeypatch.setattr(Admission, "_turn", lambda _: pytest.fail("all that wait were looked at"))
    assert not admission.may_hold(manifest(2, 0), 1_000, PARTITION)


def test_a_partition_is_let_go_in_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    admission, _, _ = full_with(1, 1_000)
    other = manifest(2, 0)
    admission.may_hold(other, 1_000, PARTITION)
    looks, turn = [], Admission._turn
    monkeypatch.setattr(Admission, "_turn", lambda self: looks.append(1) or turn(self))
    assert admission.drop(lambda one: one.intent != other.intent) == [(PARTITION, other)]
    assert len(looks) == 1
    assert admission._weight == 0
    assert list(admission._waiting) == [other]
