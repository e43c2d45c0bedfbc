"""I11 for the ledger: any order between partitions and any repeats, the same findings; and its sets and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import Judgement, LogPosition
from streams.core.ledger.numbering import Class, Stream, StreamId
from streams.core.ledger.rows import MemoryRows
from streams.core.ledger.spans import SpanSet
from streams.core.ledger.tags import Tags
from streams.core.names import Text
from streams.core.ranges import EMPTY, Ranges
from tests.audit.history import A, B, C, Federation, Rec, healthy


def _lost_copy(world: Federation) -> None:
    world.drop(world.where(A, f"{B}.{topics.COMPLETIONS}")[0])


def _forged_copy(world: Federation) -> None:
    copy = world.where(A, f"{B}.{topics.REPORTS}")[0]
    report = world.decoded(copy, world.at(copy)).message
    assert isinstance(report, m.TransferReported)
    world.forge(copy, replace(report, waits_for=Text("a lie")))


def _contradiction(world: Federation) -> None:
    done = world.decoded(*world.records(B, topics.COMPLETIONS)[0]).message
    assert isinstance(done, m.CompletionRecord)
    cancelled = Ranges([(0, done.items)])
    other = replace(done, ended=m.Ended.CANCELLED, sealed=EMPTY, failed=(), cancelled=cancelled, bytes=0)
    world.writer(B, "again", "worker").say(other)
    world.mirror()


def _second_body(world: Federation) -> None:
    body = world.decoded(*world.records(A, topics.INTENTS)[0]).message
    assert isinstance(body, m.TransferIntent)
    world.cli.say(replace(body, priority=9))
    world.workers[A].announce()
    world.mirror()


def _old_attempt(world: Federation) -> None:
    progress = world.decoded(*world.records(B, topics.CHUNK_EVENTS)[0]).message
    assert isinstance(progress, m.TransferProgress)
    late = world.writer(B, "late", "plane")
    late.say(m.PartOpened(progress.manifest, 3, "disk", EMPTY))
    late.say(replace(progress, attempt=3))
    late.say(replace(progress, attempt=2))


def _healthy(world: Federation) -> None:
    pass


BREAKS = [_healthy, _lost_copy, _forged_copy, _contradiction, _second_body, _old_attempt]


def _interleaved(world: Federation, order: list[int]) -> Iterator[tuple[LogPosition, Rec]]:
    """The facts with partitions taken in turns as `order` says, each partition in its own order."""
    queues = [[(LogPosition(*key, offset), rec) for offset, rec in world.logs[key]] for key in world.partitions()]
    for number in order:
        if queues:
            queue = queues[number % len(queues)]
            yield queue.pop(0)
            if not queue:
                queues.remove(queue)
    for queue in queues:
        yield from queue


@pytest.mark.parametrize("hurt", BREAKS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(order=st.lists(st.integers(0, 1000), max_size=200), again=st.lists(st.integers(0, 1000), max_size=5))
def test_any_order_and_any_repeats_judge_alike(
    hurt: Callable[[Federation], None], order: list[int], again: list[int]
) -> None:
    world = healthy(A, B, C)
    hurt(world)
    straight = world.judge()
    facts = list(_interleaved(world, order))
    for number in again:  # a partition is read once more from somewhere on
        place, _ = facts[number % len(facts)]
        facts += [(p, r) for p, r in facts if p[:3] == place[:3] and p.offset >= place.offset]
    assert world.judge(facts) == straight


def _told(judgement: Judgement) -> list[tuple[str, str]]:
    return [(f.invariant, f.words) for f in judgement.findings]


@pytest.mark.parametrize("hurt", BREAKS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(repeats=st.lists(st.integers(0, 1000), max_size=20))
def test_a_mirror_that_repeats_changes_no_finding(hurt: Callable[[Federation], None], repeats: list[int]) -> None:
    world = healthy(A, B, C)
    hurt(world)
    before = _told(world.judge())
    copies = [key for key in world.partitions() if "." in key[1]]
    for number in repeats:
        key = copies[number % len(copies)]
        log = world.logs[key]
        if log:
            world.append(*key, log[number % len(log)][1])
    assert _told(world.judge()) == before


@given(numbers=st.lists(st.integers(0, 40)))
def test_span_sets_are_sets(numbers: list[int]) -> None:
    spans, seen = SpanSet(), set()
    for number in numbers:
        assert spans.add(number) is (number not in seen)
        seen.add(number)
    assert spans.ranges == Ranges.of(*seen)
    assert spans.size == len(seen)
    assert spans.last == max(seen, default=-1)
    assert [n in spans for n in range(42)] == [n in seen for n in range(42)]


@given(numbers=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 3)), max_size=60))
def test_streams_remember_contents_wherever_numbers_jump(numbers: list[tuple[int, int]]) -> None:
    stream, known = Stream(StreamId(A, "i", "t", 0), "w", Tags(MemoryRows()), b"s"), {}
    for seq, content in numbers:
        is_first = seq not in known
        assert stream.note(seq, content) is (known.setdefault(seq, content) != content or is_first)
        assert stream.copies[A].add(seq) is is_first
        stream.classify(seq, Class(content))
    for seq, content in known.items():
        assert stream.knows(seq, content)
        assert not stream.knows(seq, content + 10)
    last = dict(numbers)
    for how in (Class.APPLIED, Class.DUPLICATE, Class.SUPERSEDED):
        assert stream.count(how, A) == sum(1 for content in last.values() if content == how)
