"""A move's files leave their source as they arrive; what did not arrive, or is another's, stays."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streams.core import records as m
from streams.core.names import IntentId, ManifestId
from streams.core.selectors import Kind, Selector
from streams.worker import removing
from streams.worker.removing import MovedFiles
from tests.worker.removal_stage import DATASET, A, B, C, Stage, lfn

WHOLE = Selector(Kind.DATASET, DATASET)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def by(intent: IntentId, number: int = 0) -> ManifestId:
    return ManifestId.of(intent, 0, number)


def noted(stage: Stage, intent: IntentId) -> bool:
    return stage.sites[A].chain(A, DATASET).claims.named(intent) is not None


def test_files_leave_as_they_arrive_while_the_rest_still_flows(stage: Stage) -> None:
    stage.place(A, 1, 2, 3)
    stage.run()
    intent = stage.move(A, [B], WHOLE)
    stage.run(5)
    assert noted(stage, intent), "nobody else removes what is to be moved"
    assert stage.files(A) == {lfn(1), lfn(2), lfn(3)}
    stage.place(B, 1, 2, manifest=by(intent))
    stage.run(5)
    assert (stage.files(A), stage.files(B)) == ({lfn(3)}, {lfn(1), lfn(2)})
    assert stage.last(intent, A) == {}
    reports = [one for one in stage.said if isinstance(one, m.RemovalReported)]
    assert (reports[-1].removed, reports[-1].waits_for) == (2, "files to arrive")
    stage.place(B, 3, manifest=by(intent, 1))
    stage.arrived(intent, 3)
    stage.run(5)
    assert stage.files(A) == set()
    assert stage.report(intent, A) == (3, {})
    lost = [one for one in stage.said if isinstance(one, m.FilesLost)]
    assert {one.reason.text for one in lost} == {f"moved to {B} for ann@desk"}


def test_what_waits_until_nothing_comes_asks_for_nothing(stage: Stage) -> None:
    stage.place(A, *range(20))
    stage.run()
    stage.move(A, [B], WHOLE)
    stage.run(10)
    said = len(stage.said)
    stage.run(600)
    assert len(stage.said) == said


def test_a_file_leaves_when_it_is_at_every_destination(stage: Stage) -> None:
    stage.place(A, 1, 2)
    stage.run()
    intent = stage.move(A, [B, C], WHOLE)
    stage.place(B, 1, 2, manifest=by(intent))
    stage.run(5)
    assert stage.files(A) == {lfn(1), lfn(2)}
    stage.place(C, 1, manifest=by(intent))
    stage.run(5)
    assert stage.files(A) == {lfn(2)}
    stage.arrived(intent, 1)
    stage.run(5)
    assert stage.files(A) == {lfn(2)}, "it did not come to the other"
    assert stage.report(intent, A) == (1, {})


def test_a_destination_that_takes_no_part_is_not_waited_for(stage: Stage) -> None:
    stage.place(A, 1)
    stage.run()
    intent = stage.move(A, [B, C], WHOLE)
    stage.place(B, 1, manifest=by(intent))
    stage.run(5)
    assert stage.files(A) == {lfn(1)}
    stage.denied.add(C)
    stage.arrived(intent, 1)
    stage.run(5)
    assert stage.files(A) == set()


def test_a_source_that_waits_for_approval_gives_nothing_away(stage: Stage) -> None:
    stage.place(A, 1)
    stage.run()
    stage.waiting.add((A, IntentId(f"{A}.{uuid.UUID(int=1)}")))
    intent = stage.move(A, [B], WHOLE)
    stage.place(B, 1, manifest=by(intent))
    stage.arrived(intent, 1)
    stage.run(600)
    assert (stage.files(A), stage.last(intent, A), noted(stage, intent)) == ({lfn(1)}, {}, False)
    stage.waiting.clear()
    stage.arrived(intent, 1)
    stage.run(5)
    assert stage.files(A) == set()


def test_what_was_no_part_of_the_move_stays_though_its_destination_has_it(stage: Stage) -> None:
    stage.place(A, 1, 2)
    stage.place(B, 2)
    stage.run()
    intent = stage.move(A, [B], WHOLE)
    stage.place(B, 1, manifest=by(intent))
    stage.arrived(intent, 1)
    stage.run(5)
    assert stage.files(A) == {lfn(2)}
    assert stage.report(intent, A) == (1, {})


def test_what_others_registered_or_claim_stays_with_its_reason(stage: Stage) -> None:
    stage.place(A, 1, owner="bob")
    stage.place(A, 2, owner="ann")
    stage.place(A, 3)
    stage.run()
    stage.claim(A, Selector(Kind.FILE, lfn(3)))
    intent = stage.move(A, [B], WHOLE)
    stage.place(B, 1, 2, 3, manifest=by(intent))
    stage.arrived(intent, 3)
    stage.run(5)
    assert stage.files(A) == {lfn(1), lfn(3)}
    assert stage.report(intent, A) == (1, {"it was registered by bob": 1, "it is claimed by somebody": 1})


def test_the_claim_of_its_source_keeps_other_removals_off(stage: Stage) -> None:
    for site in (A, C):
        stage.place(site, 1)
    stage.run()
    intent = stage.move(A, [B], WHOLE)
    stage.run(5)
    other = stage.ask([A], WHOLE)
    stage.run(5)
    assert stage.report(other, A) == (0, {f"it is claimed by {intent}": 1})
    stage.place(B, 1, manifest=by(intent))
    stage.arrived(intent, 1)
    stage.run(5)
    assert stage.files(A) == set()


def test_a_worker_that_starts_again_finds_what_had_arrived(stage: Stage) -> None:
    stage.place(A, 1, 2)
    stage.run()
    intent = stage.move(A, [B], WHOLE)
    stage.run(5)
    stage.sites[A].away = True
    stage.place(B, 1, manifest=by(intent))
    stage.moved[intent] = MovedFiles(some=True, all=False, files=0, to=frozenset())
    stage.run(5)
    stage.sites[A].start()
    stage.sites[A].away = False
    stage.sites[A].tasks.scan()
    stage.run(5)
    assert stage.files(A) == {lfn(2)}
    stage.place(B, 2, manifest=by(intent, 1))
    stage.arrived(intent, 2)
    stage.run(5)
    assert stage.report(intent, A) == (2, {})


def test_more_arrives_at_once_than_is_remembered(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removing, "LANDED_MAX", 3)
    stage.place(A, *range(11))
    stage.run()
    intent = stage.move(A, [B], WHOLE)
    stage.place(B, 0, 1, manifest=by(intent))
    stage.place(B, *range(2, 10), manifest=by(intent, 1))
    stage.run(5)
    assert stage.files(A) == {lfn(10)}, "while more may come"
    stage.place(B, 10, manifest=by(intent, 2))
    stage.arrived(intent, 11)
    stage.run(5)
    assert stage.report(intent, A) == (11, {})
    stage.run(30)
    removals = stage.sites[A].tasks.removals
    assert (removals._landed, removals._missed) == ({}, set())


def test_who_does_not_act_for_a_dataset_remembers_nothing_of_what_lands(stage: Stage) -> None:
    stage.place(A, 1)
    stage.run()
    intent = stage.move(A, [B], WHOLE)
    stage.sites[A].idle = True
    stage.place(B, 1, manifest=by(intent))
    stage.run(5)
    assert stage.sites[A].tasks.removals._landed == {}
    assert stage.files(A) == {lfn(1)}


def test_the_last_word_waits_for_a_catalogue_that_lags(stage: Stage) -> None:
    stage.place(A, 1, 2)
    stage.run()
    intent = stage.move(A, [B], WHOLE)
    stage.place(B, 1, manifest=by(intent))
    stage.arrived(intent, 2)
    stage.run(20)
    assert stage.last(intent, A) == {}, "of two files that have arrived one is known"
    stage.place(B, 2, manifest=by(intent, 1))
    stage.run(5)
    assert stage.report(intent, A) == (2, {})
    other = stage.move(A, [B], WHOLE)
    stage.arrived(other, 5)
    stage.run(20)
    assert stage.last(other, A) == {}
    stage.run(removing.LAG_S)
    assert stage.report(other, A) == (0, {}), "it waits no longer than a mirror may lag"


def test_a_move_that_is_cancelled_lets_go_no_more(stage: Stage) -> None:
    stage.place(A, 1, 2)
    stage.run()
    intent = stage.move(A, [B], WHOLE)
    stage.place(B, 1, manifest=by(intent))
    stage.run(5)
    stage.decide(replace(stage.decisions[intent], decision_no=2, verdict=m.Verdict.CANCELLED))
    stage.place(B, 2, manifest=by(intent, 1))
    stage.run(60)
    assert stage.files(A) == {lfn(2)}
    assert stage.last(intent, A) == {}


def test_two_moves_of_the_same_files_against_each_other_leave_a_copy(stage: Stage) -> None:
    for site in (A, B):
        stage.place(site, 1)
    stage.run()
    there, back = stage.move(A, [B], WHOLE), stage.move(B, [A], WHOLE)
    stage.place(B, 1, manifest=by(there))
    stage.place(A, 1, manifest=by(back))
    for intent in (there, back):
        stage.arrived(intent, 1)
    stage.run(60)
    assert [lfn(1) in stage.files(site) for site in (A, B)].count(True) >= 1
    assert stage.last(there, A)
    assert stage.last(back, B)
