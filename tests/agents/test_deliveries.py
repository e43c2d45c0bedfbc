"""What may be committed: past holes at once, past nothing that is open, and never by the word of an old position."""

from __future__ import annotations

from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from agents.deliveries import Deliveries

PLACE, OTHER = TP("t", 0), TP("t", 1)


def told(*offsets: int) -> Deliveries:
    deliveries = Deliveries()
    deliveries.fetched(PLACE, offsets)
    return deliveries


def test_nothing_is_committable_before_something_is_acknowledged() -> None:
    deliveries = told(3, 4)
    assert deliveries.committable(PLACE) is None
    assert deliveries.committable(OTHER) is None
    deliveries.acknowledged(OTHER, [7])
    assert deliveries.places == (PLACE,)


def test_holes_hold_nothing_up() -> None:
    """Those that transactions leave: one behind each batch of a mirror, and two behind offset 0."""
    deliveries = told(0, 3, 5)
    deliveries.acknowledged(PLACE, [0, 3])
    assert deliveries.committable(PLACE) == 4
    deliveries.acknowledged(PLACE, [5])
    assert deliveries.committable(PLACE) == 6


def test_what_was_fetched_and_never_acknowledged_holds_the_commit() -> None:
    """Seen: records were cleared from their queue, later ones acknowledged in the next rebalance, and all committed."""
    deliveries = told(0, 1, 2, 3)
    deliveries.acknowledged(PLACE, [0, 3])
    assert deliveries.committable(PLACE) == 1
    assert deliveries.unheard(PLACE) == [1, 2]


def test_what_is_delivered_again_holds_nothing_up() -> None:
    """Seen: after a rebalance a partition was heard and never committed again, until the worker was restarted."""
    deliveries = told(0, 1)
    deliveries.acknowledged(PLACE, [0])
    deliveries.begin(1)
    deliveries.acknowledged(PLACE, [0, 1])
    assert deliveries.committable(PLACE) is None, "nothing is read yet at this position"
    deliveries.fetched(PLACE, [0, 1])
    deliveries.acknowledged(PLACE, [0, 0, 1])
    assert deliveries.committable(PLACE) == 2


def test_a_record_that_reached_no_stream_is_found_once_others_pass_it() -> None:
    deliveries = told(0, 1, 2)
    assert deliveries.lost(0.0, 10.0) == {}
    deliveries.acknowledged(PLACE, [0])
    assert deliveries.lost(100.0, 10.0) == {}, "the next is at work, for however long"
    deliveries.acknowledged(PLACE, [2])
    assert deliveries.lost(100.0, 10.0) == {}
    assert deliveries.lost(109.0, 10.0) == {}
    assert deliveries.lost(110.0, 10.0) == {PLACE: 1}
    deliveries.acknowledged(PLACE, [1])
    assert deliveries.lost(111.0, 10.0) == {}


@given(st.data())
def test_a_commit_passes_nothing_open_and_reaches_the_end(data: st.DataObject) -> None:
    """Batches are fetched in order and acknowledged in any order, some twice; positions are set again meanwhile."""
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1)))
    deliveries, done, committed, coming = Deliveries(), set[int](), 0, list(offsets)
    delivered: list[int] = []
    for _ in range(data.draw(st.integers(0, 40))):
        match data.draw(st.sampled_from(("fetch", "acknowledge", "commit", "begin"))):
            case "fetch":
                batch = [coming.pop(0) for _ in range(min(len(coming), 5))]
                deliveries.fetched(PLACE, batch)
                delivered += batch
            case "acknowledge" if delivered:
                offset = data.draw(st.sampled_from(delivered))
                done.add(offset)
                deliveries.acknowledged(PLACE, [offset])
            case "commit":
                committed = max(committed, deliveries.committable(PLACE) or 0)
                assert done >= {offset for offset in offsets if offset < committed}
            case "begin":
                deliveries.begin(deliveries.position_no + 1)
                coming = [offset for offset in offsets if offset >= committed]
    deliveries.fetched(PLACE, coming)
    deliveries.acknowledged(PLACE, offsets)
    assert max(committed, deliveries.committable(PLACE) or 0) == offsets[-1] + 1
    assert deliveries.unheard(PLACE) == []
