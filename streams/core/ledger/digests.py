"""The digest of a manifest, computed by the ledger itself: a fault in the machine's own would else be judged right.

Held to the machine's by a test of the ledger, over every field that either takes in.
"""

from __future__ import annotations

import hashlib

from streams.core import records as m


def sha256_of(manifest: m.ManifestWritten) -> str:
    """sha256 (hex) over what a manifest means: its head, then a line an item; fields are parted by tabs."""
    summed = hashlib.sha256()
    head = (
        manifest.intent,
        manifest.source,
        str(manifest.source_no),
        str(manifest.no),
        manifest.prev_sha256,
        manifest.unit.value,
        str(manifest.last),
    )
    summed.update("\t".join(head).encode())
    for item in manifest.items:
        fields = (
            item.lfn,
            item.dataset,
            item.block,
            item.target,
            item.selection,
            str(item.length),
            str(item.bytes),
            item.adler32 or "-",
            item.version,
            item.holder or "-",
            _why(item.reason),
        )
        summed.update(b"\n")
        summed.update("\t".join(fields).encode())
    return summed.hexdigest()


def _why(reason: m.Reason | None) -> str:
    if reason is None:
        return ""
    return "/".join((reason.scope.value, reason.failure_class.value, reason.phase, reason.text))
