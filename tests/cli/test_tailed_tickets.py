"""What `topic tail` shows of tickets: nothing."""

from __future__ import annotations

from dataclasses import replace

from streams.cli.tailing import _without_tickets
from streams.cli.words import line
from streams.core import records as m
from streams.core.channel import DOOR, URLS
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
    reading = replace(request, capability=m.READS_URLS)
    assert _without_tickets(reading) == reading
    asked = replace(request, capability="http://h:1 secret")
    assert _without_tickets(asked) == replace(request, capability="http://h:1 ***")


def test_urls_are_shown_without_what_opens_them() -> None:
    urls = (m.ItemUrl(0, "https://s3/raw/k?X-Amz-Signature=secret", "e"), m.ItemUrl(1, "http://web:80/f"))
    offer = m.UrlsOffered(MANIFEST, B, A, 1, WHOLE, 0, urls, "secret", ("*.pool",))
    shown = _without_tickets(offer)
    hidden = (replace(urls[0], url="https://s3/raw/k?***"), urls[1])
    assert shown == replace(offer, urls=hidden, token="***")
    assert _without_tickets(replace(offer, token="")) == replace(offer, urls=hidden, token="")
    assert line(offer) == "T1_A offers request 1 of T2_B: [0,10) at s3, web:80, by 2 URLs"
    served = m.ChunksServed(MANIFEST, A, B, 1, WHOLE, 0, URLS)
    assert line(served) == "T1_A said where others give request 1 of T2_B: [0,10)"
