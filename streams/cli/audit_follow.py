"""`transfer2go audit follow`: seals a site's journals while it runs; each contradiction is a JSON line.

0 told to stop · 3 or 4 no key may sign · 5 another follower is at work here · 7 another seals for the site elsewhere.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from streams.cli import screen
from streams.cli.command import Verb, at_site, terminable
from streams.core.ledger.findings import Finding
from streams.core.sealing import OWN_MS
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.auditing.following import SealsMade

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
@click.pass_obj
def follow_verb(settings: Settings, every_s: float) -> None:
    """Seal the journals of a site, and hold them against all seals, until told to stop. One process a site.

    A seal says of each journal and copy that changed how many records it has, and their root; signed, where sites.toml
    pins a root_key of the site (`transfer2go key`). Findings are JSON lines; what it does is said on stderr.
    """
    from streams.auditing.following import follow

    outage, last_s = screen.Outage(), [0.0]

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

    def made(told: SealsMade) -> None:
        if time.monotonic() - last_s[0] > _SAID_EACH_S:
            last_s[0] = time.monotonic()
            screen.say(f"{told.seals:,} seals of {told.journals:,} journals made; {told.records:,} records read")

    with terminable(KeyboardInterrupt):
        try:
            follow(
                at_site(settings), every_s=every_s, on_finding=found, tell=screen.say, on_away=outage.note, made=made
            )
        except KeyboardInterrupt:
            screen.say("stopped")
