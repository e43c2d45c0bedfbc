"""What a local federation consists of, and its files: sites, ports, directories, and the record of what runs.

STATE/sites.toml         the same everywhere          STATE/federation.json   the plan, and the parts as they run
STATE/SITE/site.toml     a site's own                 STATE/logs/PART.log     what each part printed
STATE/SITE/kafka, STATE/SITE/storage, STATE/SITE/worker-N, STATE/mirror
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import psutil

from streams.core.names import Site
from streams.errors import NeverWorks, Temporary
from streams.federation.broker import Broker

FIRST_PORT = 19000
LAST_PORT = 32000
"""Below the range from which systems hand out ports for outgoing connections."""
PORTS_PER_SITE = 20
FOLLOWER_PORT = 2
WORKER_PORT = 4
"""First worker port of a site's block: broker, controller, the follower's metrics, one in reserve, workers."""
MARK = "# Written by `transfer2go up`, which rewrites it; for clusters of your own write a file without this line.\n"


@dataclass(frozen=True, slots=True)
class SitePlan:
    """A site: its block of ports starts at `port`; so many workers run here."""

    name: Site
    port: int
    workers: int = 1

    def broker(self, state: Path) -> Broker:
        return Broker(self.name, state / self.name / "kafka", self.port, self.port + 1)

    def worker_port(self, number: int) -> int:
        return self.port + WORKER_PORT + number

    @property
    def follower_port(self) -> int:
        return self.port + FOLLOWER_PORT

    @property
    def ports(self) -> list[int]:
        return [self.port, self.port + 1, self.follower_port, *(self.worker_port(n) for n in range(self.workers))]


@dataclass(frozen=True, slots=True)
class FederationPart:
    """A running process of the federation. `state`: starting, ready, ended, failing, stopped; `why` in words."""

    name: str
    pid: int = 0
    created: float = 0.0
    state: str = "stopped"
    restarts: int = 0
    why: str = ""

    @property
    def alive(self) -> bool:
        return is_same_process(self.pid, self.created)


@dataclass(frozen=True, slots=True)
class FederationRecord:
    """federation.json. `step` is what the supervisor does now; `ready` once all is up; `fault` why it gave up.

    `followers`: whether each site has an `audit follow`; `ready` does not wait for them.
    """

    sites: tuple[SitePlan, ...]
    credit_bytes: int
    pid: int = 0
    created: float = 0.0
    step: str = ""
    ready: bool = False
    fault: str = ""
    exit_code: int = 0
    parts: tuple[FederationPart, ...] = field(default=())
    followers: bool = False

    @property
    def running(self) -> bool:
        return is_same_process(self.pid, self.created)


def is_same_process(pid: int, created: float) -> bool:
    """Whether `pid` is still the process that was started at `created`: numbers are reused, strangers never killed."""
    if not pid:
        return False
    try:
        found = psutil.Process(pid)
        return bool(abs(found.create_time() - created) < 1.0 and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def read_record(state: Path) -> FederationRecord | None:
    """The record, or None where there is none. Raises NeverWorks when it cannot be understood."""
    path = state / "federation.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        raw["sites"] = tuple(SitePlan(Site(s["name"]), s["port"], s["workers"]) for s in raw["sites"])
        raw["parts"] = tuple(FederationPart(**part) for part in raw["parts"])
        return FederationRecord(**raw)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise NeverWorks(
            f"the record of the federation cannot be read: {error}", str(path), "remove the state directory"
        ) from error


def write_record(state: Path, record: FederationRecord) -> None:
    """Replaces federation.json as a whole."""
    write(state / "federation.json", json.dumps(asdict(record), indent=1) + "\n")


def write(path: Path, text: str) -> None:
    """Replaces a small file as a whole. Raises Temporary for a full or unwritable disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise Temporary(f"cannot write: {error.strerror}", str(path), "make room or choose another --state") from error


def is_managed(state: Path) -> bool:
    """Whether sites.toml is absent or ours; else it names clusters that already exist."""
    path = state / "sites.toml"
    return not path.exists() or path.read_text().startswith(MARK)


def planned(
    names: Sequence[str],
    known: FederationRecord | None,
    *,
    workers: int,
    credit_bytes: int,
    home: str = "",
    followers: bool = False,
) -> FederationRecord:
    """The plan for `names`: known sites keep their ports, new ones get a free block; followers that were stay.

    Where the search begins follows from `home`, the state directory: were it the same for all, a federation that is
    half down could find another's broker at its port, and a mirror would carry one's journals into the other.
    """
    kept = {s.name: s for s in known.sites} if known else {}
    taken = {s.port for s in kept.values()}
    sites = list(kept.values())
    for name in map(Site, names):
        if name not in kept:
            port = _free_block(taken, workers, home)
            taken.add(port)
            sites.append(SitePlan(name, port, workers))
    if known is not None:
        return replace(known, sites=tuple(sites), followers=known.followers or followers)
    return FederationRecord(tuple(sites), credit_bytes, followers=followers)


def _free_block(taken: set[int], workers: int, home: str) -> int:
    blocks = range(FIRST_PORT, LAST_PORT, PORTS_PER_SITE)
    first: int = zlib.crc32(home.encode()) % len(blocks)
    for port in chain(blocks[first:], blocks[:first]):
        if port not in taken and all(not port_taken(p) for p in SitePlan(Site("X"), port, workers).ports):
            return port
    raise Temporary("no free block of ports", f"{FIRST_PORT} to {LAST_PORT}", "stop what holds them")


def port_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def who_listens(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()}, pid {connection.pid}"
    return ""


def check_ports(sites: Sequence[SitePlan]) -> None:
    """Raises Temporary naming the first port of these sites that somebody holds."""
    for site in sites:
        for port in site.ports:
            if port_taken(port):
                who = who_listens(port)
                raise Temporary(
                    f"port {port} of {site.name} is taken" + (f" by {who}" if who else ""),
                    "127.0.0.1",
                    "stop that process, or use another --state",
                )


def _table_version(path: Path) -> int:
    """That of the file which is to be written anew: `rebuild` raises it, and it never falls."""
    try:
        return int(tomllib.loads(path.read_text()).get("table_version", 1))
    except (OSError, ValueError, TypeError):
        return 1


def _key_lines(path: Path) -> dict[str, str]:
    """What the file which is to be written anew says of each site's keys: people write that."""
    try:
        sites = tomllib.loads(path.read_text()).get("sites", {})
        return {name: _key_lines_of(table) for name, table in sites.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _key_lines_of(table: Mapping[str, Any]) -> str:
    lines = ""
    if isinstance(root := table.get("root_key"), str):
        lines += f"root_key = {json.dumps(root)}\n"
    if isinstance(revoked := table.get("revoked_keys"), dict):
        keys = (f"{json.dumps(kid)} = {since.isoformat()}" for kid, since in revoked.items())
        lines += f"revoked_keys = {{ {', '.join(keys)} }}\n"
    return lines


def says(path: Path, text: str) -> bool:
    """Whether a file of settings holds all that `text` sets: whoever runs the site may have added his own to it."""
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError):
        return False
    wanted = tomllib.loads(text)
    return {**found, **wanted} == found


def site_files(state: Path, record: FederationRecord) -> Iterator[tuple[Path, str]]:
    version, keys = _table_version(state / "sites.toml"), _key_lines(state / "sites.toml")
    lines = [MARK, "partitions = 8\n", f"table_version = {version}\n", f"credit_bytes = {record.credit_bytes}\n"]
    for site in record.sites:
        lines.append(f'\n[sites.{site.name}]\nbootstrap = "{site.broker(state).bootstrap}"\n{keys.get(site.name, "")}')
    yield state / "sites.toml", "".join(lines)
    for site in record.sites:
        url = (state / site.name / "storage").resolve().as_uri()
        yield state / site.name / "site.toml", f'site = "{site.name}"\n\n[endpoint]\nurl = "{url}"\n'
