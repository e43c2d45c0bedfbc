"""A removal is an intent without manifests: its parts are closed by the last words of its sites, in any order."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from streams.core import records as m
from streams.core.intent import State
from streams.core.names import Dataset, Destination, Site, Text
from streams.core.routing import Holders, decide
from streams.core.selectors import Kind, Selector
from tests.core import example as x
from tests.core.folded import row, seen

OTHER = Dataset("/Electron/Run1/RAW")
BODY = x.removal(files=(0, 1), dataset=x.DATASET, sites=(x.B, x.C))
DECIDED = m.IntentDecided(x.INTENT, 1, m.Verdict.ACCEPTED, BODY, None, 0, 5)
SITES = (x.A, x.B, x.C)


def test_parts_are_datasets_by_name_and_the_files_that_are_named() -> None:
    body = replace(BODY, selectors=(*BODY.selectors, Selector(Kind.BLOCK, f"{OTHER}#7")))
    assert m.parts_of(body) == (OTHER, x.DATASET, None)
    assert m.parts_of(x.removal()) == (None,)
    assert m.parts_of(x.removal(files=(), dataset=x.DATASET)) == (x.DATASET,)


def test_it_is_done_when_each_site_has_said_its_last_word_on_each_part() -> None:
    words = [x.removed(part, site=site) for part in (0, 1) for site in (x.B, x.C)]
    assert row(BODY, DECIDED, *words[:3], x.removed(1, going=1, site=x.C, last=False)).state is State.ACTIVE
    for facts in permutations((BODY, DECIDED, *words), 6):
        found = row(*facts)
        assert found.state is State.DONE
        assert [(c.destination, c.sealed, c.failed, c.bytes) for c in found.closed] == [
            (Destination(x.B), 4, 0, 40),
            (Destination(x.C), 4, 0, 40),
        ]
        assert seen(*facts).state is State.DONE
    again = row(BODY, DECIDED, *words, *words, x.removed(0, gone=7))
    assert again.closed == row(BODY, DECIDED, *words).closed, "the first last word stands"


@pytest.mark.parametrize(
    ("kept", "gone", "outcome", "exit_code"), [(0, 2, "done", 0), (1, 1, "partly", 8), (2, 0, "failed", 6)]
)
def test_what_stays_is_told_with_its_reasons(kept: int, gone: int, outcome: str, exit_code: int) -> None:
    body = x.removal()
    found = seen(body, replace(DECIDED, body=body), x.removed(0, gone, kept))
    assert (found.ended, found.outcome, found.exit_code) == (True, outcome, exit_code)
    (arrivals,) = found.destinations
    assert (arrivals.files, arrivals.arrived, arrivals.failed, arrivals.left) == (2, gone, kept, 0)
    assert dict(arrivals.reasons) == ({"the last copy": kept} if kept else {})
    assert [one.lfn for one in found.unfinished] == (
        [f"{x.lfn(0)}{' and 1 more' if kept == 2 else ''}"] if kept else []
    )


def test_progress_is_the_last_report_of_each_part() -> None:
    early, later = x.removed(0, 3, 0, 7, last=False), replace(x.removed(0, 5, 1, 4, last=False), waits_for=Text("C"))
    found = seen(BODY, DECIDED, early, later, x.removed(1, 1, 0, 0))
    b, c = found.destinations
    assert (b.files, b.arrived, b.failed, b.left, b.arrived_bytes, b.bytes) == (11, 6, 1, 4, 60, 110)
    assert (c.files, c.left) == (0, 0)
    assert [report.waits_for for report in b.removing] == ["C"]
    assert (found.exit_code, found.ended) == (5, False)


def test_a_home_refuses_what_nobody_knows_and_what_no_site_named_holds() -> None:
    body = x.removal(sites=(x.B,))
    assert decide(body, Holders(1, {x.B: (1, 1)}, ("/store/x",)), SITES, SITES, waited=False) is None
    known = {x.B: (2, 20), x.C: (2, 20)}
    for found, waited, verdict, words in (
        (Holders(2, known, ()), False, m.Verdict.ACCEPTED, ""),
        (Holders(1, known, ("/store/x",)), True, m.Verdict.REFUSED, "/store/x: known at no site"),
        (Holders(2, {x.C: (2, 20)}, ()), True, m.Verdict.REFUSED, "S_B holds no file of the selection"),
    ):
        decided = decide(body, found, SITES, SITES, waited=waited)
        assert decided is not None
        assert (decided.verdict, decided.source) == (verdict, None)
        assert (decided.reason.text if decided.reason else "") == words
    strange = decide(x.removal(sites=(Site("S_X"),)), Holders(2, known, ()), SITES, SITES, waited=False)
    assert strange is not None
    assert strange.verdict is m.Verdict.REFUSED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"copies": 0}, "copies: 0, and one at least must be kept"),
        ({"source": x.C}, "source: of a copy only"),
        ({"open": True}, "open: of a copy only"),
        ({"repair": True}, "repair: of a copy only"),
        ({"plane": "log"}, "plane: of a copy only"),
    ],
)
def test_what_a_removal_may_not_say(change: dict[str, object], why: str) -> None:
    assert m.fault(replace(x.removal(), **change)) == why  # type: ignore[arg-type]
    assert m.fault(x.removal()) is None


def test_a_copy_has_neither_copies_nor_a_reason() -> None:
    assert m.fault(replace(x.body(), copies=2)) == "copies: of a removal only"
    assert m.fault(replace(x.body(), reason=Text("why"))) == "reason: of a removal only"


def test_a_release_follows_the_end_and_changes_nothing_else() -> None:
    done = (x.body(), x.decided(), x.written(), x.completed())
    released = x.decided(2, m.Verdict.RELEASED)
    for facts in ((*done, x.release(), released), (x.release(), released, *done)):
        found = row(*facts, here=x.A)
        assert found.state is State.DONE
        assert found.decision is not None
        assert found.decision.verdict is m.Verdict.RELEASED
    cancelled = row(x.body(), x.decided(), x.decided(2, m.Verdict.CANCELLED), x.decided(3, m.Verdict.RELEASED))
    assert cancelled.state is State.CANCELLED
