"""Columns of an RNTuple: its top-level fields, clusters decoded by uproot one at a time.

A cluster is decoded whole, column by column, and kept while windows end inside it.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import xxhash

from streams.core.names import shown
from streams.errors import Transfer2goError
from streams.events import entries as windows
from streams.events.checked_file import CheckedFile, in_words
from streams.events.columns import NoArrowType, arrow_array, arrow_field

_CHECKSUM = struct.Struct("<Q")


class NTuple:
    """The top-level fields of an RNTuple."""

    def __init__(self, ntuple: Any, file: CheckedFile) -> None:
        self._file = file
        self._ntuple = ntuple
        self.entries = int(ntuple.num_entries)
        _note_fields(ntuple)
        self._fields = {field.name: field for field in ntuple.fields}
        self.names: Sequence[str] = tuple(self._fields)
        self._read_page = ntuple.read_page
        ntuple.read_page = self._read_sound_page
        self._edges = _edges(ntuple, self.entries)
        self._summaries = list(ntuple.cluster_summaries)
        self._kinds: dict[str, pa.DataType] = {}
        self._ids = _column_ids(ntuple)
        self._decoded: dict[str, Any] = {}
        self._bytes: list[int] = []  # decoded, of the planned columns, by cluster

    def plan(self, names: Sequence[str], lenient: bool) -> tuple[list[pa.Field], dict[str, str]]:
        fields, unreadable = [], {}
        for name in names:
            try:
                found = arrow_field(name, self._form(name))
            except NoArrowType as error:
                unreadable[name] = f"{error} (type {shown(self._fields[name].typename, 80)})"
                continue
            fields.append(found)
            self._kinds[name] = found.type
        return fields, unreadable

    def _form(self, name: str) -> Any:
        try:
            form, _ = self._fields[name].to_akform()
            return form.content(name)
        except Transfer2goError:
            raise
        except Exception as error:
            raise NoArrowType(f"uproot cannot read it: {in_words(error)}") from error

    def borders(self) -> list[tuple[Sequence[int], Sequence[int]]]:
        sizes = [self._sizes(name) for name in self._kinds]
        self._bytes = [sum(of_cluster) for of_cluster in zip(*sizes, strict=True)]
        return [(self._edges, size) for size in sizes]

    def load(self, start: int, stop: int) -> list[pa.Array]:
        # uproot would decode the cluster after `stop` too where a cluster ends there, so it is shown none after it.
        last = bisect_left(self._edges, stop)
        self._ntuple._cluster_summaries = self._summaries[:last]
        keeping = self._worth_keeping(start, stop)
        try:
            found = []
            for name, kind in self._kinds.items():
                cache = self._decoded if keeping else None
                with self._file.guarded(f"cannot read entries {start:,} to {stop:,} of the column {shown(name)!r}"):
                    array = self._fields[name].array(entry_start=start, entry_stop=stop, array_cache=cache)
                    found.append(arrow_array(array, kind))
        finally:
            self._ntuple._cluster_summaries = self._summaries
        self._forget(stop)
        return found

    def _read_sound_page(self, destination: Any, cluster: int, column: int, page: int, metadata: Any) -> None:
        """uproot's `read_page`, which does not look at the checksum that follows most pages."""
        found = self._ntuple.page_link_list[cluster][column].pages[page]
        start, stop = int(found.locator.offset), int(found.locator.offset) + int(found.locator.num_bytes)
        if found.has_checksum:
            block = self._file.pread(start, stop + _CHECKSUM.size)
            if len(block) != stop - start + _CHECKSUM.size:
                raise ValueError("the file is cut short")
            (checksum,) = _CHECKSUM.unpack_from(block, stop - start)
            block = block[: -_CHECKSUM.size]
            if xxhash.xxh3_64_intdigest(block) != checksum:
                raise ValueError(f"page {page} of its cluster {cluster} does not have its checksum")
            self._file.ready = start, block
        self._read_page(destination, cluster, column, page, metadata)

    def _worth_keeping(self, start: int, stop: int) -> bool:
        """Whether a cluster is cut by this window, and none that is cut is too large to be held decoded."""
        cut = {bisect_right(self._edges, entry) - 1 for entry in (start, stop) if entry not in self._edges}
        return bool(cut) and sum(self._bytes[cluster] for cluster in cut) <= windows.KEPT_BYTES

    def _forget(self, stop: int) -> None:
        """Keep the decoded cluster that the next window begins in, unless it is too large to keep."""
        inside = bisect_right(self._edges, stop) - 1
        keep = str(inside) if self._edges[inside] < stop else ""
        for key in [key for key in self._decoded if key.rsplit(":", 2)[1] != keep]:
            del self._decoded[key]

    def _sizes(self, name: str) -> list[int]:
        """Decoded bytes by cluster: elements of the field's columns times their widths."""
        ids = self._ids.get(self._fields[name].field_id, [])
        sizes = []
        for links in self._ntuple.page_link_list:
            total = 0
            for i in ids:
                if i < len(links):
                    count = sum(page.num_elements for page in links[i].pages)
                    total += -(-count * int(self._ntuple.column_records[i].nbits) // 8)
            sizes.append(total)
        return sizes


def _note_fields(ntuple: Any) -> None:
    """Note in every field which are below it: uproot looks for them among all, once for each, a minute for 3,000."""
    below: dict[int, list[int]] = {}
    for i, record in enumerate(ntuple.field_records):
        if int(record.parent_field_id) != i:
            below.setdefault(int(record.parent_field_id), []).append(i)
    fields = ntuple.all_fields

    def noted(i: int) -> list[Any]:
        if fields[i]._fields is None:
            found: list[Any] = []
            for inner in below.get(i, ()):
                found += noted(inner) if fields[inner].is_anonymous else [fields[inner]]
            fields[i]._fields = found
        return list(fields[i]._fields)

    for i in range(len(fields)):
        noted(i)


def _edges(ntuple: Any, entries: int) -> list[int]:
    edges = [0]
    for summary in ntuple.cluster_summaries:
        if int(summary.num_first_entry) != edges[-1] or int(summary.num_entries) < 0:
            raise ValueError("the clusters are out of order")
        edges.append(edges[-1] + int(summary.num_entries))
    if edges[-1] != entries:
        raise ValueError(f"the clusters hold {edges[-1]:,} entries, the tree {entries:,}")
    return edges


def _column_ids(ntuple: Any) -> dict[int, list[int]]:
    """The columns of every top-level field and of everything below it."""
    top: dict[int, int] = {}
    for i, record in enumerate(ntuple.field_records):
        above = int(record.parent_field_id)
        top[i] = i if above == i else top.get(above, i)
    found: dict[int, list[int]] = {}
    for i, record in enumerate(ntuple.column_records):
        found.setdefault(top.get(int(record.field_id), -1), []).append(i)
    return found
