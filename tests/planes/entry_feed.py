"""Manifests of entries of real files, a source half that serves them, and what its payloads hold once unpacked."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from streams.core.names import IntentId, Lfn
from streams.core.records import Item, ManifestWritten, Reason, Unit
from streams.core.selections.parts import canonical, entries_of
from streams.events.batches import fingerprint, unpack
from streams.events.reading import open_entries
from streams.planes.inventory.entry_items import EntryItems
from streams.planes.source.entry_reader import FileEntries
from streams.planes.source.open_files import OpenFileCache
from streams.storage import open_endpoint
from streams.storage.checksums import crc32c
from tests.planes.feed import Record, Sender
from tests.planes.stage import BLOCK, A

PAYLOAD = 64 * 1024


class EntrySender(Sender):
    def __init__(
        self,
        root: Path,
        payload_bytes: int = PAYLOAD,
        codec: str = "lz4",
        record_bytes_max: int = 1 << 20,
        open_files: OpenFileCache | None = None,
    ) -> None:
        super().__init__(
            root,
            payload_bytes,
            lambda endpoint: FileEntries(
                endpoint, payload_bytes, codec, record_bytes_max, open_files or OpenFileCache()
            ),
        )


def put_sample(root: Path, sample: Path) -> str:
    """The LFN of a sample's copy."""
    (root / "store").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sample, root / "store" / sample.name)
    return f"/store/{sample.name}"


def item_of(
    root: Path, lfn: str, selection: str, suffix: str = "parquet", open_files: OpenFileCache | None = None
) -> Item:
    """As site A lists a file under its storage `root`."""
    with open_endpoint(f"file://{root}") as endpoint:
        version = endpoint.stat(lfn).version
        return EntryItems(A, endpoint, PAYLOAD, open_files or OpenFileCache()).item(
            Lfn(lfn), BLOCK, {A: version}, canonical(selection), suffix
        )


def entries_listed(root: Path, lfns: Sequence[str], selection: str = "entries:[:]") -> ManifestWritten:
    items = tuple(item_of(root, lfn, selection) for lfn in lfns)
    assert not [item.reason for item in items if item.reason is not None]
    return ManifestWritten(IntentId(f"T1_A.{uuid4()}"), A, 0, 0, "", "", Unit.ENTRIES, items, last=True)


def unpacked(records: Sequence[Record]) -> dict[int, list[tuple[int, int, pa.RecordBatch | Reason]]]:
    """Of each item, in order: (offset, length, batch or reason); checksums, sizes and fingerprints are checked."""
    found: dict[int, list[tuple[int, int, pa.RecordBatch | Reason]]] = {}
    for header, payload in records:
        at = 0
        for segment in header.segments:
            piece = payload[at : at + segment.size]
            at += segment.size
            content: pa.RecordBatch | Reason | None = segment.reason
            if content is None:
                assert crc32c(piece) == segment.crc32c
                content = unpack(piece)
                assert fingerprint(content.schema) == segment.fingerprint
            found.setdefault(segment.item, []).append((segment.offset, segment.length, content))
        assert at == len(payload)
    return found


def rows_of(pieces: Sequence[tuple[int, int, pa.RecordBatch | Reason]], start: int) -> pa.RecordBatch:
    """The batches of an item behind one another, the first at offset `start`."""
    batches = []
    for offset, length, batch in pieces:
        assert isinstance(batch, pa.RecordBatch), batch
        assert (offset, length) == (start, batch.num_rows)
        batches.append(batch)
        start += length
    return pa.concat_batches(batches)


def in_file(root: Path, item: Item) -> pa.RecordBatch:
    """All entries of the item, read from the file at once."""
    selection = entries_of(item.selection)
    assert selection is not None
    with open_entries(str(root / item.lfn[1:]), selection) as entries:
        return entries.read(entries.start, entries.stop)
