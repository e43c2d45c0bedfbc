"""`transfer2go doctor`: is everything here that a federation needs? One line a check, with what to do next."""

from __future__ import annotations

import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import click

import schemas
from streams.cli import piped, screen, seal_ages, silences, upgrading
from streams.cli.command import Verb, json_option, leave
from streams.cli.lagging import mirror_lag, uncarried
from streams.cli.up import is_local
from streams.cli.url_doors import answer_of
from streams.client import worker_api
from streams.client.announcements import Announcements, LiveWriter
from streams.core.endpoint_config import DEFAULT_ENDPOINT
from streams.core.names import Site
from streams.core.records import is_own_door
from streams.doors.tokens import token_in
from streams.errors import NeverWorks, StorageError, Temporary, Transfer2goError
from streams.federation import artifacts, broker, java
from streams.kafka import admin
from streams.running.command import is_installed
from streams.settings import Settings
from streams.storage import marker, open_endpoint
from streams.wire.release import RELEASE

CLOCK_S_MAX = 5.0
BEHIND_S_MAX = 30.0
DOOR_S = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is (ok, warn, FAIL), in words; `exit_code` of a failure."""

    name: str
    state: str
    words: str
    exit_code: int = 0


@click.command(cls=Verb, federation=False)
@json_option
@click.pass_obj
def doctor(settings: Settings, as_json: bool) -> None:
    """Check Java, artifacts, disk, schemas, and of every site: broker, topics, clock, mirrors, workers, doors, seals.

    Exit 0: nothing failed; else that of the first failure (5: it may pass, 7: it will not).
    """
    found: list[Check] = []
    for check in _checks(settings):
        found.append(check)
        with piped.to_its_end():
            if as_json:
                screen.put_json({"check": check.name, "state": check.state, "words": check.words})
            else:
                screen.put(f"{check.state:<4}  {check.name}: {check.words}")
    failed = [check for check in found if check.state == "FAIL"]
    if not as_json:
        warned = sum(1 for check in found if check.state == "warn")
        screen.say(f"{len(found)} checks: {len(failed)} failed, {warned} warnings")
    leave(failed[0].exit_code if failed else 0)


def _checks(settings: Settings) -> Iterator[Check]:
    yield _checked("Python", lambda: f"{sys.version.split()[0]} at {sys.executable}")
    yield _checked("Java", lambda: "{0.version} at {0.path}".format(java.find_java()))
    yield _artifacts(settings)
    yield _disk(settings)
    yield from _tools(settings)
    yield from _http_doors(settings)
    yield _checked("schemas", lambda: f"{len(schemas.ids())} records, ids {min(schemas.names()):#x} and up")
    if not settings.registry.sites:
        yield Check("federation", "warn", f"none yet ({settings.sites_path} does not exist); run `transfer2go up`")
        return
    for site in settings.registry.names:
        yield from _of_site(settings, site)


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", look())
    except Transfer2goError as error:
        return Check(name, "FAIL", str(error), error.exit_code)


def _artifacts(settings: Settings) -> Check:
    listed = artifacts.read_list()
    missing = [a for a in listed if not a.path(settings.cache).is_file()]
    if missing:
        words = f"{len(missing)} of {len(listed)} Kafka jars are not in {settings.cache} yet"
        return Check("artifacts", "warn", f"{words}; `transfer2go up` fetches them")

    def sums() -> str:
        artifacts.verify(listed, settings.cache)
        return f"{len(listed)} Kafka jars, every sha256 as listed"

    return _checked("artifacts", sums)


def _tools(settings: Settings) -> Iterator[Check]:
    """Whether the programs of the tools on this site's links are on this machine: its workers run them."""
    for site, link in sorted(settings.link_tools.items()):
        program, name = link.tool.command[0], f"tool {link.tool.name}"
        if is_installed(program):
            yield Check(name, "ok", f"{program} is installed; it brings files from {site}")
        else:
            words = f"{program} is not installed here; files from {site} come by door or log, or wait for it"
            yield Check(name, "warn", words)


def _http_doors(settings: Settings) -> Iterator[Check]:
    """Whether what this site names as doors answers this machine, and whether their tokens can be read."""
    for door in settings.http_doors:
        name = f"door {door.name}"
        try:
            token_in(door.token_file, door.name)
        except StorageError as error:
            yield Check(name, "FAIL", str(error), NeverWorks.exit_code)
            continue
        answer = answer_of(door.url, settings.door_ca)
        yield Check(name, "ok" if answer.speaks_http else "warn", answer.words)


def _disk(settings: Settings) -> Check:
    place = next(p for p in (settings.state, *settings.state.parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    registry = settings.registry
    peers = max(0, len(registry.sites) - 1)
    # docs/PLATFORM.md: each payload topic and its copy keep five credits a partition, for every ordered pair of sites.
    sites_here = len(registry.sites) if is_local(settings) else 1
    need = 2 * peers * registry.partitions * admin.CREDITS_KEPT * registry.credit_bytes * max(1, sites_here)
    grown = f"payload topics may grow to {screen.size(need)}, journals and files besides"
    return Check("disk", "ok" if free > need else "warn", f"{screen.size(free)} free at {place}; {grown}")


def _of_site(settings: Settings, site: Site) -> Iterator[Check]:
    address = settings.entry(site).bootstrap
    answers = _checked(
        f"{site} broker", lambda: f"answers at {address}, {len(admin.partition_counts(settings, site))} topics"
    )
    if answers.state != "ok":
        yield replace(answers, words=", ".join([answers.words, *silences.local_faults(settings, site)]))
        return
    yield answers
    if free := _log_disk(settings, site):
        yield free
    faults = admin.faults(settings, site)
    if faults:
        more = f" (and {len(faults) - 1} more)" if faults[1:] else ""
        yield Check(f"{site} topics", "FAIL", faults[0] + more, NeverWorks.exit_code)
    else:
        yield Check(f"{site} topics", "ok", "names, partitions and retention as they must be")
        yield _mirrors(settings, site)
    yield from _workers(settings, site)
    yield _seals(settings, site)
    if is_local(settings) and (root := settings.state / site / "storage").is_dir():
        yield _storage(settings, site, root)


def _storage(settings: Settings, site: Site, root: Path) -> Check:
    name, words = f"{site} storage", f"{root}, {screen.size(shutil.disk_usage(root).free)} free"
    try:
        with open_endpoint(root.as_uri()) as storage:
            marker.check(storage, marker.Remembered.of(settings.state, site, DEFAULT_ENDPOINT))
    except Transfer2goError as error:
        return Check(name, "warn", f"{words}; {error}")
    return Check(name, "ok", words)


def _log_disk(settings: Settings, site: Site) -> Check | None:
    """Of a local federation's broker: it ends itself when the disk of its log is full."""
    directory = settings.state / site / "kafka" / "log"
    free = broker.free_if_full(directory) if is_local(settings) else None
    if free is None:
        return None
    words = f"full: {screen.size(free)} free at {directory}; make room before its broker ends"
    return Check(f"{site} log disk", "FAIL", words, Temporary.exit_code)


def _mirrors(settings: Settings, site: Site) -> Check:
    name = f"{site} mirrors"
    try:
        passed = uncarried(settings, site, time.time_ns() // 1_000_000)
        flows = mirror_lag(settings, site)
    except Transfer2goError as error:
        return Check(name, "warn", f"cannot be compared: {error}")
    if passed:
        return Check(name, "FAIL", "; ".join(map(upgrading.of_mirror, passed)), Temporary.exit_code)
    worst = max((flow for flow in flows if flow.records), key=lambda flow: flow.behind_s, default=None)
    if worst is not None and worst.behind_s > BEHIND_S_MAX:
        late = f"{worst.records:,} records, {screen.duration(worst.behind_s)} behind"
        words = f"{worst.topic} from {worst.origin} is {late}; is the mirror running?"
        return Check(name, "FAIL", words, Temporary.exit_code)
    waiting = sum(flow.records for flow in flows)
    return Check(name, "ok", f"{len(flows)} flows, {waiting:,} records under way")


def _workers(settings: Settings, site: Site) -> Iterator[Check]:
    now_ms = time.time_ns() // 1_000_000
    known = worker_api.announcements(settings, site)
    alive = known.alive(site, now_ms, role="worker")
    if not alive:
        heard = screen.moment(max((w.at_ms for w in known.announced(site)), default=None))
        words = f"no worker is alive (last heard {heard}); run `transfer2go up`, or start one"
        yield Check(f"{site} workers", "FAIL", words, Temporary.exit_code)
        return
    odd = ", ".join(w.writer for w in alive if w.registry_digest != settings.registry.digest)
    if odd:
        words = f"{odd} run with another sites.toml than this one; stop all workers of {site}, then start them"
        yield Check(f"{site} workers", "FAIL", words, NeverWorks.exit_code)
    else:
        yield Check(f"{site} workers", "ok", f"{len(alive)} alive")
    yield _release(settings, site)
    yield _clock(site, alive, now_ms)
    yield _doors(site, known, now_ms, settings.door_ca)


def _seals(settings: Settings, site: Site) -> Check:
    """Whether somebody seals the site's journals: without that a changed past contradicts nothing."""
    name = f"{site} seals"
    try:
        found = seal_ages.newest(settings, site)
    except Transfer2goError as error:
        return Check(name, "warn", f"cannot be read: {error}")
    is_well = found is not None and not found.is_stale
    return Check(name, "ok" if is_well else "warn", f"its journals: {seal_ages.words(site, found)}")


def _doors(site: Site, known: Announcements, now_ms: int, ca: Path | None = None) -> Check:
    """Whether this machine can connect to them, as the workers of its site must: a firewall shows here."""
    name, doors = f"{site} doors", sorted({w.door for w in known.alive(site, now_ms, role="plane") if w.door})
    if doors and not any(map(is_own_door, doors)):
        answers = [answer_of(door, ca) for door in doors]
        words = "of another make: " + "; ".join(answer.words for answer in answers)
        return Check(name, "ok" if all(answer.speaks_http for answer in answers) else "warn", words)
    doors = [door for door in doors if is_own_door(door)]
    if not doors:
        return Check(name, "ok", "none is open: it connects to those of its destinations, and else sends by the log")
    closed = [f"{door} cannot be reached from here: {why}" for door in doors if (why := _unreachable(door))]
    if closed:
        return Check(name, "warn", "; ".join(closed) + "; files go by the log while that is so")
    return Check(name, "ok", f"{', '.join(doors)} can be reached from here")


def _unreachable(door: str) -> str:
    """Why; "" where somebody listens."""
    try:
        parts = urlsplit(door)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), DOOR_S).close()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def _release(settings: Settings, site: Site) -> Check:
    name = f"{site} release"
    try:
        odd = upgrading.of_release(site, upgrading.releases(settings, site, site))
    except Transfer2goError as error:
        return Check(name, "warn", f"is not known: {error}")
    return Check(name, "warn", odd) if odd else Check(name, "ok", f"{RELEASE}, as this one")


def _clock(site: Site, alive: list[LiveWriter], now_ms: int) -> Check:
    """An announcement from the future shows a clock ahead of ours; one behind looks merely late, up to its interval."""
    ahead_s = max((w.at_ms - now_ms) / 1000 for w in alive)
    if ahead_s > CLOCK_S_MAX:
        words = f"{screen.duration(ahead_s)} ahead of this machine's; set one right"
        return Check(f"{site} clock", "FAIL", words, Temporary.exit_code)
    return Check(f"{site} clock", "ok", f"not ahead of this machine's by more than {CLOCK_S_MAX:.0f} s")
