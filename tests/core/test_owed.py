"""What a row owes, state by state, and that the fact a command names really extinguishes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import pytest

from streams.core import commands as c
from streams.core import completion as completions
from streams.core import intent as intents
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.channel import DOOR, LOG, tool_plane
from streams.core.door_rests import DoorRests
from streams.core.manifest import Manifest, digest
from streams.core.names import ManifestId, Site
from streams.core.owed import owed_intent, owed_transfer, report, waits_for
from streams.core.policy import Policy
from streams.core.ranges import EMPTY, Ranges
from tests.core import example as x

TOOL = tool_plane("xrdcp")
POLICY = Policy(request_bytes=60, requests_in_flight=2, plans_open_max=3)
ONE = x.written()
WRITTEN = Manifest(ONE)
LINE = WRITTEN.index
WHOLE = Ranges([(0, 150)])
DATA = x.decided()
GROWS = x.decided(wish=x.growing())


def intent(*facts: intents.IntentMessage) -> intents.IntentRow:
    row = None
    for fact in facts:
        row = intents.fold(row, fact, x.B)
    assert row is not None
    return row


def transfer(*facts: transfers.TransferMessage, of: Manifest = WRITTEN) -> transfers.TransferRow:
    row = transfers.fold(None, x.planned(of.body), of.index)
    for fact in facts:
        row = transfers.fold(row, fact, of.index)
    return row


def of_intent(row: intents.IntentRow, here: Site, *, replan: Ranges = EMPTY) -> list[c.Owed]:
    return owed_intent(row, here, POLICY, replan=replan)


def of_transfer(row: transfers.TransferRow, *, part_here: bool = True, of: Manifest = WRITTEN) -> list[c.Owed]:
    return owed_transfer(row, of.index, x.B, POLICY, part_here=part_here, now_ms=0)


def commands(owed: list[c.Owed]) -> list[c.Command]:
    return [o.command for o in owed]


# Every command and what extinguishes it.


@dataclass
class Case:
    """A row that owes `command`, and facts each of which extinguishes it."""

    command: type[c.Command]
    facts: tuple[m.Message, ...]
    by: tuple[m.Message, ...]
    here: Site = x.B
    part_here: bool = True
    at_ms: int = 0


CANCELLED = x.decided(2, m.Verdict.CANCELLED)
PARTLY = x.closed(x.completed(failed=(x.failed("gone", 0),)), acknowledged=False)
CASES = [
    Case(
        c.ReleaseIntent,
        (x.body(), x.decided(), ONE, x.completed(), x.release()),
        (x.decided(2, m.Verdict.RELEASED),),
        x.A,
    ),
    Case(c.DecideIntent, (x.body(),), (DATA, x.decided(1, m.Verdict.REFUSED, source=None)), x.A),
    Case(c.PublishDecision, (x.body(), x.cancel()), (x.decided(1, m.Verdict.CANCELLED, source=None),), x.A),
    Case(c.PublishDecision, (x.body(), DATA, x.cancel()), (CANCELLED,), x.A),
    Case(c.PublishDecision, (x.body(), DATA, x.raised(9)), (x.decided(2, priority=9),), x.A),
    Case(
        c.PublishDecision,
        (x.body(deadline_ms=7_000), x.decided(wish=x.body(deadline_ms=7_000))),
        (x.decided(2, m.Verdict.CANCELLED, wish=x.body(deadline_ms=7_000)),),
        x.A,
        at_ms=7_000,
    ),
    Case(c.PublishAnswer, (x.body(), DATA, x.answered(), x.approval()), (x.answered(m.Answer.ADMITTED, 2),)),
    Case(c.WriteManifests, (x.body(), DATA), (ONE,), x.C),
    Case(c.WriteManifests, (x.growing(), GROWS), (ONE,), x.C),
    Case(c.WriteManifests, (x.growing(), GROWS, x.close()), (ONE,), x.C),
    Case(c.PlanTransfer, (x.body(), DATA, ONE), (x.reported(), x.completed())),
    Case(c.DecideTransfer, (x.body(), DATA, ONE, x.reported(), CANCELLED), (x.reported(number=2), x.completed())),
    Case(c.OpenPart, (x.planned(ONE),), (x.opened(), x.lost()), part_here=False),
    Case(
        c.OpenPart,  # all is on disk, nothing sealed it
        (x.planned(ONE), x.opened(), x.progress(WHOLE)),
        (x.opened(present=Ranges.of(0, 1)), x.lost(), x.progress(WHOLE, Ranges.of(0, 1))),
    ),
    Case(c.StopPart, (x.planned(ONE), x.told(2, m.Verdict.CANCELLED)), (x.lost(stopped=True),)),
    Case(c.StopPart, (x.planned(ONE), x.opened(), x.told(2, m.Verdict.SUPERSEDED)), (x.lost(stopped=True),)),
    Case(
        c.FailItems,
        (x.planned(ONE), x.opened(), x.source_failed(1, Ranges.of(0), why=x.reason("gone"))),
        (x.progress(failed=(x.failed("gone", 0),)), x.lost()),
    ),
    Case(c.RequestChunks, (x.planned(ONE), x.opened()), (x.requested(1, Ranges([(0, 60)])),)),
    Case(
        c.BringByTool,
        (x.planned(ONE), x.opened(), x.requested(1, Ranges([(0, 60)]), plane=TOOL)),
        (x.progress(Ranges([(0, 60)])), x.source_failed(1, plane=TOOL), x.expired(1), x.lost()),
    ),
    Case(
        c.ExpireLease,
        (x.planned(ONE), x.opened(), x.requested(1, Ranges([(0, 60)]), until_ms=9_000)),
        (x.expired(1),),
        at_ms=9_000,
    ),
    Case(
        c.ExpireLease,
        (x.planned(ONE), x.opened(), x.requested(1, Ranges([(0, 60)]), until_ms=9_000)),
        (x.source_failed(1),),
        at_ms=9_000,
    ),
    Case(c.FixCompletion, (x.planned(ONE), x.progress(failed=(x.failed("gone", 0, 1),))), (PARTLY,)),
    Case(c.CloseTransfer, (x.planned(ONE), x.progress(WHOLE, Ranges.of(0, 1))), (x.closed(),)),
    Case(c.CloseTransfer, (x.planned(ONE), PARTLY), (x.closed(),)),
]
WITHOUT_A_ROW = {c.ReportTransfer, c.RepeatCompletion, c.ServeChunks}
"""Owed by a worker's memory and the repeats of who asks: tests/worker/test_dispatcher_commands.py."""


def row_of(facts: tuple[m.Message, ...]) -> intents.IntentRow | transfers.TransferRow:
    if isinstance(facts[0], m.TransferPlanned):
        return transfer(*facts[1:])  # type: ignore[arg-type]
    return intent(*facts)  # type: ignore[arg-type]


def owed_by(case: Case, facts: tuple[m.Message, ...]) -> list[c.Command]:
    row = row_of(facts)
    owed = (
        of_intent(row, case.here)
        if isinstance(row, intents.IntentRow)
        else owed_transfer(row, LINE, case.here, POLICY, part_here=case.part_here, now_ms=0)
    )
    return [o.command for o in owed if isinstance(o.command, case.command) and o.due_ms <= case.at_ms]


def test_every_command_has_a_case() -> None:
    assert {case.command for case in CASES} | WITHOUT_A_ROW == set(get_args(c.Command))
    for command in get_args(c.Command):
        assert command.extinguished_by, command
        assert set(command.extinguished_by) <= set(get_args(m.Message)), command
    for command in get_args(c.Command):
        used = {type(fact) for case in CASES if case.command is command for fact in case.by}
        assert command in WITHOUT_A_ROW or used == set(command.extinguished_by), f"{command.__name__} names others"


@pytest.mark.parametrize(
    ("case", "fact"),
    [(case, fact) for case in CASES for fact in case.by],
    ids=[f"{case.command.__name__}-{type(fact).__name__}" for case in CASES for fact in case.by],
)
def test_its_fact_extinguishes_a_command(case: Case, fact: m.Message) -> None:
    owed = owed_by(case, case.facts)
    assert owed, "the row owes it"
    assert m.key_of(fact) == m.key_of(case.facts[-1]), "the fact comes to the same row"
    # Once the plane has opened the part, the dispatcher knows so.
    after = replace(case, part_here=True) if isinstance(fact, m.PartOpened) else case
    left = owed_by(after, (*case.facts, fact))
    assert not {command.id for command in owed} & {command.id for command in left}


@pytest.mark.parametrize("case", CASES, ids=[f"{case.command.__name__}" for case in CASES])
def test_a_command_is_owed_until_then(case: Case) -> None:
    assert owed_by(case, case.facts) == owed_by(case, case.facts), "asked again, the same"
    repeated = (*case.facts, case.facts[-1])
    assert owed_by(case, repeated) == owed_by(case, case.facts), "a repeated fact extinguishes nothing"


# Home.


def test_only_the_home_decides() -> None:
    for row in (intent(x.body()), intent(x.body(), x.cancel()), intent(x.cancel())):
        assert of_intent(row, x.B) == of_intent(row, x.C) == []
    assert commands(of_intent(intent(x.body()), x.A)) == [c.DecideIntent(x.INTENT)]
    assert of_intent(intent(x.cancel()), x.A) == [], "without a body there is nothing to decide on yet"


def test_a_cancellation_decides_without_looking_anything_up() -> None:
    (command,) = commands(of_intent(intent(x.cancel(), x.body()), x.A))
    assert isinstance(command, c.PublishDecision)
    decision = command.decision
    assert (decision.decision_no, decision.verdict, decision.source) == (1, m.Verdict.CANCELLED, None)
    assert decision.reason is not None
    assert "cancelled by bob" in decision.reason.text


def test_the_next_decision_keeps_what_it_does_not_change() -> None:
    (command,) = commands(of_intent(intent(x.body(), x.decided(4, source_no=2), x.raised(9)), x.A))
    assert isinstance(command, c.PublishDecision)
    assert command.decision == x.decided(5, source_no=2, priority=9)
    (command,) = commands(of_intent(intent(x.body(), x.decided(4, source_no=2), x.cancel(), x.raised(9)), x.A))
    assert isinstance(command, c.PublishDecision)
    assert (command.decision.verdict, command.decision.source, command.decision.source_no) == ("cancelled", x.C, 2)


def test_the_same_priority_is_no_change() -> None:
    assert of_intent(intent(x.body(), DATA, x.raised(5)), x.A) == []
    assert of_intent(intent(x.body(), x.decided(2, priority=9), x.raised(9)), x.A) == []


def test_a_deadline_is_owed_when_it_passes() -> None:
    wish = x.body(deadline_ms=7_000)
    (owed,) = of_intent(intent(wish, x.decided(wish=wish)), x.A)
    assert owed.due_ms == 7_000
    assert isinstance(owed.command, c.PublishDecision)
    assert owed.command.decision.reason is not None
    assert "deadline" in owed.command.decision.reason.text


@pytest.mark.parametrize(
    "facts",
    [
        (x.decided(1, m.Verdict.REFUSED, source=None),),
        (x.decided(1, m.Verdict.CANCELLED, source=None),),
        (DATA, ONE, x.completed()),
    ],
)
def test_the_home_owes_nothing_for_an_ended_intent(facts: tuple[intents.IntentMessage, ...]) -> None:
    wish = x.body(deadline_ms=1)
    row = intent(wish, *(replace(f, body=wish) if isinstance(f, m.IntentDecided) else f for f in facts))
    assert row.ended
    for late in (x.cancel(), x.raised(9)):
        assert of_intent(intents.fold(row, late), x.A) == [], "done beats cancelled"


# Source.


def test_the_source_writes_behind_its_last_manifest() -> None:
    assert commands(of_intent(intent(x.body(), DATA), x.C)) == [c.WriteManifests(x.body(), 0, 0, "", "")]
    first, _ = x.chain(2)
    assert commands(of_intent(intent(x.body(), DATA, first), x.C)) == [
        c.WriteManifests(x.body(), 0, 1, digest(first), "after 0")
    ]
    assert of_intent(intent(x.body(), DATA, *x.chain(2)), x.C) == [], "the last was written"


def test_nobody_else_writes_and_not_when_cancelled() -> None:
    for row in (intent(x.body(), CANCELLED), intent(x.body(), x.decided(1, m.Verdict.REFUSED, source=None))):
        assert of_intent(row, x.C) == []
    assert not [w for w in commands(of_intent(intent(x.body(), DATA), x.B)) if isinstance(w, c.WriteManifests)]


def test_an_open_intent_is_looked_after_until_it_is_closed() -> None:
    looks = commands(of_intent(intent(x.growing(), GROWS), x.C))
    assert looks == [c.WriteManifests(x.growing(), 0, 0, "", "")]
    (behind,) = commands(of_intent(intent(x.growing(), GROWS, x.written(last=False)), x.C))
    assert isinstance(behind, c.WriteManifests)
    assert behind.looks
    assert behind.id not in [look.id for look in looks], "told at once, whatever was told before"
    (closing,) = commands(of_intent(intent(x.growing(), GROWS, x.close()), x.C))
    assert closing == replace(looks[0], closing=True)  # type: ignore[type-var]
    assert not closing.looks
    assert of_intent(intent(x.growing(), x.close(), GROWS, ONE), x.C) == []


def test_a_time_closes_an_open_intent() -> None:
    wish = x.growing(until_ms=7_000)
    look, closing = of_intent(intent(wish, x.decided(wish=wish)), x.C)
    assert (look.due_ms, closing.due_ms) == (0, 7_000)
    assert closing.command == replace(look.command, closing=True)  # type: ignore[type-var]


def test_closing_means_nothing_to_an_intent_that_is_not_open() -> None:
    row = intent(x.body(), DATA, x.close())
    assert of_intent(row, x.C) == of_intent(intent(x.body(), DATA), x.C)


def test_another_source_writes_a_chain_of_its_own() -> None:
    row = intent(x.body(), DATA, x.chain(2)[0], x.decided(2, source=x.A, source_no=1))
    assert commands(of_intent(row, x.C)) == []
    assert c.WriteManifests(x.body(), 1, 0, "", "") in commands(of_intent(row, x.A))


# Destination.


def test_plans_are_few_at_a_time() -> None:
    chain = x.chain(7)
    row = intent(x.body(), x.decided(priority=8), *chain)
    plans = commands(of_intent(row, x.B))
    assert plans == [c.PlanTransfer(w.manifest, x.C, 1, 8, whole=True, destinations=(x.B,)) for w in chain[:3]], (
        "plans_open_max = 3"
    )
    row = intents.fold(row, x.reported(chain[1].manifest), x.B)
    assert [p.manifest.no for p in commands(of_intent(row, x.B)) if isinstance(p, c.PlanTransfer)] == [0, 2]
    row = intents.fold(row, x.completed(chain[1].manifest), x.B)
    assert [p.manifest.no for p in commands(of_intent(row, x.B)) if isinstance(p, c.PlanTransfer)] == [0, 2, 3]


def test_only_its_own_sites_intent_replaces_a_file() -> None:
    """Whatever another home decided: a name with other content there would replace a good file here."""
    wish = replace(x.body(destinations=(x.A, x.B)), repair=True)
    row = intent(wish, x.decided(wish=wish), ONE)
    for site, replaces in ((x.A, True), (x.B, False)):
        (plan,) = (p for p in commands(of_intent(row, site)) if isinstance(p, c.PlanTransfer))
        assert plan.repair is replaces


def test_the_room_of_a_destination_is_its_own() -> None:
    """A row holds what its own site's destination told, so other destinations take nothing of it."""
    wish = x.body(destinations=(x.B, x.A))
    chain = x.chain(7)
    row = intent(wish, x.decided(wish=wish), *chain, *(x.reported(w.manifest, x.A) for w in chain))
    assert [p.manifest.no for p in commands(of_intent(row, x.B)) if isinstance(p, c.PlanTransfer)] == [0, 1, 2]


def test_after_an_assignment_open_transfers_are_planned_again() -> None:
    chain = x.chain(5)
    row = intent(x.body(), DATA, *chain, x.reported(chain[0].manifest), x.completed(chain[1].manifest))
    again = [
        p.manifest.no for p in commands(of_intent(row, x.B, replan=Ranges([(0, 9)]))) if isinstance(p, c.PlanTransfer)
    ]
    assert again == [0, 2, 3], "the open one, and as many new ones as there is room for"


@pytest.mark.parametrize("late", [CANCELLED, x.decided(2, source=x.A, source_no=1)])
def test_a_destination_plans_nothing_more_of_what_is_over(late: m.IntentDecided) -> None:
    chain = x.chain(3)
    row = intent(x.body(), DATA, *chain, x.reported(chain[0].manifest), late)
    verdict = m.Verdict.CANCELLED if late is CANCELLED else m.Verdict.SUPERSEDED
    (command,) = commands(of_intent(row, x.B))
    assert isinstance(command, c.DecideTransfer)
    assert (command.decided.manifest, command.decided.verdict) == (chain[0].manifest, verdict)


def test_after_an_assignment_a_cancelled_transfer_is_planned_again_to_be_stopped() -> None:
    """Its row may be lost; its answer, which knows the first decision only, has it told the last one."""
    row = intent(x.body(), DATA, ONE, x.reported(number=2), CANCELLED)
    assert commands(of_intent(row, x.B)) == []
    plan = c.PlanTransfer(x.MANIFEST, x.C, 1, 5, whole=False)
    assert commands(of_intent(row, x.B, replan=Ranges([(0, 9)]))) == [plan]
    row = intents.fold(row, x.completed(cancelled=Ranges.of(0, 1)), x.B)
    assert commands(of_intent(row, x.B, replan=Ranges([(0, 9)]))) == []


def test_open_transfers_are_told_a_new_priority() -> None:
    row = intent(x.body(), DATA, ONE, x.reported(), x.decided(2, priority=9))
    assert commands(of_intent(row, x.B)) == [c.DecideTransfer(m.TransferDecided(x.MANIFEST, 2, "accepted", 9))]


def test_a_site_that_only_reads_along_owes_nothing() -> None:
    row = intent(x.body(), DATA, *x.chain(2), x.reported(), x.cancel(), CANCELLED)
    assert of_intent(row, Site("S_D"), replan=Ranges([(0, 9)])) == []


def test_what_another_destination_reports_is_its_own_affair() -> None:
    both = x.body(destinations=(x.B, x.A))
    row = intent(both, x.decided(wish=both), ONE, x.reported(destination=x.A), x.completed(destination=x.A))
    assert commands(of_intent(row, x.B)) == [c.PlanTransfer(x.MANIFEST, x.C, 1, 5, whole=True, destinations=(x.B, x.A))]


# Transfers.


def test_nothing_is_owed_before_the_plan_nor_after_the_close() -> None:
    new = transfers.fold(None, x.opened(), None)
    assert owed_transfer(new, None, x.B, POLICY, part_here=True, now_ms=0) == []
    assert owed_transfer(transfer(), None, x.B, POLICY, part_here=True, now_ms=0) == [], (
        "a row whose manifest is not stored"
    )
    assert of_transfer(transfer(x.closed())) == []


def test_the_part_is_opened_first_and_by_every_new_plane() -> None:
    assert commands(of_transfer(transfer())) == [c.OpenPart(x.MANIFEST, 1, EMPTY, EMPTY, EMPTY)]
    row = transfer(x.opened(), x.progress(Ranges([(0, 20)]), Ranges.of(1), (x.failed("gone", 0),), 1))
    row = replace(row, failed=(), state=transfers.State.ACTIVE)
    row = transfers.fold(row, x.requested(1, Ranges([(20, 80)])), LINE)
    first, lease = of_transfer(row, part_here=False)
    assert first.command == c.OpenPart(x.MANIFEST, 1, Ranges([(0, 20)]), Ranges.of(1), EMPTY)
    assert isinstance(lease.command, c.ExpireLease), "a lease runs whoever holds the part"


def test_a_lost_part_is_opened_as_the_next_attempt_with_nothing_verified() -> None:
    row = transfer(x.opened(), x.progress(Ranges([(0, 20)])), x.lost())
    assert commands(of_transfer(row)) == [c.OpenPart(x.MANIFEST, 2, EMPTY, EMPTY, EMPTY)]


def ways(row: transfers.TransferRow, now_ms: int, policy: Policy) -> list[tuple[str, int]]:
    """Carrier and bytes of each request that is owed."""
    owed = owed_transfer(row, LINE, x.B, policy, part_here=True, now_ms=now_ms)
    return [(o.command.plane, o.command.bytes) for o in owed if isinstance(o.command, c.RequestChunks)]


def test_a_site_with_a_door_is_asked_by_it_for_more_at_once() -> None:
    policy = replace(POLICY, door_bytes_min=150, door_request_bytes=100)
    row = transfers.fold(transfers.fold(None, x.planned(ONE, doors=(x.C,)), LINE), x.opened(), LINE)
    assert ways(row, 0, policy) == [(DOOR, 100)]
    assert ways(row, 0, replace(policy, door_bytes_min=151)) == [(LOG, 60)], "so little comes by the log"
    other = transfers.fold(transfers.fold(None, x.planned(ONE, doors=(x.A,)), LINE), x.opened(), LINE)
    assert ways(other, 0, policy) == [(LOG, 60)], "another site's door"


@pytest.mark.parametrize("ends", ["failed", "lapsed"])
def test_a_door_that_fails_rests_longer_each_time_and_the_log_takes_over(ends: str) -> None:
    policy = replace(POLICY, door_bytes_min=1, door_request_bytes=100)
    row = transfers.fold(transfers.fold(None, x.planned(ONE, doors=(x.C,)), LINE), x.opened(), LINE)
    at_ms = 1_000
    for number, rest_ms in enumerate((5_000, 10_000, 20_000), 1):
        row = transfers.fold(row, x.requested(number, Ranges([(0, 100)]), plane=DOOR), LINE)
        said = x.source_failed(number, at_ms=at_ms, plane=DOOR) if ends == "failed" else x.expired(number, at_ms=at_ms)
        for _ in range(2):  # said again, it counts once
            row = transfers.fold(row, said, LINE)
        assert ways(row, at_ms, policy) == ways(row, at_ms + rest_ms - 1, policy) == [(LOG, 60)]
        (owed,) = owed_transfer(row, LINE, x.B, policy, part_here=True, now_ms=at_ms)
        assert owed.due_ms <= at_ms, "at once"
        at_ms += rest_ms
        assert ways(row, at_ms, policy) == [(DOOR, 100)]


def test_a_door_that_failed_others_rests_for_a_transfer_that_never_tried_it() -> None:
    policy = replace(POLICY, door_bytes_min=1, door_request_bytes=100)
    rests = DoorRests(policy)
    rests.note(x.C, 1_000, x.MANIFEST)
    row = transfers.fold(transfers.fold(None, x.planned(ONE, doors=(x.C,)), LINE), x.opened(), LINE)
    insists = transfers.fold(transfers.fold(None, x.planned(ONE, plane=DOOR), LINE), x.opened(), LINE)

    def asked(row: transfers.TransferRow, now_ms: int) -> list[tuple[str, int]]:
        owed = owed_transfer(row, LINE, x.B, policy, part_here=True, now_ms=now_ms, rests=rests)
        return [(o.command.plane, o.due_ms) for o in owed if isinstance(o.command, c.RequestChunks)]

    assert [plane for plane, _ in asked(row, 5_999)] == [LOG]
    assert [plane for plane, _ in asked(row, 6_000)] == [DOOR]
    assert asked(insists, 5_999) == [(DOOR, 6_000)]


def test_an_intent_that_insists_on_doors_waits_for_one_that_rests() -> None:
    policy = replace(POLICY, door_bytes_min=1_000, door_request_bytes=100)
    row = transfers.fold(transfers.fold(None, x.planned(ONE, plane=DOOR), LINE), x.opened(), LINE)
    assert ways(row, 0, policy) == [(DOOR, 100)], "however small it is, and whether or not its source has said so"
    row = transfers.fold(row, x.requested(1, Ranges([(0, 100)]), plane=DOOR), LINE)
    row = transfers.fold(row, x.source_failed(1, at_ms=1_000, plane=DOOR), LINE)
    (owed,) = owed_transfer(row, LINE, x.B, policy, part_here=True, now_ms=1_001)
    assert isinstance(owed.command, c.RequestChunks)
    assert (owed.command.plane, owed.due_ms) == (DOOR, 6_000)
    said = waits_for(row, part_here=True, granted=True)
    assert "the door of S_C failed 1 ×" in said
    assert said.endswith("the intent insists on the door)")


def test_an_intent_that_insists_on_the_log_is_asked_for_by_no_door() -> None:
    policy = replace(POLICY, door_bytes_min=1, door_request_bytes=100)
    planned = x.planned(ONE, doors=(x.C,), plane=LOG)
    row = transfers.fold(transfers.fold(None, planned, LINE), x.opened(), LINE)
    assert ways(row, 0, policy) == [(LOG, 60)]


def test_a_plan_says_on_which_plane_its_intent_insists() -> None:
    row = intent(x.body(plane="door"), x.decided(wish=x.body(plane="door")), ONE)
    assert commands(of_intent(row, x.B)) == [
        c.PlanTransfer(x.MANIFEST, x.C, 1, 5, whole=True, plane="door", destinations=(x.B,))
    ]


def test_no_number_of_failures_is_too_many_for_a_rest() -> None:
    policy = replace(POLICY, door_bytes_min=1, door_request_bytes=100)
    row = transfers.fold(transfers.fold(None, x.planned(ONE, doors=(x.C,)), LINE), x.opened(), LINE)
    source = replace(row.source_row(x.C), requested=5_000, door_failed=Ranges([(1, 5_001)]), door_failed_ms=1_000)
    row = replace(row, sources=(source,))
    assert ways(row, 600_999, policy) == [(LOG, 60)]
    assert ways(row, 601_000, policy) == [(DOOR, 100)]


def test_what_fails_by_the_log_does_not_make_a_door_rest() -> None:
    policy = replace(POLICY, door_bytes_min=1, door_request_bytes=100)
    row = transfers.fold(transfers.fold(None, x.planned(ONE, doors=(x.C,)), LINE), x.opened(), LINE)
    row = transfers.fold(row, x.requested(1, Ranges([(0, 60)])), LINE)
    row = transfers.fold(row, x.expired(1, at_ms=9_000), LINE)
    assert ways(row, 9_000, policy) == [(DOOR, 100)]


def test_requests_go_out_in_order_up_to_two_in_flight() -> None:
    row = transfer(x.opened(), x.progress(Ranges([(10, 20)])))
    (command,) = commands(of_transfer(row))
    assert command == c.RequestChunks(x.MANIFEST, x.C, 1, 1, Ranges([(0, 10), (20, 70)]), 60, 5, 1, LOG)
    row = transfers.fold(row, x.requested(1, command.ranges), LINE)
    _lease, command = commands(of_transfer(row))
    assert command == c.RequestChunks(x.MANIFEST, x.C, 2, 1, Ranges([(70, 130)]), 60, 5, 2, LOG)
    row = transfers.fold(row, x.requested(2, command.ranges), LINE)
    assert all(isinstance(k, c.ExpireLease) for k in commands(of_transfer(row))), "two are in flight"
    row = transfers.fold(row, x.progress(Ranges([(0, 70)])), LINE)
    _lease, command = commands(of_transfer(row))
    assert isinstance(command, c.RequestChunks)
    assert (command.request_no, command.ranges) == (3, Ranges([(130, 150)]))


def test_an_unanswered_request_is_asked_again_under_the_next_number() -> None:
    row = transfer(x.opened(), x.requested(1, Ranges([(0, 60)]), until_ms=9_000))
    assert [(o.command.id, o.due_ms) for o in of_transfer(row) if isinstance(o.command, c.ExpireLease)] == [
        (("expire", x.MANIFEST, x.C, 1), 9_000)
    ]
    (command,) = commands(of_transfer(transfers.fold(row, x.expired(1), LINE)))
    assert isinstance(command, c.RequestChunks)
    assert (command.request_no, command.ranges) == (2, Ranges([(0, 60)]))
    stale = transfer(x.opened(), x.expired(4))
    assert commands(of_transfer(stale))[0].id[-1] == 5, "a row that forgot its requests does not use a number again"


def test_what_a_source_could_not_read_is_asked_for_again_later_and_the_rest_at_once() -> None:
    retry_ms = int(POLICY.source_retry_s * 1000)
    asked = x.requested(1, Ranges([(0, 60)]))
    row = transfer(x.opened(), asked, x.source_failed(1, Ranges.of(0), 5_000))
    found = [(o.due_ms, o.command.ranges) for o in of_transfer(row) if isinstance(o.command, c.RequestChunks)]
    assert found == [(0, Ranges([(100, 150)])), (5_000 + retry_ms, Ranges([(0, 60)]))]
    row = transfer(x.opened(), asked, x.source_failed(1, at_ms=5_000))
    found = [(o.due_ms, o.command.ranges) for o in of_transfer(row) if isinstance(o.command, c.RequestChunks)]
    assert found == [(5_000 + retry_ms, Ranges([(0, 60)]))]
    words = waits_for(row, part_here=True, granted=True)
    assert words == "S_C to be asked again (S_C could not read: the store is away)"


def test_every_holder_is_asked_for_what_it_holds() -> None:
    items = [
        x.item(0, 40),
        x.item(1, 40, holder=x.A),
        x.item(2, 0),
        x.item(3, 40),
        x.item(4, 0, holder=None, why=x.reason()),
    ]
    of = Manifest(x.written(items=items))
    row = transfer(x.opened(), of=of)
    assert [(r.source, r.ranges) for r in commands(of_transfer(row, of=of)) if isinstance(r, c.RequestChunks)] == [
        (x.A, Ranges([(40, 80)])),
        (x.C, Ranges([(0, 40), (80, 100)])),
    ]


def test_failed_and_sealed_items_need_no_bytes() -> None:
    row = transfer(x.opened(), x.progress(failed=(x.failed("gone", 0),)))
    assert [r.ranges for r in commands(of_transfer(row)) if isinstance(r, c.RequestChunks)] == [Ranges([(100, 150)])]
    row = transfer(x.opened(present=Ranges.of(1)))
    assert [r.ranges for r in commands(of_transfer(row)) if isinstance(r, c.RequestChunks)] == [Ranges([(0, 60)])]


def test_items_nobody_holds_end_with_their_reason_and_the_rest_goes_on() -> None:
    gone = x.item(1, 0, holder=None, why=x.reason("no site holds it"))
    of = Manifest(x.written(items=[x.item(0, 40), gone]))
    row = transfer(x.opened(), of=of)
    assert row.failed == (m.FailedItems(Ranges.of(1), x.reason("no site holds it")),)
    row = transfers.fold(row, x.progress(Ranges([(0, 40)]), Ranges.of(0)), of.index)
    (command,) = commands(of_transfer(row, of=of))
    assert isinstance(command, c.FixCompletion)
    assert command.completion.ended is m.Ended.PARTLY
    row = transfer(of=Manifest(x.written(items=[gone])))
    (command,) = commands(of_transfer(row, of=Manifest(x.written(items=[gone]))))
    assert isinstance(command, c.FixCompletion)
    assert command.completion.ended is m.Ended.FAILED


def test_empty_files_need_only_sealing() -> None:
    of = Manifest(x.written(items=[x.item(0, 0), x.item(1, 0)]))
    row = transfer(x.opened(), of=of)
    assert commands(of_transfer(row, of=of)) == [c.OpenPart(x.MANIFEST, 1, EMPTY, EMPTY, EMPTY, again=True)]
    row = transfers.fold(row, x.progress(sealed=Ranges.of(0, 1)), of.index)
    assert isinstance(commands(of_transfer(row, of=of))[0], c.CloseTransfer)


def test_a_cancelled_transfer_asks_for_nothing_but_its_end() -> None:
    before = transfer(x.told(2, m.Verdict.CANCELLED))
    (command,) = commands(of_transfer(before, part_here=False))
    assert isinstance(command, c.StopPart)
    assert (command.attempt, command.reason.phase) == (1, transfers.STOPPED)
    asked = x.requested(1, Ranges([(0, 60)]))
    opened = transfer(x.opened(), x.progress(Ranges([(0, 50)]), Ranges.of(1)), asked, x.told(2, m.Verdict.CANCELLED))
    (command,) = commands(of_transfer(opened))
    assert isinstance(command, c.StopPart)
    (command,) = commands(of_transfer(transfers.fold(opened, x.lost(stopped=True), LINE)))
    assert isinstance(command, c.FixCompletion)
    done = command.completion
    assert (done.ended, done.sealed, done.cancelled) == (m.Ended.CANCELLED, Ranges.of(1), Ranges.of(0))


def test_a_part_lost_by_accident_is_stopped_again_as_the_next_attempt() -> None:
    row = transfer(x.opened(), x.told(2, m.Verdict.CANCELLED), x.lost())
    (command,) = commands(of_transfer(row))
    assert isinstance(command, c.StopPart)
    assert command.attempt == 2


def test_a_superseded_transfer_ends_superseded_but_done_beats_it() -> None:
    row = transfer(x.told(2, m.Verdict.SUPERSEDED), x.lost(stopped=True))
    (command,) = commands(of_transfer(row))
    assert isinstance(command, c.FixCompletion)
    assert command.completion.ended is m.Ended.SUPERSEDED
    row = transfer(x.progress(WHOLE, Ranges.of(0, 1)), x.told(2, m.Verdict.CANCELLED))
    (command,) = commands(of_transfer(row))
    assert isinstance(command, c.CloseTransfer)
    assert command.completion.ended is m.Ended.DONE


def test_a_new_priority_reaches_the_next_request() -> None:
    row = transfer(x.opened(), x.told(2, priority=9))
    (command,) = commands(of_transfer(row))
    assert isinstance(command, c.RequestChunks)
    assert command.priority == 9
    assert transfers.fold(row, x.told(1, m.Verdict.CANCELLED), LINE) == row, "an older decision changes nothing"


# Completions.


def completion(*facts: transfers.TransferMessage, of: Manifest = WRITTEN) -> m.CompletionRecord:
    return completions.completion(transfer(*facts, of=of), of.index, x.B)


def test_how_a_transfer_ended() -> None:
    stopped = (x.told(2, m.Verdict.CANCELLED), x.lost(stopped=True))
    superseded = (x.told(2, m.Verdict.SUPERSEDED), x.lost(stopped=True))
    gone = x.progress(failed=(x.failed("gone", 0),))
    all_gone = x.progress(failed=(x.failed("gone", 0, 1),))
    there = x.progress(sealed=Ranges.of(1))
    for facts, ended in (
        ((x.progress(sealed=Ranges.of(0, 1)),), "done"),
        ((gone, there), "partly"),
        ((all_gone,), "failed"),
        (stopped, "cancelled"),
        ((there, *stopped), "cancelled"),
        ((gone, *stopped), "cancelled"),
        (superseded, "superseded"),
        ((all_gone, *stopped), "failed"),
    ):
        assert completion(*facts).ended == ended, facts


def test_a_completion_names_every_item_once() -> None:
    done = completion(
        x.progress(sealed=Ranges.of(1), failed=(x.failed("a", 0, 1), x.failed("b", 1))),
        x.told(2, m.Verdict.CANCELLED),
        x.lost(stopped=True),
    )
    assert (done.sealed, done.failed, done.cancelled) == (Ranges.of(1), (x.failed("a", 0),), EMPTY)
    assert done.bytes == 50, "sealed is irrevocable: what failed once and arrived after all, arrived"
    assert done.manifest_sha256 == digest(ONE)


def test_a_completion_is_a_pure_function_of_its_row() -> None:
    facts = (x.progress(sealed=Ranges.of(1)), x.progress(failed=(x.failed("a", 0),)))
    assert completion(*facts) == completion(*facts, *facts[::-1])


def test_more_reasons_than_a_completion_holds_share_one() -> None:
    of = Manifest(x.written(items=[x.item(n, 1) for n in range(50)]))
    done = completion(*(x.progress(failed=(x.failed(f"reason {n:02}", n),)) for n in range(50)), of=of)
    assert len(done.failed) == completions.REASONS_MAX
    assert done.failed[30] == x.failed("reason 30", 30)
    assert done.failed[31].items == Ranges([(31, 50)])
    assert done.failed[31].reason.text == "19 other reasons, among them: reason 31"
    exactly = completion(*(x.progress(failed=(x.failed(f"reason {n:02}", n % 32),)) for n in range(32)), of=of)
    assert [f.reason.text for f in exactly.failed] == [f"reason {n:02}" for n in range(32)]


def test_a_long_reason_is_cut_not_refused() -> None:
    of = Manifest(x.written(items=[x.item(n, 1) for n in range(40)]))
    done = completion(*(x.progress(failed=(x.failed(f"{n:02}" + "x" * 398, n),)) for n in range(40)), of=of)
    assert len(done.failed[-1].reason.text) == 400


def test_replicas_are_what_was_sealed_by_dataset() -> None:
    other = replace(x.item(2, 7), dataset="/A/A/A", block="/A/A/A#1")
    of = Manifest(x.written(items=[x.item(0, 5), x.item(1, 6), other]))
    done = completion(x.progress(sealed=Ranges.of(0, 2), failed=(x.failed("gone", 1),)), of=of)
    held = completions.replicas_of(done, of, x.B)
    assert [(h.dataset, h.site, h.manifest, [f.lfn for f in h.files]) for h in held] == [
        ("/A/A/A", x.B, x.MANIFEST, [x.lfn(2)]),
        (x.DATASET, x.B, x.MANIFEST, [x.lfn(0)]),
    ]
    assert {f.version for h in held for f in h.files} == {""}


# Words and numbers for people.


@pytest.mark.parametrize(
    ("facts", "part_here", "granted", "words"),
    [
        ((), True, True, "its part files to be opened"),
        ((x.opened(),), False, True, "its part files to be opened"),
        ((x.opened(),), True, False, "credit of its partition"),
        ((x.opened(),), True, True, "its items to be sealed"),
        ((x.opened(), x.requested(1, Ranges([(0, 60)]))), True, True, "S_C to answer request 1"),
        (
            (x.opened(), x.requested(1, Ranges([(0, 60)])), x.expired(1), x.requested(2, Ranges([(0, 60)]))),
            True,
            True,
            "S_C to answer request 2 (S_C left requests up to 1 unanswered)",
        ),
        (
            (
                x.opened(),
                x.requested(1, Ranges([(0, 60)]), plane=DOOR),
                x.requested(2, Ranges([(60, 90)]), plane=DOOR),
                x.source_failed(1, plane=DOOR),
            ),
            True,
            True,
            "S_C to answer request 2 by door (the door of S_C failed 1 ×, at last: the store is away)",
        ),
        ((x.told(2, m.Verdict.CANCELLED),), True, True, "its part files to be dropped"),
        ((x.progress(WHOLE, Ranges.of(0, 1)),), True, True, "its completion to be acknowledged by the broker"),
        ((x.closed(),), True, True, ""),
    ],
)
def test_what_a_transfer_waits_for(
    facts: tuple[transfers.TransferMessage, ...], part_here: bool, granted: bool, words: str
) -> None:
    assert waits_for(transfer(*facts), part_here=part_here, granted=granted) == words


def test_a_row_without_a_plan_waits_for_its_manifest() -> None:
    assert waits_for(transfers.fold(None, x.opened(), None), part_here=True, granted=True) == "its manifest"


def test_a_report_counts_what_is_on_disk() -> None:
    row = transfer(x.progress(Ranges([(0, 30)]), Ranges.of(1), (x.failed("gone", 1), x.failed("late", 0))))
    said = report(row, LINE, x.B, 3, "x" * 500)
    assert (said.verified, said.total, said.sealed, said.failed, said.items) == (80, 150, 1, 1, 2)
    assert (said.decision_no, said.state, said.waits_for) == (3, "complete", "x" * 400)
    assert report(row, LINE, x.B, 0, "").decision_no == 1, "never less than the row knows"
    assert said.reason == x.reason("late"), "of what is missing, not of what arrived after all"
    new = transfers.fold(None, x.progress(Ranges([(0, 30)]), Ranges.of(1)), None)
    assert report(new, None, x.B, 1, "").total == 0
    assert ManifestId(said.manifest) == x.MANIFEST
