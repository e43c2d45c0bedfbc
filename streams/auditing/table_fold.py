"""The tables of a site's worker, folded from its journals by the worker's own turn into a database of a moment.

They say what the machine makes of the journals, and nothing of whether these are true: the ledger judges that. So the
machine may be used here, and a fault of it that both have shows nothing.

    R TABLE PARTITION KEY     a row, as a worker puts it
    O OWNER                   the last record that an intent or a transfer heard: topic, partition, offset
    H OWNER                   the worker may have heard it or not; see `TableFold.hear`
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from streams import wire
from streams.core import intent as intents
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.ledger.findings import LogPosition
from streams.core.names import IntentId, ManifestId, Site
from streams.core.topics import partition_of
from streams.errors import Temporary, Transfer2goError, WireError
from streams.kafka.reader import Record
from streams.views import rows as views
from streams.worker import rows
from streams.worker.turn import Turns, intent_of, owes, row_here

ROW, LAST, HOVERING = b"R", b"O", b"H"
_PARTITION = struct.Struct(">I")
OWNER_OF: dict[str, Callable[[str], str]] = {
    **dict.fromkeys(rows.NAMES, rows.owner_of),
    "waiting": intent_of,
}
"""Whose partition a key of a table lies in, and by whose facts alone its row changes."""
_CODE = {name: bytes([number]) for number, name in enumerate(rows.NAMES)}


def table_prefix(kind: bytes, table: str) -> bytes:
    """How all keys of a table begin; behind it come the partition and the row's own key."""
    return kind + _CODE[table]


def row_key(kind: bytes, table: str, partition: int, key: bytes) -> bytes:
    return table_prefix(kind, table) + _PARTITION.pack(partition) + key


def place_of(key: bytes) -> tuple[int, str]:
    """Partition and key of a row, of what stands behind its table's prefix."""
    return _PARTITION.unpack_from(key)[0], key[_PARTITION.size :].decode(errors="backslashreplace")


class NoRoom(Temporary):
    """Nothing can be folded here."""


@contextmanager
def room() -> Iterator[None]:
    """NoRoom where a database of the moment cannot be written."""
    try:
        yield
    except Transfer2goError:
        raise
    except Exception as error:
        # RocksDB's binding raises plain Exceptions, and says of a full disk at its end only that something went before.
        if isinstance(error, rows.TableFailed | OSError) or str(error).startswith("IO error"):
            raise NoRoom(
                f"tables cannot be folded here: {_first_said(error)[:200]}",
                next="make room in the directory for temporary files (TMPDIR); what is put there goes away at the end",
            ) from error
        raise


def _first_said(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return str(error)


class _Told:
    """What the database raises is no fault of the record at hand. No generator: it is entered at each access."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            raise rows.TableFailed(str(error)) from error


_TOLD = _Told()


class _FoldedTable:
    """One table as a turn sees it: it reads in the key's own partition, and puts in that of the fact at hand."""

    def __init__(self, fold: TableFold, name: str) -> None:
        self._fold, self._name, self._owner_of = fold, name, OWNER_OF[name]

    def _own(self, key: str) -> bytes:
        partition = partition_of(self._owner_of(key), self._fold.partitions)
        return row_key(self._fold.prefix + ROW, self._name, partition, key.encode())

    def _at_hand(self, key: str) -> bytes:
        return row_key(self._fold.prefix + ROW, self._name, self._fold.partition, key.encode())

    def get(self, key: str) -> bytes | None:
        with _TOLD:
            return cast("bytes | None", self._fold.db.get(self._own(key)))

    def put(self, key: str, row: bytes) -> None:
        if len(row) > rows.ROW_BYTES_MAX:
            raise WireError(f"a row of {len(row):,} bytes, over {rows.ROW_BYTES_MAX:,}")
        with _TOLD:
            self._fold.db.put(self._at_hand(key), row)

    def delete(self, key: str) -> None:
        if self.get(key) is not None:
            with _TOLD:
                self._fold.db.delete(self._at_hand(key))

    def keys(self, partition: int, prefix: str) -> Iterator[str]:
        first = row_key(self._fold.prefix + ROW, self._name, partition, prefix.encode())
        behind = len(first) - len(prefix.encode())
        for key, _ in views.scan(self._fold.db, first):
            yield key[behind:].decode()


class TableFold:
    """Hears records of a site's journals, each partition in its order; `db` is a database of views.

    `here` None: rows of intents as every site has them, without what a site's own destination reported. `prefix`: how
    all keys begin, where several folds share a database. Not bounded is what a turn leaves for later turns of its
    partition: a name each of intents that ended with more than 32 manifests and of which nothing came since.
    """

    def __init__(self, db: Any, here: Site | None, partitions: int, *, prefix: bytes = b"") -> None:
        self.db, self.partitions, self.prefix = db, partitions, prefix
        self.partition = 0
        """Of the record at hand."""
        self.records = self.refused = 0
        """Records heard, and how many of them the gate or the turn refused, as a worker does with a dead letter."""
        self.hovering: OrderedDict[tuple[str, int], int] = OrderedDict()
        """Of each place the last record that was heard as hovering."""
        tables = {name: _FoldedTable(self, name) for name in rows.NAMES}
        self.turns = Turns(rows.Tables(**tables), here)

    def hear(self, record: Record, read_at: Site, *, hovering: bool = False) -> None:
        """The next record of a partition, read at a site's cluster.

        `hovering`: whether the worker's tables have it is not known. Rows of its intent or transfer are not compared.
        """
        self.records += 1
        owner = self._folded(record, read_at)
        if hovering:
            self.hovering[record.topic, record.partition] = record.offset
        if owner is not None:
            self.db.put(self.prefix + LAST + owner.encode(), _packed(record))
            if hovering:
                self.db.put(self.prefix + HOVERING + owner.encode(), b"")

    def _folded(self, record: Record, read_at: Site) -> IntentId | ManifestId | None:
        value = record.value or b""
        try:
            message = wire.decode(record.topic, record.key, record.value, record.headers, read_at).message
            row, self.partition = row_here(record.topic, message), record.partition
            if row is m.Row.INTENT:
                of_intent = cast("intents.IntentMessage", message)
                if self.turns.intent(record.partition, of_intent, value).refused is not None:
                    self.refused += 1
                return of_intent.intent
            if row is m.Row.TRANSFER:
                of_transfer = cast("transfers.TransferMessage", message)
                self.turns.transfer(of_transfer, value)
                return of_transfer.manifest
        except WireError:
            self.refused += 1
        except rows.TableFailed:
            raise
        except Exception:  # noqa: BLE001  a worker makes a dead letter of it, and goes on
            self.refused += 1
        return None

    # what was folded

    def table(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """All rows of a table, by partition and key: (what stands behind the table's prefix, row)."""
        prefix = table_prefix(self.prefix + ROW, name)
        for key, row in views.scan(self.db, prefix):
            yield key[len(prefix) :], row

    def row(self, name: str, key: bytes) -> bytes | None:
        """The row under what stands behind a table's prefix."""
        return cast("bytes | None", self.db.get(table_prefix(self.prefix + ROW, name) + key))

    def last(self, owner: str, site: Site) -> LogPosition | None:
        """The last record that an intent or a transfer heard."""
        packed = self.db.get(self.prefix + LAST + owner.encode())
        if packed is None:
            return None
        topic, partition, offset = packed.decode().split("\0")
        return LogPosition(site, topic, int(partition), int(offset))

    def hovers(self, owner: str) -> bool:
        return bool(self.hovering) and self.db.get(self.prefix + HOVERING + owner.encode()) is not None

    def is_over(self, table: str, key: str) -> bool:
        """Whether a key is of an intent or a transfer that has ended, so that a row left under it does nothing."""
        owner = OWNER_OF[table](key)
        if table in ("transfers", "manifests"):
            transfer = self.turns.transfer_row(ManifestId(owner))
            return transfer is not None and transfer.state is transfers.State.CLOSED
        intent = self.turns.intent_row(IntentId(owner))
        if intent is None:
            return False
        return intent.ended if table == "waiting" else not owes(intent, self.turns.here)


def _packed(record: Record) -> bytes:
    return f"{record.topic}\0{record.partition}\0{record.offset}".encode()
