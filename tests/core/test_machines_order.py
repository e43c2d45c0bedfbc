"""I11: any repeats and any order between topics, the same row. I12: an older row is wrong about nothing that counts.

A history is a list of partitions, each a list of facts in their order. It is heard with the partitions interleaved at
random, and each may be wound back by some records at any time, as after a crash or by a mirror that repeats.

The pairs that need their partition's order, each in a test at the end:
  1. two bodies of one intent                 (transfer-intents)
  2. two priorities asked                     (transfer-intents)
  3. two reports of a transfer                (transfer-reports)
  4. two manifests of one number              (manifests; with the waiting table: tests/worker)
  5. two requests of one number               (chunk-requests-to-SITE)
  6. two plans of one manifest                (transfers; which is stored: tests/worker)
  7. two closings of one transfer             (transfers)
  8. two completions of one transfer          (completion-records)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import intent as intents
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.intent import IntentRow
from streams.core.manifest import Manifest, ManifestIndex
from streams.core.ranges import Ranges
from streams.core.transfer import TransferRow
from tests.core import example as x

ITEMS = (
    x.item(0, 30),
    x.item(1, 0),
    x.item(2, 50, holder=x.A),
    x.item(3, 0, holder=None, why=x.reason("no site holds it")),
)
BODY = x.written(items=ITEMS)
SHORT = settings(max_examples=120)
LONG = settings(max_examples=300)

attempts = st.integers(1, 3)
items_ = st.sets(st.integers(0, 3), max_size=4).map(lambda numbers: Ranges.of(*numbers))
units_ = st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), max_size=2).map(
    lambda spans: Ranges((min(s), max(s)) for s in spans)
)
some_units = units_.filter(bool)
failed_ = st.lists(
    st.builds(m.FailedItems, items_.filter(bool), st.sampled_from([x.reason("a"), x.reason("b")])), max_size=2
).map(tuple)


def on_transfers() -> st.SearchStrategy[list[m.Message]]:
    """What stands in the partition of `transfers`."""
    fact = st.one_of(
        st.builds(x.planned, st.just(BODY), st.integers(1, 3), st.integers(0, 9)),
        st.builds(x.told, st.integers(1, 4), st.sampled_from(m.Verdict), st.integers(0, 9)),
        st.builds(x.opened, attempts, items_, failed_),
        st.builds(x.lost, attempts, stopped=st.booleans()),
        st.builds(x.expired, st.integers(1, 4), st.sampled_from([x.A, x.C])),
        st.builds(x.source_failed, st.integers(1, 4), items_, st.integers(1, 9_000), st.sampled_from([x.A, x.C])),
        st.builds(
            x.closed,
            st.sampled_from([x.completed(items=4), x.completed(items=4, failed=(x.failed("a", 1),))]),
            acknowledged=st.booleans(),
        ),
    )
    often = st.lists(fact, max_size=10)
    return often.flatmap(lambda facts: st.sampled_from([facts, [x.planned(BODY), *facts]]))


def requests_of(source: x.Site) -> st.SearchStrategy[list[m.Message]]:
    fact = st.builds(
        x.requested, st.integers(1, 4), some_units, source=st.just(source), attempt=attempts, of=st.just(BODY)
    )
    return st.lists(fact, max_size=4)


def histories() -> st.SearchStrategy[list[list[m.Message]]]:
    progress = st.lists(st.builds(x.progress, units_, items_, failed_, attempts), max_size=6)
    return st.tuples(on_transfers(), progress, requests_of(x.A), requests_of(x.C)).map(list)


@st.composite
def hearings(draw: st.DrawFn, partitions: list[list[m.Message]]) -> list[m.Message]:
    """One way to hear every partition to its end."""
    at, out = [0] * len(partitions), []
    for _ in range(draw(st.integers(0, 3 * sum(map(len, partitions))))):
        n = draw(st.integers(0, len(partitions) - 1))
        if draw(st.integers(0, 9)) == 0:
            at[n] = max(0, at[n] - draw(st.integers(1, 5)))  # repeats
        if at[n] < len(partitions[n]):
            out.append(partitions[n][at[n]])
            at[n] += 1
    for n in draw(st.permutations(range(len(partitions)))):
        out += partitions[n][at[n] :]
    return out


two_hearings = histories().flatmap(lambda h: st.tuples(st.just(h), hearings(h), hearings(h)))


class Hearing:
    """A transfer's row and, as the tables keep it, its manifest: stored by the first plan, gone when closed."""

    def __init__(self) -> None:
        self.row: TransferRow | None = None
        self.manifest: ManifestIndex | None = None
        self.versions: list[TransferRow | None] = [None]

    def hear(self, facts: Iterable[m.Message]) -> TransferRow | None:
        for fact in facts:
            if self.row is not None and self.row.state is transfers.State.CLOSED:
                self.manifest = None
            elif isinstance(fact, m.TransferPlanned) and self.manifest is None:
                self.manifest = Manifest(fact.body).index
            self.row = transfers.fold(self.row, fact, self.manifest)  # type: ignore[arg-type]
            self.versions.append(self.row)
        return self.row


@LONG
@given(two_hearings)
def test_a_transfers_row_is_free_of_order_and_repeats(
    case: tuple[list[list[m.Message]], list[m.Message], list[m.Message]],
) -> None:
    _, one, two = case
    assert Hearing().hear(one) == Hearing().hear(two)


@SHORT
@given(two_hearings)
def test_heard_all_over_again_a_transfers_row_is_the_same(
    case: tuple[list[list[m.Message]], list[m.Message], list[m.Message]],
) -> None:
    _, one, two = case
    hearing = Hearing()
    once = hearing.hear(one)
    assert hearing.hear(two) == once


@SHORT
@given(two_hearings.flatmap(lambda case: st.tuples(st.just(case[1]), st.integers(0, 60), st.integers(0, 60))))
def test_an_older_transfer_row_knows_less_and_nothing_else(case: tuple[list[m.Message], int, int]) -> None:
    """I12. What it lost is asked for again; what it believes was said by a plane, and the plane can take it back."""
    facts, lag, at = case
    fresh = Hearing()
    fresh.hear(facts[: at % (len(facts) + 1)])
    versions, rest = fresh.versions, facts[at % (len(facts) + 1) :]
    stale = Hearing()
    stale.row, stale.manifest = versions[max(0, len(versions) - 1 - lag)], fresh.manifest
    fresh.hear(rest)
    stale.hear(rest)
    old, new = stale.row or TransferRow(x.MANIFEST), fresh.row or TransferRow(x.MANIFEST)
    over = (transfers.State.CLOSING, transfers.State.CLOSED)
    if old.state in over:
        assert new.state in over
        return
    if new.state in over:
        return  # it is open still: it will close again, later
    assert not old.sealed - new.sealed
    assert not old.failed_items - new.failed_items
    assert (old.attempt, old.lost, old.decision_no) <= (new.attempt, new.lost, new.decision_no) or (
        old.attempt <= new.attempt and old.lost <= new.lost and old.decision_no <= new.decision_no
    )
    if (old.attempt, old.lost) == (new.attempt, new.lost):
        assert not old.verified - new.verified, "of the same part files, never more than was said"
    assert old.live_attempt <= new.live_attempt, "a plane is never asked for a part of the future"
    for source in old.sources:
        assert source.requested <= new.source_row(source.source).requested
        assert source.expired <= new.source_row(source.source).expired


# Intents: the fold alone, with manifests behind their decision. Those that come before wait in a table: tests/worker.

CHAIN = x.chain(3)
BOTH = x.body(destinations=(x.B, x.C))


def completions() -> st.SearchStrategy[list[m.Message]]:
    one = st.builds(
        x.completed,
        st.sampled_from([w.manifest for w in CHAIN]),
        st.just(x.B),
        failed=st.sampled_from([(), (x.failed("a", 0),), (x.failed("b", 1),)]),
    )
    return st.lists(one, max_size=4)


def reports(site: x.Site) -> st.SearchStrategy[list[m.Message]]:
    one = st.builds(
        x.reported,
        st.sampled_from([w.manifest for w in CHAIN]),
        st.just(site),
        st.integers(1, 3),
        verified=st.integers(0, 150),
    )
    return st.lists(one, max_size=5)


def on_intents() -> st.SearchStrategy[list[m.Message]]:
    fact = st.one_of(
        st.just(BOTH),
        st.just(x.cancel()),
        st.builds(x.raised, st.integers(0, 9)),
        st.builds(
            x.decided,
            st.integers(1, 4),
            st.sampled_from([m.Verdict.ACCEPTED, m.Verdict.ACCEPTED, m.Verdict.CANCELLED, m.Verdict.REFUSED]),
            wish=st.just(BOTH),
            priority=st.integers(0, 9),
        ),
    )
    return st.lists(fact, max_size=7)


def intent_histories() -> st.SearchStrategy[list[list[m.Message]]]:
    elsewhere = completions().map(lambda facts: [replace(f, destination=x.C) for f in facts])  # type: ignore[type-var]
    return st.tuples(on_intents(), completions(), elsewhere, reports(x.B), reports(x.C)).map(list)


two_intent_hearings = intent_histories().flatmap(lambda h: st.tuples(hearings(h), hearings(h)))


def hear(facts: Sequence[m.Message], row: IntentRow | None = None) -> IntentRow | None:
    for fact in facts:
        if intents.contradiction(row, fact) is None:  # type: ignore[arg-type]
            row = intents.fold(row, fact, x.B)  # type: ignore[arg-type]
    return row


@LONG
@given(two_intent_hearings)
def test_an_intents_row_is_free_of_order_and_repeats(case: tuple[list[m.Message], list[m.Message]]) -> None:
    one, two = case
    row = hear(one)
    assert row == hear(two)
    assert hear(two, row) == row


@SHORT
@given(two_intent_hearings.flatmap(lambda case: st.tuples(st.just(case[0]), st.integers(0, 60), st.integers(0, 60))))
def test_an_older_intent_row_knows_less_and_nothing_else(case: tuple[list[m.Message], int, int]) -> None:
    facts, lag, cut = case
    at = cut % (len(facts) + 1)
    new = hear(facts) or IntentRow(x.INTENT)
    old = hear(facts[at:], hear(facts[: max(0, at - lag)])) or IntentRow(x.INTENT)
    assert old.decision_no <= new.decision_no
    for closed in old.closed:
        known = new.closed_at(closed.destination, closed.source_no)
        assert not closed.manifests - known.manifests


# The numbered and the first-wins pairs: in another order, another row. Kafka keeps that order within a partition.


def differ(one: m.Message, two: m.Message, *before: m.Message) -> bool:
    return hear([*before, one, two]) != hear([*before, two, one])


def transfers_differ(one: m.Message, two: m.Message, *before: m.Message) -> bool:
    return Hearing().hear([*before, one, two]) != Hearing().hear([*before, two, one])


def test_pair_1_two_bodies() -> None:
    assert differ(x.body(), x.body(priority=9))


def test_pair_2_two_priorities() -> None:
    assert differ(x.raised(1), x.raised(2), x.body())


def test_pair_3_two_reports() -> None:
    assert differ(x.reported(number=1), x.reported(number=2), x.decided())


def test_pair_4_two_manifests_of_one_number() -> None:
    assert differ(x.written(), x.written(items=[x.item(7, 7)]), x.decided())


def test_pair_5_two_requests_of_one_number() -> None:
    one, two = (x.requested(1, Ranges([span]), of=BODY) for span in ((0, 10), (10, 20)))
    assert transfers_differ(one, two, x.planned(BODY))
    first, second = x.requested(1, Ranges([(0, 10)]), of=BODY), x.requested(2, Ranges([(10, 20)]), of=BODY)
    assert transfers_differ(first, second, x.planned(BODY)), "a lower number behind a higher one is old"


def test_pair_6_two_plans_of_one_manifest() -> None:
    assert transfers_differ(x.planned(BODY), x.planned(x.written(items=ITEMS[:1])))


def test_pair_7_two_closings() -> None:
    partly = x.completed(items=4, failed=(x.failed("a", 1),))
    assert transfers_differ(x.closed(), x.closed(partly), x.planned(BODY))


def test_pair_8_two_completions() -> None:
    assert differ(x.completed(), x.completed(failed=(x.failed("a", 1),)), x.decided())
