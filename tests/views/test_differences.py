"""What came, went and changed between two catalogues: as two dictionaries would tell it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import records as m
from streams.core.names import Adler32, Block, Dataset, Lfn, Site, Text
from streams.views import scratch
from streams.views.differences import Change, differences
from streams.views.folding import Changes

SITES = (Site("T1_A"), Site("T2_B"))
DATASETS = (Dataset("/P/R/AOD"), Dataset("/P/R/RAW"))
GONE = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "read", Text("gone"))

Event = tuple[bool, int, int, int, int]
"""Whether it is held from now on; file, dataset, site, and its size."""
Place = tuple[str, Dataset, Site]
events = st.lists(
    st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 1), st.integers(0, 1), st.integers(1, 2)), max_size=25
)


def named(event: Event) -> Place:
    _, file, dataset, site, _ = event
    return f"/store/{file}", DATASETS[dataset], SITES[site]


def folded(db: object, told: list[Event]) -> dict[Place, int]:
    held: dict[Place, int] = {}
    changes = Changes(db)
    for number, event in enumerate(told):
        lfn, dataset, site = named(event)
        if event[0]:
            file = m.HeldFile(Lfn(lfn), Block(f"{dataset}#b"), event[4], Adler32("0000000a"), "v")
            changes.hold(m.FilesHeld(dataset, site, (file,)), f"word-{number}")
            held[lfn, dataset, site] = event[4]
        else:
            changes.lose(m.FilesLost(dataset, site, (Lfn(lfn),), GONE))
            held.pop((lfn, dataset, site), None)
    changes.write()
    return held


@settings(max_examples=40, deadline=None, derandomize=True)
@given(told=events, cut=st.integers(0, 25), dataset=st.sampled_from((None, *DATASETS)), behind=st.integers(-1, 3))
def test_as_two_dictionaries_would_tell_it(told: list[Event], cut: int, dataset: Dataset | None, behind: int) -> None:
    after = "" if behind < 0 else f"/store/{behind}"
    with scratch.database() as old, scratch.database() as new:
        was, now = folded(old, told[:cut]), folded(new, told)
        found = {
            (one.lfn, one.entry.dataset, one.entry.site): one.change
            for one in differences(old, new, dataset=dataset, behind=after)
        }
    wanted = {
        place: Change.CAME if place not in was else Change.WENT if place not in now else Change.CHANGED
        for place in was.keys() | now.keys()
        if was.get(place) != now.get(place) and dataset in (None, place[1]) and place[0] > after
    }
    assert found == wanted


def test_names_that_begin_alike_are_behind_one_another() -> None:
    """A page ends with a file, not with all whose names begin with its."""
    with scratch.database() as old, scratch.database() as new:
        changes = Changes(new)
        names = ("/store/a", "/store/a+b", "/store/a/b", "/store/ab")
        for lfn in names:
            file = m.HeldFile(Lfn(lfn), Block(f"{DATASETS[0]}#b"), 1, Adler32("0000000a"), "v")
            changes.hold(m.FilesHeld(DATASETS[0], SITES[0], (file,)), "word")
        changes.write()
        seen, behind = [], ""
        while (one := next(differences(old, new, behind=behind), None)) is not None:
            seen.append(one.lfn)
            behind = one.lfn
    assert tuple(seen) == names
