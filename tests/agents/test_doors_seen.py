"""What a worker makes of the doors that planes announce: who is asked, who relays, and who may connect to its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agents.site import CatalogueViews
from streams.client.announcements import Announcements
from streams.core.names import Site
from streams.core.records import Origin, SiteAnnounced
from streams.kafka.publish import wall_ms
from streams.wire.release import RELEASE

A, B, C, D = (Site(f"T1_{name}") for name in "ABCD")
OWN, OTHER_MAKE = "http://10.0.0.1:6067", "https://door.example.org:1094/"


def views(here: Site, doors: dict[Site, tuple[str, ...]]) -> CatalogueViews:
    known = Announcements()
    for site, addresses in doors.items():
        for n, door in enumerate(addresses):
            said = SiteAnnounced(site, f"plane-{n}", "i", "plane", "", "", (), (), 30, False, (), door)
            known.take(said, Origin(site, f"plane-{n}", "i", 0, wall_ms()), wall_ms(), RELEASE)
    settings: Any = SimpleNamespace(here=here)
    view: Any = SimpleNamespace(sites=known)
    return CatalogueViews(settings, view)


def test_a_door_of_another_make_is_asked_and_is_none_of_this_product() -> None:
    seen = views(A, {A: (OWN,), B: (OTHER_MAKE,), C: ("",), D: (OTHER_MAKE, OWN)})
    assert seen.doors() == {A, B, D}
    assert seen.foreign() == {B}, "one plane of D relays"
    assert seen.dials() == {C}
    assert seen.by_door() == {A, B, C, D}
    assert seen.door_of("plane-0") == OWN


@pytest.mark.parametrize("own", ["", OTHER_MAKE])
def test_nobody_connects_to_a_door_of_another_make(own: str) -> None:
    seen = views(A, {A: (own,), C: ("",)})
    assert seen.dials() == frozenset()
    assert seen.door_of("plane-0") == ""
