"""A channel: a source, the carrier by which its bytes come, and what of the carrier they share. Pure.

Credit and leases are counted on it. `key` is the carrier's own; on the log it is the partition of the payload topic.
"""

from __future__ import annotations

from typing import NamedTuple

from streams.core.names import ManifestId, Site
from streams.core.topics import partition_of

LOG = "log"
"""The carrier that sends payload through the log; the word stands in requests (`plane`)."""


class Channel(NamedTuple):
    source: Site
    carrier: str
    key: int


def log_channel(source: Site, manifest: ManifestId, partitions: int) -> Channel:
    """Of a transfer whose payload comes by the log."""
    return Channel(source, LOG, partition_of(manifest, partitions))
