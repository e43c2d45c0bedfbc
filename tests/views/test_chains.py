"""Chains of keeping in the view: as core/keeping folds them, whatever was heard first, however batches are cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core import records as m
from streams.core import topics
from streams.core.keeping.chains import ChainRow, StepHeard, fold
from streams.core.names import Lfn, Text
from streams.core.selectors import Kind, Selector
from streams.settings import Settings
from streams.views import keeping, rows
from streams.views.catalogue import Catalogue
from streams.views.folding import Changes
from streams.views.keeping import Chains
from tests.core import example as x
from tests.core import test_keeping as k
from tests.views.journal import A, B, Journal
from tests.views.test_view import viewing

GONE = m.Reason(m.Scope.DESTINATION, m.FailureClass.PERMANENT, "remove", Text("asked for"))


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made: Any = rows.open_primary(str(tmp_path_factory.mktemp("chains") / "view"))
    yield made
    made.close()


def held(lfn: Lfn, word: str, site: Any = x.A) -> m.FilesHeld:
    return m.FilesHeld(x.DATASET, site, (m.HeldFile(lfn, x.BLOCK, 1, k.ADLER32, ""),), None, k.DISK, "", word)


def loss(lfn: Lfn, words: tuple[str, ...], removal_sha256: str = "") -> m.FilesLost:
    return m.FilesLost(x.DATASET, x.A, (lfn,), GONE, k.DISK, (m.TakenWords(words),), removal_sha256)


def told(history: list[list[k.Fact]]) -> list[list[k.Fact]]:
    """The same, but losses name words that their partition has said of the file before, as sites do."""
    *chained, said = history
    known: dict[Lfn, set[str]] = defaultdict(set)
    out: list[k.Fact] = []
    for kind, fact in said:
        if kind == "held":
            known[fact[0]].add(fact[1])
            out.append((kind, fact))
        elif words := tuple(word for word in fact[1] if word in known[fact[0]]):
            out.append((kind, (fact[0], tuple(dict.fromkeys(words)), fact[2])))
    return [*chained, out]


def folded(db: Any, facts: list[k.Fact], cuts: list[bool]) -> dict[bytes, bytes]:
    """All rows after these facts, in batches that end where `cuts` says."""
    for key in list(db.keys()):
        del db[key]
    known: dict[keeping.ChainId, ChainRow] = {}
    changes = Changes(db, known)
    for (kind, fact), cut in zip(facts, cuts, strict=True):
        match kind:
            case "step":
                changes.decide(fact)
            case "held":
                changes.hold(held(*fact), fact[1])
            case _:
                changes.lose(loss(*fact))
        if cut:
            changes.write()
            changes = Changes(db, known)
    changes.write()
    return dict(db.items())


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_rows_are_the_fold_whatever_was_heard_first(db: Any, data: st.DataObject) -> None:
    history = told(data.draw(k.histories))
    two = [data.draw(k.hearings(history)) for _ in range(2)]
    in_order = [fact for partition in history for fact in partition]
    found = []
    for facts in (in_order, *two):
        cuts = data.draw(st.lists(st.booleans(), min_size=len(facts), max_size=len(facts)))
        found.append(folded(db, facts, cuts))
    assert found[0] == found[1] == found[2]
    wanted = k.Rows().hear(in_order)
    chains, catalogue = Chains(db), Catalogue(db)
    assert {site: row for site, row in wanted.chains.items() if row.no or row.dispute} == chains.chains(x.DATASET)
    assert list(chains.ids()) == sorted((row.site, x.DATASET) for row in chains.chains(x.DATASET).values())
    for lfn, replica in wanted.replicas.items():
        said = any(kind == "held" and fact[0] == lfn for kind, fact in in_order)
        assert bool(catalogue.where(lfn)) == (said and replica.held)


def test_a_removal_goes_on_until_its_end_is_heard(tmp_path: Path) -> None:
    db: Any = rows.open_primary(str(tmp_path / "view"))
    step = k.removal(k.ONE, 1, 1, 2)
    (one, two) = (counted.sha256 for counted in fold(k.ONE, step).removals)
    assert one == two == m.step_sha256(step)
    changes = Changes(db)
    changes.hold(held(x.lfn(1), "w"), "w")
    changes.decide(k.ask(k.EMPTY, 1, 2))
    changes.lose(loss(x.lfn(2), ("w",), one))
    assert changes.decide(step) is StepHeard.COUNTS
    changes.write()
    chains = Chains(db)
    assert list(chains.going_steps(x.A, x.DATASET)) == [(step.no, one)]
    (going,) = chains.going(x.A, x.DATASET, (step.no, one))
    assert going.lfn == x.lfn(1), "the end of the other came first"
    assert chains.going_at(x.A, x.DATASET, x.lfn(1), k.DISK) == going
    assert chains.going_at(x.A, x.DATASET, x.lfn(2), k.DISK) is None
    changes = Changes(db)
    changes.lose(loss(x.lfn(1), ("w",), x.SHA256))
    changes.write()
    assert chains.going(x.A, x.DATASET, (step.no, one)) == (going,), "another history's removal ended"
    changes = Changes(db)
    changes.lose(loss(x.lfn(1), ("w",), one))
    changes.hold(held(x.lfn(1), "w"), "w")
    changes.write()
    assert list(chains.going_steps(x.A, x.DATASET)) == []
    assert chains.going(x.A, x.DATASET, (step.no, one)) == ()
    assert Catalogue(db).where(x.lfn(1)) == [], "a word that is taken back says nothing"
    db.close()


def test_a_step_changes_few_rows_of_a_long_chain(tmp_path: Path) -> None:
    db: Any = rows.open_primary(str(tmp_path / "view"))
    changes, row = Changes(db), k.EMPTY
    for n in range(300):
        claim = m.NotedClaim(f"c{n}", k.DISK, k.WHOLE.selectors)
        step = k.note(row, claim)
        row = fold(row, step).row
        changes.decide(step)
    changes.write()
    assert Chains(db).chain(x.A, x.DATASET) == row
    before = dict(db.items())
    changes = Changes(db)
    changes.decide(k.note(row, ended=("c7",)))
    changes.write()
    after = dict(db.items())
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert len(changed) == 5, "its head, the claim, its name, its digest, and the one that is remembered no more"
    db.close()


def test_a_claim_is_found_by_what_it_covers_and_by_its_intent(tmp_path: Path) -> None:
    """Each question reads few rows, whatever else is claimed; as the fold of all of them says."""
    db: Any = rows.open_primary(str(tmp_path / "view"))
    block, intent = m.NotedClaim("b", k.DISK, (Selector(Kind.BLOCK, x.BLOCK),)), x.INTENT
    file = m.NotedClaim("f", k.DISK, (Selector(Kind.FILE, x.lfn(7)),), intent=intent)
    source = replace(k.WHOLE, claim="s", lands=False, intent=intent)
    many = [m.NotedClaim(f"m{n}", k.BUFFER, (Selector(Kind.FILE, x.lfn(n)),)) for n in range(400)]
    row = k.EMPTY
    for noted, ended in ([many, ()], [(file, source), ()], [(block,), ("m3",)], [(k.WHOLE,), ("b", "none")]):
        step = k.note(row, *noted, ended=ended)
        row = fold(row, step).row
        changes = Changes(db)
        changes.decide(step)
        changes.write()
        stored = Chains(db).claims(x.A, x.DATASET)
        assert stored == row.claims
        for endpoint, lfn, cause in product((k.DISK, k.BUFFER), (x.lfn(3), x.lfn(7), x.lfn(9)), (None, intent)):
            found, known = (c.protecting(endpoint, x.BLOCK, lfn, cause) for c in (stored, row.claims))
            assert (found is None) == (known is None)
            assert found is None or (found in row.claims and found.covers(endpoint, x.BLOCK, lfn))
    chains = Chains(db)
    assert sorted(chains.claims_of(intent, x.A)) == [(x.DATASET, "f"), (x.DATASET, "s")]
    assert list(chains.claims_of(intent, x.B)) == []
    assert list(chains.ids()) == [(x.A, x.DATASET)]
    changes = Changes(db)
    changes.decide(k.note(row, ended=("f", "s", "whole", *(claim.claim for claim in many))))
    changes.write()
    assert list(Chains(db).claims_of(intent, x.A)) == []
    assert {key[:1] for key, _ in db.items()} == {b"c"}, "nothing is left of claims that have ended"
    db.close()


def test_the_view_hears_chains_of_all_sites(journal: Journal, settings: Settings) -> None:
    step = k.ask(k.EMPTY, 1, 2)
    mine = m.ClaimDecided(A, *_tail(k.note(k.EMPTY, k.WHOLE)))
    theirs = m.LeaveAsked(B, *_tail(step))
    journal.say(mine)
    journal.say(theirs, site=theirs.site)
    journal.flush()
    with viewing(settings) as view:
        assert view.catch_up(10)
        chains = view.chains.chains(x.DATASET)
        assert {site: row.no for site, row in chains.items()} == {A: 1, B: 1}
        assert [ask.files for ask in chains[theirs.site].asks] == [step.files]
        journal.say(mine)
        journal.flush()
        assert view.catch_up(10)
        assert view.chains.chains(x.DATASET) == chains
    assert topics.KEEPING in topics.TO_EVERY_PEER


def _tail(step: m.KeepingStep) -> tuple[Any, ...]:
    return tuple(getattr(step, name) for name in step.__dataclass_fields__ if name != "site")
