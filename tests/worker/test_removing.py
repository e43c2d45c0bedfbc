"""Files go once others promise to keep them; the last copy, and what is claimed or damaged elsewhere, stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from streams.core import records as m
from streams.core.names import Dataset, Text
from streams.core.selectors import Kind, Selector
from streams.errors import StorageError
from streams.views import keeping
from streams.worker import removing
from streams.worker.removing import NOBODYS
from tests.worker.removal_stage import DATASET, A, B, C, Stage, block, lfn

WHOLE = Selector(Kind.DATASET, DATASET)
OTHER = Dataset("/Electron/Run1/RAW")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def file(number: int) -> Selector:
    return Selector(Kind.FILE, lfn(number))


def steps(stage: Stage, kind: type[m.ChainStep]) -> list[m.ChainStep]:
    return [one for one in stage.said if isinstance(one, kind)]


def test_files_go_once_another_site_has_promised_to_keep_them(stage: Stage) -> None:
    stage.place(A, 1, 2, 3)
    stage.place(B, 1, 2, 3)
    stage.run()
    intent = stage.ask([A], WHOLE)
    stage.run(5)
    assert (stage.files(A), stage.files(B)) == (set(), {lfn(1), lfn(2), lfn(3)})
    assert stage.report(intent, A) == (3, {})
    asked, promised, decided = (steps(stage, kind) for kind in (m.LeaveAsked, m.KeepPromised, m.RemovalDecided))
    assert [(one.site, one.asked, one.by, one.cause, one.reason) for one in asked] == [  # type: ignore[attr-defined]
        (A, (B,), "ann", intent, "full")
    ]
    assert [(one.site, len(one.promised)) for one in promised] == [(B, 3)]  # type: ignore[attr-defined]
    assert [(one.site, one.no, one.cause) for one in decided] == [(A, 2, intent)]
    lost = [one for one in stage.said if isinstance(one, m.FilesLost)]
    assert [(one.site, one.removal_sha256, one.reason.text) for one in lost] == [
        (A, m.step_sha256(decided[0]), "removed for ann: full")  # type: ignore[arg-type]
    ]
    for site in stage.sites.values():
        assert [one.site for one in site.catalogue.where(lfn(1))] == [B]
    stage.run(120)
    assert len(steps(stage, m.LeaveAsked)) == 1, "it is over"


def test_the_last_copy_stays_whoever_is_told_to_remove_it(stage: Stage) -> None:
    stage.place(A, 1, 2)
    stage.place(B, 1)
    stage.run()
    intent = stage.ask([A, B], WHOLE)
    stage.run(10)
    assert [lfn(1) in stage.files(site) for site in (A, B)].count(True) == 1
    assert lfn(2) in stage.files(A)
    gone, kept = 0, 0
    for site in (A, B):
        removed, why = stage.report(intent, site)
        gone, kept = gone + removed, kept + sum(why.values())
    assert (gone, kept) == (1, 2)
    assert stage.report(intent, A)[1]["it is the last copy"] == 1


def test_two_holders_that_are_both_told_and_do_not_hear_each_other_remove_nothing(stage: Stage) -> None:
    stage.place(A, 1)
    stage.place(B, 1)
    stage.run()
    for site in (A, B):
        stage.sites[site].deaf = True
    intent = stage.ask([A, B], WHOLE)
    stage.run(60)
    assert stage.files(A) == stage.files(B) == {lfn(1)}
    assert stage.last(intent, A) == stage.last(intent, B) == {}
    for site in (A, B):
        stage.sites[site].deaf = False
    stage.run(60)
    assert sorted([len(stage.files(A)), len(stage.files(B))]) == [0, 1]
    assert len(stage.last(intent, A)) == len(stage.last(intent, B)) == 1, "healed, it ends"


def test_what_is_claimed_damaged_elsewhere_or_of_another_dataset_stays_with_its_reason(stage: Stage) -> None:
    stage.place(A, *range(1, 7))
    stage.place(B, 1, 2, 4, 5, 6)
    stage.place(B, 3, spoilt=True)
    stage.place(A, 4, dataset=OTHER)
    stage.run()
    stage.claim(A, file(2))
    stage.sites[A].disk.files.pop(lfn(5))
    intent = stage.ask([A], WHOLE, Selector(Kind.BLOCK, block()))
    stage.run(10)
    gone, why = stage.report(intent, A)
    assert gone == 2
    assert why.pop("it is claimed by somebody") == 1
    assert why.pop(f"it is also in {OTHER}") == 1
    assert why.pop("it is not on the disk (no such file)") == 1
    ((damaged, count),) = why.items()
    assert count == 1
    assert damaged.startswith(f"{B}: its adler32 is ")
    assert stage.files(A) == {lfn(2), lfn(3), lfn(4)}


def test_so_many_copies_are_left_as_are_asked_for(stage: Stage) -> None:
    stage.place(A, 1, 2)
    stage.place(B, 1, 2)
    stage.place(C, 1)
    stage.run()
    intent = stage.ask([A], WHOLE, copies=2)
    stage.run(10)
    assert stage.report(intent, A) == (1, {f"2 other copies are wanted, and {B} has one": 1})
    assert stage.files(A) == {lfn(2)}
    (decided,) = steps(stage, m.RemovalDecided)
    assert isinstance(decided, m.RemovalDecided)
    assert {one.site for one in decided.removed[0].promises} == {B, C}


def test_files_by_name_are_those_of_one_dataset(stage: Stage) -> None:
    for site in (A, B):
        stage.place(site, 1, 2)
        stage.place(site, 7, dataset=OTHER)
    stage.run()
    intent = stage.ask([A], file(1), file(7))
    stage.run(10)
    assert stage.report(intent, A) == (1, {f"it is of {DATASET}: name it in a removal of its own": 1})
    assert stage.files(A) == {lfn(1), lfn(2)}
    stage.ask([A], file(1))
    stage.run(10)
    assert stage.files(A) == {lfn(2)}


def test_files_named_beside_their_dataset_are_done_with_it(stage: Stage) -> None:
    for site in (A, B):
        stage.place(site, 1, 2)
        stage.place(site, 7, dataset=OTHER)
    stage.run()
    intent = stage.ask([A], WHOLE, file(1), file(7))
    stage.run(10)
    assert stage.files(A) == set()
    assert set(stage.last(intent, A)) == {0, 1}, "each part has a last word"
    stage.place(A, 2)
    inside = stage.ask([A], WHOLE, file(2))
    stage.run(10)
    assert stage.files(A) == set()
    assert set(stage.last(inside, A)) == {0, 1}


def test_of_files_that_nobody_holds_the_last_word_is_said_too(stage: Stage) -> None:
    """By a site that has caught up: who holds them may be said already."""
    intent = stage.ask([A], file(1))
    stage.place(B, 9)  # which A has not heard yet
    stage.sites[A].tasks.attend(NOBODYS)
    assert stage.last(intent, A) == {}
    stage.run(10)
    assert stage.report(intent, A) == (0, {})


def test_a_dataset_is_attended_to_for_its_own_removals_only(stage: Stage) -> None:
    for number in range(30):
        stage.place(A, number, dataset=Dataset(f"/Muon/Run{number}/RAW"))
    stage.run()
    removals = stage.sites[A].tasks.removals
    for number in range(30):
        stage.ask([A], Selector(Kind.DATASET, f"/Muon/Run{number}/RAW"))
    assert [len(intents) for intents in removals._open_in.values()] == [1] * 30
    stage.run(10)
    assert removals._open_in == {}


def test_a_removal_of_several_datasets_says_its_last_word_on_each(stage: Stage) -> None:
    for site in (A, B):
        stage.place(site, 1, 2)
        stage.place(site, 7, dataset=OTHER)
    stage.run()
    intent = stage.ask([A, C], WHOLE, Selector(Kind.DATASET, OTHER))
    stage.run(10)
    assert stage.files(A) == set()
    assert {part: one.removed for part, one in stage.last(intent, A).items()} == {0: 1, 1: 2}
    assert {part: one.removed for part, one in stage.last(intent, C).items()} == {0: 0, 1: 0}


def test_a_million_would_go_a_thousand_at_a_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removing, "FILES_MAX", 3)
    monkeypatch.setattr(removing, "PAGE", 4)
    for site in (A, B):
        stage.place(site, *range(10))
        stage.place(site, *range(10, 15), number=2)
    stage.run()
    intent = stage.ask([A], WHOLE)
    stage.run(30)
    assert stage.report(intent, A) == (15, {})
    asks = steps(stage, m.LeaveAsked)
    assert all(len(one.files) <= 3 for one in asks)  # type: ignore[attr-defined]
    assert {one.block for one in asks} == {block(1), block(2)}  # type: ignore[attr-defined]


def test_a_holder_that_is_away_is_waited_for_a_day(stage: Stage) -> None:
    stage.place(A, 1)
    stage.place(B, 1)
    stage.run()
    stage.sites[B].away = True
    intent = stage.ask([A], WHOLE)
    stage.run(600)
    reports = [one for one in stage.said if isinstance(one, m.RemovalReported)]
    assert (reports[-1].open, reports[-1].last, reports[-1].waits_for) == (1, False, f"{B} to promise")
    assert len(reports) < 5, "a report says something new"
    stage.now_ms += 24 * 3600 * 1000
    stage.run(10)
    assert stage.report(intent, A) == (0, {"0 of 1 other copies promised, no more for a day": 1})
    stage.sites[B].away = False
    again = stage.ask([A], WHOLE)
    stage.run(10)
    assert stage.report(again, A) == (1, {})


def test_a_worker_that_starts_again_goes_on_and_asks_anew(stage: Stage) -> None:
    stage.place(A, 1, 2)
    stage.place(B, 1, 2)
    stage.run()
    stage.sites[B].away = True
    intent = stage.ask([A], WHOLE)
    stage.run(5)
    stage.sites[A].start()
    stage.sites[B].away = False
    stage.sites[B].start()
    for site in (A, B):
        stage.sites[site].tasks.scan()
    stage.run(120)
    assert stage.files(A) == set()
    assert stage.report(intent, A)[0] == 2


def test_a_cancelled_removal_asks_for_nothing_more(stage: Stage) -> None:
    stage.place(A, 1)
    stage.place(B, 1)
    stage.run()
    stage.sites[B].away = True
    intent = stage.ask([A], WHOLE)
    stage.run(5)
    stage.decide(replace(stage.decisions[intent], decision_no=2, verdict=m.Verdict.CANCELLED))
    stage.sites[B].away = False
    stage.run(60)
    assert stage.files(A) == {lfn(1)}
    assert stage.last(intent, A) == {}, "with a last word it would be done"
    (*_, told) = (one for one in stage.said if isinstance(one, m.RemovalReported))
    assert [(kept.reason, kept.files) for kept in told.reasons] == [("its intent was cancelled", 1)]
    assert not stage.sites[A].chain(A, DATASET).asks


def test_what_a_plane_could_not_delete_is_told_to_it_again(stage: Stage) -> None:
    stage.place(A, 1)
    stage.place(B, 1)
    stage.run()
    disk, remove = stage.sites[A].disk, stage.sites[A].disk.remove_group
    disk.remove_group = lambda lfns, why_not: []  # type: ignore[method-assign]
    intent = stage.ask([A], WHOLE)
    stage.run(10)
    assert stage.files(A) == {lfn(1)}
    assert stage.last(intent, A) == {}
    disk.remove_group = remove  # type: ignore[method-assign]
    stage.run(120)
    assert stage.files(A) == set()
    assert stage.report(intent, A) == (1, {})


def test_steps_whose_files_cannot_be_deleted_hold_up_no_others(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removing, "TOLD_MAX", 2)
    for site in (A, B):
        for number in range(6):
            stage.place(site, number, number=number)
    stage.run()
    disk, remove = stage.sites[A].disk, stage.sites[A].disk.remove_group
    stuck = {lfn(0), lfn(1), lfn(2)}

    def some(lfns: Sequence[str], why_not: Callable[[str, str], str | None]) -> list[str | StorageError | None]:
        if stuck & set(lfns):
            return [StorageError("read-only") for _ in lfns]
        return remove(lfns, why_not)

    disk.remove_group = some  # type: ignore[method-assign]
    stage.ask([A], WHOLE)
    stage.run(300)
    assert stage.files(A) == stuck
    times: dict[str, list[int]] = {}
    for at_ms, order in stage.sites[A].told:
        times.setdefault(order.removals[0].sha256, []).append(at_ms)
    assert all(later - one >= 1000 * removing.LOOK_S for each in times.values() for one, later in pairwise(each))
    stuck.clear()
    stage.run(120)
    assert stage.files(A) == set()


def test_a_removal_that_goes_on_is_read_no_more_than_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen asks of a thousand files are 10 MB: not for each fact that is heard."""
    for site in (A, B):
        stage.place(site, *range(20))
    stage.run()
    stage.sites[B].away = True
    stage.ask([A], WHOLE)
    stage.run(5)
    read = list[object]()
    monkeypatch.setattr(keeping, "read_chain", lambda *args: read.append(args))
    for _ in range(10):
        stage.sites[A].tasks.attend(DATASET)
    assert not read


def test_a_disputed_chain_removes_nothing(stage: Stage) -> None:
    stage.place(A, 1)
    stage.place(B, 1)
    stage.run()
    head = (*stage.sites[A].chain(A, DATASET).next_head, "q", 0, Text("w"), None, Text(""))
    one = m.ClaimDecided(*head, (), ("none",))
    stage.sites[A].publish(one)
    stage.sites[A].publish(
        replace(one, prev_sha256="", no=3) if one.no != 1 else replace(one, no=3, prev_sha256="0" * 64)
    )
    stage.run()
    stage.ask([A], WHOLE)
    stage.run(60)
    assert stage.files(A) == {lfn(1)}
