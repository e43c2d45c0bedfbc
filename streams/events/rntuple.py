"""Columns of an RNTuple: its top-level fields, clusters decoded by uproot one at a time.

A cluster is decoded whole, column by column, and kept while windows end inside it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from streams.events.columns import NoArrowType, arrow_array, arrow_field
from streams.events.counted import CountedFile, in_words

KEPT_BYTES = 128 << 20
"""A decoded cluster that reaches beyond a window is kept up to this size; a larger one is decoded again."""


class NTuple:
    """The top-level fields of an RNTuple."""

    def __init__(self, ntuple: Any, file: CountedFile) -> None:
        self._file = file
        self._ntuple = ntuple
        self.entries = int(ntuple.num_entries)
        self._fields = {field.name: field for field in ntuple.fields}
        self.names = tuple(self._fields)
        self._edges = _edges(ntuple, self.entries)
        self._summaries = list(ntuple.cluster_summaries)
        self._kinds: dict[str, pa.DataType] = {}
        self._decoded: dict[str, Any] = {}

    def plan(self, names: Sequence[str]) -> tuple[list[pa.Field], dict[str, str]]:
        fields, unreadable = [], {}
        for name in names:
            try:
                form, _ = self._fields[name].to_akform()
                found = arrow_field(name, form.content(name))
            except (NoArrowType, NotImplementedError) as error:
                unreadable[name] = f"{in_words(error)} (type {self._fields[name].typename})"
                continue
            fields.append(found)
            self._kinds[name] = found.type
        return fields, unreadable

    def borders(self) -> list[tuple[Sequence[int], Sequence[int]]]:
        return [(self._edges, self._sizes(name)) for name in self._kinds]

    def load(self, start: int, stop: int) -> list[pa.Array]:
        # uproot would decode the cluster after `stop` too where a cluster ends there, so it is shown none after it.
        last = bisect_left(self._edges, stop)
        self._ntuple._cluster_summaries = self._summaries[:last]
        whole = start in self._edges and stop in self._edges
        try:
            found = []
            for name, kind in self._kinds.items():
                cache = None if whole else self._decoded
                array = self._fields[name].array(entry_start=start, entry_stop=stop, array_cache=cache)
                found.append(arrow_array(array, kind))
        finally:
            self._ntuple._cluster_summaries = self._summaries
        self._forget(stop)
        return found

    def _forget(self, stop: int) -> None:
        """Keep the decoded cluster that the next window begins in, unless it is too large to keep."""
        inside = bisect_right(self._edges, stop) - 1
        keep = str(inside) if self._edges[inside] < stop else ""
        for key in [key for key in self._decoded if key.rsplit(":", 2)[1] != keep]:
            del self._decoded[key]
        if sum(array.nbytes for array in self._decoded.values()) > KEPT_BYTES:
            self._decoded.clear()

    def _sizes(self, name: str) -> list[int]:
        """Decoded bytes by cluster: elements of the field's columns times their widths."""
        ids = _column_ids(self._ntuple, self._fields[name].field_id)
        sizes = []
        for links in self._ntuple.page_link_list:
            total = 0
            for i in ids:
                if i < len(links):
                    count = sum(page.num_elements for page in links[i].pages)
                    total += -(-count * int(self._ntuple.column_records[i].nbits) // 8)
            sizes.append(total)
        return sizes


def _edges(ntuple: Any, entries: int) -> list[int]:
    edges = [0]
    for summary in ntuple.cluster_summaries:
        if int(summary.num_first_entry) != edges[-1] or int(summary.num_entries) < 0:
            raise ValueError("the clusters are out of order")
        edges.append(edges[-1] + int(summary.num_entries))
    if edges[-1] != entries:
        raise ValueError(f"the clusters hold {edges[-1]:,} entries, the tree {entries:,}")
    return edges


def _column_ids(ntuple: Any, field_id: int) -> list[int]:
    """The columns of a field and everything below it."""
    below = {field_id}
    for i, record in enumerate(ntuple.field_records):
        if record.parent_field_id in below:
            below.add(i)
    return [i for i, record in enumerate(ntuple.column_records) if record.field_id in below]
