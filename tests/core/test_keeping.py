"""The chain's table is total, its rows are free of order and repeats, gates say why, and what is owed ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import records as m
from streams.core.keeping import chains, duties, gates, words
from streams.core.keeping.chains import ASKS_OPEN_MAX, REMEMBERED_MAX, ChainRow, ChainState, OpenAsk, StepHeard, fold
from streams.core.keeping.gates import FileHere, OtherDataset, PlacedFile
from streams.core.keeping.words import NEVER_HELD, ReplicaRow
from streams.core.names import Adler32, Block, Dataset, Lfn, Text
from streams.core.records.keeping import (
    ChainSettled,
    ClaimDecided,
    KeepingStep,
    KeepPromised,
    KeptFile,
    LeaveAsked,
    LeavingFile,
    NotedClaim,
    ReliedOn,
    RemovalDecided,
    RemovedFiles,
    step_sha256,
)
from streams.core.selectors import Kind, Selector
from tests.core import example as x

A, B, C = x.A, x.B, x.C
OTHER = Dataset("/Muon/Run2/RAW")
ADLER32 = Adler32("00000001")
DISK, BUFFER = "disk", "buffer"
WHOLE = NotedClaim("whole", DISK, (Selector(Kind.DATASET, x.DATASET),))
EMPTY = ChainRow(A, x.DATASET)


def head(row: ChainRow, process: str = "p", at_ms: int = 0, cause: Any = None) -> tuple[Any, ...]:
    return (*row.next_head, process, at_ms, Text("worker"), cause, Text(""))


def leaving(*numbers: int, words_: tuple[str, ...] = ("w",)) -> tuple[LeavingFile, ...]:
    return tuple(LeavingFile(x.lfn(n), 1, ADLER32, "v1", words_) for n in numbers)


def ask(row: ChainRow, *numbers: int, endpoint: str = DISK, asked: Sequence[Any] = (B, C), **k: Any) -> LeaveAsked:
    rest = {name: k.pop(name) for name in ("not_before_ms", "copies") if name in k}
    return LeaveAsked(*head(row, **k), x.BLOCK, endpoint, leaving(*numbers), tuple(asked), **rest)


def note(row: ChainRow, *claims: NotedClaim, ended: tuple[str, ...] = (), **k: Any) -> ClaimDecided:
    return ClaimDecided(*head(row, **k), claims, ended)


def promise(row: ChainRow, to: ChainRow, *numbers: int, refused: tuple[int, ...] = (), **k: Any) -> KeepPromised:
    asked = to.asks[-1]
    said = tuple(KeptFile(x.lfn(n), Text(f"{row.site} has it not")) for n in refused)
    return KeepPromised(*head(row, **k), to.site, asked.no, asked.sha256, tuple(map(x.lfn, numbers)), said)


def removal(row: ChainRow, ask_no: int, *numbers: int, kept: tuple[int, ...] = (), **k: Any) -> RemovalDecided:
    removed = (RemovedFiles(tuple(map(x.lfn, numbers)), (ReliedOn(B, 1),)),) if numbers else ()
    said = tuple(KeptFile(x.lfn(n), Text("refused")) for n in kept)
    return RemovalDecided(*head(row, **k), ask_no, removed, said)


def settle(row: ChainRow, no: int = 0) -> ChainSettled:
    site, dataset, next_no, prev = row.next_head
    return ChainSettled(site, dataset, no or next_no, prev, "op", 0, Text("ann"), None, Text("disk put back"))


def after(row: ChainRow, *steps: KeepingStep) -> ChainRow:
    for step in steps:
        folded = fold(row, step)
        assert folded.heard is StepHeard.COUNTS, step
        row = folded.row
    return row


ONE = after(EMPTY, ask(EMPTY, 1, 2))
PARTED = fold(ONE, replace(note(ONE), prev_sha256=x.SHA256, ended=("none",))).row
STATES: dict[ChainState, ChainRow] = {ChainState.EMPTY: EMPTY, ChainState.SOUND: ONE, ChainState.DISPUTED: PARTED}
ASKER = after(ChainRow(B, x.DATASET), ask(ChainRow(B, x.DATASET), 1, 2, asked=(A,)))


def steps_behind(row: ChainRow) -> tuple[KeepingStep, ...]:
    return (note(row, WHOLE), ask(row, 3), promise(row, ASKER, 1), removal(row, 1, 1), settle(row))


def relied(lfn: Lfn, shown: dict[Any, ChainRow], holders: list[Any], asked: OpenAsk) -> tuple[ReliedOn, ...]:
    return gates.promises_for(lfn, gates.answers_to(A, asked, shown), holders)


# The table.


def test_the_table_is_total() -> None:
    assert set(chains.TABLE) == set(product(ChainState, get_args(KeepingStep)))
    assert {type(step) for step in steps_behind(ONE)} == set(get_args(KeepingStep))
    assert all(row.state is state for state, row in STATES.items())


@pytest.mark.parametrize(("state", "n"), list(product(ChainState, range(5))))
def test_every_step_is_heard_in_every_state(state: ChainState, n: int) -> None:
    row = STATES[state]
    step = steps_behind(row)[n]
    folded = fold(row, step)
    if state is ChainState.DISPUTED and not isinstance(step, ChainSettled):
        assert (folded.heard, folded.row) == (StepHeard.PASSED, row)
        return
    if state is ChainState.DISPUTED:
        assert folded.heard is StepHeard.PASSED, "the other history has that number"
        step = settle(row, no=row.no + 2)
        folded = fold(row, step)
    assert folded.heard is StepHeard.COUNTS
    assert (folded.row.no, folded.row.sha256, folded.row.state) == (step.no, step_sha256(step), ChainState.SOUND)
    assert fold(folded.row, step) == chains.FoldedStep(folded.row, StepHeard.AGAIN), "heard again, it changes nothing"


# Which steps count.


def test_the_first_of_a_number_counts_and_the_others_lost_a_race() -> None:
    first, second = note(ONE, WHOLE), note(ONE, ended=("none",))
    row = after(ONE, first)
    assert fold(row, second) == chains.FoldedStep(row, StepHeard.VOID)
    later = after(row, note(row, ended=("none",)))
    assert fold(later, second).heard is StepHeard.VOID, "however late"


def test_who_continues_a_void_step_disputes_the_chain() -> None:
    void = note(ONE, ended=("none",))
    lost = after(ONE, void)
    row = after(ONE, note(ONE, WHOLE))
    behind = note(lost, ended=("other",))
    for at in (row, after(row, note(row, ended=("none",)))):
        folded = fold(at, behind)
        assert folded.heard is StepHeard.DISPUTES
        assert folded.row.dispute == chains.Dispute(
            behind.no, step_sha256(behind), step_sha256(void), max(at.no, behind.no)
        )
        assert fold(folded.row, note(folded.row)).heard is StepHeard.PASSED, "from there no step counts"


def test_a_number_left_out_disputes_the_chain() -> None:
    assert fold(ONE, replace(note(ONE), no=ONE.no + 2)).heard is StepHeard.DISPUTES
    assert fold(EMPTY, replace(note(EMPTY), no=2, prev_sha256=x.SHA256)).heard is StepHeard.DISPUTES


def test_a_site_put_back_is_told_and_settled_and_its_old_history_disputes_no_more() -> None:
    """B promised and lost it. Its peer has heard that promise; what B says anew is void there, then disputed."""
    held = after(ChainRow(B, x.DATASET), note(ChainRow(B, x.DATASET), ended=("none",)))
    promised = promise(held, ONE, 1)
    peer = after(held, promised)
    anew = after(held, note(held, ended=("a",), process="q"))
    second = note(anew, ended=("b",), process="q")
    own = after(anew, second)
    assert fold(peer, note(held, ended=("a",), process="q")).heard is StepHeard.VOID
    disputed = fold(peer, second).row
    assert disputed.disputed
    assert relied(x.lfn(1), {B: peer}, [B], ONE.asks[0]), "it stood before"
    assert not relied(x.lfn(1), {B: disputed}, [B], ONE.asks[0]), "and counts no more"
    assert "settle it, with a number above 3" in (gates.why_no_promise(ONE, disputed, ONE.asks[0], here()) or "")
    word = settle(own, no=9)
    for row in (disputed, own):
        settled = after(row, word)
        assert (settled.no, settled.asks, settled.promises, settled.dispute) == (9, (), (), None)
        for old in (promised, second, note(held, ended=("a",), process="q")):
            assert fold(settled, old).row == settled, "a repeat of either history changes nothing"
        assert after(settled, note(settled, WHOLE)).claims == (WHOLE,)
    assert fold(after(own, word), settle(own, no=5)).heard is StepHeard.PASSED


def test_a_row_remembers_so_many_steps_and_promises() -> None:
    row, first = EMPTY, note(EMPTY, ended=("0",))
    for n in range(REMEMBERED_MAX + 2):
        row = after(row, note(row, ended=(str(n),)) if n % 2 else promise(row, ASKER, 1))
    assert len(row.digests) == REMEMBERED_MAX
    assert fold(row, first) == chains.FoldedStep(row, StepHeard.PASSED), "of before, neither a repeat nor a dispute"
    edge = replace(first, no=row.no - REMEMBERED_MAX + 1, prev_sha256=x.SHA256)
    assert fold(row, edge).heard is StepHeard.VOID, "what it continues is not remembered"
    for _ in range(REMEMBERED_MAX):
        row = after(row, promise(row, ASKER, 1))
    assert len(row.promises) == REMEMBERED_MAX


# What steps do.


def test_a_claim_aborts_asks_for_what_it_covers_at_its_endpoint() -> None:
    row = after(ONE, ask(ONE, 1, endpoint=BUFFER))
    one = NotedClaim("one", DISK, (Selector(Kind.FILE, x.lfn(1)),))
    assert [a.files for a in after(row, note(row, one)).asks] == [leaving(2), leaving(1)]
    block = NotedClaim("block", DISK, (Selector(Kind.BLOCK, x.BLOCK),))
    for claim in (block, WHOLE):
        assert [a.endpoint for a in after(row, note(row, claim)).asks] == [BUFFER]


def test_while_a_claim_lives_no_ask_opens_for_what_it_covers() -> None:
    row = after(EMPTY, note(EMPTY, NotedClaim("one", DISK, (Selector(Kind.FILE, x.lfn(1)),))))
    assert after(row, ask(row, 1, 2)).asks[0].files == leaving(2)
    assert after(row, ask(row, 1)).asks == ()
    free = after(row, note(row, ended=("one",)))
    assert after(free, ask(free, 1)).asks[0].files == leaving(1)


def test_a_moves_claim_at_its_source_yields_to_the_moves_own_asks_alone() -> None:
    source = replace(WHOLE, lands=False, intent=x.INTENT)
    row = after(EMPTY, note(EMPTY, source))
    assert after(row, ask(row, 1)).asks == ()
    asked = after(row, ask(row, 1, cause=x.INTENT))
    assert asked.asks[0].files == leaving(1)
    assert after(asked, note(asked, source)).asks == asked.asks
    assert after(asked, note(asked, WHOLE)).asks == (), "another claim keeps the file"
    assert "nothing lands" in (gates.why_no_part(row.claims, "whole", here(), "w") or "")


def test_a_promise_aborts_own_asks_for_those_files_and_a_refusal_none() -> None:
    assert after(ONE, promise(ONE, ASKER, 1)).asks[0].files == leaving(2)
    assert after(ONE, promise(ONE, ASKER, refused=(1, 2))).asks == ONE.asks


def test_a_removal_counts_while_its_ask_is_open_and_not_before_its_time() -> None:
    folded = fold(ONE, removal(ONE, 1, 1, kept=(2,)))
    assert [(r.no, r.lfn, r.version, r.words) for r in folded.removals] == [(2, x.lfn(1), "v1", ("w",))]
    assert folded.row.asks == ()
    for row in (
        after(ONE, promise(ONE, ASKER, 1)),
        after(ONE, note(ONE, WHOLE)),
        after(ONE, removal(ONE, 1, kept=(1,))),
    ):
        assert fold(row, removal(row, 1, 1)).removals == ()
    late = after(EMPTY, ask(EMPTY, 1, not_before_ms=10))
    assert fold(late, removal(late, 1, 1, at_ms=9)).removals == ()
    assert len(fold(late, removal(late, 1, 1, at_ms=10)).removals) == 1
    assert fold(ONE, removal(ONE, 7, 1)).removals == (), "of an ask that nobody made"


def test_asks_end_with_the_process_that_made_them() -> None:
    assert after(ONE, promise(ONE, ASKER, refused=(1,))).asks == ONE.asks
    assert after(ONE, replace(promise(ONE, ASKER, refused=(1,)), process="q")).asks == ()
    assert after(ONE, note(ONE, ended=("none",), process="q")).asks == ONE.asks, "claims are every worker's"
    assert fold(ONE, removal(ONE, 1, 1, process="q")).removals == ()
    assert step_sha256(ask(EMPTY, 1)) != step_sha256(ask(EMPTY, 1, process="q")), "the same ask of another is another"


def test_so_many_asks_are_open_and_each_file_is_asked_for_once() -> None:
    row = EMPTY
    for n in range(ASKS_OPEN_MAX + 2):
        row = after(row, ask(row, n, n + 1))
    assert len(row.asks) == ASKS_OPEN_MAX
    assert [file.lfn for a in row.asks for file in a.files] == [x.lfn(n) for n in range(ASKS_OPEN_MAX + 1)]
    assert "16 asks are open" in (gates.why_no_ask(row, copies=1, asked=(B,)) or "")


GOLDEN_DIGESTS = ["6e155845dd34d06a", "e55bac35eaccd9c2", "7744df21cd1b4b0d", "d2306fe6b9af3f86", "427f27945d7b409c"]
KEPT = (KeptFile(x.lfn(2), Text("refused")),)


def removed_by(*promises: ReliedOn) -> RemovalDecided:
    return replace(removal(ONE, 1, 1), removed=(RemovedFiles((x.lfn(1),), promises),))


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (replace(ask(ONE), files=leaving(*range(1001))), "files: 1001 given"),
        (ask(ONE), "files: 0 given"),
        (ask(ONE, 1, 1), "files: one is named twice"),
        (ask(ONE, 1, asked=()), "asked: 0 given"),
        (ask(ONE, 1, asked=(A,)), "asked: names the site itself"),
        (replace(ask(ONE, 1), block=Block(f"{OTHER}#1")), "block: not of"),
        (replace(ask(ONE, 1), copies=-1), "copies: -1"),
        (replace(ask(ONE, 1), no=0), "no: 0"),
        (replace(ask(ONE, 1), prev_sha256="x"), "prev_sha256: not 64"),
        (replace(ask(EMPTY, 1), prev_sha256=x.SHA256), "prev_sha256: given"),
        (replace(ask(ONE, 1), process=""), "process: must have"),
        (note(ONE), "noted, ended: 0 given"),
        (note(ONE, WHOLE, ended=("whole",)), "noted, ended: one is named twice"),
        (
            note(ONE, replace(WHOLE, selectors=(Selector(Kind.DATASET, OTHER),))),
            "noted[0].selectors: /Muon/Run2/RAW",
        ),
        (note(ONE, replace(WHOLE, selectors=())), "noted[0].selectors: 0 given"),
        (note(ONE, replace(WHOLE, endpoint="a b")), "noted[0].endpoint: not a letter"),
        (note(ONE, ended=("x" * 129,)), "noted, ended: must have"),
        (replace(ask(ONE, 1), no=1 << 63), "no: 9223372036854775808 is over"),
        (replace(ask(ONE, 1), endpoint="#"), "endpoint: not a letter"),
        (replace(ask(ONE, 1), files=leaving(1, words_=())), "files[0].words: 0 given"),
        (replace(ask(ONE, 1), files=leaving(1, words_=("w", "w"))), "files[0].words: one is named twice"),
        (replace(ask(ONE, 1), files=(replace(leaving(1)[0], version=""),)), "files[0].version: none"),
        (replace(removal(ONE, 1, 1), removed=(RemovedFiles((), ()),), kept=KEPT), "removed[0].lfns: none"),
        (removed_by(ReliedOn(B, 1), ReliedOn(B, 2)), "removed[0].promises: one is named twice"),
        (removed_by(ReliedOn(B, 0)), "removed[0].no: 0 is not"),
        (removed_by(ReliedOn(A, 1)), "removed[0].promises: names the site itself"),
        (replace(promise(ONE, ASKER, 1), asker=A), "asker: the site itself"),
        (promise(ONE, ASKER, 1, refused=(1,)), "files: one is named twice"),
        (removal(ONE, 0, 1), "ask_no: 0"),
        (removal(ONE, 1), "files: 0 given"),
    ],
)
def test_what_contradicts_itself_is_said(step: KeepingStep, why: str) -> None:
    assert (m.fault(step) or "").startswith(why)
    assert all(m.fault(good) is None for good in (*steps_behind(ONE), ask(ONE, 1, asked=(), copies=0)))


def test_texts_that_run_together_have_digests_of_their_own() -> None:
    one, two = (replace(note(ONE, ended=ended)) for ended in (("ab", "c"), ("a", "bc")))
    assert step_sha256(one) != step_sha256(two)


def test_digests_stay_as_they_are_when_a_version_adds_a_field() -> None:
    """Chains are continued for ever: a digest that changed would dispute them all."""
    assert [step_sha256(step)[:16] for step in steps_behind(ONE)] == GOLDEN_DIGESTS
    assert step_sha256(note(ONE, WHOLE)) == step_sha256(note(ONE, replace(WHOLE, lands=True))), "a default, given"
    assert step_sha256(note(ONE, WHOLE)) != step_sha256(note(ONE, replace(WHOLE, lands=False)))


# Words.


def test_a_file_is_held_while_a_word_stands() -> None:
    row = words.held(words.held(NEVER_HELD, "a"), "b")
    assert words.lost(row, ("a",)).held
    assert not words.lost(row, ("a", "b")).held
    assert not words.held(words.lost(row, ("a", "b")), "a").held, "a word said again stays taken back"
    assert words.held(words.lost(row, ("a", "b")), "c").held
    old = words.lost(words.lost(row, ("a",)), None)
    assert not old.held, "a record of before takes back all that it follows"
    assert words.held(old, "b").held, "and what is said behind it stands, also where both are heard again"
    assert not words.held(old, "a").held


def test_a_removal_goes_on_until_its_own_end() -> None:
    counted = fold(ONE, removal(ONE, 1, 1)).removals[0]
    row = words.removal_counted(words.held(NEVER_HELD, "w"), counted)
    assert words.lost(row, ("w",)).removal == counted, "a loss by an accident ends no removal"
    over = words.lost(row, ("w",), counted.sha256)
    assert (over.removal, over.held) == (None, False)
    assert words.lost(row, ("w",), x.SHA256).removal == counted, "a removal of this number in another history"
    assert words.removal_counted(words.lost(words.held(NEVER_HELD, "w"), ("w",), counted.sha256), counted) == over
    assert words.removal_counted(over, counted) == over


# Gates.


def here(**changed: Any) -> FileHere:
    file = FileHere(x.lfn(1), x.BLOCK, DISK, 1, ADLER32, words.held(NEVER_HELD, "w"), PlacedFile(1, None, "v1"))
    return replace(file, **changed)


GOING = words.removal_counted(words.held(NEVER_HELD, "w"), fold(ONE, removal(ONE, 1, 1)).removals[0])
HELD = words.held(NEVER_HELD, "other")


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (here(), None),
        (here(found=PlacedFile(1, ADLER32, "v2")), None),
        (here(replica=GOING), "its removal no 2 has not ended"),
        (here(replica=NEVER_HELD), "it is not held in"),
        (here(found=None), "it is not on the disk"),
        (here(found=PlacedFile(2, None, "v1")), "it has 2 bytes on the disk and 1"),
        (here(found=PlacedFile(1, Adler32("00000002"), "v1")), "its adler32 is 00000002"),
        (here(others=(OtherDataset(OTHER, HELD),)), "it is also in /Muon/Run2/RAW"),
        (here(others=(OtherDataset(OTHER, NEVER_HELD, "i"),)), "it is also in /Muon/Run2/RAW"),
        (here(others=(OtherDataset(OTHER, GOING),)), "its removal no 2 in /Muon/Run2/RAW has not ended"),
        (here(others=(OtherDataset(OTHER, words.lost(HELD, ("other",))),)), None),
    ],
)
def test_a_site_speaks_for_what_it_holds_whole(file: FileHere, why: str | None) -> None:
    for said in (
        gates.why_not_here(file),
        gates.why_no_leaving(EMPTY, file, None),
        gates.why_no_promise(EMPTY, ASKER, ASKER.asks[0], file),
    ):
        assert (said is None) if why is None else (said or "").startswith(why)


def test_why_a_file_is_not_asked_for() -> None:
    assert gates.why_no_leaving(after(EMPTY, note(EMPTY, WHOLE)), here(), None) == "it is claimed by whole"
    assert gates.why_no_leaving(ONE, here(), None) == "it is asked for already"
    assert gates.why_no_leaving(ONE, here(endpoint=BUFFER), None) is None
    assert "disputed" in (gates.why_no_ask(PARTED, copies=1, asked=(B,)) or "")
    assert gates.why_no_ask(EMPTY, copies=2, asked=(B,)) == "2 promises are needed, and 1 sites could give one"
    assert gates.why_no_ask(EMPTY, copies=0, asked=()) is None


def test_why_a_site_does_not_promise() -> None:
    asked = ASKER.asks[0]
    assert "asks for it no more" in (gates.why_no_promise(EMPTY, ChainRow(B, x.DATASET), asked, here()) or "")
    other = replace(asked, sha256=x.SHA256)
    assert "asks for it no more" in (gates.why_no_promise(EMPTY, ASKER, other, here()) or ""), "another of its number"
    assert gates.why_no_promise(ChainRow(C, x.DATASET), ASKER, asked, here()) == f"{B} did not ask {C}"
    assert gates.why_no_promise(ONE, ASKER, asked, here()) is None, "the lesser name gives in"
    greater = ChainRow(C, x.DATASET)
    greater = after(greater, ask(greater, 1, asked=(B,)))
    to_c = after(ChainRow(B, x.DATASET), ask(ChainRow(B, x.DATASET), 1, asked=(C,)))
    assert "the lesser of both names" in (gates.why_no_promise(greater, to_c, to_c.asks[0], here()) or "")
    purging = after(EMPTY, ask(EMPTY, 1, asked=(), copies=0))
    assert gates.why_no_promise(purging, ASKER, asked, here()) == f"{A} removes it for good"
    assert "disputed" in (gates.why_no_promise(PARTED, ASKER, asked, here()) or "")


def test_why_a_removal_is_not_decided() -> None:
    asked, relied = ONE.asks[0], (ReliedOn(B, 1),)

    def why(row: ChainRow = ONE, ask: OpenAsk = asked, now_ms: int = 0, **k: Any) -> str:
        return gates.why_no_removal(row, ask, x.lfn(1), now_ms=now_ms, **{"promises": relied, **k}) or ""

    assert why() == ""
    assert why(promises=()) == "0 of 1 other copies are promised"
    assert why(ask=replace(asked, copies=2), promises=(*relied, *relied)) == "1 of 2 other copies are promised"
    assert why(row=EMPTY) == "it is asked for no more"
    assert why(ask=replace(asked, not_before_ms=5)) == "not before 5"
    assert "disputed" in why(row=PARTED)
    assert why(promises=(), stand_ins=(here(endpoint=BUFFER),)) == ""
    assert why(promises=(), stand_ins=(here(),)) == "disk cannot stand for itself"
    assert why(promises=(), stand_ins=(here(endpoint=BUFFER, found=None),)) == "buffer: it is not on the disk"


def test_a_promise_counts_once_a_site_of_holders_for_the_very_ask() -> None:
    b = ChainRow(B, x.DATASET)
    b = after(b, first := promise(b, ONE, 1))
    b = after(b, promise(b, ONE, 1))
    assert relied(x.lfn(1), {B: b}, [B], ONE.asks[0]) == (ReliedOn(B, first.no),)
    assert relied(x.lfn(2), {B: b}, [B], ONE.asks[0]) == ()
    assert relied(x.lfn(1), {B: b}, [C], ONE.asks[0]) == ()
    other = replace(ONE.asks[0], sha256=x.SHA256)
    assert relied(x.lfn(1), {B: b}, [B], other) == (), "an ask is more than its number"


def test_why_a_claim_is_not_noted_or_ended() -> None:
    noted = after(EMPTY, note(EMPTY, WHOLE))
    assert gates.why_no_claim(EMPTY, WHOLE) is None
    assert gates.why_no_claim(noted, WHOLE) == "whole is noted already"
    assert gates.why_no_claim(noted, replace(WHOLE, endpoint=BUFFER)) == "whole is noted already"
    assert after(noted, note(noted, replace(WHOLE, endpoint=BUFFER))).claims == (WHOLE,), "a claim is what it was"
    assert "disputed" in (gates.why_no_claim(PARTED, WHOLE) or "")
    assert gates.why_no_claim_end(EMPTY, "whole", 0, 0) == "whole is not noted"
    assert gates.why_no_claim_end(noted, "whole", 2, 0) == "2 transfers under whole are open"
    assert gates.why_no_claim_end(noted, "whole", 0, 3) == "the words of 3 files under whole are not heard yet"
    assert gates.why_no_claim_end(noted, "whole", 0, 0) is None
    assert "disputed" in (gates.why_no_claim_end(PARTED, "whole", 0, 0) or "")


def test_why_a_part_is_not_opened() -> None:
    noted = after(EMPTY, note(EMPTY, WHOLE))
    assert "not noted, or this view has not heard it" in (gates.why_no_landing(EMPTY.claims, "whole") or "")
    assert gates.why_no_landing(noted.claims, "whole") is None
    for file, why in (
        (here(), ""),
        (here(found=None, replica=NEVER_HELD), ""),
        (here(endpoint=BUFFER), "whole does not cover it"),
        (here(replica=GOING), "its removal no 2 has not ended"),
        (here(others=(OtherDataset(OTHER, GOING),)), "its removal no 2 in /Muon/Run2/RAW has not ended"),
        (here(others=(OtherDataset(OTHER, HELD),)), "it is here in /Muon/Run2/RAW: another chain may be removing it"),
        (here(replica=words.lost(NEVER_HELD, ("m",))), "it landed by this transfer and was removed since"),
    ):
        assert (gates.why_no_part(noted.claims, "whole", file, "m") or "") == why
    assert "not noted" in (gates.why_no_part(EMPTY.claims, "whole", here(), "m") or "")


def test_why_nothing_is_unlinked_exchanged_or_said_to_be_lost() -> None:
    counted = fold(ONE, removal(ONE, 1, 1)).removals[0]

    def why(found: str | None = "v1", ordered_by: str = "p", worker: str = "p", locked: bool = True) -> str:
        return gates.why_no_unlink(counted, found, ordered_by=ordered_by, worker=worker, locked=locked) or ""

    assert why() == ""
    assert why(found=None) == "it is gone already"
    assert why(found="v2") == "another file is there: version v2, not v1"
    assert why(worker="") == "the process that ordered it is gone"
    assert why(locked=False) == "the lock of the name is not held"
    assert gates.why_no_exchange("v1", "v1", locked=True) is None
    assert gates.why_no_exchange("v1", "v2", locked=True) == "another file is there since the repair began"
    assert gates.why_no_exchange("v1", None, locked=True) == "nothing is there to be replaced"
    assert gates.why_no_exchange("v1", "v1", locked=False) == "the lock of the name is not held"
    assert gates.why_no_loss(EMPTY, x.lfn(1)) is None
    assert gates.why_no_loss(ONE, x.lfn(1)) == "its ask no 1 is open and must end first"


# What is owed.

BOTH = (x.lfn(1), x.lfn(2))


def decisions(row: ChainRow, *others: ChainRow, there: Sequence[Lfn] = BOTH, **k: Any) -> list[duties.DecideAsk]:
    shown = {other.site: other for other in others}
    holders = {lfn: list(shown) for lfn in BOTH}
    return list(duties.decisions_owed(row, shown, there, holders, **{"process": "p", "now_ms": 0, **k}))


def test_an_ask_is_answered_once() -> None:
    owed = list(duties.answers_owed(EMPTY, [ASKER]))
    assert owed == [duties.AnswerAsk(B, ASKER.asks[0], BOTH)]
    some = after(EMPTY, promise(EMPTY, ASKER, 1))
    assert [answer.lfns for answer in duties.answers_owed(some, [ASKER])] == [(x.lfn(2),)]
    assert list(duties.answers_owed(after(some, promise(some, ASKER, refused=(2,))), [ASKER])) == []
    assert list(duties.answers_owed(ChainRow(C, x.DATASET), [ASKER])) == [], "who is not asked"
    assert list(duties.answers_owed(PARTED, [ASKER])) == []
    assert list(duties.answers_owed(EMPTY, [replace(ASKER, state=ChainState.DISPUTED)])) == []
    assert KeepPromised in duties.AnswerAsk.extinguished_by


def test_a_promised_file_is_removed_and_a_refused_one_kept() -> None:
    b, c = ChainRow(B, x.DATASET), ChainRow(C, x.DATASET)
    b, c = after(b, promise(b, ONE, 1, refused=(2,))), after(c, promise(c, ONE, refused=(2,)))
    assert decisions(ONE, b) == [duties.DecideAsk(1, (RemovedFiles((x.lfn(1),), (ReliedOn(B, 1),)),), ())]
    (owed,) = decisions(ONE, b, c)
    assert owed.kept == (KeptFile(x.lfn(2), Text(f"{B}: {B} has it not; {C}: {C} has it not")),)
    done = RemovalDecided(*head(ONE), owed.ask_no, owed.removed, owed.kept)
    assert decisions(after(ONE, done), b, c) == []
    assert decisions(PARTED, b, c) == []


def test_an_ask_ends_by_its_day_its_process_and_its_loss() -> None:
    b = ChainRow(B, x.DATASET)
    two = after(EMPTY, ask(EMPTY, 1, 2, copies=2))
    day = duties.ASK_ENDS_MS
    assert decisions(two, b, now_ms=day - 1) == []
    assert [kept.reason for kept in decisions(two, b, now_ms=day)[0].kept] == [
        "0 of 2 other copies promised, no more for a day"
    ] * 2
    b = after(b, promise(b, two, 1, 2, at_ms=50))
    assert decisions(two, b, now_ms=day) == [], "a day after the last promise"
    assert len(decisions(two, b, now_ms=day + 50)[0].kept) == 2
    ahead = after(b, promise(b, two, 1, 2, at_ms=10 * day))
    assert len(decisions(two, ahead, now_ms=day + 50)[0].kept) == 2, "a clock that is ahead postpones nothing"
    assert {kept.reason for kept in decisions(ONE, process="q")[0].kept} == {"the process that asked for it is gone"}
    assert decisions(ONE, there=[x.lfn(2)])[0].kept == (KeptFile(x.lfn(1), Text("it is not here any more")),)


def test_who_promised_and_gave_the_file_away_since_is_not_waited_for() -> None:
    """Its own ask was promised by others, after its promise; the ask that relied on it waited for a day."""
    b, c = ChainRow(B, x.DATASET), ChainRow(C, x.DATASET)
    two = after(EMPTY, ask(EMPTY, 1, 2, copies=2))
    b, c = after(b, promise(b, two, 1, 2)), after(c, promise(c, two, 1, 2))
    holders = {x.lfn(1): [B], x.lfn(2): [B, C]}
    (owed,) = duties.decisions_owed(two, {B: b, C: c}, BOTH, holders, process="p", now_ms=0)
    assert owed.kept == (KeptFile(x.lfn(1), Text(f"{C}: it has it no more")),)
    assert [group.lfns for group in owed.removed] == [(x.lfn(2),)]


def test_claims_and_removals_are_owed_until_they_are_done() -> None:
    assert duties.claims_owed(EMPTY, [WHOLE], []) == duties.NoteClaims((WHOLE,), ())
    noted = after(EMPTY, note(EMPTY, WHOLE))
    assert duties.claims_owed(noted, [WHOLE], []) is None
    assert duties.claims_owed(noted, [], ["whole", "unknown"]) == duties.NoteClaims((), ("whole",))
    assert duties.claims_owed(PARTED, [WHOLE], ["whole"]) is None
    assert duties.removals_owed([GOING, HELD]) == [duties.RemoveFile(GOING.removal)]  # type: ignore[arg-type]
    assert duties.removals_owed([words.lost(GOING, ("w",), GOING.removal.sha256)]) == []
    going = [removed.removal for removed in duties.removals_owed([GOING])]
    assert list(duties.claims_that_wait(noted, going)) == [(WHOLE, going[0])]
    assert list(duties.claims_that_wait(EMPTY, going)) == []


# Any order between topics, and any repeats.

Fact = tuple[str, Any]


class Rows:
    """Two chains of a dataset, and what the first site says of its files."""

    def __init__(self) -> None:
        self.chains = {A: EMPTY, B: ChainRow(B, x.DATASET)}
        self.replicas: dict[Lfn, ReplicaRow] = {}

    def hear(self, facts: Sequence[Fact]) -> Rows:
        for kind, fact in facts:
            if kind == "step":
                folded = fold(self.chains[fact.site], fact)
                self.chains[fact.site] = folded.row
                for counted in folded.removals:
                    self._change(counted.lfn, lambda row, one=counted: words.removal_counted(row, one))
            elif kind == "held":
                self._change(fact[0], lambda row, word=fact[1]: words.held(row, word))
            else:
                self._change(fact[0], lambda row, loss=fact[1:]: words.lost(row, *loss))
        return self

    def _change(self, lfn: Lfn, change: Any) -> None:
        self.replicas[lfn] = change(self.replicas.get(lfn, NEVER_HELD))

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Rows)
        return (self.chains, self.replicas) == (other.chains, other.replicas)


numbers = st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True)


@st.composite
def chain_facts(draw: st.DrawFn, row: ChainRow) -> list[Fact]:
    """A partition of steps: mostly the next one, some that lost a race, live in another history or settle."""
    out: list[Fact] = []
    past = [row]
    for _ in range(draw(st.integers(0, 9))):
        base = past[max(0, len(past) - 1 - draw(st.sampled_from([0, 0, 0, 0, 1, 2])))]
        names = draw(numbers)
        process = draw(st.sampled_from(["p", "p", "p", "q"]))
        claim = NotedClaim(f"c{names[0]}", DISK, (Selector(Kind.FILE, x.lfn(names[0])),))
        asks = [a.no for a in base.asks] or [1]
        step: KeepingStep = draw(
            st.sampled_from(
                [
                    note(base, claim, process=process),
                    note(base, ended=(claim.claim,), process=process),
                    ask(base, *names, process=process),
                    ask(base, *names, endpoint=BUFFER, process=process),
                    removal(base, asks[-1], *names, process=process),
                    removal(base, asks[0], kept=tuple(names), process=process),
                    KeepPromised(*head(base, process), C, 1, x.SHA256, tuple(map(x.lfn, names))),
                    settle(base),
                    settle(base, no=base.no + 20),
                    replace(note(base, claim), no=base.no + 2, prev_sha256=x.SHA256),
                ]
            )
        )
        out.append(("step", step))
        past.append(fold(past[-1], step).row)
    return out


def replica_facts() -> st.SearchStrategy[list[Fact]]:
    name, word = st.sampled_from([x.lfn(n) for n in range(1, 5)]), st.sampled_from(["a", "b", "c"])
    lost = st.tuples(name, st.lists(word, max_size=2).map(tuple), st.integers(0, 3))
    return st.lists(
        st.one_of(st.tuples(st.just("held"), st.tuples(name, word)), st.tuples(st.just("lost"), lost)), max_size=8
    )


@st.composite
def hearings(draw: st.DrawFn, partitions: list[list[Fact]]) -> list[Fact]:
    """One way to hear every partition to its end, with repeats of what came before."""
    at, out = [0] * len(partitions), []
    for _ in range(draw(st.integers(0, 3 * sum(map(len, partitions))))):
        n = draw(st.integers(0, len(partitions) - 1))
        if draw(st.integers(0, 5)) == 0:
            at[n] = max(0, at[n] - draw(st.integers(1, 6)))
        if at[n] < len(partitions[n]):
            out.append(partitions[n][at[n]])
            at[n] += 1
    for n in draw(st.permutations(range(len(partitions)))):
        out += partitions[n][at[n] :]
    return out


def named(partitions: Sequence[list[Fact]]) -> list[list[Fact]]:
    """Losses end removals of the first chain by their digests; drawn is only which of them, 0 none."""
    *chained, said = partitions
    removals = [step_sha256(step) for _, step in chained[0] if isinstance(step, RemovalDecided)]
    ends = dict(enumerate(removals, 1))
    told = [(kind, (*fact[:2], ends.get(fact[2], "")) if kind == "lost" else fact) for kind, fact in said]
    return [*chained, told]


histories = st.tuples(chain_facts(EMPTY), chain_facts(ChainRow(B, x.DATASET)), replica_facts()).map(named)
two_hearings = histories.flatmap(lambda h: st.tuples(st.just(h), hearings(h), hearings(h)))


@settings(max_examples=250)
@given(two_hearings)
def test_rows_are_free_of_order_between_topics_and_of_repeats(
    case: tuple[list[list[Fact]], list[Fact], list[Fact]],
) -> None:
    history, one, two = case
    rows = Rows().hear(one)
    assert rows == Rows().hear(two)
    assert rows == Rows().hear([fact for partition in history for fact in partition])
    assert rows.hear(two) == Rows().hear(one), "heard all over again, they are the same"


@settings(max_examples=200)
@given(st.tuples(chain_facts(EMPTY), replica_facts()))
def test_what_stands_after_any_history(case: tuple[list[Fact], list[Fact]]) -> None:
    rows = Rows()
    for fact in case[0]:
        rows.hear([fact])
        row = rows.chains[A]
        assert len(row.asks) <= ASKS_OPEN_MAX
        assert len({a.process for a in row.asks}) <= 1, "of one process"
        asked = [(a.endpoint, file.lfn) for a in row.asks for file in a.files]
        assert len(asked) == len(set(asked))
        assert not any(row.claims.protecting(a.endpoint, a.block, f.lfn, a.cause) for a in row.asks for f in a.files)
        assert row.digests[-1:] == ((row.sha256,) if row.no else ())
        assert (row.state is ChainState.DISPUTED) == (row.dispute is not None)
