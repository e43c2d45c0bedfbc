"""Parts are opened under claims that the view shows, once what this site had said before is applied."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from streams import wire
from streams.core import records as m
from streams.core.keeping.chains import ChainRow, Claims
from streams.core.keeping.gates import FileHere
from streams.core.keeping.landing import OpenableItems
from streams.core.names import Adler32, Block, Dataset, IntentId, ManifestId, Site, Text
from streams.core.ranges import Ranges
from streams.core.records.keeping import step_sha256
from streams.core.selectors import Kind, Selector
from streams.errors import Temporary
from streams.views import rows
from streams.views.folding import Changes
from streams.views.keeping import Chains
from streams.worker import landing_claims
from streams.worker.landing_claims import LandingClaimTasks, NamedFile
from tests.core import example as x

ADLER32 = Adler32("00000001")
OTHER = Dataset("/Muon/Run2/RAW")
WHOLE = (Selector(Kind.DATASET, x.DATASET),)
OTHER_INTENT = IntentId(f"{x.A}.00000000-0000-4000-8000-000000000099")
REASON = m.Reason(m.Scope.DESTINATION, m.FailureClass.PERMANENT, "remove", Text("asked for"))


@dataclass
class Gate:
    """B, where files land: its view over real rows, and what it publishes."""

    db: Any
    caught_up: bool = True
    owned: bool = True
    released: set[IntentId] = field(default_factory=set)
    over: set[IntentId] = field(default_factory=set)
    said: list[m.ClaimDecided] = field(default_factory=list)
    acks: list[Callable[[Exception | None], None]] = field(default_factory=list)
    refuses: Exception | None = None
    looks: int = 0
    now_s: float = 1000.0
    ready: list[ManifestId] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.view = Chains(self.db)
        self.tasks = LandingClaimTasks(
            x.B,
            self,
            self.publish,
            "p",
            lambda: 5000,
            self.ready.append,
            lambda: self.now_s,
            has_ended=lambda intent: self.owned,
        )

    # what the tasks ask of

    def catch_up_own(self, timeout_s: float) -> bool:
        self.looks += 1
        return self.caught_up

    def chain(self, site: Site, dataset: Dataset) -> ChainRow:
        return self.view.chain(site, dataset)

    def claims(self, site: Site, dataset: Dataset) -> Claims:
        return self.view.claims(site, dataset)

    def files(self, site: Site, endpoint: str, named: Sequence[NamedFile]) -> list[FileHere]:
        return self.view.files(site, endpoint, named)

    def claiming(self) -> Iterator[IntentId]:
        return self.view.claiming(x.B)

    def claims_of(self, intent: IntentId) -> Iterator[tuple[Dataset, str]]:
        return self.view.claims_of(intent, x.B)

    def is_released(self, intent: IntentId) -> bool:
        return intent in self.released

    def is_over(self, intent: IntentId) -> bool:
        return intent in self.over

    def publish(self, message: m.Message, on_ack: Callable[[Exception | None], None]) -> None:
        if self.refuses is not None:
            raise self.refuses
        assert isinstance(message, m.ClaimDecided)
        wire.encode(message)
        self.said.append(message)
        self.acks.append(on_ack)

    # what happens

    def hear(self, *facts: m.Message) -> None:
        changes = Changes(self.db)
        for n, fact in enumerate(facts):
            match fact:
                case m.FilesHeld():
                    changes.hold(fact, fact.word or str(fact.manifest or n))
                case m.FilesLost():
                    changes.lose(fact)
                case m.ChainStep():
                    changes.decide(fact)
        changes.write()
        for fact in facts:
            if isinstance(fact, m.ChainStep):
                self.tasks.heard(fact)

    def hold(self, *numbers: int, site: Site = x.A, dataset: Dataset = x.DATASET, word: str = "") -> None:
        files = tuple(m.HeldFile(x.lfn(n), Block(f"{dataset}#1"), 100, ADLER32, "v1") for n in numbers)
        self.hear(m.FilesHeld(dataset, site, files, word=word or f"w-{site}"))

    def head(self, process: str = "q", dataset: Dataset = x.DATASET) -> tuple[Any, ...]:
        return (*self.view.chain(x.B, dataset).next_head, process, 0, Text("ann"), None, Text("full"))

    def remove(self, *numbers: int, dataset: Dataset = x.DATASET, words: tuple[str, ...] = (f"w-{x.B}",)) -> str:
        """Files of B are asked for, promised by nobody and removed: the fold looks for none. Its digest."""
        files = tuple(m.LeavingFile(x.lfn(n), 100, ADLER32, "v1", words) for n in numbers)
        block = Block(f"{dataset}#1")
        self.hear(m.LeaveAsked(*self.head(dataset=dataset), block, "", files, (), copies=0))
        (ask,) = self.view.chain(x.B, dataset).asks
        group = m.RemovedFiles(tuple(map(x.lfn, numbers)), ())
        step = m.RemovalDecided(*self.head(dataset=dataset), ask.no, (group,))
        self.hear(step)
        return step_sha256(step)

    def lose(self, *numbers: int, removal: str, words: tuple[str, ...]) -> None:
        taken = tuple(m.TakenWords(words) for _ in numbers)
        self.hear(m.FilesLost(x.DATASET, x.B, tuple(map(x.lfn, numbers)), REASON, "", taken, removal))

    def open(
        self, body: m.ManifestWritten, selectors: Sequence[Selector] = WHOLE, attempt: int = 1
    ) -> OpenableItems | None:
        return self.tasks.may_open(body.manifest, attempt, wire.framed(body).value, selectors)

    def step(self) -> list[m.ClaimDecided]:
        """What a look of the thread said."""
        before = len(self.said)
        self.tasks.step()
        return self.said[before:]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    db: Any = rows.open_primary(str(tmp_path / "view"))
    yield Gate(db)
    db.close()


def manifest(*numbers: int, intent: IntentId = x.INTENT, dataset: Dataset = x.DATASET, **k: Any) -> m.ManifestWritten:
    block = Block(f"{dataset}#1")
    items = tuple(
        m.Item(x.lfn(n), dataset, block, x.lfn(n), "", 100, 100, ADLER32, "v1", x.A, None, ()) for n in numbers
    )
    return replace(x.written(), intent=intent, items=items, **k)


def test_parts_are_opened_under_a_claim_that_the_view_shows(gate: Gate) -> None:
    gate.hold(1, 2)
    body = manifest(1, 2)
    assert gate.open(body) is None
    (said,) = gate.step()
    assert said.noted == (m.NotedClaim(x.INTENT, "", WHOLE, intent=x.INTENT),)
    assert (said.site, said.dataset, said.no, said.process, said.cause) == (x.B, x.DATASET, 1, "p", x.INTENT)
    assert gate.open(body) is None
    assert gate.step() == [], "it is on its way"
    assert gate.looks == 0
    assert gate.tasks.why_not(body.manifest) == "its claim to be noted"
    gate.hear(said)
    assert gate.step() == []
    assert gate.looks == 1, "the view reached the ends behind the claim"
    assert gate.ready == [body.manifest]
    assert gate.open(body) == OpenableItems()
    assert gate.open(replace(body, no=1, prev_sha256=x.SHA256)) is None
    assert gate.step() == [], "one claim of a dataset is for all manifests of its intent"
    assert gate.open(replace(body, no=1, prev_sha256=x.SHA256)) == OpenableItems()


def test_a_plan_has_its_claim_noted_beforehand(gate: Gate) -> None:
    gate.hold(1)
    body = manifest(1)
    gate.tasks.note(body.manifest, wire.framed(body).value, WHOLE)
    (said,) = gate.step()
    gate.hear(said)
    assert gate.step() == []
    assert (gate.looks, gate.ready) == (0, []), "nothing is to be opened yet"
    assert gate.open(body) is None
    gate.step()
    assert gate.open(body) == OpenableItems()


def test_files_by_name_and_parts_are_claimed_by_their_manifest(gate: Gate) -> None:
    gate.hold(1, 2, 3)
    named = (Selector(Kind.FILE, x.lfn(1)), Selector(Kind.BLOCK, f"{OTHER}#1"))
    body = manifest(1, 2)
    gate.open(body, named)
    (said,) = gate.step()
    files = tuple(Selector(Kind.FILE, x.lfn(n)) for n in (1, 2))
    assert said.noted == (m.NotedClaim(body.manifest, "", files, intent=x.INTENT),)


def test_a_file_that_the_catalogue_has_not_in_its_dataset_is_claimed_by_name_too(gate: Gate) -> None:
    gate.hold(1)
    body = manifest(1, 2)
    gate.open(body)
    (said,) = gate.step()
    assert {claim.claim for claim in said.noted} == {x.INTENT, body.manifest}
    assert [claim.selectors for claim in said.noted if claim.claim == body.manifest] == [
        (Selector(Kind.FILE, x.lfn(2)),)
    ]


def test_what_is_wanted_at_once_is_one_step_and_a_lost_race_is_run_again(gate: Gate) -> None:
    gate.hold(*range(1, 5))
    bodies = [manifest(n, intent=IntentId(f"{x.A}.00000000-0000-4000-8000-{n:012}")) for n in range(1, 4)]
    for body in bodies:
        gate.open(body)
    (said,) = gate.step()
    assert len(said.noted) == 3
    gate.hear(m.ClaimDecided(*gate.head(), (), ("none",)))  # another worker of the site takes the number
    gate.hear(said)
    (again,) = gate.step()
    assert (again.no, again.noted) == (2, said.noted)
    gate.acks[-1](Temporary("given up"))
    (once_more,) = gate.step()
    assert once_more == again
    gate.hear(once_more)
    gate.step()
    assert [gate.open(body) for body in bodies] == [OpenableItems()] * 3


def test_a_step_has_so_many_names_and_the_next_the_rest(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing_claims, "NAMES_MAX", 5)
    for n in range(4):
        intent = IntentId(f"{x.A}.00000000-0000-4000-8000-{n:012}")
        gate.open(manifest(*range(10 * n, 10 * n + 3), intent=intent), ())
    (first,) = gate.step()
    assert len(first.noted) == 1, "a second one would be over"
    gate.hear(first)
    (second,) = gate.step()
    assert second.noted[0].claim not in {claim.claim for claim in first.noted}


def test_who_does_not_catch_up_opens_nothing(gate: Gate) -> None:
    gate.hold(1)
    body = manifest(1)
    gate.open(body)
    gate.hear(*gate.step())
    gate.caught_up = False
    gate.step()
    assert gate.open(body) is None
    gate.caught_up = True
    gate.step()
    assert gate.open(body) == OpenableItems()


def test_a_removal_that_goes_on_is_waited_for(gate: Gate) -> None:
    gate.hold(1)
    gate.hold(1, site=x.B)
    removal = gate.remove(1)
    body = manifest(1, 2)
    gate.open(body)
    gate.hear(*gate.step())
    gate.step()
    assert gate.open(body) is None
    assert "has not ended" in gate.tasks.why_not(body.manifest)
    gate.lose(1, removal=removal, words=(f"w-{x.B}",))
    gate.step()
    assert gate.open(body) == OpenableItems()


def test_what_landed_and_was_removed_is_not_brought_again(gate: Gate) -> None:
    """A row fell back behind its end, and maybe the claim has ended since."""
    body = manifest(1, 2)
    gate.hold(1, 2, site=x.B, word=body.manifest)
    removal = gate.remove(1, words=(body.manifest,))
    gate.lose(1, removal=removal, words=(body.manifest,))
    gate.open(body)
    gate.hear(*gate.step())
    gate.step()
    found = gate.open(body)
    assert found is not None
    assert (found.removed, found.refused) == (Ranges.of(0), ())
    assert found.landed == (m.Landed(0, 100, ADLER32),)
    gate.hear(m.ClaimDecided(*gate.head(), (), (x.INTENT,)))
    removal = gate.remove(2, words=(body.manifest,))
    gate.lose(2, removal=removal, words=(body.manifest,))
    other = manifest(1, 2)
    gate.open(other, attempt=2)
    assert gate.step() == [], "nothing is left to land: no claim is noted"
    found = gate.open(other, attempt=2)
    assert found is not None
    assert found.removed == Ranges.of(0, 1)


def test_a_file_that_is_here_in_another_dataset_fails(gate: Gate) -> None:
    gate.hold(1, 2)
    gate.hold(2, site=x.B, dataset=OTHER)
    body = manifest(1, 2)
    gate.open(body)
    gate.hear(*gate.step())
    gate.step()
    found = gate.open(body)
    assert found is not None
    ((refused,), removed) = found.refused, found.removed
    assert (refused.items, bool(removed)) == (Ranges.of(1), False)
    assert refused.reason.text == f"it is here in {OTHER}: another chain may be removing it"
    gate.remove(2, dataset=OTHER)
    gate.open(body)
    gate.step()
    assert gate.open(body) is None, "that goes now, and then there is room"


def test_nothing_lands_in_a_disputed_chain(gate: Gate) -> None:
    gate.hold(1)
    gate.hear(m.ClaimDecided(*gate.head(), (), ("none",)))
    gate.hear(replace(m.ClaimDecided(*gate.head(), (), ("none",)), prev_sha256="0" * 64))
    body = manifest(1)
    gate.open(body)
    assert gate.step() == []
    assert "is disputed" in gate.tasks.why_not(body.manifest)


def test_what_is_over_or_elsewhere_is_forgotten(gate: Gate) -> None:
    gate.hold(1)
    body = manifest(1)
    gate.open(body)
    gate.tasks.forget(body.manifest)
    assert gate.step() == []
    gate.open(body)
    gate.tasks.drop(lambda one: one == body.manifest)
    assert gate.step() == []
    gate.open(body)
    gate.hear(*gate.step())
    gate.step()
    gate.tasks.forget(body.manifest)
    assert gate.open(body) is None


def test_a_fault_leaves_all_waiting(gate: Gate) -> None:
    gate.hold(1)
    body = manifest(1)
    gate.refuses = Temporary("buffer full")
    gate.open(body)
    assert gate.step() == []
    gate.refuses = None
    (said,) = gate.step()
    assert said.no == 1


def landed(gate: Gate) -> m.ManifestWritten:
    """A transfer whose claims are noted: of its intent, and of a file that the catalogue has not."""
    gate.hold(1)
    body = manifest(1, 2)
    gate.open(body)
    gate.hear(*gate.step())
    gate.step()
    assert gate.open(body) == OpenableItems()
    return body


def test_claims_end_with_the_release_of_their_intent(gate: Gate) -> None:
    body = landed(gate)
    gate.tasks.decided(x.decided(2, m.Verdict.RELEASED))
    assert gate.step() == [], "the last words of its transfers are not heard yet"
    gate.over.add(x.INTENT)
    gate.caught_up = False
    assert gate.step() == []
    gate.caught_up = True
    gate.owned = False
    assert gate.step() == [], "another worker acts for it, or a transfer is open"
    gate.owned = True
    (said,) = gate.step()
    assert (said.noted, set(said.ended), said.cause) == ((), {x.INTENT, body.manifest}, x.INTENT)
    gate.hear(m.ClaimDecided(*gate.head(), (), ("none",)))
    gate.hear(said)
    (again,) = gate.step()
    assert again.no == said.no + 1, "it lost a race"
    gate.hear(again)
    assert gate.step() == []
    assert list(gate.view.claims_of(x.INTENT, x.B)) == []
    assert not gate.tasks._released


def test_another_process_finds_what_was_released_before_it_began(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing_claims, "SEEN_MAX", 1)
    landed(gate)
    gate.hear(m.ClaimDecided(*gate.head(), (m.NotedClaim("other", "", WHOLE, intent=OTHER_INTENT),), ()))
    gate.released |= {x.INTENT, OTHER_INTENT}
    gate.over.add(x.INTENT)
    gate.__post_init__()
    ended = set()

    def end() -> None:
        for _ in range(4):
            for said in gate.step():
                ended.update(said.ended)
                gate.hear(said)

    end()
    assert x.INTENT in ended
    assert "other" not in ended, "one of its transfers has not said its last word"
    gate.over.add(OTHER_INTENT)
    end()
    assert "other" in ended
    assert list(gate.view.claiming(x.B)) == []


def test_another_process_looks_though_nothing_is_heard(gate: Gate) -> None:
    landed(gate)
    gate.released.add(x.INTENT)
    gate.over.add(x.INTENT)
    gate.__post_init__()
    gate.said.clear()
    gate.tasks.start()
    try:
        deadline_s = time.monotonic() + 5.0
        while not gate.said and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert gate.said, "its claims end"
    finally:
        gate.tasks.stop()


def test_who_does_not_act_for_an_intent_forgets_it_once_its_claims_have_ended(gate: Gate) -> None:
    landed(gate)
    gate.tasks.decided(x.decided(2, m.Verdict.RELEASED))
    gate.over.add(x.INTENT)
    gate.owned = False
    assert gate.step() == []
    assert gate.tasks._released == {x.INTENT}
    gate.hear(m.ClaimDecided(*gate.head(), (), tuple(name for _, name in gate.claims_of(x.INTENT))))
    assert gate.step() == []
    assert not gate.tasks._released
