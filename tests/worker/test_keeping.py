"""A worker answers asks to leave: behind the number that it noted, from a view that has caught up, once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from streams import wire
from streams.core import records as m
from streams.core.keeping.chains import ChainRow, CountedRemoval
from streams.core.keeping.gates import FileHere, PlacedFile
from streams.core.names import Adler32, Block, Dataset, Lfn, Site, Text
from streams.errors import Temporary
from streams.planes import orders
from streams.views import rows
from streams.views.folding import Changes
from streams.views.keeping import Chains
from streams.worker import keeping
from streams.worker.keeping import KeepingTasks
from tests.core import example as x

ADLER32 = Adler32("00000001")
OTHER = Dataset("/Muon/Run2/RAW")


@dataclass
class Desk:
    """B, whose worker answers: its view, what its plane is told, what it publishes; A is who asks."""

    db: Any
    owned: bool = True
    caught_up: bool = True
    told: list[orders.Check] = field(default_factory=list)
    said: list[m.KeepPromised] = field(default_factory=list)
    acks: list[Callable[[Exception | None], None]] = field(default_factory=list)
    refuses: Exception | None = None
    takes: bool = True
    now_s: float = 1000.0
    before_answer: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.view = Chains(self.db)
        self.keeper = KeepingTasks(
            x.B,
            self,
            self,
            self.publish,
            lambda dataset: self.owned,
            "p",
            lambda: 5000,
            lambda: self.now_s,
            removals=self,  # type: ignore[arg-type]
        )

    # what the keeper asks of

    def catch_up(self, timeout_s: float) -> bool:
        self.before_answer()
        return self.caught_up

    def chain(self, site: Site, dataset: Dataset) -> ChainRow:
        return self.view.chain(site, dataset)

    def chains(self, dataset: Dataset) -> dict[Site, ChainRow]:
        return self.view.chains(dataset)

    def asking(self) -> Iterator[tuple[Site, Dataset]]:
        return self.view.asking()

    def leaving(self, site: Site) -> Iterator[Dataset]:
        return self.view.leaving(site)

    def going_steps(self, site: Site, dataset: Dataset) -> Iterator[tuple[int, str]]:
        return self.view.going_steps(site, dataset)

    def going(self, site: Site, dataset: Dataset, step: tuple[int, str]) -> Sequence[CountedRemoval]:
        return self.view.going(site, dataset, step)

    def removals(self) -> Iterator[m.IntentDecided]:
        """None is asked for here."""
        return iter(())

    def holders(self, dataset: Dataset, lfns: Sequence[Lfn]) -> dict[Lfn, tuple[Site, ...]]:
        return {}

    def file(
        self, site: Site, block: Block, leaving: m.LeavingFile, endpoint: str, found: PlacedFile | None
    ) -> FileHere:
        return self.view.file(site, block, leaving, endpoint, found)

    def tell(self, order: orders.Order) -> bool:
        assert isinstance(order, orders.Check)
        if self.takes:
            self.told.append(order)
        return self.takes

    def publish(self, message: m.Message, on_ack: Callable[[Exception | None], None]) -> None:
        if self.refuses is not None:
            raise self.refuses
        assert isinstance(message, m.KeepPromised)
        wire.encode(message)
        self.said.append(message)
        self.acks.append(on_ack)

    # what happens

    def hear(self, *facts: m.Message) -> None:
        changes = Changes(self.db)
        for n, fact in enumerate(facts):
            match fact:
                case m.FilesHeld():
                    changes.hold(fact, fact.word or str(n))
                case m.FilesLost():
                    changes.lose(fact)
                case m.ReplicasChecked():
                    pass
                case m.ChainStep():
                    changes.decide(fact)
        changes.write()
        for fact in facts:
            if isinstance(fact, m.ChainStep | m.ReplicasChecked):
                self.keeper.heard(fact)

    def hold(self, *numbers: int, site: Site = x.B, dataset: Dataset = x.DATASET) -> None:
        files = tuple(m.HeldFile(x.lfn(n), Block(f"{dataset}#1"), 1, ADLER32, "v1") for n in numbers)
        self.hear(m.FilesHeld(dataset, site, files, word=f"w-{site}-{dataset[-5:]}"))

    def ask(self, *numbers: int, asked: tuple[Site, ...] = (x.B,), site: Site = x.A, size: int = 1) -> m.LeaveAsked:
        files = tuple(m.LeavingFile(x.lfn(n), size, ADLER32, "v1", ("w",)) for n in numbers)
        row = self.view.chain(site, x.DATASET)
        step = m.LeaveAsked(*row.next_head, "a", 0, Text("ann"), None, Text("full"), x.BLOCK, "", files, asked)
        self.hear(step)
        return step

    def looked(self, *found: int, missing: tuple[int, ...] = (), adler32: Adler32 = ADLER32) -> None:
        order = self.told[-1]
        there = tuple(m.CheckedFile(x.lfn(n), 1, adler32, "v1") for n in found)
        gone = tuple(m.KeptFile(x.lfn(n), Text("no such file")) for n in missing)
        self.hear(
            m.ReplicasChecked(
                x.B, order.dataset, order.asker, order.ask_no, order.ask_sha256, order.noted_no, there, gone
            )
        )

    def attend(self, dataset: Dataset = x.DATASET) -> None:
        self.keeper.attend(dataset)

    def note(self, claim: str) -> None:
        """Another worker of the site ends a claim."""
        row = self.view.chain(x.B, x.DATASET)
        self.hear(m.ClaimDecided(*row.next_head, "q", 0, Text("w"), None, Text(""), (), (claim,)))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    db: Any = rows.open_primary(str(tmp_path / "view"))
    yield Desk(db)
    db.close()


def answered(step: m.KeepPromised) -> tuple[list[Lfn], dict[Lfn, str]]:
    return list(step.promised), {kept.lfn: kept.reason for kept in step.refused}


def test_what_is_there_is_promised_and_the_rest_refused_with_reasons(desk: Desk) -> None:
    desk.hold(1, 2, 3)
    desk.hold(3, dataset=OTHER)
    asked = desk.ask(1, 2, 3, 4)
    desk.attend()
    assert desk.told == [
        orders.Check(x.DATASET, x.A, asked.no, m.step_sha256(asked), 0, tuple(x.lfn(n) for n in (1, 2, 3, 4)))
    ]
    assert desk.said == [], "nothing is said before the plane has looked"
    desk.looked(1, 3, 4, missing=(2,))
    desk.attend()
    (step,) = desk.said
    assert (step.asker, step.ask_no, step.ask_sha256) == (x.A, asked.no, m.step_sha256(asked))
    assert (step.no, step.process, step.at_ms) == (1, "p", 5000)
    promised, refused = answered(step)
    assert promised == [x.lfn(1)]
    assert refused[x.lfn(2)] == "it is not on the disk (no such file)"
    assert refused[x.lfn(3)] == f"it is also in {OTHER}"
    assert refused[x.lfn(4)] == f"it is not held in {x.DATASET}"
    desk.hear(step)
    desk.attend()
    assert (len(desk.told), len(desk.said)) == (1, 1), "what is answered is owed no more"


def test_a_damaged_file_and_another_content_are_not_promised(desk: Desk) -> None:
    desk.hold(1, 2)
    desk.ask(1)
    desk.attend()
    desk.looked(1, adler32=Adler32("00000002"))
    desk.attend()
    assert "its adler32 is 00000002 on the disk" in answered(desk.said[-1])[1][x.lfn(1)]
    desk.hear(desk.said[-1])
    desk.ask(2, site=x.C, size=7)
    desk.attend()
    desk.looked(2)
    desk.attend()
    assert answered(desk.said[-1])[1][x.lfn(2)] == f"it is another file at {x.C}: 7 bytes, adler32 {ADLER32}"


def test_a_claim_that_comes_in_between_takes_the_number_only(desk: Desk) -> None:
    desk.hold(1)
    desk.ask(1)
    desk.attend()
    desk.looked(1)
    desk.before_answer = lambda: desk.note("one") if desk.view.chain(x.B, x.DATASET).no == 0 else None
    desk.attend()
    (said,) = desk.said
    assert (said.no, said.promised) == (2, (x.lfn(1),))
    assert len(desk.told) == 1, "nothing is read back again"


def test_a_step_that_comes_in_between_has_the_plane_look_again(desk: Desk) -> None:
    desk.hold(1)
    desk.ask(1)
    desk.attend()
    desk.looked(1)
    desk.before_answer = lambda: (
        desk.ask(9, asked=(x.A,), site=x.B) if desk.view.chain(x.B, x.DATASET).no == 0 else None
    )
    desk.attend()
    assert desk.said == [], "its number is taken"
    desk.attend()
    assert [order.noted_no for order in desk.told] == [0, 1]
    late, again = desk.told
    desk.told.append(late)
    desk.looked(1)
    desk.attend()
    assert desk.said == [], "what was looked at before the number was noted says nothing"
    desk.told.append(again)
    desk.looked(1)
    desk.attend()
    assert [(step.no, step.promised) for step in desk.said] == [(2, (x.lfn(1),))]


def test_what_went_meanwhile_is_not_promised(desk: Desk) -> None:
    """The plane looked, and by the time that the view has caught up the file is lost here."""
    desk.hold(1)
    desk.ask(1)
    desk.attend()
    desk.looked(1)
    gone = m.Reason(m.Scope.DESTINATION, m.FailureClass.DATA_BAD, "verify", Text("rotten"))
    desk.before_answer = lambda: desk.hear(m.FilesLost(x.DATASET, x.B, (x.lfn(1),), gone))
    desk.attend()
    assert answered(desk.said[-1]) == ([], {x.lfn(1): f"it is not held in {x.DATASET}"})


def test_who_is_not_asked_or_not_the_owner_says_nothing(desk: Desk) -> None:
    desk.hold(1)
    desk.ask(1, asked=(x.C,))
    desk.attend()
    desk.owned = False
    desk.ask(1, site=x.C)
    desk.attend()
    assert desk.told == []
    desk.owned = True
    desk.keeper.scan()
    assert desk.keeper._next() == x.DATASET, "found without being woken"
    desk.attend()
    assert [order.asker for order in desk.told] == [x.C]


def test_an_ask_that_was_nobodys_is_answered_when_its_partition_wakes(desk: Desk) -> None:
    """As at a worker's start: what is open is looked through before anything is owned."""
    desk.hold(1)
    desk.owned = False
    desk.ask(1)
    assert desk.keeper._next() == x.DATASET
    desk.attend()
    assert desk.told == []
    desk.owned = True
    desk.keeper.scan_soon()
    assert desk.keeper._next() == x.DATASET, "not a scan later"
    desk.attend()
    assert len(desk.told) == 1


def test_an_ask_that_ended_is_answered_no_more(desk: Desk) -> None:
    desk.hold(1)
    asked = desk.ask(1)
    desk.attend()
    row = desk.view.chain(x.A, x.DATASET)
    kept = (m.KeptFile(x.lfn(1), Text("never mind")),)
    over = m.RemovalDecided(*row.next_head, "a", 0, Text("ann"), None, Text(""), asked.no, (), kept)
    desk.hear(over)
    desk.looked(1)
    desk.attend()
    assert desk.said == []
    desk.attend()
    assert len(desk.told) == 1


def test_what_is_lost_on_the_way_is_owed_again(desk: Desk) -> None:
    desk.hold(1)
    desk.takes = False
    desk.ask(1)
    desk.attend()
    desk.takes = True
    desk.attend()
    assert len(desk.told) == 1, "an order that the plane had no room for"
    desk.now_s += keeping.LOOK_S
    desk.attend()
    assert len(desk.told) == 2, "a plane that never answered"
    desk.looked(1)
    desk.caught_up = False
    desk.attend()
    assert desk.said == [], "nothing is promised on a view that lags"
    desk.caught_up = True
    desk.refuses = Temporary("the buffer is full")
    desk.attend()
    desk.refuses = None
    desk.attend()
    assert len(desk.said) == 1
    desk.attend()
    assert len(desk.said) == 1, "it is on its way"
    desk.acks[-1](Temporary("given up"))
    desk.attend()
    assert len(desk.said) == 2
    desk.now_s += keeping.SAID_S
    desk.attend()
    assert desk.said[0] == desk.said[1] == desk.said[2], "the same again: one counts"


def test_what_another_ask_found_answers_only_that_one(desk: Desk) -> None:
    desk.hold(1, 2)
    desk.ask(1)
    desk.attend()
    first = desk.told[-1]
    strange = m.ReplicasChecked(x.B, x.DATASET, x.C, 1, x.SHA256, 0, (m.CheckedFile(x.lfn(1), 1, ADLER32, "v1"),))
    desk.hear(strange)
    desk.attend()
    assert desk.said == []
    desk.ask(2, site=x.C)
    desk.looked(1)
    desk.attend()
    (step,) = desk.said
    assert step.asker == first.asker
    desk.hear(step)
    desk.attend()
    assert [order.asker for order in desk.told] == [x.A, x.C], "one ask after the other"


def test_a_disputed_chain_says_nothing_and_is_said_nothing(desk: Desk) -> None:
    desk.hold(1)
    asked = desk.ask(1)
    desk.hear(replace(asked, no=asked.no + 2, prev_sha256=x.SHA256))
    desk.attend()
    assert desk.told == []


def test_the_thread_answers_and_ends(desk: Desk) -> None:
    desk.hold(1)
    done = threading.Event()
    attended: list[Dataset] = []

    def attend(dataset: Dataset) -> None:
        attended.append(dataset)
        done.set()

    desk.keeper.attend = attend  # type: ignore[method-assign]
    desk.keeper.start()
    desk.ask(1)
    assert done.wait(5)
    assert attended == [x.DATASET]
    desk.keeper.stop()
    desk.keeper._thread.join(5)
    assert not desk.keeper._thread.is_alive()
