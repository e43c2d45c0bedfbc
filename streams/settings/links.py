"""What a site's configuration says of its links to other sites: `[links.SITE]` tables."""

from __future__ import annotations

from streams.core.names import Site, shown
from streams.errors import did_you_mean
from streams.settings.parsing import Reading, Value

RATE_MIN = 100_000
"""Bytes a second. Below, one buffer of a door would take longer than its other end waits."""


def read_links(reading: Reading, sites: tuple[Site, ...]) -> dict[Site, int]:
    """Bytes a second that come from a site's doors, by site; each from the strongest layer that names it."""
    rates: dict[Site, int] = {}
    for layer in reading.layers:
        for key, raw in layer.raw.items():
            if not key.startswith("links."):
                continue
            name, _, setting = key.removeprefix("links.").rpartition(".")
            origin = layer.origin(key)
            if setting != "rate":
                reading.faults.append(f"{origin}: {shown(key)} is not a setting of a link, which has a rate")
            elif name not in sites:
                hint = did_you_mean(name, sites)
                reading.faults.append(f"{origin}: {shown(key)}: no such site" + (f" ({hint})" if hint else ""))
            elif type(raw) is not int or not RATE_MIN <= raw < 1 << 53:
                reading.faults.append(f"{key} = {raw!r} from {origin}: want bytes a second, {RATE_MIN} or more")
            elif Site(name) not in rates:
                rates[Site(name)] = raw
                reading.values.append(Value(key, str(raw), origin))
    return rates
