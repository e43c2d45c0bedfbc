"""A channel: a source, the carrier by which its bytes come, and what of the carrier they share. Pure.

Credit and leases are counted on it. By which carrier a site is asked, routing.py and the transfer's row decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from streams.core.names import ManifestId, Site
from streams.core.topics import partition_of

LOG = "log"
"""The carrier that sends payload through the log; the word stands in requests (`plane`)."""
DOOR = "door"
"""The carrier whose source offers a ticket in the log; the destination fetches the bytes from its door."""
URLS = "urls"
"""What a source says of a request by door whose bytes others give, by URL: nobody counts what has left."""

CARRIERS = (LOG, DOOR)
TOOL = "tool"
"""The carrier that has a program of the destination's fetch whole files. Requests name the program too."""
_TOOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
RELAY = "relay"
"""Of a route, not a carrier: by the door of a destination that gets the same before."""


NO_TOOLS: Mapping[Site, str] = {}
"""By site, the tool on the link from there: none."""


def tool_plane(name: str) -> str:
    """The word that requests, routes and intents have for a tool."""
    return f"{TOOL}-{name}"


def tool_of(plane: str | None) -> str | None:
    """The name of the tool that such a word means; None of any other."""
    name = plane.removeprefix(f"{TOOL}-") if plane is not None else None
    return None if name is None or name == plane or not is_tool_name(name) else name


def is_tool_name(text: str) -> bool:
    return _TOOL_NAME.fullmatch(text) is not None and text not in CARRIERS


def carrier_of(plane: str) -> str:
    """The carrier that a request, a route or an intent names."""
    return plane if tool_of(plane) is None else TOOL


def plane_in_words(plane: str) -> str:
    tool = tool_of(plane)
    return plane if tool is None else f"{TOOL} {tool}"


class Channel(NamedTuple):
    source: Site
    carrier: str
    """As a request names it: each tool has channels of its own."""
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
