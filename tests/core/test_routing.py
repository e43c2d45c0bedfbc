"""The home's first decision, branch by branch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from streams.core import records as m
from streams.core.names import Destination, IntentId, Site
from streams.core.records import fault
from streams.core.routing import Holders, decide
from tests.core import example as x

SITES = (x.A, x.B, x.C)


def found(files: int = 2, unknown: tuple[str, ...] = (), **per_site: int) -> Holders:
    held: Mapping[Site, tuple[int, int]] = {Site(s): (n, 100 * n) for s, n in (per_site or {"S_C": files}).items()}
    return Holders(files, held, unknown)


def verdict(
    what: Holders,
    wish: m.TransferIntent | None = None,
    *,
    alive: tuple[Site, ...] = SITES,
    waited: bool = False,
    sites: tuple[Site, ...] = SITES,
) -> m.IntentDecided | None:
    said = decide(wish or x.body(), what, sites, alive, waited=waited)
    assert said is None or fault(said) is None, "the gate takes it"
    return said


def refusal(said: m.IntentDecided | None) -> str:
    assert said is not None
    assert (said.verdict, said.decision_no, said.source) == (m.Verdict.REFUSED, 1, None)
    assert said.reason is not None
    assert (said.reason.scope, said.reason.failure_class) == (m.Scope.POLICY, m.FailureClass.PERMANENT)
    return said.reason.text


def source(said: m.IntentDecided | None) -> Site | None:
    assert said is not None
    assert (said.verdict, said.decision_no, said.source_no) == (m.Verdict.ACCEPTED, 1, 0)
    return said.source


def test_accepted_as_asked() -> None:
    said = verdict(found(), x.body(priority=8))
    assert said == x.decided(wish=x.body(priority=8), priority=8)


@pytest.mark.parametrize("wish", [x.body(destinations=(x.B, Site("T9"))), x.body(source=Site("T9"))])
def test_an_unknown_site_is_refused_at_once(wish: m.TransferIntent) -> None:
    assert "no site T9" in refusal(verdict(found(0, ("/store/x",)), wish))


def test_a_plane_that_nobody_has_is_refused_at_once() -> None:
    assert refusal(verdict(found(), x.body(plane="post"))) == "no plane post: log, door and tool-NAME are known"
    part = replace(x.body(plane="door"), selection="entries:Events[0:1]{x}")
    assert refusal(verdict(found(), part)) == "parts of files go by the log only, not by door"
    assert source(verdict(found(), x.body(plane="door"))) == x.C
    by_tool = replace(part, plane="tool-xrdcp")
    assert refusal(verdict(found(), by_tool)) == "parts of files go by the log only, not by tool xrdcp"
    assert source(verdict(found(), x.body(plane="tool-xrdcp"))) == x.C, "which tools there are its destinations know"
    for odd in ("tool-", "tool-log", "tool-door", "tool-two words", "tool"):
        assert "no plane tool" in refusal(verdict(found(), x.body(plane=odd)))


def test_an_unknown_name_is_undecided_until_waited() -> None:
    what = Holders(0, {}, ("/store/x", "/store/y", "/store/z", "/store/w"))
    assert verdict(what) is None
    text = refusal(verdict(what, waited=True))
    assert "/store/x, /store/y, /store/z is known at any site" in text
    assert "/store/w" not in text


def test_very_long_names_are_cut() -> None:
    names = tuple("/" + c * 1023 for c in "abc")
    assert len(refusal(verdict(Holders(0, {}, names), waited=True))) == 400


def test_some_unknown_names_do_not_stop_the_others() -> None:
    what = found(1, ("/store/x",), S_C=1)
    assert verdict(what) is None
    assert source(verdict(what, waited=True)) == x.C, "the rest are items with a reason"


def test_a_dataset_of_no_files_is_refused() -> None:
    assert "no file of the selection" in refusal(verdict(Holders(0, {}, ())))


def test_a_source_asked_for_must_hold_something() -> None:
    wish = x.body(source=x.A)
    assert verdict(found(), wish) is None
    assert "S_A holds no file" in refusal(verdict(found(), wish, waited=True))
    assert source(verdict(found(2, S_A=1, S_C=2), wish)) == x.A, "even where another holds more"


def test_the_site_that_holds_most_is_chosen() -> None:
    assert source(verdict(found(3, S_A=1, S_C=2), alive=(x.A,))) == x.C


def test_among_equals_one_that_is_alive_then_one_that_is_no_destination_then_the_lesser_name() -> None:
    equal = found(2, S_A=2, S_B=2, S_C=2)
    assert source(verdict(equal, alive=(x.C,))) == x.C
    assert source(verdict(equal, x.body(destinations=(x.A,)))) == x.B
    assert source(verdict(equal, x.body(destinations=(x.C,)))) == x.A
    assert source(verdict(equal, alive=())) == x.A


def test_a_destination_that_holds_everything_is_its_own_source() -> None:
    assert source(verdict(found(2, S_B=2))) == x.B, "found already there, or copied from itself"


def test_files_that_nobody_holds_any_more_are_refused_when_waited() -> None:
    nowhere = Holders(2, {}, ())
    assert verdict(nowhere) is None
    assert "no site holds a file" in refusal(verdict(nowhere, waited=True))


def test_an_open_intent_that_names_its_source_needs_nothing_there() -> None:
    nothing = Holders(0, {}, (x.DATASET,))
    assert source(verdict(nothing, x.growing(source=x.A))) == x.A
    assert verdict(nothing, x.growing(source=None)) is None
    assert "name the source" in refusal(verdict(nothing, x.growing(source=None), waited=True))
    assert source(verdict(found(), x.growing(source=None))) == x.C
    assert "no site T9" in refusal(verdict(nothing, x.growing(source=Site("T9"))))


def test_what_a_site_has_repaired_comes_from_another() -> None:
    """However much it is said to hold itself: of that it is known that it is damaged."""
    repair = replace(x.body(destinations=(x.B,)), intent=IntentId(f"{x.B}.{x.INTENT.partition('.')[2]}"), repair=True)
    assert source(verdict(found(S_B=5, S_C=1), repair)) == x.C
    assert verdict(found(S_B=5), repair) is None, "mirrors lag"
    assert "no site holds a file" in refusal(verdict(found(S_B=5), repair, waited=True))
    assert "no site holds" not in refusal(verdict(found(S_B=5), replace(repair, source=Site("T9"))))
    for wish in (
        replace(repair, selection="objects:h*"),
        replace(repair, open=True),
        replace(repair, destinations=(Destination("S_B/reader"),), selection="entries:E"),
    ):
        assert "whole files that a site has can be repaired" in refusal(verdict(found(), wish))


def test_no_site_has_the_files_of_another_replaced() -> None:
    wish = replace(x.body(destinations=(x.A, x.B)), repair=True)
    assert refusal(verdict(found(), wish)) == "files of S_B are repaired where S_B itself asks for it"
