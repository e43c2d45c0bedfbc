"""How old the last seal of each site is: what `status` and `doctor` say of who seals. Read-only.

What nobody sealed is not checkable: a history that is changed later contradicts nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from streams import wire
from streams.cli.screen import duration
from streams.cli.tailing import last
from streams.core import records as m
from streams.core.names import Site
from streams.core.topics import SEALS
from streams.errors import NotFound, Transfer2goError, WireError
from streams.settings import Settings

STALE_S = 600.0
"""A site whose workers live writes each half minute, and its journals are sealed each minute."""
_RECORDS = 100
"""The newest that are looked at: an intruder's are none of the site's word."""


@dataclass(frozen=True, slots=True)
class SealAge:
    """Of a site's last seal: its number, and how old it is (seconds, by this machine's clock)."""

    site: Site
    no: int
    age_s: float

    @property
    def is_stale(self) -> bool:
        return self.age_s > STALE_S


def newest(settings: Settings, site: Site) -> SealAge | None:
    """Of the seals in the site's own cluster the last; None where there is none. Raises what a cluster away does."""
    try:
        records = last(settings, site, [SEALS], _RECORDS)
    except NotFound:
        return None
    found = None
    for record in records:
        try:
            seal = wire.decode(record.topic, record.key, record.value, record.headers, site).message
        except WireError:
            continue
        is_theirs = isinstance(seal, m.JournalsSealed) and (seal.certificate or not settings.entry(site).root_key)
        if isinstance(seal, m.JournalsSealed) and is_theirs:
            found = SealAge(site, seal.no, max(0.0, time.time() - record.timestamp_ms / 1000))
    return found


def words(site: Site, found: SealAge | None) -> str:
    """`found` as one clause about the site's journals."""
    if found is None:
        return f"not checkable, nobody seals them: run `transfer2go --site {site} audit follow`"
    ago = f"sealed {duration(found.age_s)} ago (seal {found.no})"
    return f"{ago}, which is long: does `audit follow` run?" if found.is_stale else ago


def line(settings: Settings, site: Site) -> str:
    """Of a site: how old its last seal is, or why that is not known."""
    try:
        return f"journals of {site}: {words(site, newest(settings, site))}"
    except Transfer2goError as error:
        return f"whether the journals of {site} are sealed cannot be read: {error.what}"
