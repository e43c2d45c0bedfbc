"""The destination's side: offers that came through the log, and the pulls that fetch what they offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from streams.core.channel import DOOR
from streams.core.names import Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import (
    ChunksOffered,
    FailureClass,
    ItemUrl,
    Message,
    OfferedDoor,
    Reason,
    Scope,
    UrlsOffered,
)
from streams.doors.lobby import Dialled, Lobby
from streams.doors.urls import Place
from streams.planes.carriers.door.addresses import Address, Offer, UrlAddress
from streams.planes.carriers.door.offers import DIALLED, KIND
from streams.planes.carriers.door.pulls import Pulls
from streams.planes.carriers.door.trust import tls_of
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.orders import Expect
from streams.settings import Settings


class DoorDestination:
    def __init__(
        self, settings: Settings, destination: DestinationPlane, dead_letter: Callable[[Message], None]
    ) -> None:
        self._destination = destination
        self._lobby = destination.lobby = Lobby()
        self._pulls = Pulls(
            destination, tls=partial(tls_of, settings.door_ca), rates=settings.link_rates, lobby=self._lobby
        )
        destination.take_offers(self.offered)
        destination.take_expected(self.expect)

    def threads(self) -> Iterator[tuple[str, Callable[[], None]]]:
        return self._pulls.threads()

    def assign(self, partitions: Mapping[int, int | None]) -> None:
        """Offers come with the payload, whose carrier knows where it begins."""

    def opened(self, key: bytes) -> None:
        """As above."""

    def close(self) -> None:
        self._pulls.close()
        self._lobby.close()

    def expect(self, order: Expect) -> None:
        self._lobby.expect(order.ticket, Dialled(order.manifest_id, order.source, order.request_no))

    def offered(self, offer: ChunksOffered | UrlsOffered) -> None:
        """Fetch it, or say why it cannot be fetched. On the payload's thread; waits for nothing."""
        key = offer.manifest.encode()
        if isinstance(offer, UrlsOffered):
            return self._urls_offered(key, offer)
        found = next(((a, door.ticket) for door in offer.doors if (a := _address(offer, door)) is not None), None)
        reason = offer.reason
        if reason is None and found is None:
            text = Text(f"no door of {offer.source} speaks what is spoken here")
            reason = Reason(Scope.DESTINATION, FailureClass.PERMANENT, "read", text)
        if reason is not None:
            self._destination.source_failed(DOOR, key, offer.source, offer.request_no, EMPTY, reason)
            return None
        assert found is not None
        wanted = self._destination.wanted(key, offer.ranges)
        if wanted:
            relay = self._destination.is_relay(key, offer.source)
            self._pulls.offered(Offer(offer.manifest, offer.source, offer.request_no, wanted, *found, relay))
        return None

    def _urls_offered(self, key: bytes, offer: UrlsOffered) -> None:
        """A pull for each server that is named. What a relay does not have, others do."""
        relay = self._destination.is_relay(key, offer.source)
        for group in offer.failed:
            reason = replace(group.reason, failure_class=FailureClass.TRANSIENT) if relay else group.reason
            self._destination.source_failed(DOOR, key, offer.source, offer.request_no, group.items, reason)
        wanted, layout = self._destination.wanted(key, offer.ranges), self._destination.layout(key)
        if not wanted or layout is None:
            return
        by_place: dict[Place, dict[int, ItemUrl]] = {}
        for one in offer.urls:
            place = Place.of(one.url)
            if place is None or one.item >= layout.count:
                text = Text(f"{offer.source} names no address of item {one.item} of this transfer")
                reason = Reason(Scope.SOURCE, FailureClass.PERMANENT, "read", text)
                self._destination.source_failed(DOOR, key, offer.source, offer.request_no, EMPTY, reason)
                return
            by_place.setdefault(place, {})[one.item] = one
        for place, urls in by_place.items():
            theirs = wanted & layout.ranges_of(Ranges.of(*urls))
            if theirs:
                named = (offer.manifest, offer.source, offer.request_no, theirs, UrlAddress(place), offer.token)
                self._pulls.offered(Offer(*named, urls=urls, redirects=offer.redirects))


def _address(offer: ChunksOffered, door: OfferedDoor) -> Address | Dialled | None:
    """Where to connect, or who connects; None where another language is spoken."""
    if door.kind == DIALLED:
        return Dialled(offer.manifest, offer.source, offer.request_no)
    parts = urlsplit(door.url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    if door.kind != KIND or usual is None:
        return None
    try:
        return Address(parts.hostname, parts.port or usual, parts.scheme == "https") if parts.hostname else None
    except ValueError:  # no such port
        return None
