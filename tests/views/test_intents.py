"""Intents in the view: the same as folding them in memory, in any order, over stops; listed by what people ask for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from streams.client.intent_snapshot import IntentFold, Snapshot
from streams.core import records as m
from streams.core import topics
from streams.core.manifest import digest
from streams.core.names import Adler32, Block, Dataset, Destination, IntentId, Lfn, Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.selectors import Selector, parse
from streams.errors import UsageError
from streams.settings import Settings
from streams.views import intent_rows, rows
from streams.views.view import View
from tests.views.journal import DATASET, A, B, Journal, held, holds

OTHER = Dataset("/Other/R/RAW")


def named(number: int) -> IntentId:
    return IntentId(f"{A}.00000000-0000-4000-8000-{number:012x}")


def body(
    number: int, *selectors: str, requester: str = "ann", to: tuple[Destination, ...] = (B,), **more: object
) -> m.TransferIntent:
    chosen: tuple[Selector, ...] = tuple(parse(s) for s in selectors or (DATASET,))
    return m.TransferIntent(named(number), Text(requester), chosen, to, **more)  # type: ignore[arg-type]


def accepted(wish: m.TransferIntent) -> m.IntentDecided:
    return m.IntentDecided(wish.intent, 1, m.Verdict.ACCEPTED, wish, A, 0, wish.priority)


def written(intent: IntentId, sizes: list[int], no: int = 0, prev: str = "", last: bool = True) -> m.ManifestWritten:
    items = tuple(
        m.Item(lfn, OTHER, Block(f"{OTHER}#b"), lfn, "", size, size, Adler32("00000001"), "v", A)
        for n, size in enumerate(sizes)
        for lfn in [Lfn(f"/store/{no}/{n}.root")]
    )
    return m.ManifestWritten(intent, A, 0, no, prev, "", m.Unit.BYTES, items, last)


def completed(
    of: m.ManifestWritten, where: Site = B, failed: Ranges = EMPTY, cancelled: Ranges = EMPTY
) -> m.CompletionRecord:
    sealed = Ranges([(0, len(of.items))]) - failed - cancelled
    why = m.Reason(m.Scope.SOURCE, m.FailureClass.DATA_BAD, "read", Text("checksum differs"))
    ended = m.Ended.CANCELLED if cancelled else m.Ended.PARTLY if failed else m.Ended.DONE
    size = sum(of.items[n].bytes for n in sealed.numbers())
    groups = (m.FailedItems(failed, why),) if failed else ()
    count = len(of.items)
    return m.CompletionRecord(of.intent, of.manifest, where, ended, count, sealed, groups, cancelled, size, digest(of))


def reported(of: m.ManifestWritten, verified: int) -> m.TransferReported:
    waits = Text("T1_A to answer request 1")
    return m.TransferReported(of.intent, of.manifest, B, 1, "active", verified, 100, 0, 0, len(of.items), waits)


def author(fact: m.Message) -> Site:
    return B if isinstance(fact, m.TransferReported | m.CompletionRecord) else A


def history(number: int) -> list[m.Message]:
    """An intent of three manifests; a file of the first failed, the last is under way."""
    wish = body(number)
    first = written(wish.intent, [10, 20, 0], last=False)
    second = written(wish.intent, [5], 1, digest(first), last=False)
    third = written(wish.intent, [100], 2, digest(second))
    return [
        wish,
        accepted(wish),
        first,
        second,
        third,
        reported(second, 1),
        completed(first, failed=Ranges.of(1)),
        completed(second),
        reported(third, 40),
    ]


@contextmanager
def viewing(settings: Settings, letters: list[m.DeadLetter] | None = None) -> Iterator[View]:
    view = View(settings, settings.datadir, ([] if letters is None else letters).append)
    view.start()
    try:
        yield view
    finally:
        view.stop()


def tell(journal: Journal, *facts: m.Message) -> None:
    for fact in facts:
        journal.say(fact, site=author(fact), at_ms=1_000_000)
    journal.flush()


def folded(facts: list[m.Message], intent: IntentId) -> Snapshot:
    fold = IntentFold(intent, names=None)
    for fact in facts:
        fold.hear(fact, 1_000_000)
    return fold.snapshot()


def test_it_knows_what_folding_in_memory_knows_in_any_order_and_over_stops(
    journal: Journal, settings: Settings
) -> None:
    facts = {number: history(number) for number in range(20)}
    for number, of_one in facts.items():
        chance = random.Random(number)
        of_one += chance.choices(of_one, k=3)
        chance.shuffle(of_one)
    for part in range(3):
        for of_one in facts.values():
            tell(journal, *of_one[part * 4 : part * 4 + 4])
        with viewing(settings) as view:
            assert view._catch_up(view._intent_places, 10)
            for number, of_one in facts.items():
                # Topics are heard in any order among each other, so only what is complete can be compared.
                found = view.intents.snapshot(named(number))
                assert found is not None
                if part == 2:
                    assert found == folded(of_one, named(number)) == folded(history(number), named(number)), number
            assert view.progress.folded == 80
    with viewing(settings) as view:
        assert view._catch_up(view._intent_places, 10)
        assert (view.progress.folded, view.progress.skipped) == (0, 0)


def test_an_ended_intent_leaves_nothing_but_its_head_and_how_it_is_found(journal: Journal, settings: Settings) -> None:
    wish = body(1)
    first = written(wish.intent, [10, 20], last=False)
    second = written(wish.intent, [5], 1, digest(first))
    with viewing(settings) as view:
        tell(journal, wish, second, first, reported(first, 1), completed(second))
        assert view._catch_up(view._intent_places, 10)
        assert list(rows.scan(view._db, intent_rows.CELL)), "manifests wait for the decision"
        tell(journal, accepted(wish), completed(first))
        assert view._catch_up(view._intent_places, 10)
        assert [key for key, _ in rows.scan(view._db, intent_rows.CELL)] == []
        found = view.intents.snapshot(wish.intent)
    assert found is not None
    assert (found.outcome, found.ended, found.files, found.arrived, found.arrived_bytes) == ("done", True, 3, 3, 35)
    assert found.body == wish


def test_failed_items_are_named_by_where_their_manifest_stands(journal: Journal, settings: Settings) -> None:
    wish = body(1)
    first = written(wish.intent, [10, 20])
    tell(journal, completed(first, failed=Ranges.of(1)), first, wish, accepted(wish))
    with viewing(settings) as view:
        assert view._catch_up(view._intent_places, 10)
        places = view.intents.places(wish.intent)
        partition = topics.partition_of(wish.intent, 4)
        assert places == {"000000000.000000000": f"manifests {partition} 0"}
        found = view.intents.snapshot(wish.intent)
        assert found is not None
        assert [(u.lfn, u.reason.text) for u in found.unfinished] == [
            (f"item 1 of {first.manifest}", "checksum differs")
        ]


def ids(view: View, **asked: str) -> list[int]:
    return [int(s.intent[-12:], 16) for s in view.intents.page(**asked).intents]  # type: ignore[arg-type]


def test_listed_by_state_requester_dataset_and_site_newest_first(journal: Journal, settings: Settings) -> None:
    why = m.Reason(m.Scope.POLICY, m.FailureClass.PERMANENT, "decide", Text("no"))
    wishes = {
        1: body(1),
        2: body(2, f"{OTHER}#b1", "/store/x", requester="bob"),
        3: body(3, to=(A,)),
        4: body(4, requester="bob"),
        5: body(5),
    }
    for number, wish in wishes.items():
        journal.say(wish, at_ms=1000 * number)
    refused = m.IntentDecided(named(3), 1, m.Verdict.REFUSED, wishes[3], None, 0, 5, why)
    of_4, of_5 = written(named(4), [1, 2]), written(named(5), [1])
    tell(journal, refused, accepted(wishes[4]), accepted(wishes[5]), of_4, of_5)
    tell(journal, completed(of_4, failed=Ranges.of(0)), completed(of_5))
    with viewing(settings) as view:
        assert view._catch_up(view._intent_places, 10)
        assert ids(view) == [5, 4, 3, 2, 1]
        assert ids(view, state="open") == ids(view, state="asked") == [2, 1]
        assert (ids(view, state="done"), ids(view, state="partly"), ids(view, state="refused")) == ([5], [4], [3])
        assert ids(view, requester="bob") == [4, 2]
        assert ids(view, dataset=OTHER) == [5, 4, 2], "what it names, and what its manifests hold"
        assert ids(view, site=B) == [5, 4, 2, 1]
        assert ids(view, site=A) == [5, 4, 3, 2, 1], "its home is a part of it"
        assert ids(view, site=B, state="asked", requester="bob") == [2]
        assert ids(view, dataset="/No/Such/RAW") == ids(view, requester="bo") == []
        tell(journal, accepted(wishes[1]))
        assert view._catch_up(view._intent_places, 10)
        assert (ids(view, state="asked"), ids(view, state="active"), ids(view, state="open")) == ([2], [1], [2, 1])
        with pytest.raises(UsageError, match="one of: new, asked"):
            view.intents.page(state="gone")
        with pytest.raises(UsageError, match="no cursor"):
            view.intents.page(cursor="x")


def test_pages_join_to_the_whole_list(journal: Journal, settings: Settings) -> None:
    for number in range(57):
        journal.say(body(number, requester="ann" if number % 3 else "bob"), at_ms=1000 * (number // 2))
    journal.flush()
    with viewing(settings) as view:
        assert view._catch_up(view._intent_places, 10)
        for asked in ({}, {"state": "open"}, {"requester": "bob"}, {"requester": "bob", "state": "asked"}):
            cursor: str | None = ""
            found: list[str] = []
            while cursor is not None:
                page = view.intents.page(**asked, cursor=cursor, limit=7)  # type: ignore[arg-type]
                found += [s.intent for s in page.intents]
                cursor = page.cursor
            whole = view.intents.page(**asked, limit=1000)  # type: ignore[arg-type]
            assert (found, whole.cursor) == ([s.intent for s in whole.intents], None)
            assert len(found) == (19 if "requester" in asked else 57)


def test_a_page_over_much_that_does_not_fit_is_short_and_goes_on(
    journal: Journal, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.views.intents.SCANNED_MAX", 10)
    for number in range(40):
        journal.say(body(number, requester="ann" if number else "bob"), at_ms=1000 + number)
    journal.flush()
    with viewing(settings) as view:
        assert view._catch_up(view._intent_places, 10)
        cursor: str | None = ""
        pages: list[list[str]] = []
        while cursor is not None:
            page = view.intents.page(state="asked", requester="bob", cursor=cursor)
            pages.append([s.intent for s in page.intents])
            cursor = page.cursor
        assert (len(pages), [name for names in pages for name in names]) == (4, [named(0)])


def test_what_is_refused_is_skipped_without_a_dead_letter(journal: Journal, settings: Settings) -> None:
    """The site's agents read these topics too, and file one."""
    wish = body(1)
    key = wish.intent.encode()
    for topic in topics.OF_INTENTS:
        for name in (topic, topics.remote(B, topic)):
            journal.put(name, key, b"poison", [("avro-fp", b"12345678")])
            journal.put(name, key, None, [])
    journal.say(replace(written(wish.intent, [1]), source=A), site=B)
    tell(journal, wish, accepted(wish))
    letters: list[m.DeadLetter] = []
    with viewing(settings, letters) as view:
        assert view._catch_up(view._intent_places, 10)
        assert view.catch_up(10)
        found = view.intents.snapshot(wish.intent)
        assert (view.progress.skipped, view.progress.refused, letters) == (21, 0, [])
    assert found is not None
    assert (found.state, found.files) == ("active", 0)


def test_another_layout_of_intents_is_folded_anew_and_replicas_stay(
    journal: Journal, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(journal, *history(1))
    with viewing(settings) as view:
        assert view._catch_up(view._intent_places, 10)
        before = view.intents.snapshot(named(1))
        view._db[intent_rows.head_key(named(2))] = b"of an older layout"
    monkeypatch.setattr("streams.views.view.INTENTS_FORMAT", 1_000)
    with viewing(settings) as view:
        assert view._catch_up(view._intent_places, 10)
        assert view.intents.snapshot(named(1)) == before
        assert view.intents.snapshot(named(2)) is None
        assert view.progress.rebuilt == 0


def test_intents_wait_until_replicas_stand_where_they_did(journal: Journal, settings: Settings) -> None:
    """A home decides by replicas: a long history of intents must not hold them up."""
    for number in range(300):
        journal.say(body(number))
        journal.say(holds(A, held(f"/store/{number}")))
    journal.flush()
    view = View(settings, settings.datadir, print)
    order: list[str] = []

    def noted(hearing: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def hear(message: Any, changes: Any) -> None:
            order.append(message.topic())
            hearing(message, changes)

        return hear

    view._hear, view._hear_intent = noted(view._hear), noted(view._hear_intent)  # type: ignore[method-assign]
    view.start()
    try:
        assert view._catch_up(view._intent_places, 10)
    finally:
        view.stop()
    assert order == sorted(order, key=lambda topic: topic != topics.REPLICAS)
    assert len(order) == 600
