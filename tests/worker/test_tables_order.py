"""I8 and I11 with the tables: manifests may come before their decision and beside rivals; rows are the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.manifest import Manifest
from streams.core.names import Site
from streams.core.ranges import Ranges
from streams.core.transfer import State
from streams.worker import rows, turn
from streams.worker.turn import Turns, finished, owes
from tests.core import example as x
from tests.core.test_machines_order import BODY, hearings, histories, two_hearings
from tests.worker.rig import PARTITIONS, Crash, Dict

PARTITION = topics.partition_of(x.INTENT, PARTITIONS)

FIRST = x.written(0, last=False)
RIVAL = x.written(0, [x.item(7, 7)], last=False)
SECOND = x.written(1, prev=FIRST)
BEHIND_RIVAL = x.written(1, [x.item(8, 8)], prev=RIVAL)
STRANGER = x.written(0, [x.item(9, 9, holder=x.A)], source=x.A)
WISH = x.body(destinations=(x.B, x.C))


@pytest.fixture(scope="module", autouse=True)
def indexed() -> Iterator[None]:
    """Each manifest has its index stored, however small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.worker.turn.INDEXED_MIN", 0)
        yield


class Tables:
    def __init__(self, here: Site = x.B) -> None:
        self.here = here
        self.tables = {name: Dict() for name in rows.NAMES}
        self.tables["waiting"].of_intents = True
        self.sit()

    def sit(self) -> None:
        """A new process over the same tables, awake."""
        self.turns = Turns(rows.Tables(**self.tables), self.here)
        for _ in self.turns.note_leftovers(PARTITION):
            pass

    def hear(self, facts: list[m.Message]) -> None:
        for fact in facts:
            # Of others nothing is read from their bytes, and some of these histories would not pass the gate.
            value = wire.encode(fact) if isinstance(fact, m.TransferPlanned | m.ManifestWritten) else b""
            if m.key_of(fact) == x.MANIFEST:
                self.turns.transfer(fact, value)  # type: ignore[arg-type]
            else:
                self.turns.intent(PARTITION, fact, value)  # type: ignore[arg-type]
            self.check_entries()

    def check_entries(self) -> None:
        """Open rows have their entries, and no others have, after any turn."""
        intent, transfer = self.turns.intent_row(x.INTENT), self.turns.transfer_row(x.MANIFEST)
        for table, key, is_open in (
            ("intents", x.INTENT, intent is not None and owes(intent, self.here)),
            ("transfers", x.MANIFEST, transfer is not None and transfer.state is not State.CLOSED),
        ):
            assert (rows.open_key(key) in self.tables[table]) == is_open
        stored, index = self.turns.body(x.MANIFEST), rows.index_key(x.MANIFEST) in self.tables["manifests"]
        assert (stored is not None) == index, "a body has its index, and goes with it"

    def planned(self) -> list[m.ManifestWritten | None]:
        """Of manifests that count: their bodies, as they are kept to be planned."""
        row = self.turns.intent_row(x.INTENT)
        if row is None or row.decision is None or row.decision.source is None or row.ended:
            return []
        ids = [x.ManifestId.of(x.INTENT, row.chain.source_no, no) for no in range(row.chain.next_no)]
        stored = [self.turns.waiting_body(one, row.decision.source) for one in ids]
        return [None if body is None else wire.decode_value(m.ManifestWritten, body) for body in stored]

    def check_kept(self) -> None:
        """What counts is kept where it is to be planned, until it is over there; what has ended leaves nothing."""
        row = self.turns.intent_row(x.INTENT)
        if row is not None and finished(row):
            assert self.tables["waiting"] == {}
        for no, body in enumerate(self.planned()):
            assert row is not None
            one = x.ManifestId.of(x.INTENT, row.chain.source_no, no)
            wanted = self.here in row.destinations and not row.is_closed(one, self.here)
            assert (body is not None) == wanted, "what counts is kept"


@settings(max_examples=100)
@given(two_hearings)
def test_rows_of_transfers_are_the_same_bytes(
    case: tuple[list[list[m.Message]], list[m.Message], list[m.Message]],
) -> None:
    one, two = Tables(), Tables()
    one.hear(case[1])
    two.hear(case[2])
    assert one.tables == two.tables


@settings(max_examples=60)
@given(histories().flatmap(lambda h: st.tuples(hearings(h), hearings(h))))
def test_a_replay_over_the_old_tables_changes_nothing(case: tuple[list[m.Message], list[m.Message]]) -> None:
    tables = Tables()
    tables.hear(case[0])
    before = {name: dict(table) for name, table in tables.tables.items()}
    tables.hear(case[1])
    assert tables.tables == before


def behind_predecessors(manifests: list[m.ManifestWritten]) -> list[m.Message]:
    """Without those that no writer could have written yet."""
    out: list[m.Message] = []
    for written in manifests:
        before = {SECOND: FIRST, BEHIND_RIVAL: RIVAL}.get(written)
        if before is None or before in out:
            out.append(written)
    return out


def intent_histories() -> st.SearchStrategy[list[list[m.Message]]]:
    """Decisions and what is asked; the source's manifests; a stranger's; completions of both destinations."""
    wanted = st.permutations([WISH, x.decided(wish=WISH)])
    late = st.lists(
        st.sampled_from(
            [x.decided(2, wish=WISH, priority=9), x.decided(3, m.Verdict.CANCELLED, wish=WISH), x.cancel()]
        ),
        max_size=2,
    )
    asked = st.tuples(wanted, late).map(lambda parts: [*parts[0], *parts[1]])
    manifests = st.lists(st.sampled_from([FIRST, RIVAL, SECOND, BEHIND_RIVAL]), max_size=7).map(behind_predecessors)
    completions = st.lists(st.sampled_from([x.completed(FIRST.manifest), x.completed(SECOND.manifest)]), max_size=3)
    return st.tuples(asked, manifests, st.just([STRANGER]), completions).map(list)


@settings(max_examples=300)
@given(intent_histories().flatmap(lambda h: st.tuples(st.sampled_from([x.A, x.B, x.C]), hearings(h), hearings(h))))
def test_rows_of_intents_are_the_same_bytes_and_plan_the_same(
    case: tuple[Site, list[m.Message], list[m.Message]],
) -> None:
    here, facts, others = case
    one, two = Tables(here), Tables(here)
    one.hear(facts)
    two.hear(others)
    assert one.tables["intents"] == two.tables["intents"]
    assert one.planned() == two.planned()
    one.check_kept()
    two.check_kept()
    two.hear(facts)
    assert one.tables["intents"] == two.tables["intents"]
    assert one.planned() == two.planned()
    two.check_kept()


@settings(max_examples=300)
@given(
    intent_histories().flatmap(
        lambda h: st.tuples(
            st.sampled_from([x.A, x.B, x.C]), hearings(h), st.sampled_from(["waiting", "intents"]), st.integers(0, 25)
        )
    )
)
def test_a_crash_at_any_write_changes_nothing_in_the_end(case: tuple[Site, list[m.Message], str, int]) -> None:
    here, facts, broken, after = case
    whole, tables = Tables(here), Tables(here)
    whole.hear(facts)
    tables.tables[broken].left = after
    for at in range(len(facts)):
        try:
            tables.hear(facts[at : at + 1])
        except Crash:
            tables.sit()
            tables.hear(facts[at : at + 1])
    assert tables.tables["intents"] == whole.tables["intents"]
    assert tables.planned() == whole.planned()
    tables.check_kept()


@settings(max_examples=300)
@given(
    intent_histories().flatmap(
        lambda h: st.tuples(st.sampled_from([x.A, x.B, x.C]), hearings(h), st.integers(0, 25), st.integers(0, 4))
    )
)
def test_what_waited_is_kept_again_where_only_the_row_outlived_a_crash(
    case: tuple[Site, list[m.Message], int, int],
) -> None:
    """The tables have a changelog each: of the last turns, a crash may take the one's puts and leave the other's.

    Found by the simulation (seed 580): the name of a manifest that came before its decision was lost.
    """
    here, facts, at, again = case
    whole, tables = Tables(here), Tables(here)
    whole.hear(facts)
    first = min(at, len(facts) - 1)
    tables.hear(facts[:first])
    before = dict(tables.tables["waiting"])
    tables.hear(facts[first : first + 1 + again])
    tables.tables["waiting"].clear()
    for key, row in before.items():
        tables.tables["waiting"][key] = row
    tables.sit()
    tables.hear(facts[first:])
    assert tables.tables["intents"] == whole.tables["intents"]
    assert tables.planned() == whole.planned()


def test_a_crash_at_any_write_of_an_advance_loses_no_manifest() -> None:
    facts: list[m.Message] = [FIRST, SECOND, WISH, x.decided(wish=WISH)]
    whole = Tables()
    whole.hear(facts[:-1])
    before = {name: len(table.writes) for name, table in whole.tables.items()}
    whole.hear(facts[-1:])
    crashes = 0
    for broken in ("waiting", "intents"):
        for after in range(len(whole.tables[broken].writes) - before[broken]):
            tables = Tables()
            tables.hear(facts[:-1])
            tables.tables[broken].left = after
            with pytest.raises(Crash):
                tables.hear(facts[-1:])
            tables.sit()
            tables.hear(facts[-1:])
            assert tables.planned() == [FIRST, SECOND]
            assert tables.tables["intents"] == whole.tables["intents"]
            crashes += 1
    assert crashes == 3, "two names of early bodies, and the row"


def test_a_crash_at_any_write_of_an_advance_is_heard_again_where_no_body_is_kept() -> None:
    """The home of an intent and whoever reads along; found by the simulation (seed 2057)."""
    facts: list[m.Message] = [FIRST, SECOND, WISH, x.decided(wish=WISH)]
    whole = Tables(x.A)
    whole.hear(facts[:-1])
    before = {name: len(table.writes) for name, table in whole.tables.items()}
    whole.hear(facts[-1:])
    assert x.A not in WISH.destinations
    for broken in ("waiting", "intents"):
        for after in range(len(whole.tables[broken].writes) - before[broken]):
            tables = Tables(x.A)
            tables.hear(facts[:-1])
            tables.tables[broken].left = after
            with pytest.raises(Crash):
                tables.hear(facts[-1:])
            tables.sit()
            tables.hear(facts[-1:])
            assert tables.tables["intents"] == whole.tables["intents"]


def test_a_crash_at_any_write_of_a_transfers_turn_changes_nothing_in_the_end() -> None:
    facts: list[m.Message] = [x.planned(FIRST), x.opened(), x.planned(FIRST), x.closed()]
    whole = Tables()
    whole.hear(facts)
    for broken in ("transfers", "manifests"):
        for after in range(len(whole.tables[broken].writes)):
            tables = Tables()
            tables.tables[broken].left = after
            for fact in facts:
                try:
                    tables.hear([fact])
                except Crash:
                    tables.sit()
                    tables.hear([fact])
            assert tables.tables == whole.tables


# Rows as bytes.


@settings(max_examples=60)
@given(two_hearings)
def test_a_transfers_row_survives_its_codec(
    case: tuple[list[list[m.Message]], list[m.Message], list[m.Message]],
) -> None:
    tables = Tables()
    tables.hear(case[1])
    raw = tables.tables["transfers"].get(x.MANIFEST)
    row = rows.transfer_row(raw)
    assert row is None or rows.encode(row) == raw
    assert rows.transfer_row(None) is None
    assert rows.intent_row(None) is None


def test_an_intents_row_survives_its_codec() -> None:
    tables = Tables()
    tables.hear(
        [WISH, x.decided(wish=WISH), FIRST, x.cancel(), x.raised(3), x.reported(), x.completed(SECOND.manifest)]
    )
    row = tables.turns.intent_row(x.INTENT)
    assert row is not None
    assert rows.encode(row) == tables.tables["intents"][x.INTENT]
    assert rows.intent_row(rows.encode(row)) == row


def test_a_row_of_a_thousand_files_is_small() -> None:
    """Progress is one interval set: the row of a transfer of a thousand files stays under 8 KB."""
    items = [x.item(n, 100) for n in range(1000)]
    body = x.written(items=items)
    tables = Tables()
    tables.hear([x.planned(body), x.opened()])
    line = [n for n in range(1000) if n % 2]
    tables.hear([x.progress(Ranges((100 * n, 100 * n + 100) for n in line[:100]), Ranges.of(*line[100:200]))])
    assert len(tables.tables["transfers"][x.MANIFEST]) < 8_000


def full(no: int, items: int = 100) -> m.ManifestWritten:
    return x.written(no, [x.item(n, 100) for n in range(items)], last=False)


def plan(tables: Tables, written: m.ManifestWritten) -> None:
    planned = x.planned(written)
    tables.turns.transfer(planned, wire.encode(planned))


def test_decoded_manifests_are_remembered_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the bytes of their encoding: of small ones many, of full ones few."""
    monkeypatch.setattr(turn, "BODIES_BYTES_MAX", 5 * len(wire.encode(full(39))) + 100)
    tables = Tables()
    for no in range(40):
        plan(tables, full(no))
        assert tables.turns._bodies_bytes <= turn.BODIES_BYTES_MAX
    assert len(tables.turns._bodies) == 5
    first = full(0).manifest
    known = tables.turns.manifest(first)
    assert known is not None
    assert known.body == full(0)
    assert tables.turns.manifest(first) is known
    assert len(tables.turns._bodies) == 5
    assert tables.turns._bodies_bytes == sum(size for _, size in tables.turns._bodies.values())
    for no in range(100, 110):
        plan(tables, full(no, items=1))
    assert len(tables.turns._bodies) > 10, "of small ones more"


def test_the_manifest_used_last_is_remembered_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "BODIES_BYTES_MAX", 2 * len(wire.encode(full(2))) + 100)
    tables = Tables()
    plan(tables, full(0))
    plan(tables, full(1))
    known = tables.turns.manifest(full(0).manifest)
    plan(tables, full(2))
    assert tables.turns.manifest(full(0).manifest) is known
    assert full(1).manifest not in tables.turns._bodies


def test_one_manifest_larger_than_the_bound_is_remembered_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "BODIES_BYTES_MAX", 10)
    tables = Tables()
    plan(tables, full(0))
    plan(tables, full(1))
    assert list(tables.turns._bodies) == [full(1).manifest]
    assert tables.turns.manifest(full(1).manifest) is tables.turns.manifest(full(1).manifest)


def test_a_closed_transfer_is_remembered_no_more() -> None:
    tables = Tables()
    plan(tables, BODY)
    assert tables.turns.manifest(BODY.manifest) is not None
    tables.hear([x.closed(x.completed(items=4))])
    assert (tables.turns._bodies, tables.turns._bodies_bytes, tables.turns._indexes) == ({}, 0, {})
    assert tables.turns.manifest(BODY.manifest) is None
    assert tables.turns.index(BODY.manifest) is None
    assert tables.tables["manifests"] == {}


def test_indexes_are_remembered_in_bounds_and_read_again_from_their_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "INDEXES_MAX", 3)
    tables = Tables()
    for no in range(6):
        plan(tables, full(no))
    assert len(tables.turns._indexes) == 3
    for no in range(6):
        assert tables.turns.index(full(no).manifest) == Manifest(full(no)).index
    assert len(tables.turns._indexes) == 3
    assert tables.turns.index(full(5).manifest) is tables.turns.index(full(5).manifest)


def test_folding_and_asking_an_open_transfer_read_no_body() -> None:
    """Of a full manifest a body is a quarter of a megabyte, and decoding it takes longer than a slice."""
    tables = Tables()
    plan(tables, BODY)
    tables.sit()
    reads = tables.tables["manifests"].reads
    reads.clear()
    tables.turns.transfer(x.opened(), wire.encode(x.opened()))
    tables.turns.transfer(x.progress(Ranges([(0, 10)])), wire.encode(x.progress(Ranges([(0, 10)]))))
    assert tables.turns.index(x.MANIFEST) is not None
    assert reads == [rows.index_key(x.MANIFEST)], "its index, once"


@pytest.mark.parametrize(
    "written",
    [
        BODY,
        x.written(items=[]),
        full(0, items=1000),
        replace(
            x.written(items=[replace(x.item(0, 3), bytes=1000, adler32=None), replace(x.item(1, 0), adler32=None)]),
            unit=m.Unit.ENTRIES,
        ),
        x.written(items=[x.item(0, 5, holder=x.A), x.item(1, 0, holder=None, why=x.reason("no site holds it"))]),
    ],
    ids=["mixed", "empty", "full", "entries", "unobtainable"],
)
def test_an_index_survives_its_codec(written: m.ManifestWritten) -> None:
    index = Manifest(written).index
    raw = rows.encode_index(index)
    again = rows.manifest_index(raw)
    assert again == index
    assert again is not None
    assert rows.encode_index(again) == raw
    assert (again.count, again.line.total, again.unit_bytes) == (index.count, index.line.total, index.unit_bytes)
    assert len(raw) < 20_000
    assert rows.manifest_index(None) is None


def test_keys_tell_whose_they_are() -> None:
    for key in (x.MANIFEST, rows.open_key(x.MANIFEST), rows.index_key(x.MANIFEST)):
        assert rows.owner_of(key) == x.MANIFEST
    for key in (x.INTENT, rows.open_key(x.INTENT)):
        assert rows.owner_of(key) == x.INTENT
    early = turn.early_key(SECOND)
    for key in (
        turn.waiting_key(x.MANIFEST, x.C),
        early,
        turn.link_key(early),
        turn.early_names(x.INTENT),
        turn.forget_key(x.INTENT),
    ):
        assert turn.intent_of(key) == x.INTENT
