"""Why nothing comes: names that no site's catalogue has, sites that are silent, brokers that are down. Read-only.

Everything is told as one site's cluster knows it; what that cannot say is left out, since others say so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing

from streams.cli import holdings
from streams.cli.screen import clock, duration, size
from streams.cli.tailing import last
from streams.cli.up import is_local
from streams.client.announcements import LiveWriter
from streams.client.intent_snapshot import Snapshot
from streams.client.worker_api import WorkerApi, announced_in
from streams.core import topics
from streams.core.names import Site
from streams.core.selectors import Kind, Selector
from streams.errors import NotFound, Temporary, Transfer2goError
from streams.federation import broker
from streams.kafka import admin
from streams.settings import Settings

ASK_S = 2.0
"""What a worker may take to say whether it knows a name."""
_NAMES_MAX = 20
"""Of an intent's names, so many are asked about."""
_NAMED_MAX = 3
_RECORDS = 100
"""The newest announcements of a site that are looked at: those of a few minutes."""


def unheld(settings: Settings, snapshot: Snapshot, *, quickly: bool = False) -> str:
    """Of an undecided intent, the names that no site holds as far as this one sees, and until when one waits; or "".

    A worker's view is asked, and where none answers the log is read, unless it is to be `quickly`.
    """
    body = snapshot.body
    if body is None or snapshot.decision is not None:
        return ""
    api = WorkerApi(settings, settings.here)
    try:
        lacking = [one.name for one in body.selectors[:_NAMES_MAX] if not _is_held(settings, api, one, quickly)]
    except (Temporary, NotFound):
        return ""
    if not lacking:
        return ""
    more = f" and {len(lacking) - _NAMED_MAX} more" if len(lacking) > _NAMED_MAX else ""
    asked_s = (snapshot.asked_ms or time.time() * 1000) / 1000
    until = clock(asked_s + settings.policy.undecided_s)
    return (
        f"no site's catalogue, as far as {settings.here} sees, holds {', '.join(lacking[:_NAMED_MAX])}{more}; "
        f"{snapshot.intent.home} waits for it until {until}, as mirrors lag, and then refuses"
    )


def _is_held(settings: Settings, api: WorkerApi, one: Selector, quickly: bool) -> bool:
    """Whether some site holds a file of it; True also where nobody says."""
    if one.kind is Kind.FILE:
        where = api.ask("/api/where", {"lfn": one.name}, ASK_S)
        if isinstance(where, list):
            return bool(where)
    else:
        page = api.ask("/api/files", {one.kind.value: one.name, "limit": "1"}, ASK_S)
        if isinstance(page, dict) and isinstance(page.get("files"), list):
            return any(file.get("replicas") for file in page["files"]) or page.get("cursor") is not None
    if quickly:
        return True
    with closing(holdings.files(settings, settings.here, one)) as files:
        return next(files, None) is not None


def of_sites(settings: Settings, sites: Iterable[Site], now_ms: int) -> list[str]:
    """A line for each site none of whose workers is alive, as the cluster of `settings.here` has heard."""
    lines = []
    for site in sites:
        try:
            words = _of_site(settings, site, now_ms)
        except Transfer2goError as error:
            words = f"Whether {site} is alive cannot be read at {settings.here}: {error.what}." if error.what else ""
        lines += [words] if words else []
    return lines


def _of_site(settings: Settings, site: Site, now_ms: int) -> str:
    said = [one for one in _announced(settings, site) if one.role == "worker"]
    if any(one.alive(now_ms) for one in said):
        return ""
    newest = max(said, key=lambda one: one.at_ms, default=None)
    if newest is None:
        words = f"{site} has never been heard of at {settings.here}"
    else:
        how = "has ended its workers, as it said" if newest.closing else "has not been heard of"
        words = f"{site} {how} since {clock(newest.at_ms / 1000)} ({duration(newest.age_s(now_ms))})"
    try:
        admin.partition_counts(settings, site)
    except Transfer2goError:
        down = f"its broker at {settings.entry(site).bootstrap} does not answer"
        return f"{words}: {', '.join([down, *local_faults(settings, site)])}."
    return f"{words}: its workers are down, or the mirror from there; its broker answers."


def _announced(settings: Settings, site: Site) -> list[LiveWriter]:
    here = settings.here
    name = topics.ANNOUNCEMENTS if site == here else topics.remote(site, topics.ANNOUNCEMENTS)
    return announced_in(last(settings, here, [name], _RECORDS), here).announced(site)


def local_faults(settings: Settings, site: Site) -> list[str]:
    """What this machine knows of a local federation's broker: a full disk, what it said last of an error."""
    if not is_local(settings):
        return []
    directory = settings.state / site / "kafka" / "log"
    found = []
    if (free := broker.free_if_full(directory)) is not None:
        found.append(f"the disk of its log is full ({size(free)} free at {directory}): make room, it is started again")
    if words := broker.last_fault(settings.state / "logs" / f"{site}-broker.log"):
        found.append(f"the last error in its log: {words}")
    return found
