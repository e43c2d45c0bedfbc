"""Commands that no row owes: reports, repeated completions, served requests; and the home's deciding."""

from __future__ import annotations

from typing import get_args

import pytest

from streams.core import commands as c
from streams.core import records as m
from streams.core.channel import DOOR, LOG, tool_plane
from streams.core.manifest import digest
from streams.core.names import Text
from streams.core.policy import LEASES_MAX, Policy
from streams.core.ranges import EMPTY, Ranges
from streams.core.routing import Holders
from streams.planes import orders
from streams.worker.scheduler import RECORD_SETTLE_MS
from tests.core import example as x
from tests.worker.rig import Rig

ONE = x.written()


COMMANDS: list[c.Command] = [
    c.DecideIntent(x.INTENT),
    c.ReleaseIntent(x.INTENT, 2),
    c.PublishDecision(x.decided(2)),
    c.PublishAnswer(x.answered()),
    c.WriteManifests(x.body(), 0, 0, "", ""),
    c.PlanTransfer(x.MANIFEST, x.C, 1, 5, whole=True),
    c.DecideTransfer(x.told(2)),
    c.ReportTransfer(x.reported()),
    c.OpenPart(x.MANIFEST, 1, EMPTY, EMPTY, EMPTY),
    c.StopPart(x.MANIFEST, 1, m.Reason(m.Scope.POLICY, m.FailureClass.PERMANENT, "decide", Text("cancelled"))),
    c.FailItems(x.MANIFEST, (x.failed("gone", 0),)),
    c.RequestChunks(x.MANIFEST, x.C, 1, 1, Ranges([(0, 150)]), 150, 5, 2, LOG),
    c.BringByTool(x.MANIFEST, x.C, 1, 1, tool_plane("cp"), Ranges([(0, 150)])),
    c.ExpireLease(x.MANIFEST, x.C, 1, LOG),
    c.FixCompletion(x.MANIFEST, x.completed()),
    c.CloseTransfer(x.MANIFEST, x.completed()),
    c.RepeatCompletion(x.completed()),
    c.ServeChunks(x.requested(1, Ranges([(0, 150)]), until_ms=500_000)),
]


def test_every_command_is_tried_here() -> None:
    assert {type(command) for command in COMMANDS} == set(get_args(c.Command))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_what_the_worker_publishes_settles_as_records_do_and_is_owed_when_given_up(command: c.Command) -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE))
    rig.forget()
    rig.log.sent.clear()
    rig.log.acks.clear()
    assert rig.effects(command)
    decides = isinstance(
        command, c.DecideIntent | c.ReleaseIntent
    )  # by way of the catalogue, whose thread remembers it
    assert bool(rig.log.sent) == (isinstance(command, c.Published) or decides)
    for acknowledged in rig.log.acks[:1]:
        acknowledged(TimeoutError("no broker"))
    assert list(rig.effects.lost) == ([command] if isinstance(command, c.Published) else [])


def test_who_asks_by_door_says_that_he_reads_urls() -> None:
    """Of a source that connects to the door here he says where that is instead: tests/sites/test_dialled_doors.py."""
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE))
    said = {}
    for plane in (LOG, DOOR, tool_plane("cp")):
        rig.log.sent.clear()
        assert rig.effects(c.RequestChunks(x.MANIFEST, x.C, 1, 1, Ranges([(0, 150)]), 150, 5, 2, plane))
        (request,) = rig.take(m.ChunksRequested)
        said[plane] = request.capability
    assert said == {LOG: "", DOOR: m.READS_URLS, tool_plane("cp"): ""}


def test_a_report_is_extinguished_by_being_heard() -> None:
    """ReportTransfer: it is asked for again by the plan's repeats, and no more once the intent's row has heard it."""
    assert c.ReportTransfer.extinguished_by == (m.TransferReported,)
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE)
    rig.take(m.TransferPlanned)
    rig.log.full = True
    rig.hear(x.planned(ONE))
    rig.log.full = False
    rig.after(RECORD_SETTLE_MS / 1000)
    (plan,) = rig.take(m.TransferPlanned)
    rig.take(m.TransferReported)
    rig.hear(plan)
    (said,) = rig.take(m.TransferReported)
    rig.hear(said)
    rig.after(60)
    assert rig.take(m.TransferPlanned) == []
    assert rig.take(m.TransferReported) == []


def test_a_lost_completion_is_said_again_byte_equal() -> None:
    """RepeatCompletion: a closed transfer that is planned again; heard, it ends the planning."""
    assert c.RepeatCompletion.extinguished_by == (m.CompletionRecord,)
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE), x.progress(Ranges([(0, 150)]), Ranges.of(0, 1)))
    (done,) = rig.take(m.CompletionRecord)
    rig.hear(x.closed(done))
    rig.forget()
    rig.after(RECORD_SETTLE_MS / 1000)
    (plan,) = rig.take(m.TransferPlanned)
    rig.hear(plan)
    assert rig.take(m.CompletionRecord) == [done]
    assert rig.take(orders.Open) == []
    rig.hear(done)
    rig.after(60)
    assert rig.take(m.TransferPlanned) == []


def test_a_closed_transfer_that_is_told_a_decision_says_its_last_word() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE), x.closed())
    rig.forget()
    rig.hear(x.told(2, m.Verdict.CANCELLED))
    assert rig.log.sent == [x.completed()]


def test_a_served_request_is_served_no_more() -> None:
    """ServeChunks: memory only. ChunksServed ends it; else its lease does, and the destination asks again."""
    assert c.ServeChunks.extinguished_by == (m.ChunksServed, m.LeaseExpired)
    rig = Rig(x.C)
    items = (m.RequestedItem(0, x.lfn(0), 0, 150, "v0"),)
    request = m.ChunksRequested(
        x.MANIFEST, x.B, x.C, 1, 1, "log", items, Ranges([(0, 150)]), rig.now_ms + 5_000
    )  # fmt: skip
    rig.hear(request)
    assert len(rig.take(orders.Serve)) == 1
    rig.dispatcher.plane_restarted()
    assert len(rig.take(orders.Serve)) == 1, "owed still: the new plane is told"
    rig.hear(m.ChunksServed(x.MANIFEST, x.C, x.B, 1, Ranges([(0, 150)]), 150))
    rig.dispatcher.plane_restarted()
    assert rig.take(orders.Serve) == []
    rig.hear(request)
    rig.now_ms += LEASES_MAX * 5_000
    rig.dispatcher.plane_restarted()
    assert rig.take(orders.Serve)[1:] == [], "its lease is over"


# Deciding.


@pytest.fixture
def home() -> Rig:
    return Rig(x.A, Policy(settle_s=2.0))


def test_the_home_decides_once(home: Rig) -> None:
    home.hear(x.body())
    (decision,) = home.take(m.IntentDecided)
    assert decision == x.decided()
    home.after(1.9)
    assert home.take(m.IntentDecided) == [], "it settles"
    home.hear(decision)
    home.after(60)
    assert home.take(m.IntentDecided) == []


def test_an_undecided_intent_is_asked_for_again_until_it_is_decided(home: Rig) -> None:
    home.catalogue.what = Holders(0, {}, ("/store/muon/0.root",))
    home.hear(x.body())
    home.after(2)
    assert home.take(m.IntentDecided) == []
    home.catalogue.waited = True
    home.after(2)
    (decision,) = home.take(m.IntentDecided)
    assert decision.verdict is m.Verdict.REFUSED
    home.hear(decision)
    assert home.intent().state == "refused"


def test_a_cancellation_needs_no_catalogue(home: Rig) -> None:
    home.hear(x.body(), x.decided())
    home.forget()
    home.hear(x.cancel())
    (decision,) = home.take(m.IntentDecided)
    assert (decision.decision_no, decision.verdict) == (2, m.Verdict.CANCELLED)
    home.hear(decision)
    assert home.intent().state == "cancelled"


def test_a_deadline_that_passes_cancels(home: Rig) -> None:
    wish = x.body(deadline_ms=home.now_ms + 30_000)
    home.hear(wish, x.decided(wish=wish))
    home.forget()
    home.after(29.9)
    assert home.take(m.IntentDecided) == []
    home.after(0.1)
    (decision,) = home.take(m.IntentDecided)
    assert decision.verdict is m.Verdict.CANCELLED


def test_an_intent_that_fell_back_behind_its_end_is_told_it_again_by_the_closed_transfer() -> None:
    """I12: the completion's update was lost, row and entry, and with the end its manifests were forgotten."""
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE), x.progress(Ranges([(0, 150)]), Ranges.of(0, 1)))
    (done,) = rig.take(m.CompletionRecord)
    before = rig.tables["intents"].snapshot()
    rig.hear(x.closed(done), done)
    assert rig.tables["waiting"] == {}
    rig.tables["intents"].clear()
    rig.tables["intents"].update(before)
    rig.sit()
    (told,) = rig.take(m.TransferDecided)
    assert rig.take(m.TransferPlanned) == []
    rig.hear(told)
    (again,) = rig.take(m.CompletionRecord)
    assert again == done
    rig.hear(again)
    assert rig.intent().state == "done"
    rig.after(60)
    assert rig.log.sent == []


def test_a_cancelled_transfer_whose_row_was_lost_ends_all_the_same() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE), x.reported())
    cancelled = x.decided(2, m.Verdict.CANCELLED)
    rig.hear(cancelled, x.told(2, m.Verdict.CANCELLED), x.reported(number=2))
    for name in ("transfers", "manifests"):
        rig.tables[name].clear()
    rig.sit()
    (plan,) = rig.take(m.TransferPlanned)
    rig.hear(plan)
    rig.hear(*rig.take(m.TransferReported))
    (told,) = rig.take(m.TransferDecided)
    assert (told.decision_no, told.verdict) == (2, m.Verdict.CANCELLED)
    rig.hear(told)
    stop = rig.take(orders.Stop)[-1]
    rig.hear(m.PartLost(x.MANIFEST, stop.attempt, stop.reason))
    assert rig.closes().ended is m.Ended.CANCELLED


# Open intents.


@pytest.fixture
def source() -> Rig:
    rig = Rig(x.C, Policy(settle_s=2.0, renew_s=5.0))
    rig.hear(x.growing(), x.decided(wish=x.growing()))
    return rig


def writes(rig: Rig) -> list[c.WriteManifests]:
    return [order.command for order in rig.take(orders.Write)]


def test_the_plane_is_told_of_an_open_intent_now_and_then(source: Rig) -> None:
    look = c.WriteManifests(x.growing(), 0, 0, "", "")
    assert writes(source) == [look]
    source.after(4.9)
    assert writes(source) == []
    source.after(0.1)
    assert writes(source) == [look]


def test_a_look_waits_for_no_catalogue_and_closing_does(source: Rig) -> None:
    waiting = []
    source.catalogue.then = lambda key, act: waiting.append(act)  # type: ignore[method-assign]
    source.forget()
    source.after(5)
    assert len(writes(source)) == 1
    source.hear(x.close())
    assert writes(source) == []
    waiting.pop()()
    (closing,) = writes(source)
    assert closing.closing


def test_the_plane_is_told_at_once_of_a_manifest_that_counts(source: Rig) -> None:
    source.forget()
    one = x.written(last=False)
    source.hear(one)
    assert [(w.no, w.prev_sha256) for w in writes(source)] == [(1, digest(one))]


def test_a_new_plane_is_told_at_once(source: Rig) -> None:
    source.forget()
    source.dispatcher.plane_restarted()
    source.after(0)
    assert len(writes(source)) == 1


def test_its_time_closes_it_and_the_last_manifest_ends_it() -> None:
    rig = Rig(x.C)
    wish = x.growing(until_ms=rig.now_ms + 30_000)
    rig.hear(wish, x.decided(wish=wish))
    rig.after(29.9)
    assert not any(w.closing for w in writes(rig))
    rig.after(0.1)
    assert any(w.closing for w in writes(rig))
    rig.hear(x.written(items=(), last=True))
    rig.after(60)
    assert writes(rig) == []


def test_a_cancelled_one_is_looked_after_no_more(source: Rig) -> None:
    source.hear(x.decided(2, m.Verdict.CANCELLED, wish=x.growing()))
    source.forget()
    source.after(60)
    assert writes(source) == []
