"""`transfer2go intent board`, `approve`, `deny`: what waits at a site until somebody lets it in."""

from __future__ import annotations

from collections.abc import Callable

import click

from streams.cli import outcomes, screen
from streams.cli.command import Verb, at_site, json_option
from streams.cli.listing import listed
from streams.client.intent_snapshot import Snapshot
from streams.client.producer import IntentHandle, TransferClient
from streams.core import records as m
from streams.core.names import Site, shown
from streams.errors import NeverWorks, NotAllowed
from streams.settings import Settings
from streams.views.intent_rows import OPEN

SHOWN_MAX = 1_000


@click.command(cls=Verb)
@json_option
@click.pass_obj
def board(settings: Settings, as_json: bool) -> None:
    """What waits here for approval: who asks for what, and how much it is."""
    settings = at_site(settings)
    here = settings.here
    found = [one for one in listed(settings, SHOWN_MAX, {"state": OPEN, "site": here}) if _waits(one, here)]
    screen.listing(
        sorted(found, key=lambda one: (one.asked_ms or 0, one.intent)),
        as_json,
        lambda one: outcomes.as_object(one, short=True),
        ("!intent", "!asked", "by", "what", "for", ">files", ">size", "who may approve"),
        lambda one: (
            one.intent,
            screen.moment(one.asked_ms),
            one.body.requester if one.body is not None else "-",
            outcomes.what(one),
            _for(one, here),
            max((arrivals.files for arrivals in one.destinations), default=0) or "-",
            screen.size(max((arrivals.bytes for arrivals in one.destinations), default=0)),
            next((answer.by for answer in one.pending if answer.site == here), "-"),
        ),
        empty="nothing waits for approval",
    )


def _waits(one: Snapshot, here: Site) -> bool:
    return any(answer.site == here for answer in one.pending)


def _for(one: Snapshot, here: Site) -> str:
    """What it would do here."""
    body = one.body
    if body is None:
        return "-"
    if here not in m.leaving_sites(body):
        what = "a move" if body.verb is m.Verb.MOVE else "a copy"
        return f"{what} from {one.decision.source if one.decision else body.source or 'its source'}"
    if body.verb is m.Verb.REMOVE:
        return f"removal: {body.reason}"
    return f"a move to {' and '.join(body.destinations)}"


@click.command(cls=Verb)
@click.argument("name", metavar="INTENT")
@click.pass_obj
def approve(settings: Settings, name: str) -> None:
    """Let the site named by --site take part in an intent. Exit 4: you may not; 7: it does not wait for that."""
    _answer(settings, name, IntentHandle.approve, "is let in")


@click.command(cls=Verb)
@click.argument("name", metavar="INTENT")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for who asked.")
@click.pass_obj
def deny(settings: Settings, name: str, reason: str) -> None:
    """Have the site named by --site take no part in an intent. Exit 4: you may not; 7: it does not wait for that."""
    _answer(settings, name, lambda handle: handle.deny(reason), "is denied")


def _answer(settings: Settings, name: str, say: Callable[[IntentHandle], None], done: str) -> None:
    settings = at_site(settings)
    with TransferClient(settings) as client:
        handle = client.intent(name)
        before = handle.snapshot()
        if not _waits(before, client.site):
            raise NeverWorks(
                f"intent {name} does not wait for approval at {client.site}: {_why_not(before, client.site)}"
            )
        if not settings.policy.may_approve(client.person):
            who = settings.policy.approvers
            raise NotAllowed(
                f"{shown(client.person)} may not approve at {client.site}",
                next=f"ask {shown(who)}" if who else "see policy.approvers in the site's settings",
            )
        say(handle)
    screen.say(f"{name} {done} at {client.site}; see `transfer2go intent show {name}`")


def _why_not(before: Snapshot, here: Site) -> str:
    answer = next((one for one in before.answers if one.site == here), None)
    if before.ended:
        return f"it is {before.outcome}"
    if answer is not None:
        return f"it was {answer.answer} by {answer.by}"
    body = before.body
    if body is not None and here not in body.destinations and here not in m.leaving_sites(body):
        return "the site has no part in it"
    return "it is not decided yet" if before.decision is None else "the site asks nobody"
