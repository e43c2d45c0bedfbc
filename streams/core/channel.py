"""A channel: a source, the carrier by which its bytes come, and what of the carrier they share. Pure.

Credit and leases are counted on it. By which carrier a site is asked, routing.py and the transfer's row decide.
"""

from __future__ import annotations

from typing import NamedTuple

from streams.core.names import ManifestId, Site
from streams.core.topics import partition_of

LOG = "log"
"""The carrier that sends payload through the log; the word stands in requests (`plane`)."""
DOOR = "door"
"""The carrier whose source offers a ticket in the log; the destination fetches the bytes from its door."""

CARRIERS = (LOG, DOOR)
RELAY = "relay"
"""Of a route, not a carrier: by the door of a destination that gets the same before."""


class Channel(NamedTuple):
    source: Site
    carrier: str
    key: int
    """The partition of the transfers that share it, which one worker owns: on the log, of the payload topic too."""


def channel_of(source: Site, carrier: str, manifest: ManifestId, partitions: int) -> Channel:
    """Where a transfer's requests are counted."""
    return Channel(source, carrier, partition_of(manifest, partitions))


class Giver(NamedTuple):
    """Of bytes: who was asked for them, by which carrier, under which number."""

    source: Site
    carrier: str
    request_no: int
