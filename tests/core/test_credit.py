"""Who goes first: never over credit unless a channel is empty, the higher priority, the smaller share, the longest."""

from __future__ import annotations

import time
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from streams.core.channel import DOOR, LOG, TOOL, Channel, tool_plane
from streams.core.commands import ExpireLease, RequestChunks
from streams.core.credit import ITEMS_MAX, PROBE_BYTES, Credit, _Items
from streams.core.names import IntentId, ManifestId, Site
from streams.core.policy import LEASES_MAX
from streams.core.ranges import Ranges
from streams.core.topics import partition_of
from tests.core import example as x

PARTITIONS, CREDIT, LEASE_MS = 2, 100, 1_000
INTENT = IntentId(f"{x.A}.00000000-0000-4000-8000-000000000002")
MiB = 1 << 20


def manifests(partition: int, count: int) -> list[ManifestId]:
    names = (ManifestId.of(INTENT, 0, no) for no in range(10 * count))
    return [name for name in names if partition_of(name, PARTITIONS) == partition][:count]


HERE, THERE = manifests(0, 6), manifests(1, 6)


def ask(
    manifest: ManifestId,
    size: int,
    priority: int = 5,
    source: Site = x.C,
    no: int = 1,
    items: int = 1,
    plane: str = LOG,
) -> RequestChunks:
    return RequestChunks(manifest, source, no, 1, Ranges([(0, size)]), size, priority, items, plane)


def credit_of(held: dict[Channel, dict[ManifestId, int]] | None = None, credit_bytes: int = CREDIT) -> Credit:
    credit = Credit({LOG: credit_bytes, DOOR: 2 * credit_bytes}, LEASE_MS, PARTITIONS)
    for channel, rows in (held or {}).items():
        for manifest, size in rows.items():
            credit.note(channel, manifest, size, 1, 0)
    return credit


def want(credit: Credit, due: list[RequestChunks]) -> list[Channel]:
    """Each transfer wants all its requests; the channels to grant from."""
    channels: dict[Channel, None] = {}
    for manifest in dict.fromkeys(r.manifest for r in due):
        channels |= dict.fromkeys(credit.want(manifest, [r for r in due if r.manifest == manifest]))
    return list(channels)


def granted(credit: Credit, channels: list[Channel]) -> list[RequestChunks]:
    sent = []
    for channel in channels:
        while (request := credit.next(channel)) is not None:
            credit.grant(request)
            sent.append(request)
    return sent


def asked(due: list[RequestChunks], held: dict[Channel, dict[ManifestId, int]] | None = None) -> list[RequestChunks]:
    credit = credit_of(held)
    return granted(credit, want(credit, due))


def test_of_a_bounded_link_half_a_lease_is_asked_for_in_all_partitions_together() -> None:
    """In two pieces, so that one is on its way while the next is asked for; what waits longer would lapse."""
    rate = 16 * PARTITIONS * 2000 // LEASE_MS  # 16 bytes of each partition in half a lease
    credit = Credit({LOG: CREDIT, DOOR: CREDIT}, LEASE_MS, PARTITIONS, {x.C: rate})
    (channel,) = credit.want(HERE[0], [ask(HERE[0], CREDIT, plane=DOOR)])
    first = credit.next(channel)
    assert first is not None
    assert (first.bytes, first.ranges) == (8, Ranges([(0, 8)]))
    credit.grant(first)
    credit.want(HERE[0], [replace(ask(HERE[0], CREDIT - 8, no=2, plane=DOOR), ranges=Ranges([(8, CREDIT)]))])
    second = credit.next(channel)
    assert second is not None
    assert second.ranges == Ranges([(8, 16)])
    credit.grant(second)
    credit.want(HERE[0], [ask(HERE[0], CREDIT, no=3, plane=DOOR)])
    assert credit.next(channel) is None
    (by_log,) = credit.want(HERE[1], [ask(HERE[1], CREDIT)])
    whole = credit.next(by_log)
    assert whole is not None
    assert whole.bytes == CREDIT, "the log has no such bound"
    (other,) = credit.want(HERE[2], [ask(HERE[2], CREDIT, source=x.A, plane=DOOR)])
    free = credit.next(other)
    assert free is not None
    assert free.bytes == CREDIT


def test_all_that_fits_goes() -> None:
    due = [ask(HERE[0], 50), ask(HERE[1], 50), ask(THERE[0], 100), ask(HERE[2], 100, source=x.A)]
    assert set(asked(due)) == set(due), "channels do not share"


def test_credit_bounds_a_channel() -> None:
    assert asked([ask(HERE[0], 60), ask(HERE[1], 60)]) == [ask(HERE[0], 60)]
    assert asked([ask(HERE[0], 60)], {Channel(x.C, LOG, 0): {HERE[1]: 41}}) == []
    assert asked([ask(HERE[0], 60)], {Channel(x.C, LOG, 0): {HERE[1]: 40}}) == [ask(HERE[0], 60)]


def test_more_than_the_whole_credit_goes_alone() -> None:
    assert asked([ask(HERE[0], 500)]) == [ask(HERE[0], 500)]
    assert asked([ask(HERE[0], 500)], {Channel(x.C, LOG, 0): {HERE[1]: 1}}) == []


def test_the_higher_priority_goes_first() -> None:
    due = [ask(HERE[0], 60, 1), ask(HERE[1], 60, 9), ask(HERE[2], 60, 5)]
    assert asked(due) == [due[1]]


def test_among_equals_the_smaller_share_goes_first() -> None:
    held = {Channel(x.C, LOG, 0): {HERE[0]: 20, HERE[1]: 10}}
    assert asked([ask(HERE[0], 30), ask(HERE[1], 30), ask(HERE[2], 30)], held) == [ask(HERE[2], 30), ask(HERE[1], 30)]


def test_among_equal_shares_who_waits_longest_goes_first_whatever_was_asked_since() -> None:
    credit = credit_of({Channel(x.C, LOG, 0): {HERE[5]: 100}})
    channels = want(credit, [ask(HERE[1], 60)]) + want(credit, [ask(HERE[0], 60)])
    want(credit, [ask(HERE[1], 70, no=2)])  # its row changed; it keeps its place
    assert granted(credit, channels) == []
    assert credit.note(Channel(x.C, LOG, 0), HERE[5], 0, 0, 1) == [Channel(x.C, LOG, 0)], (
        "room is made where somebody waits"
    )
    want(credit, [ask(HERE[2], 60)])
    assert granted(credit, [Channel(x.C, LOG, 0)]) == [ask(HERE[1], 70, no=2)]
    want(credit, [ask(HERE[3], 60, 9)])
    credit.note(Channel(x.C, LOG, 0), HERE[1], 0, 0, 2)
    assert granted(credit, [Channel(x.C, LOG, 0)]) == [ask(HERE[3], 60, 9)], "but for who is more urgent"


def test_who_wants_no_more_is_out_of_the_queue() -> None:
    credit = credit_of({Channel(x.C, LOG, 0): {HERE[5]: 100}})
    want(credit, [ask(HERE[0], 60)])
    assert credit.waits(HERE[0])
    credit.want(HERE[0], [])
    assert not credit.waits(HERE[0])
    want(credit, [ask(HERE[0], 60)])
    credit.forget(HERE[0], 1)
    assert not credit.waits(HERE[0])
    assert credit.waiting(Channel(x.C, LOG, 0)) == []


def test_a_partition_that_goes_takes_its_channels_along() -> None:
    credit = credit_of({Channel(x.C, LOG, 0): {HERE[0]: 60}, Channel(x.C, LOG, 1): {THERE[0]: 60}})
    want(credit, [ask(HERE[1], 60)])
    credit.drop(0)
    assert (credit.outstanding(Channel(x.C, LOG, 0)), credit.outstanding(Channel(x.C, LOG, 1))) == (0, 60)
    assert not credit.waits(HERE[1])


def test_a_lease_lasts_while_its_channel_moves_but_not_for_ever() -> None:
    credit = credit_of({Channel(x.C, LOG, 0): {HERE[0]: 60, HERE[1]: 60}})
    lease = ExpireLease(HERE[0], x.C, 1, LOG)
    assert credit.lease_end(lease, 5_000) == 5_000
    credit.note(Channel(x.C, LOG, 0), HERE[1], 10, 1, 4_900)
    assert credit.lease_end(lease, 5_000) == 5_900
    credit.note(Channel(x.C, LOG, 0), HERE[1], 5, 1, 90_000)
    assert credit.lease_end(lease, 5_000) == 5_000 + (LEASES_MAX - 1) * LEASE_MS


def test_a_thousand_that_queue_are_all_granted_in_slices_of_one() -> None:
    """Each of 1,000 transfers of one source has 3 requests of 64 MiB to send, and room is for two at a time.

    Rows are asked one by one: after the turn that made room, and never together with those that wait for it.
    """
    names = manifests(0, 1_000)
    credit = credit_of(credit_bytes=128 * MiB)
    left = dict.fromkeys(names, 3)
    under_way: list[RequestChunks] = []
    order: list[ManifestId] = []
    for name in names:
        under_way += granted(credit, credit.want(name, [ask(name, 64 * MiB)]))
    started_s, slowest_s = time.thread_time(), 0.0
    while under_way:
        done = under_way.pop(0)
        before_s = time.thread_time()
        order.append(done.manifest)
        left[done.manifest] -= 1
        made = credit.note(credit.channel(x.C, LOG, done.manifest), done.manifest, 0, 0, 1)
        again = [replace(done, request_no=done.request_no + 1)] if left[done.manifest] else []
        channels = credit.want(done.manifest, again)
        under_way += granted(credit, list(dict.fromkeys([*channels, *made])))
        slowest_s = max(slowest_s, time.thread_time() - before_s)
    assert not any(left.values()), "all end"
    assert sorted(order[:1_000]) == sorted(names), "nobody has a second turn before everybody had a first"
    assert order[1_000:2_000] == order[:1_000]
    assert slowest_s < 0.1, f"{time.thread_time() - started_s:.1f} s in all, of this thread's processor time"


def of_intent(number: int, partition: int, count: int) -> list[ManifestId]:
    intent = IntentId(f"{x.A}.00000000-0000-4000-8000-{number:012}")
    names = (ManifestId.of(intent, 0, no) for no in range(20 * count))
    return [name for name in names if partition_of(name, PARTITIONS) == partition][:count]


def test_items_bound_a_source_over_its_channels_whatever_their_bytes() -> None:
    credit = credit_of(credit_bytes=128 * MiB)
    full = [ask(name, MiB, items=1_000) for name in [*manifests(0, 3), *manifests(1, 3)]]
    channels = want(credit, full)
    assert len(granted(credit, channels)) == 2, "a third is more than 2,500"
    assert credit.next(Channel(x.C, LOG, 0)) is None
    other = [ask(name, MiB, items=1_000, source=x.A) for name in manifests(0, 1)]
    assert granted(credit, want(credit, other)) == other, "another source has its own"


def test_a_single_file_goes_at_once_beside_a_million_and_once_only() -> None:
    credit = credit_of(credit_bytes=128 * MiB)
    million = [ask(name, MiB, items=1_250) for name in of_intent(7, 0, 20)]
    granted(credit, want(credit, million))
    one, two = of_intent(8, 0, 2)
    assert granted(credit, want(credit, [ask(one, 10)])) == [ask(one, 10)]
    assert granted(credit, want(credit, [ask(two, 10)])) == [], "of the same intent: it has its share"
    large = ask(of_intent(9, 1, 1)[0], MiB, items=1_000)
    assert granted(credit, want(credit, [large])) == []
    made = credit.note(credit.channel(x.C, LOG, million[0].manifest), million[0].manifest, 0, 0, 1)
    assert made[0] == Channel(x.C, LOG, 1), "whose intent has nothing goes before those that have, in whatever channel"
    assert granted(credit, made)[0] == large


def test_a_million_goes_on_to_its_end_in_every_channel() -> None:
    credit = credit_of(credit_bytes=128 * MiB)
    left = [ask(name, MiB, items=1_000) for name in [*of_intent(7, 0, 30), *of_intent(7, 1, 30), *of_intent(8, 1, 30)]]
    under_way = granted(credit, want(credit, left))
    ended = []
    while under_way:
        assert sum(request.items for request in under_way) <= ITEMS_MAX
        ended.append(done := under_way.pop(0))
        under_way += granted(credit, credit.forget(done.manifest, 1))
    assert set(ended) == set(left)


requests = st.lists(
    st.builds(
        ask,
        st.sampled_from(HERE + THERE),
        st.integers(1, 150),
        st.integers(0, 9),
        st.sampled_from([x.A, x.C]),
    ),
    max_size=12,
    unique_by=lambda r: r.id,
)
shares = st.dictionaries(
    st.builds(Channel, st.sampled_from([x.A, x.C]), st.just(LOG), st.just(0)),
    st.dictionaries(st.sampled_from(HERE), st.integers(1, 80), max_size=3),
)


def test_a_lease_of_a_tool_lasts_while_it_is_told_that_it_works() -> None:
    tool = tool_plane("xrdcp")
    credit = Credit({TOOL: 100}, LEASE_MS, PARTITIONS)
    lease = ExpireLease(HERE[0], x.C, 1, tool)
    channel = credit.channel(x.C, tool, HERE[0])
    credit.note(channel, HERE[0], 500, 1, 1_000)
    assert credit.next(channel) is None
    assert credit.lease_end(lease, 5_000) == 5_000
    for now_ms in (4_000, 5_000 + 100 * LEASE_MS):
        credit.note_waiting(channel, HERE[0], now_ms)
        assert credit.lease_end(lease, 5_000) == max(5_000, now_ms + LEASE_MS), "however long: it has its own time"
    other = credit.channel(x.C, tool_plane("cp"), HERE[0])
    assert other != channel


def test_a_lease_of_a_door_lasts_while_its_own_transfer_moves() -> None:
    channel = Channel(x.C, DOOR, 0)
    credit = credit_of({channel: {HERE[0]: 60, HERE[1]: 60}})
    lease = ExpireLease(HERE[0], x.C, 1, DOOR)
    credit.note(channel, HERE[1], 10, 1, 4_900)
    assert credit.lease_end(lease, 5_000) == 5_000, "another's bytes prove nothing of it"
    for now_ms, left in ((4_900, 50), (90_000, 40), (900_000, 30)):
        credit.note(channel, HERE[0], left, 1, now_ms)
        assert credit.lease_end(lease, 5_000) == max(5_000, now_ms + LEASE_MS)
    credit.note(channel, HERE[0], 0, 0, 990_000)
    assert credit.lease_end(lease, 5_000) == 5_000
    assert credit._uses[channel].moved_of.keys() == {HERE[1]}


def test_where_nothing_comes_the_last_bytes_are_asked_for_once_a_lease_and_all_again_when_they_came() -> None:
    channel, size = Channel(x.C, LOG, 0), 10 * PROBE_BYTES
    credit = credit_of(credit_bytes=100 * PROBE_BYTES)
    for manifest in HERE[:2]:
        want(credit, [ask(manifest, size)])
        first = credit.next(channel)
        assert first is not None
        credit.grant(first)
    assert not credit.lapsed(HERE[0], 3), "those of before it was known count not"
    assert credit.lapsed(HERE[0], 4)
    credit.note(channel, HERE[0], 0, 0, 5_000, lapsed=True)
    want(credit, [ask(HERE[0], size, no=2)])
    assert credit.next(channel) is None, "what else was asked there may still come"
    credit.note(channel, HERE[1], 0, 0, 5_100, lapsed=True)
    for number in (2, 3):
        want(credit, [ask(HERE[0], size, no=number), ask(HERE[1], size, no=number)])
        probe = credit.next(channel)
        assert probe is not None
        whole = ask(probe.manifest, size, no=number)
        assert probe == replace(whole, ranges=Ranges([(9 * PROBE_BYTES, size)]), bytes=PROBE_BYTES)
        credit.grant(probe)
        assert credit.next(channel) is None
        credit.note(channel, probe.manifest, 0, 0, 6_000 * number, lapsed=True)
    want(credit, [ask(HERE[0], size, no=4), ask(HERE[1], size, no=4)])
    probe = credit.next(channel)
    assert probe is not None
    credit.grant(probe)
    assert credit.note(channel, probe.manifest, 0, 0, 30_000) == [channel], (
        "it came: all before it has come, or is lost"
    )
    (other,) = {HERE[0], HERE[1]} - {probe.manifest}
    first = credit.next(channel)
    assert first is not None
    assert (first.manifest, first.bytes) == (other, size)


def test_what_is_known_of_lapses_goes_with_the_partition() -> None:
    credit = credit_of()
    credit.lapsed(HERE[0], 1)
    credit.lapsed(THERE[0], 1)
    credit.drop(0)
    assert credit._lapses == {THERE[0]: 1}
    credit.forget(THERE[0], 0)
    assert credit._lapses == {}


def test_a_door_has_no_probe() -> None:
    channel = Channel(x.C, DOOR, 0)
    credit = credit_of({channel: {HERE[0]: 60}})
    credit.note(channel, HERE[0], 0, 0, 5_000, lapsed=True)
    want(credit, [ask(HERE[0], 150, no=2, plane=DOOR)])
    assert credit.next(channel) == ask(HERE[0], 150, no=2, plane=DOOR)


@given(requests, shares)
def test_no_channel_is_over_credit_unless_it_was_empty(
    due: list[RequestChunks], held: dict[Channel, dict[ManifestId, int]]
) -> None:
    credit = credit_of(held)
    sent = granted(credit, want(credit, due))
    assert len({r.id for r in sent}) == len(sent)
    assert set(sent) <= set(due)
    for key in {credit.channel(r.source, r.plane, r.manifest) for r in due}:
        before = sum(held.get(key, {}).values())
        mine = [r for r in sent if credit.channel(r.source, r.plane, r.manifest) == key]
        assert credit.outstanding(key) == before + sum(r.bytes for r in mine)
        if credit.outstanding(key) > CREDIT and mine:
            assert before == 0
            assert len(mine) == 1
        if not before:
            assert mine, "a channel with nothing outstanding never stands still"


@given(requests, shares)
def test_nobody_is_overtaken_by_a_lower_priority_of_its_channel(
    due: list[RequestChunks], held: dict[Channel, dict[ManifestId, int]]
) -> None:
    """Else a stream of small requests of low priority would keep a large one of high priority waiting for ever."""
    credit = credit_of(held)
    sent = granted(credit, want(credit, due))
    for r in sent:
        key = credit.channel(r.source, r.plane, r.manifest)
        for other in due:
            if other not in sent and credit.channel(other.source, other.plane, other.manifest) == key:
                assert other.priority <= r.priority


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(HERE), st.integers(1, 120)), max_size=60))
def test_what_is_counted_is_what_is_noted(steps: list[tuple[int, ManifestId, int]]) -> None:
    """Whatever happens in whatever order, the sum of a channel is that of its transfers, and nobody waits unseen."""
    credit = credit_of()
    for what, manifest, size in steps:
        match what:
            case 0:
                credit.note(Channel(x.C, LOG, 0), manifest, size, 1, 1)
            case 1:
                credit.note(Channel(x.C, LOG, 0), manifest, 0, 0, 1)
            case 2:
                credit.want(manifest, [ask(manifest, size)])
            case 3:
                credit.forget(manifest, 1)
            case 4:
                granted(credit, [Channel(x.C, LOG, 0)])
        use = credit._uses.get(Channel(x.C, LOG, 0))
        if use is not None:
            assert use.used == sum(use.outstanding.values())
            of_source = credit._items.get(x.C, _Items())
            assert of_source.used == sum(of_source.outstanding.values()) == sum(of_source.by_intent.values())
            assert {manifest for manifest, _ in of_source.outstanding} == set(use.outstanding)
            assert set(credit._of) == {*use.outstanding, *use.queue}
