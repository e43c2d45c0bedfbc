"""The last word on a complete transfer, and what it adds to the catalogue: pure functions of row and manifest."""

from __future__ import annotations

from dataclasses import replace

from streams.core import records as m
from streams.core.manifest import Manifest, ManifestIndex
from streams.core.names import Dataset, Destination, Site, Text
from streams.core.ranges import Ranges
from streams.core.transfer import TransferRow, all_items, merge_failed

REASONS_MAX = 32
"""Distinct reasons kept in a completion; the rest share one."""


def completion(row: TransferRow, manifest: ManifestIndex, here: Destination) -> m.CompletionRecord:
    """The last word of a complete row: a pure function of it."""
    failed = merge_failed(m.FailedItems(f.items - row.sealed, f.reason) for f in row.failed)
    if len(failed) > REASONS_MAX:
        rest = all_items(failed[REASONS_MAX - 1 :])
        like = failed[REASONS_MAX - 1].reason
        words = f"{len(failed) - REASONS_MAX + 1} other reasons, among them: {like.text}"
        failed = (*failed[: REASONS_MAX - 1], m.FailedItems(rest, replace(like, text=Text(words[:400]))))
    lost = all_items(failed)
    cancelled = Ranges([(0, row.items)]) - row.sealed - lost
    landed = tuple(one for one in row.landed if one.item in row.sealed)
    of_entries = manifest.unit is m.Unit.ENTRIES
    return m.CompletionRecord(
        intent=row.manifest.intent,
        manifest=row.manifest,
        destination=here,
        ended=_ended(row, lost, cancelled),
        items=row.items,
        sealed=row.sealed,
        failed=failed,
        cancelled=cancelled,
        bytes=sum(one.bytes for one in landed) if of_entries else manifest.bytes_of(row.sealed),
        manifest_sha256=manifest.sha256,
        landed=landed if of_entries else (),
    )


def _ended(row: TransferRow, lost: Ranges, cancelled: Ranges) -> m.Ended:
    if cancelled:
        return m.Ended.SUPERSEDED if row.verdict is m.Verdict.SUPERSEDED else m.Ended.CANCELLED
    if not lost:
        return m.Ended.DONE
    return m.Ended.PARTLY if row.sealed else m.Ended.FAILED


def replicas_of(closing: m.CompletionRecord, manifest: Manifest, here: Site) -> tuple[m.FilesHeld, ...]:
    """What the sealed items add to the catalogue, one record per dataset; a pure function of the completion."""
    by_dataset: dict[Dataset, list[m.HeldFile]] = {}
    landed = {one.item: one for one in closing.landed}
    for n in closing.sealed.numbers():
        item = manifest.items[n]
        file = landed.get(n, item)
        if file.adler32 is not None:
            part = (item.lfn, item.selection) if item.selection else (None, None)
            held = m.HeldFile(item.target, item.block, file.bytes, file.adler32, "", *part)
            by_dataset.setdefault(item.dataset, []).append(held)
    return tuple(
        m.FilesHeld(dataset, here, tuple(files), closing.manifest) for dataset, files in sorted(by_dataset.items())
    )
