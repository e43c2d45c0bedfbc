"""Which source serves an intent, or why it is refused: the home's choice. By which carrier a source is asked: the
destination's, when it plans a transfer. Pure: catalogue and doors are arguments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from streams.core import records as m
from streams.core.channel import CARRIERS, DOOR, LOG, NO_TOOLS, RELAY, plane_in_words, tool_of, tool_plane
from streams.core.names import Site, Text, shown


@dataclass(frozen=True, slots=True)
class Holders:
    """What a catalogue knows of a selection: files in all, per site how many files and bytes, names nobody knows."""

    files: int
    per_site: Mapping[Site, tuple[int, int]]
    unknown: tuple[str, ...]


def decide(
    body: m.TransferIntent, found: Holders, sites: Collection[Site], alive: Collection[Site], *, waited: bool
) -> m.IntentDecided | None:
    """The first decision on an intent, or None while it stays undecided.

    The source is the one asked for, else the site that holds most of the selection; among equals one that is alive,
    then the lesser name. A name nobody knows is refused only once `waited`: mirrors lag. An open intent that names its
    source needs no file as yet; without one, somebody must hold something for a source to be chosen.
    """
    if body.verb is m.Verb.REMOVE:
        return _decide_removal(body, found, sites, waited=waited)
    places = {d.site for d in body.destinations}
    strangers = sorted({*places, *body.release_from, *([body.source] if body.source else [])}.difference(sites))
    if strangers:
        return _refused(body, f"no site {strangers[0]} in this federation")
    if (why := plane_fault(body.plane, body.selection) or repair_fault(body)) is not None:
        return _refused(body, why)
    if body.repair:  # what the site has is damaged, and no source
        found = Holders(found.files, {s: n for s, n in found.per_site.items() if s not in places}, found.unknown)
    if body.open and body.source is not None:
        return m.IntentDecided(body.intent, 1, m.Verdict.ACCEPTED, body, body.source, 0, body.priority)
    if found.unknown and not waited:
        return None
    if not found.files:
        unknown = f"no file of {', '.join(found.unknown[:3]) or 'the selection'} is known at any site"
        return _refused(body, unknown + (": name the source where it will be written" if body.open else ""))
    if body.source is not None:
        if body.source not in found.per_site:
            return None if not waited else _refused(body, f"site {body.source} holds no file of the selection")
        source = body.source
    elif not found.per_site:
        return None if not waited else _refused(body, "no site holds a file of the selection any more")
    else:
        source = min(found.per_site, key=lambda s: (-found.per_site[s][0], s not in alive, s in places, s))
    return m.IntentDecided(body.intent, 1, m.Verdict.ACCEPTED, body, source, 0, body.priority)


def _decide_removal(
    body: m.TransferIntent, found: Holders, sites: Collection[Site], *, waited: bool
) -> m.IntentDecided | None:
    """Whether the names are known, and a site that is named holds something. What goes there, each decides itself."""
    strangers = sorted({d.site for d in body.destinations}.difference(sites))
    if strangers:
        return _refused(body, f"no site {strangers[0]} in this federation")
    if found.unknown:
        return _refused(body, f"{', '.join(found.unknown[:3])}: known at no site") if waited else None
    if not {d.site for d in body.destinations} & found.per_site.keys():
        where = ", ".join(body.destinations[:3])
        return _refused(body, f"{where} holds no file of the selection") if waited else None
    return m.IntentDecided(body.intent, 1, m.Verdict.ACCEPTED, body, None, 0, body.priority)


def plane_fault(plane: str | None, selection: str | None) -> str | None:
    """Why an intent's bytes cannot come by the carrier that it insists on, if they cannot."""
    if plane not in (None, *CARRIERS) and tool_of(plane) is None:
        return f"no plane {shown(plane or '', 60)}: {', '.join(CARRIERS)} and {tool_plane('NAME')} are known"
    if plane not in (None, LOG) and selection is not None:
        return f"parts of files go by the {LOG} only, not by {plane_in_words(plane or '')}"
    return None


def repair_fault(body: m.TransferIntent) -> str | None:
    """Why what a destination has cannot be repaired so. Files are replaced: only their site itself may ask for that."""
    if not body.repair:
        return None
    if body.selection is not None or body.open or any(d.consumer for d in body.destinations):
        return "whole files that a site has can be repaired, and nothing else"
    stranger = next((d for d in body.destinations if d.site != body.intent.home), None)
    return None if stranger is None else f"files of {stranger} are repaired where {stranger} itself asks for it"


def chain(source: Site, destinations: Collection[Site], regions: Mapping[Site, str]) -> tuple[Site, ...]:
    """The order in which the destinations of an intent get the same bytes: each may ask those before it for them.

    The source's region first, so that bytes enter another one once; then by region and name. Everybody who has the
    decision computes the same, so that nobody waits for who waits for him.
    """
    near = regions.get(source, "")

    def place(site: Site) -> tuple[bool, str, Site]:
        region = regions.get(site, "")
        return region != near, region, site

    return tuple(sorted({*destinations} - {source}, key=place))


def relays(
    here: Site, source: Site, destinations: Collection[Site], regions: Mapping[Site, str], count_max: int
) -> tuple[Site, ...]:
    """Destinations that may be asked in the source's place: those before this one in the chain, the nearest first."""
    ordered = chain(source, destinations, regions)
    before = ordered[: ordered.index(here)] if here in ordered else ()
    return before[::-1][:count_max]


def routes(
    source: Site,
    doors: Collection[Site],
    *,
    whole: bool,
    dials: Collection[Site] = (),
    tools: Mapping[Site, str] = NO_TOOLS,
    plane: str | None = None,
    before: Collection[Site] = (),
    foreign: Collection[Site] = (),
) -> tuple[m.Route, ...]:
    """Who is asked otherwise than by the log, in this order.

    `doors`: sites with an open door; `dials`: those without that connect to the destination's. `whole`: of files, not
    parts. `tools`: by site, the tool on the link from there. `plane`: what the intent insists on. `before`: relays, the
    nearest first. `foreign`: sites whose doors are of another make, which give what is whole there and no more.
    """
    if not whole or plane not in (None, DOOR):
        return ()
    out = [
        m.Route(site, RELAY, Text(f"{site} gets it before, and has a door"))
        for site in before
        if site in doors and site not in foreign
    ]
    if plane is None and source in doors:
        make = " of another make" if source in foreign else ""
        out.append(m.Route(source, DOOR, Text(f"{source} has a door{make}")))
    elif plane is None and source in dials:
        out.append(m.Route(source, DOOR, Text(f"{source} has no door and connects to the one here")))
    elif plane is None and source in tools:
        out.append(m.Route(source, tool_plane(tools[source]), Text(f"it is put on the link from {source}")))
    return tuple(out)


def _refused(body: m.TransferIntent, text: str) -> m.IntentDecided:
    reason = m.Reason(m.Scope.POLICY, m.FailureClass.PERMANENT, "decide", Text(text[:400]))
    return m.IntentDecided(body.intent, 1, m.Verdict.REFUSED, body, None, 0, body.priority, reason)
