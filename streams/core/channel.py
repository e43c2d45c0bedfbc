"""A channel: a source, the carrier by which its bytes come, and what of the carrier they share. Pure.

Credit and leases are counted on it. Which carrier it is, only `carrier_of` decides: requests name it, too.
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
    """The partition of the transfers that share it: on the log, of the payload topic too."""


def carrier_of(source: Site, manifest: ManifestId) -> str:
    """The carrier by which a source is asked for what a transfer has of it."""
    return LOG


def channel_of(source: Site, manifest: ManifestId, partitions: int) -> Channel:
    """Where it is counted."""
    return Channel(source, carrier_of(source, manifest), partition_of(manifest, partitions))
