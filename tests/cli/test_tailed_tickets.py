"""What `topic tail` shows of tickets: nothing."""

from __future__ import annotations

from dataclasses import replace

from streams.cli.tailing import _without_tickets
from streams.core import records as m
from streams.core.channel import DOOR
from streams.core.names import Destination, IntentId, Lfn, ManifestId, Site
from streams.core.ranges import Ranges

A, B = Site("T1_A"), Destination("T2_B")
MANIFEST = ManifestId.of(IntentId("T1_A.00000000-0000-4000-8000-000000000000"), 0, 0)
WHOLE = Ranges([(0, 10)])


def test_offers_and_requests_show_where_and_not_with_what() -> None:
    door = m.OfferedDoor("t2g", "http://h:1", "secret")
    offer = m.ChunksOffered(MANIFEST, B, A, 1, WHOLE, 0, (door,))
    assert _without_tickets(offer) == replace(offer, doors=(replace(door, ticket="***"),))
    items = (m.RequestedItem(0, Lfn("/f"), 0, 10, "v"),)
    request = m.ChunksRequested(MANIFEST, B, A, 1, 1, DOOR, items, WHOLE, 0)
    assert _without_tickets(request) == request
    asked = replace(request, capability="http://h:1 secret")
    assert _without_tickets(asked) == replace(request, capability="http://h:1 ***")
