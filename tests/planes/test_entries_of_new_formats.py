"""Entries of a format the product does not know, from a source's disk to a destination's: registered, nothing else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from streams.core.ranges import Ranges
from streams.core.records import FailureClass, PartOpened, TransferProgress
from streams.core.selections.parts import entries_of
from streams.events.provenance import provenance_of
from streams.events.reading import open_entries
from tests.events.int64_format import registered, write_int64
from tests.events.landing_tables import flat
from tests.planes.entries_feed import Tables, manifest_of, records
from tests.planes.entry_feed import EntrySender, entries_listed, item_of, rows_of, unpacked
from tests.planes.feed import Receiver
from tests.planes.stage import request_of

TABLE = pa.table({"run": range(20_000), "event": [7 * n for n in range(20_000)]})


def test_a_new_format_is_listed_and_sent(tmp_path: Path) -> None:
    root = tmp_path / "a"
    (root / "store").mkdir(parents=True)
    write_int64(root / "store/a.i64", TABLE)
    with registered():
        sender = EntrySender(root)
        body = entries_listed(root, ["/store/a.i64"], "entries:[5:15005]{event}")
        (item,) = body.items
        assert (item.length, entries_of(item.selection)) == (15_000, entries_of("entries:[5:15005]{event}"))
        records = sender.serve(request_of(body))
        sender.close()
    assert len(unpacked(records)[0]) > 1
    assert pa.Table.from_batches([rows_of(unpacked(records)[0], 0)]).equals(TABLE.select(["event"]).slice(5, 15_000))
    reason = item_of(root, "/store/a.i64", "entries:[:]").reason
    assert reason is not None
    assert reason.failure_class is FailureClass.PERMANENT
    assert "no format of entries is known" in reason.text


def test_entries_land_as_a_new_format(tmp_path: Path) -> None:
    tables: Tables = {"/store/a.root": TABLE, "/store/d/b.root": TABLE.slice(0, 700), "/store/c.root": flat(10)}
    body = manifest_of(tables, "i64")
    whole = entries_of("entries:[:]")
    assert whole is not None
    with registered():
        receiver = Receiver(tmp_path / "b")
        receiver.open(body)
        receiver.take(records(body, tables, 999))
        receiver.sync()
        told = receiver.last(TransferProgress)
        assert told.sealed == Ranges([(0, 2)])
        (failed,) = told.failed
        assert "is no int64" in failed.reason.text
        for item, table in zip(body.items[:2], tables.values(), strict=False):
            path = str(receiver.root / item.target[1:])
            assert provenance_of(path).lfn == item.lfn
            with open_entries(path, whole) as entries:
                assert pa.Table.from_batches([entries.read(0, len(table))]).equals(table)
        again = receiver.crash()
        opened = again.open(body, 2)  # what is there whole is found by what it says of itself
        assert isinstance(opened, PartOpened)
        assert [one.item for one in opened.landed] == [0, 1]
