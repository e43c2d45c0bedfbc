"""What is amiss while a federation is upgraded: releases that differ, topics no mirror carries. Read-only.

A release is said in a header of announcements; one of the cluster that is asked is enough to know of all sites.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from streams.cli.lagging import Uncarried, uncarried
from streams.client import worker_api
from streams.core.names import Site
from streams.errors import NotFound, Temporary
from streams.settings import Settings
from streams.wire.release import RELEASE

_ROLES = ("worker", "plane")
_NAMED_MAX = 3


def releases(settings: Settings, at: Site, site: Site) -> frozenset[int]:
    """What living workers and planes of `site` run, as the cluster of `at` has heard. Raises Temporary, NotFound."""
    known, now_ms = worker_api.announcements(settings, site, at=at), time.time_ns() // 1_000_000
    return frozenset(said.release for role in _ROLES for said in known.alive(site, now_ms, role=role))


def of_release(site: Site, found: frozenset[int]) -> str:
    """What is odd about the releases that a site runs, in words; "" when it is this one, or nobody is alive."""
    if found <= {RELEASE}:
        return ""
    runs = " and ".join(map(str, sorted(found)))
    older = "upgrade its workers" if min(found) < RELEASE else "upgrade this installation"
    return f"{site} runs release {runs}, this is release {RELEASE}; {older}"


def of_mirror(one: Uncarried) -> str:
    more = len(one.topics) - _NAMED_MAX
    named = ", ".join(one.topics[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
    return (
        f"the mirror from {one.origin} to {one.site} has brought nothing of {named}; "
        "does it run with what `transfer2go config mirror` prints?"
    )


def faults(settings: Settings, clusters: Mapping[Site, Iterable[Site]]) -> list[str]:
    """A line each: of the sites in `clusters[at]` as the cluster of `at` tells, and of the mirrors to `at`.

    Clusters that do not answer are passed over: others say so.
    """
    lines: list[str] = []
    for at, sites in clusters.items():
        try:
            lines += [words for site in sites if (words := of_release(site, releases(settings, at, site)))]
            lines += [of_mirror(one) for one in uncarried(settings, at, time.time_ns() // 1_000_000)]
        except (Temporary, NotFound):
            continue
    return lines
