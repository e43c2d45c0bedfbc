"""Lies about bytes on their way: what was asked for, served, verified and sealed is held to the step before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import Invariant, Judgement, LogPosition
from streams.core.names import Destination, Site, Text
from streams.core.ranges import EMPTY, Ranges
from tests.audit.history import LATER_MS, START_MS, A, B, C, Federation, item

I2, I4 = Invariant.NO_LIE, Invariant.ONE_EFFECT
WHOLE = Ranges([(0, 300)])
BOTH = Ranges([(0, 2)])
HOUR_MS = 3_600_000


class Transfer:
    """A manifest of two files of 100 and 200 bytes, at B, of which each step is said by itself."""

    def __init__(self, *sites: Site, destinations: tuple[Site, ...] = (B,)) -> None:
        self.world = Federation(*sites)
        body = self.world.ask(1, *destinations)
        self.world.decide(body)
        (self.manifest,) = self.world.write(body, (item("a", 100), item("b", 200)))
        self.name = self.manifest.manifest
        self.world.workers[B].say(m.TransferPlanned(self.name, B, 1, 5, None, (), False, self.manifest))

    def open(self, attempt: int = 1, present: Ranges = EMPTY) -> LogPosition:
        return self.world.planes[B].say(m.PartOpened(self.name, attempt, "disk", present))

    def ask(self, ranges: Ranges = WHOLE, number: int = 1, *, source: Site = A, plane: str = "log") -> LogPosition:
        items = [m.RequestedItem(n, i.lfn, n * 100, i.length, "") for n, i in enumerate(self.manifest.items)]
        end = max(stop for _, stop in ranges)
        if end > 300:
            items.append(m.RequestedItem(2, items[0].lfn, 300, end - 300, ""))
        until_ms = START_MS + 20_000
        request = m.ChunksRequested(self.name, B, source, number, 1, plane, tuple(items), ranges, until_ms)
        return self.world.workers[B].say(request)

    def serve(
        self, ranges: Ranges = WHOLE, number: int = 1, *, to: Destination = B, source: Site = A, plane: str = "log"
    ) -> LogPosition:
        return self.world.planes[source].say(m.ChunksServed(self.name, source, to, number, ranges, ranges.size, plane))

    def tell(
        self, verified: Ranges = WHOLE, sealed: Ranges = BOTH, attempt: int = 1, adopted: Ranges = EMPTY
    ) -> LogPosition:
        told = m.TransferProgress(self.name, B, attempt, "disk", verified, sealed, adopted=adopted)
        return self.world.planes[B].say(told)

    def lose(self, attempt: int = 1) -> LogPosition:
        why = m.Reason(m.Scope.SOURCE, m.FailureClass.DATA_BAD, "seal", Text("checksum differs"))
        return self.world.planes[B].say(m.PartLost(self.name, attempt, why))

    def end(self, sealed: Ranges = BOTH) -> Judgement:
        self.world.complete(self.manifest, B, sealed, BOTH - sealed)
        return self.judge()

    def judge(self, **given: int) -> Judgement:
        self.world.close()
        self.world.mirror()
        return self.world.judge(**given)  # type: ignore[arg-type]


def the_only(judgement: Judgement, words: str, *records: LogPosition, invariant: Invariant = I2) -> None:
    (finding,) = judgement.broken
    assert finding.invariant is invariant
    assert words in finding.words
    assert finding.records[: len(records)] == records


def test_what_is_asked_served_and_verified_is_clean() -> None:
    one = Transfer()
    one.open()
    one.ask()
    one.serve()
    one.tell(Ranges([(0, 100)]), Ranges.of(0))
    one.tell()
    assert one.end().findings == ()


def test_what_was_there_already_need_not_come() -> None:
    one = Transfer()
    one.open(present=BOTH)
    one.tell()
    assert one.end().findings == ()


def test_what_an_earlier_attempt_brought_is_adopted_and_need_not_be_served_again() -> None:
    one = Transfer()
    one.open()
    one.ask(plane="door")
    one.serve(plane="door")
    one.tell(WHOLE, EMPTY)
    one.lose()
    one.open(2)
    one.ask(WHOLE, 2)
    one.serve(Ranges([(200, 300)]), 2)
    one.tell(attempt=2, adopted=Ranges([(0, 200)]))
    assert one.end().findings == ()


def test_nothing_is_adopted_where_nothing_was() -> None:
    one = Transfer()
    one.open()
    one.ask()
    one.serve(Ranges([(200, 300)]))
    told = one.tell(adopted=Ranges([(0, 200)]))
    the_only(one.end(), "positions 0…199 are told as adopted, and nothing was there to adopt from", told)


def test_progress_past_the_end_of_its_manifest() -> None:
    one = Transfer()
    one.open()
    one.ask()
    one.serve()
    place = one.tell(Ranges([(0, 310)]))
    the_only(one.end(), "positions 300…309 are verified, the manifest has 300", place)


def test_an_item_that_does_not_exist() -> None:
    one = Transfer()
    one.open()
    one.ask()
    one.serve()
    one.tell()
    place = one.tell(sealed=Ranges([(0, 3)]))
    the_only(one.end(), "items 2…2 are sealed, the manifest has 2", place)


def test_a_request_or_an_answer_past_the_end() -> None:
    for more in ("asked for", "served"):
        one = Transfer()
        one.open()
        one.ask()
        one.serve()
        beyond = Ranges([(290, 400)])
        place = one.ask(beyond, 2) if more == "asked for" else one.serve(beyond, 2)
        one.tell()
        the_only(one.end(), f"positions 300…399 are {more}, the manifest has 300", place)


def test_sealed_and_not_verified() -> None:
    one = Transfer()
    one.open()
    one.ask()
    one.serve()
    place = one.tell(Ranges([(0, 150)]))
    the_only(one.end(), "items 1 are sealed, and not verified to their end", place)


def test_an_attempt_that_nobody_opened() -> None:
    one = Transfer()
    one.open()
    one.ask()
    one.serve()
    one.tell()
    place = one.tell(attempt=7)
    the_only(one.end(), "progress of attempt 7, which no plane opened", place)


def test_sealed_though_nothing_was_asked_or_served() -> None:
    one = Transfer()
    one.open()
    place = one.tell()
    the_only(one.end(), "positions 0…299 are verified, and were never asked for", place)


def test_a_part_of_it_was_never_asked_for() -> None:
    one = Transfer()
    one.open()
    one.ask(Ranges([(0, 250)]))
    one.serve(Ranges([(0, 250)]))
    one.tell(Ranges([(0, 200)]), Ranges.of(0))
    place = one.tell()
    the_only(one.end(), "positions 250…299 are verified, and were never asked for", place)


def test_what_another_transfer_brought_meanwhile_need_not_come() -> None:
    one = Transfer()
    body = one.world.ask(2, B)
    one.world.decide(body)
    (other,) = one.world.write(body, (item("b", 200), item("a", 100)))
    one.open()
    one.ask(Ranges([(0, 10)]))
    one.serve(Ranges([(0, 10)]))
    one.world.planes[B].say(m.PartOpened(other.manifest, 1, "disk", EMPTY))
    one.world.bring(other, B)
    one.world.planes[B].say(m.TransferProgress(other.manifest, B, 1, "disk", WHOLE, BOTH))
    one.tell()
    assert one.end().broken == ()


def test_served_less_than_is_verified() -> None:
    """By a source that lived on: it said how much it gave."""
    one = Transfer()
    one.open()
    request = one.ask()
    served = one.serve(Ranges([(0, 10)]))
    place = one.tell()
    the_only(
        one.end(), f"positions 10…299 are verified, {A} was asked for them and did not serve", place, request, served
    )


def test_a_second_source_may_have_given_the_rest() -> None:
    one = Transfer()
    one.open()
    one.ask()
    one.serve(Ranges([(0, 10)]))
    one.ask(Ranges([(10, 300)]), 2)
    one.serve(Ranges([(10, 300)]), 2)
    one.tell()
    assert one.end().findings == ()


def test_a_source_that_did_not_say_what_it_served() -> None:
    """A note, since it may have ended before it said so; a finding where it was at work well before and long after."""
    one = Transfer()
    one.open()
    request = one.ask()
    place = one.tell()
    judgement = one.end()
    assert judgement.broken == ()
    (note,) = judgement.notes
    assert "no source says that it served them" in note.words
    assert note.records == (place,)
    meanwhile = one.world.judge(now_ms=START_MS)
    assert not [found for found in meanwhile.findings if "no source says" in found.words]

    one = Transfer()
    one.world.clock_ms += HOUR_MS
    one.open()
    items = tuple(m.RequestedItem(n, i.lfn, n * 100, i.length, "") for n, i in enumerate(one.manifest.items))
    until_ms = one.world.clock_ms + 20_000
    request = one.world.workers[B].say(m.ChunksRequested(one.name, B, A, 1, 1, "log", items, WHOLE, until_ms))
    place = one.tell()
    one.world.clock_ms += HOUR_MS
    one.world.planes[A].announce()
    one.world.complete(one.manifest, B, BOTH)
    later_ms = LATER_MS + 2 * HOUR_MS
    the_only(one.judge(now_ms=later_ms), f"{A} was asked for them and did not serve them", place, request)
    one.world.workers[B].say(m.LeaseExpired(one.name, A, 1, one.world.clock_ms))
    one.world.mirror()
    assert one.world.judge(now_ms=later_ms).broken == (), "the destination gave it up: its source's lease ended too"


def test_what_a_door_gave_is_not_counted_to_the_byte() -> None:
    one = Transfer()
    one.open()
    one.ask(plane="door")
    one.serve(Ranges([(0, 10)]), plane="door")
    one.tell()
    judgement = one.end()
    assert judgement.findings == ()
    assert any("bytes by door" in r.words for r in judgement.unchecked)


def test_of_what_others_gave_by_url_nobody_says_that_it_left() -> None:
    """Its source says where others give it. Less than all, or nothing said: as of any door."""
    one, by_log, part = Transfer(), Transfer(), Transfer()
    for transfer, plane, given in ((one, "urls", WHOLE), (by_log, "log", WHOLE), (part, "urls", Ranges([(0, 10)]))):
        transfer.open()
        transfer.ask(plane="log" if plane == "log" else "door")
        transfer.serve(given, plane=plane)
        transfer.tell()
    judgement = one.end()
    assert judgement.findings == ()
    assert judgement.unchecked == by_log.end().unchecked
    judgement = part.end()
    assert judgement.findings == ()
    assert any("bytes by door" in r.words for r in judgement.unchecked)


def test_urls_of_what_nobody_asked_for_are_named() -> None:
    one = Transfer()
    one.open()
    one.ask(Ranges([(0, 100)]), plane="door")
    place = one.serve(plane="urls")
    one.tell(Ranges([(0, 100)]), Ranges.of(0))
    words = f"{A} served positions 100…299 of {one.name} at {B}, and was never asked"
    the_only(one.end(Ranges.of(0)), words, place)


def test_urls_of_what_the_manifest_does_not_have_are_named() -> None:
    one = Transfer()
    one.open()
    one.ask(plane="door")
    place = one.serve(Ranges([(0, 400)]), plane="urls")
    one.tell()
    the_only(one.end(), "positions 300…399 are offered by URL, the manifest has 300", place)


def test_served_to_who_never_asked() -> None:
    one = Transfer()
    one.open()
    one.ask(Ranges([(0, 100)]))
    place = one.serve()
    one.tell(Ranges([(0, 100)]), Ranges.of(0))
    the_only(one.end(Ranges.of(0)), f"{A} served positions 100…299 of {one.name} at {B}, and was never asked", place)


def test_served_to_a_site_that_is_no_destination() -> None:
    one = Transfer(A, B, C)
    one.open()
    one.ask()
    one.serve()
    one.tell()
    place = one.serve(to=C)
    found = one.end().broken
    assert {(f.invariant, f.records[0]) for f in found} == {(I2, place), (I4, place)}
    assert any(f"ChunksServed of {one.name} at {C}, which is no destination" in f.words for f in found)


def test_asked_of_a_site_that_is_not_named() -> None:
    one = Transfer(A, B, C)
    one.open()
    place = one.ask(source=C)
    one.serve(source=C)
    one.tell()
    the_only(one.end(), f"{C} is asked for positions 0…299, and is not named as their holder", place)


def test_of_a_tool_nobody_says_that_it_served() -> None:
    """Asked and verified is all that there is; its source's silence proves nothing, and is no gap of the audit."""
    one, by_log = Transfer(), Transfer()
    for transfer, plane in ((one, "tool-xrdcp"), (by_log, "log")):
        transfer.open()
        transfer.ask(plane=plane)
        if plane == "log":
            transfer.serve()
        transfer.tell()
    judgement = one.end()
    assert judgement.findings == ()
    assert judgement.unchecked == by_log.end().unchecked


def test_what_a_tool_brought_unasked_is_named() -> None:
    one = Transfer()
    one.open()
    one.ask(Ranges([(0, 100)]), plane="tool-xrdcp")
    place = one.tell()
    the_only(one.end(), "positions 100…299 are verified, and were never asked for", place)


def test_a_tool_is_asked_only_for_what_its_source_holds() -> None:
    one = Transfer(A, B, C)
    one.open()
    place = one.ask(source=C, plane="tool-xrdcp")
    one.tell()
    the_only(one.end(), f"{C} is asked for positions 0…299, and is not named as their holder", place)


def test_another_destination_may_be_asked_by_door_and_by_nothing_else() -> None:
    """It gives on what it gets itself."""
    for plane in ("door", "log"):
        one = Transfer(A, B, C, destinations=(B, C))
        one.open()
        place = one.ask(source=C, plane=plane)
        one.serve(source=C, plane=plane)
        one.tell()
        judged = one.end()
        named = [f for f in judged.broken if "is not named as their holder" in f.words]
        assert [f.records[0] for f in named] == ([] if plane == "door" else [place])


def test_who_gets_it_cannot_be_told_where_decisions_were_not_read() -> None:
    one = Transfer(A, B, C, destinations=(B, C))
    one.open()
    one.ask(source=C, plane="door")
    one.serve(source=C, plane="door")
    one.tell()
    one.world.close()
    one.world.mirror()
    for key in [key for key in one.world.logs if topics.split(key[1])[1] == topics.DECISIONS]:
        one.world.logs[key].clear()
    judged = one.world.judge(read=(B, C))
    assert not [f for f in judged.broken if "is not named as their holder" in f.words]
    assert any("its decisions were not read" in r.words for r in judged.unchecked)


def test_further_holders_are_named_by_the_manifest() -> None:
    for others in ((), (C,)):
        one = Transfer(A, B, C)
        for item_ in one.manifest.items:
            held = m.HeldFile(item_.lfn, item_.block, item_.bytes, item_.adler32, "")  # type: ignore[arg-type]
            one.world.writer(C, "register", "cli").say(m.FilesHeld(item_.dataset, C, (held,)))
        place = one.world.where(A, topics.MANIFESTS)[0]
        items = tuple(replace(item_, others=others) for item_ in one.manifest.items)
        one.world.forge(place, replace(one.manifest, items=items))
        one.open()
        one.ask(Ranges([(0, 150)]))
        one.serve(Ranges([(0, 150)]))
        one.ask(Ranges([(150, 300)]), source=C, plane="door")
        one.serve(Ranges([(150, 300)]), source=C, plane="door")
        one.tell()
        assert len(one.end().broken) == (0 if others else 1)


def test_a_site_that_was_not_read_proves_nothing() -> None:
    one = Transfer()
    one.open()
    one.tell()
    one.end()
    judgement = one.world.judge(read=[A])
    assert judgement.broken == ()
    assert any("what T2_B asked for and verified: not read" in r.words for r in judgement.unchecked)


@pytest.mark.parametrize("rival_first", [True, False])
def test_of_rival_manifests_the_one_that_the_completion_names_has_the_line(rival_first: bool) -> None:
    one = Transfer()
    rival = replace(one.manifest, items=one.manifest.items[:1])
    if rival_first:
        (place,) = one.world.where(A, topics.MANIFESTS)
        one.world.forge(place, rival)
        one.world.planes[A].say(one.manifest)
    else:
        one.world.planes[A].say(rival)
    one.open()
    one.ask()
    one.serve()
    one.tell()
    found = [f.words for f in one.end().broken]
    assert not any("the manifest has" in words and "verified" in words for words in found), found


BREAKS: list[Callable[[Transfer], object]] = [
    lambda one: one.tell(Ranges([(0, 310)])),
    lambda one: one.tell(attempt=3),
    lambda one: one.serve(number=3, to=C),
    lambda one: one.ask(Ranges([(0, 5)]), 4, source=B),
]


@pytest.mark.parametrize("hurt", BREAKS)
def test_partitions_in_any_order_and_twice_say_the_same(hurt: Callable[[Transfer], object]) -> None:
    one = Transfer(A, B, C)
    one.open()
    one.ask()
    one.serve()
    one.tell()
    hurt(one)
    one.end()
    facts = list(one.world.facts())
    by_partition: dict[tuple[str, str, int], list[object]] = {}
    for fact in facts:
        by_partition.setdefault(fact[0][:3], []).append(fact)
    straight = one.world.judge()
    backwards = [fact for key in reversed(by_partition) for fact in by_partition[key]]
    assert straight.broken
    assert one.world.judge(backwards).findings == straight.findings  # type: ignore[arg-type]
    assert one.world.judge([*facts, *facts]).findings == straight.findings
