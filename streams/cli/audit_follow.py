"""`transfer2go audit follow`: audits and seals a site's journals while it runs; each finding is a JSON line.

0 told to stop · 3 or 4 no key may sign · 5 another follower is at work for the site · 7 another one took over.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from streams.cli import screen
from streams.cli.command import Verb, at_site, terminable
from streams.core.ledger.findings import Finding
from streams.core.sealing import OWN_MS
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.auditing.following import FollowerState

_SAID_EACH_S = 600.0


@click.command("follow", cls=Verb, follows=True)
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(1, 3600),
    default=OWN_MS / 1000,
    show_default=True,
    metavar="SECONDS",
    help="Seal the site's own journals so often, and its copies ten times as seldom.",
)
@click.option(
    "--metrics",
    "metrics_at",
    metavar="[HOST:]PORT",
    help="Answer Prometheus at http://HOST:PORT/metrics; without this nothing listens.",
)
@click.pass_obj
def follow_verb(settings: Settings, every_s: float, metrics_at: str | None) -> None:
    """Audit a site's cluster and seal its journals, until told to stop. One process a site.

    What is found is a JSON line, at most 30 s behind the record that shows it; it goes on where it stopped. A seal says
    of each journal and copy that changed how many records it has, and their root; signed, where sites.toml pins a
    root_key of the site (`transfer2go key`). What it does is said on stderr.
    """
    from streams.auditing.following import FollowerState, follow
    from streams.auditing.metrics import address_of, served

    here, outage, last_s = at_site(settings), screen.Outage(), [0.0]
    address = None if metrics_at is None else address_of(metrics_at)

    def found(finding: Finding) -> None:
        screen.put_json(
            {
                "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
                "invariant": finding.invariant,
                "severity": finding.severity,
                "words": finding.words,
                "records": [place._asdict() for place in finding.records],
            }
        )

    def made(told: FollowerState) -> None:
        if time.monotonic() - last_s[0] > _SAID_EACH_S:
            last_s[0] = time.monotonic()
            read = told.counts.records
            screen.say(f"{told.seals:,} seals of {told.journals:,} journals made; {read:,} records read")

    state = FollowerState()
    with terminable(KeyboardInterrupt), ExitStack() as stack:
        try:
            if address is not None:
                port = stack.enter_context(served(address, here.here, state))
                screen.say(f"metrics at http://{address[0]}:{port}/metrics")
            follow(
                here, every_s=every_s, on_finding=found, tell=screen.say, on_away=outage.note, made=made, state=state
            )
        except KeyboardInterrupt:
            screen.say("stopped")
