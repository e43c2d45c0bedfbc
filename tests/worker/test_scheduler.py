"""When rows are asked: credit and fairness of channels, rows that resume, slices, reports, what is forgotten."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from streams.core import commands as c
from streams.core import records as m
from streams.core.channel import DOOR, LOG, Channel
from streams.core.policy import Policy
from streams.core.ranges import Ranges
from streams.core.topics import partition_of
from streams.core.transfer import State
from streams.planes import orders
from streams.worker import admission
from streams.worker import scheduler as scheduler
from streams.worker.scheduler import IDLE_MS, OPEN_SETTLE_MS, SENT_REMEMBERED, SLICE_S, Scheduler
from tests.core import example as x
from tests.worker.rig import PARTITIONS, Rig, requests, same_lane

SMALL = Policy(request_bytes=50, credit_bytes=100, requests_in_flight=2)


def opened(rig: Rig, manifests: list[m.ManifestWritten], priorities: dict[int, int] | None = None) -> None:
    """Every transfer is planned and its part is open; what they ask for is left in the log."""
    for n, written in enumerate(manifests):
        rig.hear(x.planned(written, priority=(priorities or {}).get(n, 5)))
    for written in manifests:
        rig.opened(written.manifest)


def held(rig: Rig) -> int:
    return sum(rig.scheduler.credit.outstanding(channel) for channel in rig.scheduler.credit._uses)


def in_flight(rig: Rig, manifests: list[m.ManifestWritten]) -> int:
    """Asked for and not verified, as the rows have it."""
    rows = [rig.transfer(w.manifest) for w in manifests]
    return sum(row.outstanding(rig.index(row.manifest)).size for row in rows if row.state is not State.CLOSED)


def test_a_plane_holds_only_so_many_items_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs it memory; who waits is opened when another closes, the longest waiting first."""
    monkeypatch.setattr(admission, "ITEMS_MAX", 2 * admission.TRANSFER_ITEMS + 4)
    rig = Rig()
    manifests = same_lane(4, lengths=(100, 50))
    for written in manifests:
        rig.hear(x.planned(written))
    assert [o.manifest_id for o in rig.take(orders.Open)] == [w.manifest for w in manifests[:2]]
    rig.after(20)
    assert {o.manifest_id for o in rig.take(orders.Open)} == {w.manifest for w in manifests[:2]}, "told again"
    for written in manifests[:2]:
        rig.opened(written.manifest)
    rig.after(20)
    assert rig.take(orders.Open) == []
    rig.hear(m.PartLost(manifests[1].manifest, 1, x.reason()))
    rig.after(0)
    assert [o.manifest_id for o in rig.take(orders.Open)] == [manifests[2].manifest], "not the one just lost"
    done = x.completed()
    rig.hear(m.TransferClosed(manifests[0].manifest, replace(done, manifest=manifests[0].manifest)))
    rig.after(0)
    assert [o.manifest_id for o in rig.take(orders.Open)] == [manifests[3].manifest]


def test_a_lane_is_never_over_its_credit() -> None:
    rig = Rig(policy=SMALL)
    manifests = same_lane(4, lengths=(150,))
    opened(rig, manifests)
    asked = rig.take(m.ChunksRequested)
    assert requests(asked) == [(manifests[0].manifest, 1), (manifests[1].manifest, 1)]
    rig.hear(*asked)
    rig.after(6)
    assert rig.take(m.ChunksRequested) == [], "full"
    assert in_flight(rig, manifests) == held(rig) == 100


def test_carriers_share_no_credit_and_a_request_names_its_own() -> None:
    rig = Rig(policy=replace(SMALL, door_bytes_min=1, door_request_bytes=50, door_credit_bytes=100))
    manifests = same_lane(4, lengths=(150,))
    for n, written in enumerate(manifests):
        rig.hear(x.planned(written, doors=(x.C,) if n >= 2 else ()))
    for written in manifests:
        rig.opened(written.manifest)
    asked = rig.take(m.ChunksRequested)
    assert requests(asked) == [(written.manifest, 1) for written in manifests]
    assert [request.plane for request in asked] == [LOG, LOG, DOOR, DOOR]
    key = _partition(manifests[0])
    assert [rig.scheduler.credit.outstanding(Channel(x.C, carrier, key)) for carrier in (LOG, DOOR)] == [100, 100]


def test_a_door_that_failed_one_transfer_rests_for_the_others_of_its_site() -> None:
    policy = replace(SMALL, door_bytes_min=1, door_request_bytes=50, door_credit_bytes=1_000, credit_bytes=1_000)
    rig = Rig(policy=policy)
    first, second, third = same_lane(3, lengths=(150,))

    def asked(written: m.ManifestWritten) -> m.ChunksRequested:
        """What is asked for as soon as the part is open."""
        rig.hear(x.planned(written, doors=(x.C,)))
        rig.opened(written.manifest)
        (request,) = [r for r in rig.take(m.ChunksRequested) if r.manifest == written.manifest]
        return request

    request = asked(first)
    assert request.plane == DOOR
    failed = x.source_failed(request.request_no, at_ms=rig.now_ms, plane=DOOR)
    rig.hear(request, replace(failed, manifest=first.manifest))
    assert asked(second).plane == LOG, "it need not find out by itself"
    rig.after(policy.door_rest_s)
    assert asked(third).plane == DOOR


def test_a_request_in_flight_to_the_log_uses_credit_too() -> None:
    """A row that is folded between sending and hearing its own request does not give that request's credit away."""
    rig = Rig(policy=SMALL)
    one, two = same_lane(2, lengths=(300,))
    opened(rig, [one])
    (first,) = rig.take(m.ChunksRequested)
    rig.hear(first)
    (second,) = rig.take(m.ChunksRequested)
    opened(rig, [two])
    rig.hear(x.told(2, manifest=one.manifest))  # any fact
    rig.after(0)
    assert rig.take(m.ChunksRequested) == []
    assert held(rig) == 100
    rig.hear(second)
    assert held(rig) == in_flight(rig, [one, two]) == 100


def test_a_request_that_never_came_back_gives_its_credit_back_and_is_sent_again() -> None:
    rig = Rig(policy=SMALL)
    one, two = same_lane(2, lengths=(100,))
    opened(rig, [one, two])
    assert len(rig.take(m.ChunksRequested)) == 2
    rig.hear(x.progress(Ranges([(0, 100)]), Ranges.of(0), manifest=one.manifest))
    for acknowledged in rig.log.acks:
        acknowledged(RuntimeError("broker away"))
    rig.after(0)
    assert requests(rig.take(m.ChunksRequested)) == [(two.manifest, 1)], "the same number: nobody heard it"
    assert held(rig) == 50


def test_rows_without_credit_resume_when_their_lane_gets_room() -> None:
    rig = Rig(policy=SMALL)
    one, two, three = same_lane(3, lengths=(50,))
    opened(rig, [one, two, three])
    asked = rig.take(m.ChunksRequested)
    assert [r.manifest for r in asked] == [one.manifest, two.manifest]
    rig.hear(*asked)
    rig.take(m.TransferReported)
    rig.after(6)
    waits = {r.manifest: r.waits_for for r in rig.take(m.TransferReported)}
    assert waits[three.manifest] == "credit of its partition"
    rig.hear(x.progress(Ranges([(0, 50)]), manifest=one.manifest))
    rig.after(0)
    assert requests(rig.take(m.ChunksRequested)) == [(three.manifest, 1)], "at once, not when its idle time ends"
    rig.after(6)
    assert "credit" not in {r.manifest: r.waits_for for r in rig.take(m.TransferReported)}[three.manifest]


def test_a_closed_transfer_makes_room() -> None:
    rig = Rig(policy=SMALL)
    one, two, three = same_lane(3, lengths=(50,))
    opened(rig, [one, two, three])
    rig.hear(*rig.take(m.ChunksRequested))
    rig.hear(x.closed(x.completed(one.manifest, items=1)))
    rig.after(0)
    assert requests(rig.take(m.ChunksRequested)) == [(three.manifest, 1)]


def heard(rig: Rig) -> list[m.ChunksRequested]:
    """Hears the requests that were sent, and those that were sent thereupon."""
    out: list[m.ChunksRequested] = []
    while asked := rig.take(m.ChunksRequested):
        rig.hear(*asked)
        out += asked
        if rig.row_s or rig.command_s:
            rig.tick()
    return out


CUTS = pytest.mark.parametrize(
    "takes", [(0.0, 0.0), (SLICE_S, 0.0), (0.0, SLICE_S)], ids=["nothing", "a row", "a command"]
)
"""What takes a whole slice. Whatever that is, the same is granted to the same."""


def walk(
    rig: Rig, manifests: list[m.ManifestWritten], rounds: int, waiting: list[m.ChunksRequested] | None = None
) -> dict[str, int]:
    """Answers one request after another, the oldest first; units got by each transfer."""
    got = {w.manifest: Ranges() for w in manifests}
    waiting = waiting or []
    for _ in range(rounds):
        waiting += heard(rig)
        assert in_flight(rig, manifests) <= SMALL.credit_bytes
        if not waiting:
            break
        answered = waiting.pop(0)
        got[answered.manifest] = got[answered.manifest] | answered.ranges
        rig.hear(x.progress(got[answered.manifest], manifest=answered.manifest))
        rig.after(0.01)
    return {manifest: ranges.size for manifest, ranges in got.items()}


@CUTS
def test_a_long_transfer_does_not_keep_the_others_of_its_lane_waiting(takes: tuple[float, float]) -> None:
    """It is asked after each of its turns, alone, and the room is its own: it must not take it again unasked."""
    rig = Rig(policy=SMALL, takes=takes)
    long, *others = same_lane(4, lengths=(10_000,))
    opened(rig, [long])
    rig.tick()
    waiting = heard(rig)
    assert len(waiting) == 2, "the whole credit"
    opened(rig, others)
    got = walk(rig, [long, *others], 40, waiting)
    assert min(got.values()) >= 400, f"40 answers of 50 for four transfers of equal right: {got}"


@CUTS
def test_the_higher_priority_gets_the_next_room(takes: tuple[float, float]) -> None:
    rig = Rig(policy=SMALL, takes=takes)
    low, high, other = same_lane(3, lengths=(1_000,))
    opened(rig, [low])
    waiting = heard(rig)
    opened(rig, [other, high], {1: 9})
    got = walk(rig, [low, high, other], 24, waiting)
    assert got[high.manifest] >= 900, got


@CUTS
def test_nobody_waits_in_an_idle_lane(takes: tuple[float, float]) -> None:
    rig = Rig(policy=SMALL, takes=takes)
    manifests = same_lane(5, lengths=(120,))
    opened(rig, manifests)
    got = walk(rig, manifests, 100)
    assert set(got.values()) == {120}
    assert held(rig) == 0


@CUTS
def test_queueing_ends_with_who_queues(takes: tuple[float, float]) -> None:
    """A transfer that ends while it queues leaves no ghost that the others make way for."""
    rig = Rig(policy=SMALL, takes=takes)
    one, two, three = same_lane(3, lengths=(1_000,))
    opened(rig, [one])
    waiting = heard(rig)
    opened(rig, [two, three])
    rig.hear(x.closed(x.completed(two.manifest, items=1)))
    rig.hear(x.progress(sealed=Ranges.of(0), manifest=three.manifest))
    got = walk(rig, [one], 30, waiting)
    assert got[one.manifest] >= 900, got


MiB = 1 << 20


@CUTS
@pytest.mark.parametrize("channels", [1, PARTITIONS])
def test_forty_transfers_of_one_source_all_end_a_slice_at_a_time(channels: int, takes: tuple[float, float]) -> None:
    """Of those that wait for room hardly two are ever asked in one slice; records are heard between two slices."""
    rig = Rig(takes=takes)
    items = [x.item(0, 64 * MiB)]
    spread = [x.written(no, items, last=False) for no in range(40)]
    manifests = same_lane(40, lengths=(64 * MiB,)) if channels == 1 else spread
    assert len({_partition(w) for w in manifests}) == channels
    rig.hear(*(x.planned(written) for written in manifests))
    under_way, ended, began_ms = list[m.ChunksRequested](), list[x.ManifestId](), rig.now_ms
    for _ in range(1_000):
        for order in rig.take(orders.Open):
            rig.opened(order.manifest_id)
        for asked in rig.take(m.ChunksRequested):
            rig.hear(asked)
            under_way.append(asked)
        for partition in range(PARTITIONS):
            used = rig.scheduler.credit.outstanding(Channel(x.C, LOG, partition))
            assert used <= rig.policy.credit_bytes
            assert used == sum(r.ranges.size for r in under_way if partition_of(r.manifest, PARTITIONS) == partition)
        if under_way:
            answered = under_way.pop(0)
            rig.hear(x.progress(answered.ranges, Ranges.of(0), manifest=answered.manifest))
        acks, rig.log.acks = rig.log.acks, []
        for ack in acks:
            ack(None)
        for closed in rig.take(m.TransferClosed):
            rig.hear(closed)
            ended.append(closed.manifest)
        rig.now_ms += 10
        rig.dispatcher.tick()
    assert sorted(ended) == sorted(w.manifest for w in manifests)
    assert rig.now_ms - began_ms < 20_000, "no lease had to end for it"
    assert (rig.take(m.LeaseExpired), held(rig)) == ([], 0)
    assert not any(map(rig.scheduler.credit.waits, ended))


def test_room_goes_to_who_waits_for_it_without_asking_a_row() -> None:
    """Who waits has its request in memory: the turn that makes room grants it, whatever else there is to ask."""
    rig = Rig(policy=SMALL)
    one, two, three = same_lane(3, lengths=(50,))
    opened(rig, [one, two, three])
    rig.hear(*rig.take(m.ChunksRequested))
    reads = rig.tables["transfers"].reads
    reads.clear()
    rig.hear(x.progress(Ranges([(0, 50)]), manifest=one.manifest))
    assert requests(rig.take(m.ChunksRequested)) == [(three.manifest, 1)]
    assert set(reads) == {one.manifest}


def test_room_that_a_full_buffer_could_not_use_is_used_later() -> None:
    rig = Rig(policy=SMALL)
    one, two, three = same_lane(3, lengths=(50,))
    opened(rig, [one, two, three])
    rig.hear(*rig.take(m.ChunksRequested))
    rig.log.full = True
    rig.hear(x.progress(Ranges([(0, 50)]), manifest=one.manifest))
    rig.after(0)
    rig.log.full = False
    assert held(rig) == 50, "what was not sent uses none"
    rig.after(0.2)
    assert requests(rig.take(m.ChunksRequested)) == [(three.manifest, 1)]


def test_the_queue_of_a_partition_that_sleeps_is_not_granted_from() -> None:
    rig = Rig(policy=SMALL)
    one, two, three = same_lane(3, lengths=(50,))
    opened(rig, [one, two, three])
    rig.hear(*rig.take(m.ChunksRequested))
    rig.dispatcher.drop(3)
    rig.scheduler.own(3)
    rig.hear(x.progress(Ranges([(0, 50)]), manifest=one.manifest), x.told(1, manifest=three.manifest))
    rig.after(6)
    assert rig.take(m.ChunksRequested) == []
    rig.wake(3)
    rig.opened(three.manifest)
    assert requests(rig.take(m.ChunksRequested)) == [(three.manifest, 1)]


def test_a_transfer_that_is_granted_at_once_does_not_say_that_it_waits_for_credit() -> None:
    rig = Rig()
    rig.hear(x.planned(x.written()))
    rig.now_ms += 3_000
    rig.forget()
    rig.opened()
    assert len(rig.take(m.ChunksRequested)) == 1
    assert [r.waits_for for r in rig.take(m.TransferReported)] == ["its items to be sealed"]


# Slices.


def test_what_a_slice_leaves_no_time_for_is_carried_out_in_the_next() -> None:
    rig = Rig(awake=False)
    chain = x.chain(5)
    rig.hear(x.body(), x.decided(), *chain)
    rig.command_s = SLICE_S
    for partition in range(PARTITIONS):
        rig.finish(rig.dispatcher.waking(partition))
    planned = []
    for written in chain:
        assert rig.dispatcher.tick(), "more is due"
        planned += [p.body for p in rig.take(m.TransferPlanned)]
        assert planned[-1] == written
    assert planned == chain, "one a slice, each once"
    rig.tick()
    assert rig.take(m.TransferPlanned) == []


def test_a_slice_carries_something_out_however_long_its_row_took_to_read() -> None:
    """Else a disk that is slow, or a row that is large, would have the loop ask for ever and nothing happen."""
    rig = Rig(awake=False)
    rig.hear(x.body(), x.decided(), *x.chain(5))
    for partition in range(PARTITIONS):
        rig.finish(rig.dispatcher.waking(partition))
    read = rig.turns.intent_row

    def slowly(intent: x.IntentId) -> object:
        rig.elapsed_s += SLICE_S
        return read(intent)

    rig.turns.intent_row = slowly  # type: ignore[method-assign, assignment]
    for _ in range(20):
        rig.dispatcher.tick()
    assert len(rig.take(m.TransferPlanned)) == 5


def test_many_rows_that_fell_due_at_once_are_asked_each_once() -> None:
    rig = Rig()
    manifests = same_lane(20, lengths=(50,))
    rig.hear(*(x.planned(written) for written in manifests))
    rig.row_s = SLICE_S
    rig.forget()
    rig.dispatcher.plane_restarted()
    opened = list[str]()
    for _ in manifests:
        assert rig.dispatcher.tick() or len(opened) == 19
        (order,) = rig.take(orders.Open)
        opened.append(order.manifest_id)
    assert sorted(opened) == sorted(w.manifest for w in manifests)
    assert rig.tick() == 1


def test_a_row_that_cannot_be_asked_keeps_no_other_from_being_asked() -> None:
    """A fault of ours in one row; what the environment breaks is raised: test_dispatcher.py."""
    rig = Rig()
    one, two = same_lane(2, lengths=(50,))
    rig.hear(x.planned(one), x.planned(two))
    rig.forget()
    rig.dispatcher.plane_restarted()
    rig.tables["transfers"].unreadable = KeyError("a fault of ours")
    rig.tick()
    assert len(rig.take(orders.Open)) == 1


def test_an_open_that_was_told_is_not_told_again_for_ten_seconds() -> None:
    """It carries the manifest, and opening may read files back."""
    rig = Rig()
    (one,) = same_lane(1)
    rig.hear(x.planned(one))
    assert len(rig.take(orders.Open)) == 1
    rig.after(OPEN_SETTLE_MS / 1000 - 0.1)
    assert rig.take(orders.Open) == []
    rig.after(0.1)
    assert len(rig.take(orders.Open)) == 1


# Channels beside each other.


def test_a_lane_does_not_wait_for_another() -> None:
    rig = Rig(policy=SMALL)
    (here,) = same_lane(1, lengths=(150,))
    other = next(w for w in (x.written(no, here.items, last=False) for no in range(99)) if _partition(w) == 4)
    elsewhere = x.written(0, [x.item(0, 150, holder=x.A)], last=False)
    opened(rig, [here, other, elsewhere])
    assert {r.manifest for r in rig.take(m.ChunksRequested)} == {w.manifest for w in (here, other, elsewhere)}


def _partition(written: m.ManifestWritten) -> int:
    return partition_of(written.manifest, PARTITIONS)


# What is remembered of a partition goes with it.


def test_a_dropped_partition_leaves_nothing_behind() -> None:
    rig = Rig(policy=SMALL)
    manifests = same_lane(4, lengths=(150,))
    opened(rig, manifests)
    rig.hear(*rig.take(m.ChunksRequested))
    rig.dispatcher.drop(3)
    scheduler = rig.scheduler
    assert not scheduler.admission.opened
    assert held(rig) == 0
    assert scheduler.credit.waiting(Channel(x.C, LOG, 3)) == []
    assert not any(map(scheduler.credit.waits, (w.manifest for w in manifests)))
    assert not scheduler.credit._uses
    assert not scheduler.credit._of
    assert not scheduler._to_grant
    assert not scheduler.asked
    assert not scheduler._reported
    assert not scheduler._unheard
    assert rig.take(orders.Assign)[-1].partitions.keys() == set(range(8)) - {3}


def test_a_partition_lost_while_asleep_keeps_no_credit() -> None:
    """Its rows noted their requests; closed by another worker meanwhile, they would never be noted again."""
    rig = Rig(policy=SMALL, awake=False)
    (one,) = same_lane(1, lengths=(150,))
    rig.hear(x.planned(one), x.opened(manifest=one.manifest), x.requested(1, Ranges([(0, 100)]), of=one))
    assert held(rig) == 100
    rig.dispatcher.drop(3)
    assert held(rig) == 0


def test_a_worker_that_takes_over_knows_the_credit_in_use() -> None:
    rig = Rig(policy=SMALL)
    manifests = same_lane(3, lengths=(150,))
    opened(rig, manifests)
    rig.hear(*rig.take(m.ChunksRequested))
    rig.sit()
    for written in manifests:
        rig.opened(written.manifest)
    assert rig.take(m.ChunksRequested) == []
    assert held(rig) == 100


# Reports.


def test_a_changing_transfer_reports_itself_at_most_every_report_s() -> None:
    rig = Rig(policy=Policy(report_s=2.0))
    rig.hear(x.planned(x.written(items=[x.item(0, 1_000)])))
    assert len(rig.take(m.TransferReported)) == 1
    rig.opened()
    rig.hear(*rig.take(m.ChunksRequested))
    times = []
    for step in range(1, 101):
        rig.after(0.1)
        rig.hear(x.progress(Ranges([(0, 9 * step)])))
        times += [rig.now_ms] * len(rig.take(m.TransferReported))
    assert 4 <= len(times) <= 5
    assert all(b - a >= 2_000 for a, b in pairwise(times))


def test_reports_of_many_open_transfers_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.worker.scheduler.REPORTS_A_SECOND", 2)
    rig = Rig(policy=Policy(report_s=2.0))
    many = [x.written(no, [x.item(no, 1_000)]) for no in range(20)]
    rig.hear(*(x.planned(written) for written in many))
    assert len(rig.take(m.TransferReported)) == 20, "a plan is answered at once"
    said = 0
    for step in range(1, 301):
        rig.after(0.1)
        rig.hear(*(x.progress(Ranges([(0, 3 * step)]), manifest=written.manifest) for written in many))
        said += len(rig.take(m.TransferReported))
    assert 50 <= said <= 60, "two a second, in 30 s"


def test_the_last_change_is_reported_in_the_end() -> None:
    rig = Rig()
    rig.hear(x.planned(x.written()))
    rig.opened()
    rig.hear(*rig.take(m.ChunksRequested), x.progress(Ranges([(0, 70)])))
    rig.take(m.TransferReported)
    rig.after(2)
    assert [r.verified for r in rig.take(m.TransferReported)] == [70]
    rig.after(60)
    assert rig.take(m.TransferReported) == [], "and an unchanged one is silent"


def test_a_plan_heard_again_is_answered_again() -> None:
    rig = Rig()
    rig.hear(x.planned(x.written()))
    assert len(rig.take(m.TransferReported)) == 1, "once, not once more for the change"
    rig.hear(x.planned(x.written()))
    assert len(rig.take(m.TransferReported)) == 1
    rig.hear(x.told(1))
    assert len(rig.take(m.TransferReported)) == 1


# Due times.


def scheduler_of(now: list[int], taken: bool = True) -> tuple[Scheduler, list[c.Command]]:
    done: list[c.Command] = []

    def do(command: c.Command) -> bool:
        done.append(command)
        return taken

    scheduler = Scheduler(x.B, Policy(), 8, do, lambda: now[0])
    for partition in range(8):
        scheduler.own(partition)
        scheduler.wake(partition)
    scheduler.soon.clear()
    return scheduler, done


def test_a_row_is_due_once_at_its_earliest_time() -> None:
    now = [1_000]
    scheduler, _ = scheduler_of(now)
    scheduler._at(3, "row", 5_000)
    scheduler._at(3, "row", 2_000)
    scheduler._at(3, "row", 9_000)
    assert scheduler.next_due_ms() == 2_000
    assert scheduler.next_due() is None
    now[0] = 2_000
    assert scheduler.next_due() == (3, "row")
    assert scheduler.next_due() is None, "once"
    now[0] = 10_000
    assert scheduler.next_due() is None, "superseded times are no times"


def test_what_is_due_at_once_wakes_the_loop() -> None:
    scheduler, _ = scheduler_of([1_000])
    scheduler._at(3, "row", 1_001)
    assert not scheduler.soon.is_set()
    scheduler._at(3, "row", 1_000)
    assert scheduler.soon.is_set()


def test_what_is_due_before_the_loop_would_look_wakes_it() -> None:
    scheduler, _ = scheduler_of([1_000])
    scheduler.looks_at_ms = 1_500
    scheduler._at(3, "later", 1_500)
    assert not scheduler.soon.is_set()
    scheduler._at(3, "sooner", 1_499)
    assert scheduler.soon.is_set()


def test_the_loop_sleeps_again_when_all_that_was_due_is_asked_and_not_before() -> None:
    rig = Rig()
    rig.hear(x.planned(x.written()), x.body(), x.decided())
    rig.tick()
    assert not rig.scheduler.soon.is_set()
    rig.row_s = SLICE_S
    rig.dispatcher.plane_restarted()
    assert rig.scheduler.soon.is_set()
    assert rig.dispatcher.tick(), "one row a slice, and two are due"
    assert rig.scheduler.soon.is_set()
    rig.tick()
    assert not rig.scheduler.soon.is_set()


def test_what_falls_due_in_a_partition_that_sleeps_is_due_when_it_wakes() -> None:
    now = [1_000]
    scheduler, _ = scheduler_of(now)
    scheduler.own(3)
    scheduler.fall_due(3, "row")
    assert not scheduler.soon.is_set()
    assert scheduler.next_due_ms() is None
    assert scheduler.next_due() is None
    scheduler.wake(3)
    assert scheduler.soon.is_set()
    assert scheduler.next_due() == (3, "row")


def test_an_open_transfer_is_asked_even_if_nothing_is_heard() -> None:
    rig = Rig()
    rig.hear(x.planned(x.written()))
    rig.opened()
    rig.hear(*rig.take(m.ChunksRequested))
    key = (rig.record(x.opened())["partition"], x.MANIFEST)
    due = rig.scheduler.owned[key[0]].at[key[1]]
    assert due <= rig.now_ms + IDLE_MS


def test_settling_is_forgotten_in_bounds() -> None:
    now = [1_000]
    scheduler, _done = scheduler_of(now)
    for n in range(SENT_REMEMBERED + 1_000):
        scheduler._do(0, "row", c.DecideIntent(x.IntentId(f"{x.A}.00000000-0000-4000-8000-{n:012d}")))
        now[0] += 1
    assert len(scheduler._sent) <= SENT_REMEMBERED + 1


def test_a_row_whose_asking_failed_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    (written,) = same_lane(1, lengths=(100,))
    rig.hear(x.planned(written))
    rig.opened(written.manifest)
    rig.take(m.ChunksRequested)
    asked, real = [], scheduler.owed_transfer

    def once(*args: object, **more: object) -> object:
        asked.append(args)
        if len(asked) == 1:
            raise ValueError("a fault of ours")
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(scheduler, "owed_transfer", once)
    rig.after(IDLE_MS / 1000 + 1)
    assert len(asked) == 1
    rig.after(IDLE_MS / 1000 + 1)
    assert len(asked) > 1, "its lease ends, whatever failed before"


def test_what_fell_due_first_is_asked_first_whatever_its_partition() -> None:
    now = [0]
    scheduler = Scheduler(x.B, Policy(), PARTITIONS, lambda _: True, lambda: now[0])
    for partition in range(PARTITIONS):
        scheduler.own(partition)
        scheduler.wake(partition)
    for number in range(3 * PARTITIONS):
        now[0] = number
        scheduler.fall_due(number % PARTITIONS, f"row{number}")
    found = [scheduler.next_due() for _ in range(3 * PARTITIONS)]
    assert [key for _, key in found if key] == [f"row{number}" for number in range(3 * PARTITIONS)]  # type: ignore[misc]
    assert scheduler.next_due() is None
