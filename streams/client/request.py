"""From what somebody says to a legal intent: names looked up, parts and times in one spelling. Publishes nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, TypeVar

from streams.core import records as m
from streams.core.channel import CARRIERS, is_tool_name, tool_of, tool_plane
from streams.core.names import Destination, IntentId, Text, shown
from streams.core.records import fault
from streams.core.routing import plane_fault, repair_fault
from streams.core.selections.entries import EventSelection
from streams.core.selections.objects import ObjectSelection
from streams.core.selections.parts import ENTRIES, OBJECTS, canonical
from streams.core.selectors import Selector, parse
from streams.errors import UsageError, did_you_mean
from streams.settings import Settings

_T = TypeVar("_T")
Until = datetime | int | Literal["close"]
"""How long an open intent takes what is registered: to a time, so many items, or until somebody closes it."""
_NAMESPACE = uuid.UUID("9f3c1a52-6d0b-5d7e-8a41-3b7f5c2e9d10")


def wish(
    settings: Settings,
    requester: Text,
    selectors: Iterable[str | Selector],
    to: Iterable[str],
    *,
    source: str | None = None,
    priority: int = 5,
    deadline: datetime | None = None,
    key: str | None = None,
    entries: str | EventSelection | None = None,
    objects: str | ObjectSelection | None = None,
    format: str | None = None,
    until: Until | None = None,
    plane: str | None = None,
    repair: bool = False,
    move: bool = False,
    owner: str = "",
) -> m.TransferIntent:
    """An intent of the settings' site, as `TransferClient.publish` describes it. Raises UsageError or NotFound."""
    until_ms, until_items = _ends(until)
    if move and source is None:
        raise UsageError("a move without the site that its files leave", next="name it: --source SITE")
    body = m.TransferIntent(
        intent=_named(settings, requester, key),
        requester=requester,
        selectors=_chosen(selectors),
        destinations=tuple(dict.fromkeys(known_destination(settings, name) for name in _listed(to, "destinations"))),
        source=None if source is None else settings.entry(source).name,
        priority=legal_priority(priority),
        deadline_ms=None if deadline is None else _epoch_ms(deadline, "deadline"),
        selection=_part(entries, objects),
        format=format,
        open=until is not None,
        until_ms=until_ms,
        until_items=until_items,
        plane=_plane(plane),
        repair=repair,
        verb=m.Verb.MOVE if move else m.Verb.COPY,
        owner=Text(owner),
    )
    if move and body.source is not None:
        body = replace(body, release_from=(body.source,))
    if (why := plane_fault(body.plane, body.selection)) is not None:
        raise UsageError(why, next="leave the plane out, and each destination chooses")
    if (why := repair_fault(body)) is not None:
        raise UsageError(why, next="leave out what is asked for beside names and sites")
    if (why := fault(body)) is not None:
        raise UsageError(f"not an intent: {why}", next="see `transfer2go intent add --help`")
    return body


def _chosen(selectors: Iterable[str | Selector]) -> tuple[Selector, ...]:
    listed = _listed(selectors, "selectors")
    return tuple(dict.fromkeys(parse(one) if isinstance(one, str) else one for one in listed))


def _named(settings: Settings, requester: Text, key: str | None) -> IntentId:
    """A new intent of the settings' site, or that of a key."""
    home = settings.here
    name = uuid.uuid4() if key is None else uuid.uuid5(_NAMESPACE, "\n".join((home, requester, key)))
    return IntentId(f"{home}.{name}")


def removal_wish(
    settings: Settings,
    requester: Text,
    selectors: Iterable[str | Selector],
    at: Iterable[str],
    *,
    reason: str,
    copies: int = 1,
    key: str | None = None,
) -> m.TransferIntent:
    """An intent that files go from sites, as `TransferClient.remove` describes it. Raises UsageError or NotFound."""
    if not reason.strip():
        raise UsageError("a removal without a reason", next="say why, for who finds the files gone")
    body = m.TransferIntent(
        intent=_named(settings, requester, key),
        requester=requester,
        selectors=_chosen(selectors),
        destinations=tuple(dict.fromkeys(known_destination(settings, name) for name in _listed(at, "sites"))),
        verb=m.Verb.REMOVE,
        copies=copies,
        reason=Text(shown(reason, 390)),
    )
    if (why := fault(body)) is not None:
        raise UsageError(f"not a removal: {why}", next="see `transfer2go file remove --help`")
    return body


def _plane(named: str | None) -> str | None:
    """Any name that is no carrier is that of a tool, which the destinations may have: this site need not know it."""
    if named is None or named in CARRIERS or tool_of(named) is not None or not is_tool_name(named):
        return named
    if hint := did_you_mean(named, CARRIERS):
        raise UsageError(f"no plane {named}", next=f"{hint} A tool so named is {tool_plane(named)}")
    return tool_plane(named)


def _part(entries: str | EventSelection | None, objects: str | ObjectSelection | None) -> str | None:
    if entries is not None and objects is not None:
        raise UsageError("entries and objects are asked for together", next="publish an intent for each")
    if entries is not None:
        return canonical(f"{ENTRIES}{entries}")
    return None if objects is None else canonical(f"{OBJECTS}{objects}")


def known_destination(settings: Settings, name: str) -> Destination:
    """A site of the federation, or a consumer's name at one."""
    place = Destination(name)
    settings.entry(place.site)
    return place


def _listed(things: Iterable[_T], what: str) -> Sequence[_T]:
    if isinstance(things, str):
        raise UsageError(f"{what}: want a list, not one text", next=f"write [{things!r}]")
    listed = list(things)
    if not listed:
        raise UsageError(f"{what}: none given")
    return listed


def legal_priority(priority: int) -> int:
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 9:
        raise UsageError(f"priority {priority!r} is not in 0…9", next="9 goes first, 5 is usual")
    return priority


def _ends(until: Until | None) -> tuple[int | None, int | None]:
    """(time in ms of the epoch, items) that an intent is open to; neither: it is not, or until somebody closes it."""
    if until is None or until == "close":
        return None, None
    if isinstance(until, datetime):
        until_ms = _epoch_ms(until, "until")
        if until <= datetime.now(UTC):
            raise UsageError(f"until {until.isoformat()} has passed already", next="leave it out to move what is there")
        return until_ms, None
    if isinstance(until, bool) or not isinstance(until, int) or until < 1:
        what = f"until {until!r}: want a time, a number of files from 1, or close"
        raise UsageError(what, next="see `transfer2go intent add --help`")
    return None, until


def _epoch_ms(moment: datetime, name: str) -> int:
    if moment.tzinfo is None:
        raise UsageError(f"{name} {moment.isoformat()} has no time zone", next="give it one, as UTC")
    return int(moment.timestamp() * 1000)
