"""A consumer's way through its intent, without a log: what is handed out, asked for and told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import records as m
from streams.core.intent import State
from streams.core.manifest import digest
from streams.core.names import Block, Dataset, Destination, IntentId, Lfn, ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.readers.ordered import OrderedReader
from streams.core.readers.reader import Known
from streams.core.readers.window import Ask, FetchWindow
from streams.core.selectors import Kind, Selector
from streams.errors import NeverWorks, PartlyDone, UsageError

A, ZPEAK = Site("T1_A"), Destination("T2_B/zpeak")
INTENT = IntentId("T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab")
DATASET = Dataset("/P/Q/TIER-PART")
LEASE_MS = 20_000
GONE = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "read", Text("gone"))
AWAY = m.Reason(m.Scope.SOURCE, m.FailureClass.TRANSIENT, "read", Text("the store is away"))
RETRY_MS = 10_000


def item(n: int, length: int, reason: m.Reason | None = None, entry_bytes: int = 10) -> m.Item:
    lfn = Lfn(f"/store/{n}.root")
    holder = None if reason else A
    size = length * entry_bytes
    block = Block(f"{DATASET}#b")
    return m.Item(lfn, DATASET, block, Lfn(f"{lfn}.x.parquet"), "entries:E", length, size, None, "v", holder, reason)


def written(no: int, items: tuple[m.Item, ...], last: bool, before: m.ManifestWritten | None) -> m.ManifestWritten:
    sha256 = "" if before is None else digest(before)
    return m.ManifestWritten(INTENT, A, 0, no, sha256, "", m.Unit.ENTRIES, items, last)


def ordered(*lots: tuple[m.Item, ...], ahead_bytes: int = 10_000, position: str | None = None) -> OrderedReader:
    known = Known(INTENT)
    body = m.TransferIntent(INTENT, Text(""), (Selector(Kind.FILE, "/store/0.root"),), (ZPEAK,), selection="entries:E")
    chain: list[m.ManifestWritten] = []
    for no, items in enumerate(lots):
        chain.append(written(no, items, no == len(lots) - 1, chain[-1] if chain else None))
    decided = m.IntentDecided(INTENT, 1, m.Verdict.ACCEPTED, body, A, 0, 5)
    for fact in (*reversed(chain), decided, body):  # mirrors keep no order between topics
        known.hear(fact, 0)
    found = OrderedReader(known, ZPEAK, ahead_bytes, position)
    for manifest in found.new():
        found.enter(manifest, [], 1)
    return found


def payload(
    window: FetchWindow, start: int, stop: int, reason: m.Reason | None = None, *, request_no: int = 1
) -> tuple[m.ChunkHeader, m.Segment, bytes]:
    """A segment as its source cuts it; the payload tells which positions it holds."""
    piece = next(window.manifest.line.pieces(start, stop))
    size = 0 if reason else 1
    segment = m.Segment(piece.item, piece.offset, piece.length, size, None if reason else 1, reason, "f")
    stop = start + piece.length
    header = m.ChunkHeader(window.manifest.body.manifest, ZPEAK, request_no, start, stop, (segment,), True)
    return header, segment, f"{start}-{stop}".encode()


def serve(found: OrderedReader, window: FetchWindow, ranges: Ranges, cut: int = 7) -> None:
    for start, stop in ranges:
        at = start
        while at < stop:
            header, segment, data = payload(window, at, min(stop, at + cut))
            found.take(header, segment, data, 0, LEASE_MS)
            at = header.stop


def read(found: OrderedReader) -> list[tuple[int, int, int]]:
    """(manifest, start, stop) of all that can be handed out now."""
    out = []
    while (came := found.next()) is not None:
        row, piece, start = came
        out.append((row.id.no, start, piece.stop))
    return out


def said(found: OrderedReader) -> list[m.TransferProgress | m.CompletionRecord]:
    """All that is owed, heard back as it is said, until nothing is."""
    out: list[m.TransferProgress | m.CompletionRecord] = []
    while told := found.tells():
        out += told
        for message in told:
            if isinstance(message, m.TransferProgress):
                found.hear_progress(message)
            else:
                found.known.hear(message, 0)
    return out


def test_everything_comes_once_and_in_order() -> None:
    found = ordered((item(0, 20), item(1, 0, GONE), item(2, 30)), (item(3, 5),))
    seen: list[tuple[int, int, int]] = []
    while not found.over:
        found.worked()
        for window, source, ranges in found.asks(0, LEASE_MS):
            assert source == A
            serve(found, window, ranges)
        seen += read(found)
    found.worked()
    assert [(no, s) for no, s, _ in seen] == sorted((no, s) for no, s, _ in seen)
    assert Ranges((s, e) for no, s, e in seen if no == 0) == Ranges([(0, 50)])
    assert sum(e - s for _, s, e in seen) == 55
    ends = [word for word in said(found) if isinstance(word, m.CompletionRecord)]
    assert [(end.ended, end.sealed, end.bytes) for end in ends] == [
        (m.Ended.PARTLY, Ranges.of(0, 2), 500),
        (m.Ended.DONE, Ranges.of(0), 50),
    ]
    assert not found.tells(), "last words are said once"
    assert found.failed() == [(Lfn("/store/1.root"), GONE)]


def test_no_more_is_asked_for_than_may_be_ahead() -> None:
    found = ordered((item(0, 1000),), ahead_bytes=1000)  # 100 entries
    asked = found.asks(0, LEASE_MS)
    assert sum(ranges.size for _, _, ranges in asked) == 100
    for window, _, ranges in asked:
        serve(found, window, ranges, cut=50)
    assert not found.asks(0, LEASE_MS), "it is here, not worked on"
    assert found.next() is not None
    found.worked()
    assert [ranges.size for _, _, ranges in found.asks(0, LEASE_MS)] == [25], "a share, where there is room for it"


def test_what_does_not_come_is_asked_again_and_what_came_is_not() -> None:
    found = ordered((item(0, 40),))
    (window, _, ranges), *_ = found.asks(0, LEASE_MS)
    assert ranges == Ranges([(0, 40)])
    serve(found, window, Ranges([(7, 14)]))
    assert not found.asks(LEASE_MS - 1, LEASE_MS)
    again = found.asks(LEASE_MS, LEASE_MS)
    assert [ranges for _, _, ranges in again] == [Ranges([(0, 7)]), Ranges([(14, 40)])]


def test_a_lease_lasts_while_payload_comes() -> None:
    found = ordered((item(0, 40),))
    (window, _, _), *_ = found.asks(0, LEASE_MS)
    header, segment, data = payload(window, 0, 10)
    found.take(header, segment, data, LEASE_MS - 1, LEASE_MS)
    assert not found.asks(2 * LEASE_MS - 2, LEASE_MS)
    assert found.asks(2 * LEASE_MS - 1, LEASE_MS)


def test_payload_cut_otherwise_is_handed_out_from_where_it_is_new() -> None:
    found = ordered((item(0, 40),))
    (window,) = found.windows(ManifestId.of(INTENT, 0, 0))
    found.asks(0, LEASE_MS)
    serve(found, window, Ranges([(0, 10)]), cut=10)
    assert read(found) == [(0, 0, 10)]
    serve(found, window, Ranges([(5, 25)]), cut=20)
    assert read(found) == [(0, 10, 25)]


def test_an_item_that_fails_midway_is_passed_and_told() -> None:
    found = ordered((item(0, 10), item(1, 10), item(2, 10)))
    (window, _, _), *_ = found.asks(0, LEASE_MS)
    serve(found, window, Ranges([(0, 14)]), cut=10)
    assert read(found) == [(0, 0, 10), (0, 10, 14)]
    found.take(*payload(window, 14, 20, GONE), 0, LEASE_MS)
    serve(found, window, Ranges([(20, 30)]), cut=10)
    assert read(found) == []
    assert found.waits_for() == "the log of T2_B to take what failed"
    found.worked()
    (failed,) = said(found)
    assert isinstance(failed, m.TransferProgress)
    assert failed.failed == (m.FailedItems(Ranges.of(1), GONE),)
    assert read(found) == [(0, 20, 30)], "only then: a position behind it would stand for it"
    found.worked()
    progress, completion = said(found)
    assert isinstance(progress, m.TransferProgress)
    assert (progress.verified, progress.sealed) == (Ranges([(0, 30)]), Ranges.of(0, 2))
    assert isinstance(completion, m.CompletionRecord)
    assert completion.failed == (m.FailedItems(Ranges.of(1), GONE),)


def test_what_a_source_cannot_read_now_is_asked_again_after_a_pause_and_fails_nothing() -> None:
    found = ordered((item(0, 10), item(1, 10), item(2, 10)))
    ((window, _, ranges),) = found.asks(0, LEASE_MS, RETRY_MS)
    Ask(window, A, ranges).sent(7)
    serve(found, window, Ranges([(0, 10)]), cut=10)
    found.take(*payload(window, 10, 20, AWAY, request_no=7), 100, LEASE_MS)
    serve(found, window, Ranges([(20, 30)]), cut=10)
    assert not found.failed()
    assert not window.asked, "all of the request was answered"
    assert read(found) == [(0, 0, 10)], "in order: what follows waits"
    assert not found.asks(100 + RETRY_MS - 1, LEASE_MS, RETRY_MS)
    assert found.waits_for() == (
        "T1_A to read /store/1.root, which it could not (the store is away); it is asked again every 10 s"
    )
    assert [ranges for _, _, ranges in found.asks(100 + RETRY_MS, LEASE_MS, RETRY_MS)] == [Ranges([(10, 20)])]
    serve(found, window, Ranges([(10, 20)]), cut=10)
    assert read(found) == [(0, 10, 20), (0, 20, 30)]
    found.worked()
    assert [word.ended for word in said(found) if isinstance(word, m.CompletionRecord)] == [m.Ended.DONE]
    assert not window.refused


def test_other_items_are_asked_for_while_one_cannot_be_read() -> None:
    found = ordered((item(0, 100), item(1, 100), item(2, 100)), ahead_bytes=1200)  # 120 entries, in requests of 30
    (window, _, first), *_ = found.asks(0, LEASE_MS, RETRY_MS)
    Ask(window, A, first).sent(7)
    found.take(*payload(window, 0, 30, AWAY, request_no=7), 0, LEASE_MS)
    assert not found.asks(1, LEASE_MS, RETRY_MS), "what is put off keeps its room"
    serve(found, window, Ranges([(30, 100)]), cut=10)
    assert found.open
    again = [ranges for _, _, ranges in found.asks(RETRY_MS, LEASE_MS, RETRY_MS)]
    assert again == [Ranges([(0, 30)])]
    small = ordered((item(0, 10), item(1, 100), item(2, 100)), ahead_bytes=1200)
    (window, _, first), *_ = small.asks(0, LEASE_MS, RETRY_MS)
    Ask(window, A, first).sent(7)
    small.take(*payload(window, 0, 10, AWAY, request_no=7), 0, LEASE_MS)
    serve(small, window, Ranges([(10, 120)]), cut=10)
    assert not small.asks(RETRY_MS - 1, LEASE_MS, RETRY_MS), "as much is here as may be"
    assert [r for _, _, r in small.asks(RETRY_MS, LEASE_MS, RETRY_MS)] == [Ranges([(0, 10)])], "though it is full"


def test_a_hole_is_asked_for_again_though_all_room_is_taken() -> None:
    """Segments behind it wait for it: without it no room would ever come free."""
    found = ordered((item(0, 1000),), ahead_bytes=1000)
    for window, _, ranges in found.asks(0, LEASE_MS):
        serve(found, window, ranges - Ranges([(10, 15)]), cut=5)
    assert len(read(found)) == 2
    found.worked()
    assert [ranges for _, _, ranges in found.asks(LEASE_MS, LEASE_MS)] == [Ranges([(10, 15)])]


def test_nothing_more_comes_of_a_request_behind_its_last_record() -> None:
    """A segment whose bytes differ, or that an older source left out."""
    found = ordered((item(0, 20), item(1, 20)))
    ((window, _, ranges),) = found.asks(0, LEASE_MS, RETRY_MS)
    Ask(window, A, ranges).sent(7)
    serve(found, window, Ranges([(0, 10), (20, 40)]), cut=10)
    header, _, _ = payload(window, 20, 40, request_no=8)
    found.served(header, 50)
    assert window.asked, "of another request"
    found.served(replace(header, request_no=7), 50)
    assert not window.asked
    assert not found.asks(50 + RETRY_MS - 1, LEASE_MS, RETRY_MS)
    assert found.waits_for() == "T1_A to send the rest of /store/0.root; it is asked again every 10 s"
    assert [ranges for _, _, ranges in found.asks(50 + RETRY_MS, LEASE_MS, RETRY_MS)] == [Ranges([(10, 20)])]


def test_an_older_answer_that_a_source_cannot_read_takes_nothing_from_a_later_request() -> None:
    found = ordered((item(0, 20),))
    ((window, _, ranges),) = found.asks(0, LEASE_MS, RETRY_MS)
    Ask(window, A, ranges).sent(8)
    found.take(*payload(window, 0, 20, AWAY, request_no=7), 0, LEASE_MS)
    assert [asked.ranges for asked in window.asked] == [Ranges([(0, 20)])]
    serve(found, window, Ranges([(0, 20)]), cut=20)
    assert not window.refused, "it could be read"


def test_a_report_says_which_source_cannot_read() -> None:
    found = ordered((item(0, 20),))
    ((window, _, ranges),) = found.asks(0, LEASE_MS, RETRY_MS)
    Ask(window, A, ranges).sent(7)
    (came,) = found.reports(RETRY_MS)
    assert (came.verified, came.waits_for) == (0, f"{ZPEAK} to read on")
    assert not found.reports(RETRY_MS)
    found.take(*payload(window, 0, 20, AWAY, request_no=7), 0, LEASE_MS)
    (report,) = found.reports(RETRY_MS)
    assert report.waits_for.startswith("T1_A to read /store/0.root")
    assert (report.reason, report.failed) == (AWAY, 0)
    assert not found.reports(RETRY_MS), "it is no news"
    serve(found, window, Ranges([(0, 20)]), cut=20)
    (report,) = found.reports(RETRY_MS)
    assert (report.waits_for, report.reason) == (f"{ZPEAK} to read on", None)


def test_what_could_not_be_sent_is_asked_for_at_once() -> None:
    found = ordered((item(0, 20),))
    ((window, _, ranges),) = found.asks(0, LEASE_MS)
    Ask(window, A, ranges).unsent()
    assert [ranges for _, _, ranges in found.asks(0, LEASE_MS)] == [Ranges([(0, 20)])]


def test_only_what_was_worked_on_is_told() -> None:
    found = ordered((item(0, 20),))
    (window, _, _), *_ = found.asks(0, LEASE_MS)
    serve(found, window, Ranges([(0, 20)]), cut=10)
    assert found.next() is not None
    assert not found.tells()
    found.worked()
    assert found.next() is not None
    (progress,) = found.tells()
    assert isinstance(progress, m.TransferProgress)
    assert progress.verified == Ranges([(0, 10)])


def test_a_later_process_goes_on_where_the_log_says() -> None:
    first = ordered((item(0, 20),), (item(1, 20),))
    told = m.TransferProgress(
        next(iter(first.open)), ZPEAK, 1, "stream", Ranges([(0, 12)]), Ranges(), (m.FailedItems(Ranges.of(0), GONE),)
    )
    later = OrderedReader(first.known, ZPEAK, 10_000, None)
    bodies = [row.manifest.body for row in first.open.values()]
    for body in bodies:
        later.enter(body, [told] if body.no == 0 else [], 2)
    assert [ranges for _, _, ranges in later.asks(0, LEASE_MS)] == [Ranges([(0, 20)])], "what failed stays failed"
    assert later.failed() == [(Lfn("/store/0.root"), GONE)]
    whole = OrderedReader(first.known, ZPEAK, 10_000, None)
    for body in bodies:
        whole.enter(body, [replace(told, failed=())] if body.no == 0 else [], 2)
    assert [r for window, _, r in whole.asks(0, LEASE_MS) if window.manifest.body.no == 0] == [Ranges([(12, 20)])]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(0, 100),
    st.integers(1, 12),
)
def test_a_position_given_back_repeats_nothing_and_leaves_nothing_out(
    lots: list[list[int]], batches: int, cut: int
) -> None:
    """Whatever the cuts were before the crash, and are after it."""
    made = [tuple(item(10 * no + n, length) for n, length in enumerate(lengths)) for no, lengths in enumerate(lots)]
    whole = [(no, at) for no, lengths in enumerate(lots) for at in range(sum(lengths))]

    def run(found: OrderedReader, most: int, cut: int) -> tuple[list[tuple[int, int]], str | None]:
        seen: list[tuple[int, int]] = []
        position = None
        while not found.over and most:
            found.worked()
            for window, _, ranges in found.asks(0, LEASE_MS):
                serve(found, window, ranges, cut)
            while most and (came := found.next()) is not None:
                row, piece, start = came
                seen += [(row.id.no, at) for at in range(start, piece.stop)]
                position, most = found.position(), most - 1
        return seen, position

    seen, position = run(ordered(*made, ahead_bytes=200), batches, cut)
    rest, _ = run(ordered(*made, ahead_bytes=200, position=position), 10_000, 13 - cut)
    assert seen + rest == whole


def test_a_position_of_another_intent_is_refused() -> None:
    with pytest.raises(UsageError, match="position"):
        ordered((item(0, 1),), position="T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ff.0.0@3")
    with pytest.raises(UsageError, match="not a position"):
        ordered((item(0, 1),), position="here")


def test_of_manifests_that_ended_only_what_failed_is_kept() -> None:
    first = ordered(*[(item(n, 20),) for n in range(50)])
    assert not first.known.new, "who reads it keeps it"
    found = OrderedReader(first.known, ZPEAK, 10_000, None)
    for body in [row.manifest.body for row in first.open.values()]:
        failed = (m.FailedItems(Ranges.of(0), GONE),) if body.no == 7 else ()
        done = EMPTY if failed else Ranges([(0, 20)])
        found.enter(body, [m.TransferProgress(body.manifest, ZPEAK, 1, "stream", done, EMPTY, failed)], 2)
    assert len(found.open) == 50
    for word in found.tells():
        assert isinstance(word, m.CompletionRecord)
        found.known.hear(word, 0)
    assert not found.tells()
    assert not found.open
    assert not found._windows
    assert not found.known.written_ms
    assert found.over
    assert found.failed() == [(Lfn("/store/7.root"), GONE)]
    with pytest.raises(PartlyDone, match=r"/store/7\.root"):
        found.check_end("not all could be read")


def test_a_cancelled_intent_is_over_and_told_as_cancelled() -> None:
    found = ordered((item(0, 20),))
    body = found.known.row.body
    assert body is not None
    found.known.hear(m.IntentDecided(INTENT, 2, m.Verdict.CANCELLED, body, A, 0, 5, GONE), 0)
    assert found.over
    assert found.state is State.CANCELLED
    (completion,) = said(found)
    assert isinstance(completion, m.CompletionRecord)
    assert (completion.ended, completion.cancelled) == (m.Ended.CANCELLED, Ranges.of(0))


def test_a_name_that_workers_share_is_not_read_as_a_stream() -> None:
    found = ordered((item(0, 10),))
    (row,) = found.open.values()
    known, body = found.known, row.manifest.body
    theirs = m.TransferProgress(row.id, ZPEAK, 1, "pool", Ranges([(5, 10)]), Ranges())
    with pytest.raises(NeverWorks, match="workers share T2_B/zpeak"):
        OrderedReader(known, ZPEAK, 1000, None).enter(body, [theirs], 1)
