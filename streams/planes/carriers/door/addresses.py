"""What a destination was offered, and where it can be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from streams.core.names import ManifestId, Site
from streams.core.ranges import Ranges
from streams.core.records import ItemUrl
from streams.doors.lobby import Dialled
from streams.doors.urls import Place


class Address(NamedTuple):
    """Of a door; `tls`: whether it speaks https."""

    host: str
    port: int
    tls: bool = False


class UrlAddress(NamedTuple):
    """Of a server that is no door of this product, and answers URLs."""

    place: Place
    what: str = "urls"

    @property
    def words(self) -> str:
        return f"{self.place.host}:{self.place.port}"


AnyAddress = Address | Dialled | UrlAddress


@dataclass(frozen=True, slots=True)
class Offer:
    """`ranges` of a manifest's line can be had at a door with the ticket `token`."""

    manifest: ManifestId
    source: Site
    request_no: int
    ranges: Ranges
    address: AnyAddress
    """Where to connect, or which connection its source makes."""
    token: str
    relay: bool = False
    """Of a site that gets it too: it may have to be waited for, and what it does not have others do."""
    urls: Mapping[int, ItemUrl] = field(default_factory=dict)
    """Of its items, where the address answers URLs; and to whom these may lead."""
    redirects: tuple[str, ...] = ()
