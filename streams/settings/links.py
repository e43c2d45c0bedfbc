"""What a site's configuration says of its links to other sites: `[links.SITE]` tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.core.names import Site, shown
from streams.errors import did_you_mean
from streams.settings.parsing import Reading, Value
from streams.settings.tools import LinkTool, Tool, source_fault

RATE_MIN = 100_000
"""Bytes a second. Below, one buffer of a door would take longer than its other end waits."""
_SETTINGS = ("rate", "tool", "source")


@dataclass(slots=True)
class Links:
    """By the link's other end. `rates`: bytes a second that come from its doors."""

    rates: dict[Site, int] = field(default_factory=dict)
    tools: dict[Site, LinkTool] = field(default_factory=dict)


def read_links(reading: Reading, sites: tuple[Site, ...], tools: Mapping[str, Tool]) -> Links:
    """Each setting from the strongest layer that names it."""
    links = Links()
    given: dict[Site, dict[str, tuple[object, str]]] = {}
    for layer in reading.layers:
        for key, raw in layer.raw.items():
            if not key.startswith("links."):
                continue
            name, _, setting = key.removeprefix("links.").rpartition(".")
            origin = layer.origin(key)
            if setting not in _SETTINGS:
                fault = f"{origin}: {shown(key)} is not a setting of a link, which has a rate, a tool and its source"
                reading.faults.append(fault)
            elif name not in sites:
                hint = did_you_mean(name, sites)
                reading.faults.append(f"{origin}: {shown(key)}: no such site" + (f" ({hint})" if hint else ""))
            else:
                given.setdefault(Site(name), {}).setdefault(setting, (raw, origin))
    for site, of_link in given.items():
        if "rate" in of_link:
            _rate(reading, links, site, *of_link["rate"])
        if "tool" in of_link or "source" in of_link:
            _tool(reading, links, site, of_link, tools)
    return links


def _rate(reading: Reading, links: Links, site: Site, raw: object, origin: str) -> None:
    key = f"links.{site}.rate"
    if type(raw) is not int or not RATE_MIN <= raw < 1 << 53:
        reading.faults.append(f"{key} = {raw!r} from {origin}: want bytes a second, {RATE_MIN} or more")
        return
    links.rates[site] = raw
    reading.values.append(Value(key, str(raw), origin))


def _tool(
    reading: Reading, links: Links, site: Site, given: Mapping[str, tuple[object, str]], tools: Mapping[str, Tool]
) -> None:
    faults = len(reading.faults)
    name, origin = given.get("tool") or given["source"]
    source, source_origin = given.get("source", (None, origin))
    if "tool" not in given:
        reading.faults.append(f"{source_origin}: links.{site} has a source and no tool that reads it")
    elif not isinstance(name, str) or name not in tools:
        hint = did_you_mean(str(name), tools) if tools else "none has a [tools.NAME] table without faults"
        reading.faults.append(f"links.{site}.tool = {shown(repr(name))} from {origin}: no such tool ({hint})")
    if source is None:
        what = f"links.{site} has a tool and no source: say where it finds a file, as root://host//{{path}}"
        reading.faults.append(f"{origin}: {what}")
    elif (why := source_fault(source)) is not None:
        reading.faults.append(f"links.{site}.source from {source_origin}: {why}")
    if len(reading.faults) == faults:
        links.tools[site] = LinkTool(tools[str(name)], str(source))
        reading.values.append(Value(f"links.{site}.tool", str(name), origin))
        reading.values.append(Value(f"links.{site}.source", str(source), source_origin))
