"""Who goes first: limits, shares and priorities, which span rows. Pure; the caller keeps what is outstanding.

Credit bounds the bytes asked for and not verified, per (source, payload partition), since a payload partition keeps
only five times that. Within it the higher priority goes first, among equals the transfer with the least outstanding,
among these the one that waits longest: without the last, two transfers that answer quickly would keep a third waiting
to their end. Whom a lane has no room for is overtaken by nobody, or small requests would do the same to a large one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from streams.core.commands import RequestChunks
from streams.core.names import ManifestId, Site
from streams.core.topics import partition_of

Lane = tuple[Site, int]
"""(source, payload partition)."""


def lane(source: Site, manifest: ManifestId, partitions: int) -> Lane:
    return source, partition_of(manifest, partitions)


def schedule(
    due: Iterable[RequestChunks],
    outstanding: Mapping[Lane, Mapping[ManifestId, int]],
    waiting: Mapping[Lane, Mapping[ManifestId, int]],
    credit_bytes: int,
    partitions: int,
) -> list[RequestChunks]:
    """The requests that may be sent now, in order. One larger than the whole credit goes when its lane is empty.

    `outstanding` are bytes; `waiting` the places of transfers in their lane's queue, the least first; who is in none
    comes last.
    """
    used = {key: sum(rows.values()) for key, rows in outstanding.items()}
    granted: list[RequestChunks] = []
    full: set[Lane] = set()

    def order(request: RequestChunks) -> tuple[int, int, float, str, int]:
        key, manifest = lane(request.source, request.manifest, partitions), request.manifest
        share = outstanding.get(key, {}).get(manifest, 0)
        place = waiting.get(key, {}).get(manifest, math.inf)
        return -request.priority, share, place, manifest, request.request_no

    for request in sorted(due, key=order):
        key = lane(request.source, request.manifest, partitions)
        if key not in full and (used.get(key, 0) + request.bytes <= credit_bytes or not used.get(key, 0)):
            used[key] = used.get(key, 0) + request.bytes
            granted.append(request)
        else:
            full.add(key)
    return granted
