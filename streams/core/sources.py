"""Which holder is asked for which part of a transfer, by which carrier, and when. Pure.

An item has candidates: the holder that its manifest names, then the others that held the same file. Those whose doors
are open come first, and share what is large, each taking the next piece; then those on whose links here a tool is put,
of which each fetches whole files; then the holder's log, then the logs of the others. Before them all comes a relay:
another destination that gets the same, and gives what it has so far. One alone is asked, the first of the plan's routes
that did not fail this transfer, so that about one copy leaves the source. A candidate is passed by while it rests: its
door or tool failed, its log left a request unanswered, or it cannot read the item now. What nobody can be asked for at
once is asked of whom it is due at first; what somebody will never give is never asked of him again, and where that
holds of all, the item fails.

What came wrong comes from one candidate alone, so that it is known who gave it: first from one that did not give it
before, else by the same door, where sums tell what is right of what is here; what came wrong twice comes by log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from streams.core import commands as c
from streams.core import records as m
from streams.core.channel import DOOR, LOG, RELAY, TOOL, carrier_of, tool_of, tool_plane
from streams.core.door_rests import DoorRests, rest_ms
from streams.core.manifest import Held, ManifestIndex
from streams.core.names import Site, Text
from streams.core.policy import Policy
from streams.core.ranges import EMPTY, Ranges
from streams.core.transfer import SourceRow, TransferRow, merge_failed

_ORDER = {DOOR: 0, TOOL: 1, LOG: 2}
"""Of candidates, by carrier. A log costs the brokers of two sites."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    source: SourceRow
    plane: str
    free: bool
    """Whether one more request has a place."""
    passed_until_ms: int
    """While there is somebody else."""
    gives: tuple[tuple[int, Ranges], ...]
    """(from when, what)."""
    again: bool = False
    """Whether it gave this wrong before."""

    def now(self, now_ms: int) -> Ranges:
        if self.passed_until_ms > now_ms:
            return EMPTY
        out = EMPTY
        for due_ms, ranges in self.gives:
            if due_ms <= now_ms:
                out = out | ranges
        return out


def requests(
    row: TransferRow,
    manifest: ManifestIndex,
    here: Site,
    policy: Policy,
    now_ms: int,
    rests: DoorRests | None,
    doors: Collection[Site],
    tools: Mapping[Site, str],
) -> list[c.Owed]:
    """The next numbered request to each candidate that is asked and has a place free.

    What a candidate could not read is asked of it again `source_retry_s` after it said so, and meanwhile the rest is.
    `doors`: sites that can be asked by door now; whether the holder could was written into the plan. `tools`: by site,
    the tool that this site's settings have put on the link from there.
    """
    left = Ranges([(0, row.total)]) - row.verified - row.excused(manifest) - row.outstanding(manifest)
    if not left:
        return []
    first: list[c.Owed] = []
    relay = _relay(row, manifest, policy, now_ms, rests, doors)
    if relay is not None and (theirs := left - manifest.line.ranges_of(_never_again(relay))):
        # What it has no place for now is its all the same: asked of the source too, it would leave that twice.
        asked = _Candidate(relay, DOOR, len(relay.outstanding) < policy.requests_in_flight, 0, ())
        first = [c.Owed(_request(row, manifest, policy, asked, theirs))] if asked.free else []
        left = left - theirs
        if not left:
            return first
    found = [
        candidate
        for held in _held(manifest, here)
        for candidate in _candidates(row, held, manifest, left, policy, now_ms, rests, doors, tools)
    ]
    found = _with_its_tool(found, row, tools)
    found.sort(key=lambda candidate: (_ORDER[carrier_of(candidate.plane)], candidate.again))
    out: list[c.Owed] = []
    if len(found) > 1:
        out, left = _at_once(row, manifest, policy, found, left, now_ms)
    dues = ((due_ms, n, ranges) for n, candidate in enumerate(found) for due_ms, ranges in candidate.gives)
    for due_ms, n, ranges in sorted(dues, key=lambda due: due[:2]):
        theirs = ranges & left
        left = left - theirs
        if theirs and found[n].free:
            out.append(c.Owed(_request(row, manifest, policy, found[n], theirs), due_ms))
    return first + out


def _with_its_tool(found: list[_Candidate], row: TransferRow, tools: Mapping[Site, str]) -> list[_Candidate]:
    """Where an intent insists on a tool: who has none on its link here is asked only for what nobody else gives.

    He is asked all the same: the plane says why that cannot be had.
    """
    name, theirs = tool_of(row.plane), EMPTY
    if name is None:
        return found
    for candidate in found:
        if tools.get(candidate.source.source) == name:
            for _, ranges in candidate.gives:
                theirs = theirs | ranges
    return [
        one
        if tools.get(one.source.source) == name
        else replace(one, gives=tuple((due_ms, ranges - theirs) for due_ms, ranges in one.gives))
        for one in found
    ]


def relays_of(row: TransferRow, manifest: ManifestIndex) -> tuple[Site, ...]:
    """Sites that are asked in the holders' place, in this order. A holder is asked as one."""
    return tuple(route.site for route in row.routes if route.plane == RELAY and not manifest.holds(route.site))


def _relay(
    row: TransferRow,
    manifest: ManifestIndex,
    policy: Policy,
    now_ms: int,
    rests: DoorRests | None,
    doors: Collection[Site],
) -> SourceRow | None:
    """Whom to ask in the holders' place. One that failed this transfer is not asked again: the next may be nearer."""
    if not _by_door(row, manifest, policy):
        return None
    for site in relays_of(row, manifest):
        source = row.source_row(site)
        rested = rests is None or rests.until_ms(site, way=RELAY) <= now_ms
        if site in doors and rested and not source.door_failures:
            return source
    return None


def _never_again(relay: SourceRow) -> Ranges:
    """Items that a relay could not give, or gave wrong: who held them is asked."""
    out = relay.bad_items | relay.doubted
    for unread in relay.unread:
        out = out | unread.items
    return out


def _by_door(row: TransferRow, manifest: ManifestIndex, policy: Policy) -> bool:
    """Whether doors may bring the transfer at all."""
    if manifest.unit is not m.Unit.BYTES or row.plane not in (None, DOOR):
        return False
    return row.plane == DOOR or row.total >= policy.door_bytes_min


def _at_once(
    row: TransferRow,
    manifest: ManifestIndex,
    policy: Policy,
    found: list[_Candidate],
    left: Ranges,
    now_ms: int,
) -> tuple[list[c.Owed], Ranges]:
    """What each of several candidates may be asked for now, and what is left for later."""
    out: list[c.Owed] = []
    taken, alone = EMPTY, EMPTY
    for source in row.sources:
        alone = alone | manifest.line.ranges_of(source.doubted)
    for candidate in found:
        theirs = candidate.now(now_ms) & left
        if candidate.plane == DOOR:
            theirs = theirs - (taken & alone)
        if not theirs:
            continue
        if candidate.plane == DOOR:
            taken = taken | theirs
            if candidate.free:
                asked = _request(row, manifest, policy, candidate, theirs)
                out.append(c.Owed(asked))
                left = left - asked.ranges
        else:
            theirs = theirs - taken
            left = left - theirs
            if theirs and candidate.free:
                out.append(c.Owed(_request(row, manifest, policy, candidate, theirs)))
    return out, left - taken


def unobtainable(row: TransferRow, manifest: ManifestIndex, here: Site) -> tuple[m.FailedItems, ...]:
    """Items that no candidate will ever give, with what the last of them said."""
    if not any(_unobtainable_from(row, source) for source in row.sources):
        return ()
    possible, bad = EMPTY, EMPTY
    candidates = _held(manifest, here)
    for held in candidates:
        theirs = _unobtainable_from(row, row.source_row(held.holder))
        possible, bad = possible | (held.items - theirs), bad | theirs
    lost = bad - possible - row.sealed - row.failed_items
    out: list[m.FailedItems] = []
    for held in reversed(candidates):
        source = row.source_row(held.holder)
        wrong = replace(source.reason, failure_class=m.FailureClass.DATA_BAD) if source.reason is not None else None
        for group in (*source.bad, *([m.FailedItems(source.wrong_twice, wrong)] if wrong is not None else [])):
            if items := group.items & lost & _unobtainable_from(row, source):
                text = f"no holder can give it; at last {held.holder}: {group.reason.text}"
                out.append(m.FailedItems(items, replace(group.reason, text=Text(text[:400]))))
                lost = lost - items
    return merge_failed(out)


def _held(manifest: ManifestIndex, here: Site) -> list[Held]:
    """Who may be asked: of this site itself only what it is the holder of."""
    return [held for held in manifest.candidates if held.holder != here or manifest.holder_items(here)]


def _unobtainable_from(row: TransferRow, source: SourceRow) -> Ranges:
    """Items that a source will never give; where the log may not be asked, also what came wrong twice."""
    return source.bad_items if row.plane in (None, LOG) else source.bad_items | source.wrong_twice


def _candidates(
    row: TransferRow,
    held: Held,
    manifest: ManifestIndex,
    missing: Ranges,
    policy: Policy,
    now_ms: int,
    rests: DoorRests | None,
    doors: Collection[Site],
    tools: Mapping[Site, str],
) -> Iterator[_Candidate]:
    """What one site may be asked for: by its door or a tool what did not come wrong twice so, that by log."""
    source = row.source_row(held.holder)
    all_here = len(manifest.candidates) == 1 and not source.bad and not source.wrong
    items = held.items - _unobtainable_from(row, source)
    theirs = missing if all_here else missing & manifest.line.ranges_of(items)
    if not theirs:
        return
    plane, from_ms = _carrier(row, source, manifest, policy, now_ms, rests, doors, tools)
    if plane != LOG and (twice := theirs & manifest.line.ranges_of(source.wrong_twice)):
        yield _candidate(row, source, manifest, twice, policy, LOG, 0)
        theirs = theirs - twice
    if plane != LOG and (again := theirs & manifest.line.ranges_of(source.doubted)):
        yield replace(_candidate(row, source, manifest, again, policy, plane, from_ms), again=True)
        theirs = theirs - again
    if theirs:
        yield _candidate(row, source, manifest, theirs, policy, plane, from_ms)


def _candidate(
    row: TransferRow,
    source: SourceRow,
    manifest: ManifestIndex,
    theirs: Ranges,
    policy: Policy,
    plane: str,
    from_ms: int,
) -> _Candidate:
    retry_ms = int(policy.source_retry_s * 1000)
    failed_ms = max(from_ms, source.failed.at_ms + retry_ms if source.failed is not None else 0)
    gives: list[tuple[int, Ranges]] = []
    for unread in source.unread:
        again = theirs & manifest.line.ranges_of(unread.items)
        theirs = theirs - again
        if again:
            gives.append((max(failed_ms, unread.at_ms + retry_ms), again))
    if theirs:
        gives.insert(0, (failed_ms, theirs))
    lapses = (source.lapsed - source.by_door - source.by_tool).size if plane == LOG else 0
    passed_until_ms = source.lapsed_ms + rest_ms(lapses, policy) if lapses else 0
    free = len(source.outstanding) < policy.requests_in_flight
    return _Candidate(source, plane, free, passed_until_ms, tuple(gives))


def _carrier(
    row: TransferRow,
    source: SourceRow,
    manifest: ManifestIndex,
    policy: Policy,
    now_ms: int,
    rests: DoorRests | None,
    doors: Collection[Site],
    tools: Mapping[Site, str],
) -> tuple[str, int]:
    """By which carrier a candidate is asked, and from when on (ms).

    While a door rests a tool takes over, and while that rests the log, unless the intent insists: then it waits.
    """
    for plane in _ways(row, source.source, manifest, policy, doors, tools):
        rested_ms = _rested_ms(source, carrier_of(plane), policy, rests)
        if row.plane is not None or now_ms >= rested_ms:
            return plane, rested_ms
    return LOG, 0


def _ways(
    row: TransferRow,
    site: Site,
    manifest: ManifestIndex,
    policy: Policy,
    doors: Collection[Site],
    tools: Mapping[Site, str],
) -> Iterator[str]:
    """How a site may be asked otherwise than by log, in this order."""
    if row.plane is not None:
        yield row.plane
    elif manifest.unit is m.Unit.BYTES and row.total >= policy.door_bytes_min:
        planned = any(route.site == site and route.plane == DOOR for route in row.routes)
        if planned or (site in doors and not manifest.holder_items(site)):
            yield DOOR
        if site in tools:
            yield tool_plane(tools[site])


def _rested_ms(source: SourceRow, carrier: str, policy: Policy, rests: DoorRests | None) -> int:
    """Until when a carrier rests at a source; 0 where it did not fail."""
    if carrier not in (DOOR, TOOL):
        return 0
    rested_ms = rests.until_ms(source.source, way=carrier) if rests is not None else 0
    failures, failed_ms = source.door_failures, source.door_failed_at_ms
    if carrier == TOOL:
        failures, failed_ms = source.tool_failures, source.tool_failed_at_ms
    return max(rested_ms, failed_ms + rest_ms(failures, policy)) if failures else rested_ms


def _request(
    row: TransferRow, manifest: ManifestIndex, policy: Policy, candidate: _Candidate, ranges: Ranges
) -> c.RequestChunks:
    """For the first of these ranges. A tool brings whole files, so it is asked for all that is missing of each."""
    source, plane = candidate.source, candidate.plane
    size_max = policy.request_bytes if plane == LOG else policy.door_request_bytes
    first = ranges.first(max(1, size_max // manifest.unit_bytes))
    if carrier_of(plane) == TOOL:
        first = ranges & manifest.line.ranges_of(Ranges.of(*manifest.line.items_in(first)))
    size, items = first.size * manifest.unit_bytes, manifest.line.count_in(first)
    number = max(source.requested, source.expired) + 1
    return c.RequestChunks(row.manifest, source.source, number, row.attempt, first, size, row.priority, items, plane)


def tried_in_words(row: TransferRow) -> Iterator[str]:
    """What is known of sources that failed a transfer."""
    for s in row.sources:
        if s.expired:
            yield f"{s.source} left requests up to {s.expired} unanswered"
    for s in row.sources:
        if s.reason and (s.failed or s.unread):
            yield f"{s.source} could not read: {s.reason.text}"
    for s in row.sources:
        if s.bad:
            yield f"{s.source} cannot give {_count(s.bad_items)}: {s.bad[0].reason.text}"
        if once := s.doubted - s.wrong_twice:
            yield f"{s.source} gave {_count(once)} wrong, of which what differs is to come again"
        if s.wrong_twice:
            again = "to come again by log" if row.plane in (None, LOG) else "not to be asked for again"
            yield f"{s.source} gave {_count(s.wrong_twice)} wrong twice, {again}"
    for s in row.sources:
        if s.door_failures:
            why_last = f", at last: {s.reason.text}" if s.reason and s.door_failed else ""
            yield f"the door of {s.source} failed {s.door_failures} ×{why_last}"
    for s in row.sources:
        if s.tool_failures:
            why_last = f", at last: {s.reason.text}" if s.reason and s.tool_failed else ""
            names = " and ".join(filter(None, map(tool_of, s.tools)))
            yield f"tool {names} failed {s.tool_failures} × to bring files of {s.source}{why_last}"


def _count(items: Ranges) -> str:
    return "1 item" if items.size == 1 else f"{items.size} items"
