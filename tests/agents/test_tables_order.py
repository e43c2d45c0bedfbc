"""I8 and I11 with the tables: manifests may come before their decision and beside rivals; rows are the same bytes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agents import rows
from agents.turn import Turns
from streams import wire
from streams.core import messages as m
from streams.core import topics
from streams.core.names import Site
from streams.core.ranges import Ranges
from tests.agents.rig import Dict
from tests.core import example as x
from tests.core.test_machines_order import BODY, hearings, histories, two_hearings

FIRST = x.written(0, last=False)
RIVAL = x.written(0, [x.item(7, 7)], last=False)
SECOND = x.written(1, prev=FIRST)
BEHIND_RIVAL = x.written(1, [x.item(8, 8)], prev=RIVAL)
STRANGER = x.written(0, [x.item(9, 9, holder=x.A)], source=x.A)
WISH = x.body(destinations=(x.B, x.C))


class Tables:
    def __init__(self, here: Site = x.B) -> None:
        self.tables = {name: Dict() for name in rows.NAMES}
        self.turns = Turns(rows.Tables(**self.tables), here)

    def hear(self, facts: list[m.Message]) -> None:
        for fact in facts:
            if topics.key_of(fact) == x.MANIFEST:
                self.turns.transfer(fact)  # type: ignore[arg-type]
            else:
                self.turns.intent(fact)  # type: ignore[arg-type]

    def planned(self) -> list[m.ManifestWritten | None]:
        row = self.turns.intent_row(x.INTENT)
        if row is None or row.decision is None or row.decision.source is None or row.ended:
            return []
        ids = [x.ManifestId.of(x.INTENT, row.chain.source_no, no) for no in range(row.chain.next_no)]
        return [self.turns.waiting_body(one, row.decision.source) for one in ids]


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
    assert None not in one.planned(), "what counts is kept"
    two.hear(facts)
    assert one.tables["intents"] == two.tables["intents"]
    assert one.planned() == two.planned()


def test_a_crash_at_any_put_of_an_advance_loses_no_manifest() -> None:
    facts: list[m.Message] = [FIRST, SECOND, WISH, x.decided(wish=WISH)]
    whole = Tables()
    whole.hear(facts)
    for broken in ("waiting", "intents"):
        for after in range(3):
            tables = Tables()
            tables.hear(facts[:-1])
            table, put = tables.tables[broken], tables.tables[broken].put
            left = [after]

            def failing(key: str, row: bytes, put=put, left=left) -> None:  # type: ignore[no-untyped-def]
                if left[0] == 0:
                    left[0] -= 1
                    raise KeyboardInterrupt
                left[0] -= 1
                put(key, row)

            table.put = failing  # type: ignore[method-assign]
            try:
                tables.hear(facts[-1:])
            except KeyboardInterrupt:
                tables.hear(facts[-1:])
            assert tables.planned() == [FIRST, SECOND]
            assert tables.tables["intents"] == whole.tables["intents"]


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


def test_decoded_manifests_are_remembered_in_bounds() -> None:
    tables = Tables()
    for no in range(40):
        body = x.written(no, last=False)
        tables.turns.transfer(x.planned(body))
    assert len(tables.turns._manifests) == 16
    first = x.ManifestId.of(x.INTENT, 0, 0)
    known = tables.turns.manifest(first)
    assert known is not None
    assert known.body.manifest == first
    assert tables.turns.manifest(first) is known
    assert wire.encode(BODY)
