"""Configuration: flags, T2G_* variables and TOML files, one frozen `Settings`, refused whole with every fault.

`parsing` reads and checks single values, `stores` the tables of object stores; only this module reads os.environ.
Layers, strongest first: flag, environment, ./transfer2go.toml, the user's file, /etc, the site's own, default. What all
sites share (sites.toml) has one source and no layers. Translating broker credentials to a client's words is not here:
see kafka/client.py.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import platformdirs

from streams.core.endpoint_config import DEFAULT_ENDPOINT, EndpointConfig
from streams.core.names import Site
from streams.core.path_rules import PathRules
from streams.core.policy import Policy
from streams.core.store_names import Store
from streams.errors import InvalidName, NeverWorks, NotFound, UsageError, did_you_mean
from streams.settings.doors import HttpDoor, read_doors
from streams.settings.links import read_links
from streams.settings.parsing import NODE, SHARED, Reading, Value, flat, unknown
from streams.settings.public_keys import public_key_of, public_key_text, revoked_keys_of
from streams.settings.stores import read_stores, variable
from streams.settings.tools import LinkTool, read_tools

_APP = "transfer2go"
CHUNK_QUEUE_BYTES = 1320 * 1024
"""Payload records waiting for the broker: five of 256 KiB. Five requests may be in flight; while a sixth waits,
librdkafka's thread spins (2.16.1: 1.7 s of CPU for 1.5 GB of one partition instead of 0.4)."""


class BadSettings(NeverWorks):
    """The configuration is refused; `faults` holds every fault found."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        if len(faults) == 1:
            what = f"configuration refused: {faults[0]}"
        else:
            what = f"configuration refused, {len(faults)} faults: " + "; ".join(
                f"{no}) {fault}" for no, fault in enumerate(faults, 1)
            )
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class SiteEntry:
    """A line of the registry. `replication` 0 means min(3, brokers of the cluster).

    `region`: a word that sites near each other share; "" for none.
    """

    name: Site
    bootstrap: str
    auditor: bool = False
    kafka: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    replication: int = 0
    region: str = ""
    root_key: bytes = b""
    """Public half of the key that certifies this site's keys; empty where none is pinned."""
    revoked_keys: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Names of keys, and since when (ms of the epoch) they are revoked."""


ROW_FORMAT = 9
"""Raised when the fields of a worker's rows change: the journals are folded anew into tables of that format."""
_FORMATS_APART = 10_000


def generation_in_words(generation: int) -> str:
    """A generation of workers' tables, as `Registry.generation` numbers them."""
    row_format, table_version = divmod(generation, _FORMATS_APART)
    return f"row format {row_format + 1}, table_version {table_version}"


_REGION = re.compile(r"[A-Za-z0-9_.-]{0,40}")


@dataclass(frozen=True, slots=True)
class Registry:
    """What all sites share: sites.toml."""

    partitions: int = 8
    table_version: int = 1
    payload_bytes: int = 256 * 1024
    credit_bytes: int = 128 * 1024 * 1024
    sites: tuple[SiteEntry, ...] = ()

    @property
    def names(self) -> tuple[Site, ...]:
        return tuple(entry.name for entry in self.sites)

    def peers_of(self, site: str | None) -> tuple[Site, ...]:
        """All other sites."""
        return tuple(name for name in self.names if name != site)

    @property
    def digest(self) -> str:
        """sha256 (hex) of what workers of one site must agree on before they share its partitions."""
        words = [*sorted(self.names), str(self.partitions), str(self.generation)]
        words += [f"{site} {region}" for site, region in sorted(self.regions.items())]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    @property
    def regions(self) -> Mapping[Site, str]:
        """Of the sites that have one."""
        return {entry.name: entry.region for entry in self.sites if entry.region}

    @property
    def generation(self) -> int:
        """Which tables workers keep: by the format of their rows, and by how often they were folded anew by hand."""
        return (ROW_FORMAT - 1) * _FORMATS_APART + self.table_version

    def entry(self, site: str) -> SiteEntry:
        """The registry's line of `site`; NotFound with the nearest name and all otherwise."""
        for entry in self.sites:
            if entry.name == site:
                return entry
        known = f"known sites: {', '.join(self.names) or 'none'}"
        hint = did_you_mean(site, self.names)
        raise NotFound(f"no site {Site(site)} in this federation", next=f"{hint} {known}".lstrip())


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything configured, read once. `kafka`: this process's own client settings by site, secrets included."""

    registry: Registry
    site: Site | None
    state: Path
    cache: Path
    sites_path: Path
    datadir: Path
    web_host: str = "127.0.0.1"
    web_port: int = 0
    endpoint_url: str = ""
    path_rules: PathRules | None = None
    stores: tuple[Store, ...] = ()
    chunk_queue_bytes: int = CHUNK_QUEUE_BYTES
    door_host: str = ""
    """Where planes open their doors; none where it is empty."""
    door_announce: str = ""
    """HOST or HOST:PORT at which peers reach the door, where that is not where it listens."""
    door_port: int = 0
    """0: any that is free. Workers of one machine need one each, as T2G_DOOR_PORT."""
    door_cert: Path | None = None
    """PEM file of the door's certificate, and of those that signed it: with one, the door speaks https."""
    door_key: Path | None = None
    """PEM file of its key, where that is not in the same file."""
    door_ca: Path | None = None
    """PEM file of whom peers' doors are believed by; the system's where there is none."""
    http_doors: tuple[HttpDoor, ...] = ()
    """Doors of another make, which give this site's files in the place of its planes'."""
    link_rates: Mapping[Site, int] = field(default_factory=dict, hash=False)
    """Bytes a second that come from the doors of a site, of those that have a bound."""
    link_tools: Mapping[Site, LinkTool] = field(default_factory=dict, hash=False)
    """Of sites from which a tool may bring files."""
    door_rate: int = 0
    """Bytes a second that leave a plane's door; 0: as many as can."""
    keys: Path = Path("keys")
    """Where this site's working keys are."""
    policy: Policy = field(default_factory=Policy)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False, hash=False)
    values: tuple[Value, ...] = field(default=(), repr=False, compare=False)

    @property
    def here(self) -> Site:
        """The site this process belongs to; UsageError when none was named."""
        if self.site is None:
            known = ", ".join(self.registry.names)
            raise UsageError("which site?", next=f"use --site or T2G_SITE, one of: {known}")
        return self.site

    @property
    def peers(self) -> tuple[Site, ...]:
        return self.registry.peers_of(self.site)

    @property
    def endpoints(self) -> Mapping[str, EndpointConfig]:
        """This site's endpoints by name. The only place that knows how many there are, and their names."""
        one = EndpointConfig(DEFAULT_ENDPOINT, self.endpoint_url, self.path_rules, self.stores)
        return {one.name: one}

    def entry(self, site: str) -> SiteEntry:
        return self.registry.entry(site)

    def kafka_of(self, site: str) -> Mapping[str, str]:
        """Client settings (librdkafka's names) towards `site`'s cluster: sites.toml's, this process's own over them."""
        return {**self.entry(site).kafka, **self.secrets.get(str(site), {})}


def _registry(reading: Reading, path: Path) -> Registry:
    raw, origin = reading.read(path), str(path)
    tables = raw.pop("sites", {})
    shared: dict[str, int] = {}
    for key, value in flat(raw):
        if key not in SHARED:
            reading.faults.append(f"{origin}: {unknown(key, [*SHARED, 'sites'])}")
        elif isinstance(parsed := reading.parsed(key, value, path.parent, origin), int):
            shared[key] = parsed
    for key in SHARED.keys() - raw.keys():
        reading.values.append(Value(key, str(getattr(Registry(), key)), "default"))
    entries: list[SiteEntry] = []
    if not isinstance(tables, dict) or not tables:
        reading.faults.append(f"{origin}: no [sites.NAME] table with a bootstrap address")
        tables = {}
    for name, table in tables.items():
        if entry := _site_entry(reading, str(name), table, origin):
            entries.append(entry)
    registry = Registry(**shared, sites=tuple(entries))
    credit, payload = registry.credit_bytes, registry.payload_bytes
    if credit < 4 * payload:
        reading.faults.append(f"{origin}: credit_bytes = {credit:,} must be at least 4 × payload_bytes = {payload:,}")
    return registry


def _site_entry(reading: Reading, name: str, table: object, origin: str) -> SiteEntry | None:
    shown = f"sites.{name}"
    if not isinstance(table, dict):
        reading.faults.append(f"{origin}: {shown} must be a table")
        return None
    try:
        site = Site(name)
    except InvalidName as e:
        reading.faults.append(f"{origin}: {shown}: {e}")
        return None
    known = {"bootstrap", "auditor", "kafka", "region", "replication", "root_key", "revoked_keys"}
    for key in table.keys() - known:
        reading.faults.append(f"{origin}: {shown}: {unknown(key, known)}")
    bootstrap, auditor = table.get("bootstrap"), table.get("auditor", False)
    replication = table.get("replication", 0)
    hosts = bootstrap.split(",") if isinstance(bootstrap, str) else []
    if not hosts or not all(h.strip().rpartition(":")[0] and h.rpartition(":")[2].strip().isdigit() for h in hosts):
        reading.faults.append(f"{origin}: {shown}.bootstrap = {bootstrap!r}: want HOST:PORT[,HOST:PORT…]")
    if not isinstance(auditor, bool):
        reading.faults.append(f"{origin}: {shown}.auditor = {auditor!r}: want true or false")
    if not isinstance(replication, int) or not 0 <= replication <= 100:
        reading.faults.append(f"{origin}: {shown}.replication = {replication!r}: want 0 (automatic) or a count")
        replication = 0
    region = table.get("region", "")
    if not isinstance(region, str) or not _REGION.fullmatch(region):
        reading.faults.append(f"{origin}: {shown}.region = {region!r}: want at most 40 letters, digits, '_', '-', '.'")
    kafka = table.get("kafka", {})
    if not isinstance(kafka, dict):
        reading.faults.append(f"{origin}: {shown}.kafka must be a table")
        kafka = {}
    root_key, revoked = b"", dict[str, int]()
    try:
        root_key = public_key_of(table["root_key"]) if "root_key" in table else b""
        revoked = revoked_keys_of(table.get("revoked_keys", {}))
    except ValueError as error:
        which = "root_key" if "root_key" in table and not root_key else "revoked_keys"
        reading.faults.append(f"{origin}: {shown}.{which}: {error}")
    client = reading.client_settings(dict(flat(kafka)), origin, f"{shown}.kafka")
    reading.values.append(Value(f"{shown}.bootstrap", str(bootstrap), origin))
    reading.values.append(Value(f"{shown}.auditor", str(auditor), origin if "auditor" in table else "default"))
    if "region" in table:
        reading.values.append(Value(f"{shown}.region", str(region), origin))
    if root_key:
        reading.values.append(Value(f"{shown}.root_key", public_key_text(root_key), origin))
    named = str(region)
    return SiteEntry(site, str(bootstrap), auditor is True, client, replication, named, root_key, revoked)


def _secrets(reading: Reading, registry: Registry, site: Site | None) -> dict[str, dict[str, str]]:
    """Own client settings by site: `[kafka]` is for this process's site, `[kafka.OTHER]` for another's cluster."""
    merged: dict[str, dict[str, tuple[object, str]]] = {}
    for layer in reading.layers:
        for key, raw in layer.raw.items():
            if not key.startswith("kafka."):
                continue
            name = key.removeprefix("kafka.")
            owner, _, rest = name.partition(".")
            target, name = (owner, rest) if owner in registry.names else (str(site or ""), name)
            merged.setdefault(target, {}).setdefault(name, (raw, layer.origin(key)))
    result: dict[str, dict[str, str]] = {}
    for target, pairs in merged.items():
        for name, (raw, origin) in pairs.items():
            shown = f"kafka.{target}" if target else "kafka"
            result.setdefault(target, {}).update(reading.client_settings({name: raw}, origin, shown))
    return result


def _policy(reading: Reading, registry: Registry) -> Policy:
    credit, usual = registry.credit_bytes, Policy()
    defaults = {f.name: getattr(usual, f.name) for f in fields(Policy) if f.name != "credit_bytes"}
    defaults["request_bytes"] = min(usual.request_bytes, credit // 2)
    given: dict[str, Any] = {name: reading.take(f"policy.{name}", default) for name, default in defaults.items()}
    policy = Policy(credit_bytes=credit, **given)
    if policy.request_bytes > credit:
        reading.faults.append(f"policy.request_bytes = {policy.request_bytes:,} is over credit_bytes = {credit:,}")
    return policy


def _path_rules(reading: Reading) -> PathRules | None:
    rules = reading.take("endpoint.rules", None)
    if not isinstance(rules, PathRules):
        return None
    url = next((str(layer.raw["endpoint.url"]) for layer in reading.layers if "endpoint.url" in layer.raw), "")
    root = unquote(urlsplit(url).path).rstrip("/") + "/"
    for begins in rules.begins:
        if not begins.startswith(root) and not root.startswith(begins):
            fault = f"endpoint.rules: a pfn begins with {begins!r}, which is not below the path of endpoint.url, {root}"
            reading.faults.append(fault)
    return rules


def _environment(environ: Mapping[str, str], reading: Reading) -> dict[str, object]:
    names = {"T2G_" + key.upper().replace(".", "_"): key for key in NODE}
    found: dict[str, object] = {}
    for name, value in environ.items():
        if name in names:
            found[names[name]] = value
        elif (key := variable(name)) is not None:
            found[key] = value
        elif name.startswith("T2G_KAFKA_"):
            found["kafka." + name.removeprefix("T2G_KAFKA_").lower().replace("_", ".")] = value
        elif name.startswith("T2G_") and (near := difflib.get_close_matches(name, names, n=1, cutoff=0.85)):
            reading.faults.append(f"{name} in the environment is not a setting (did you mean {near[0]}?)")
    return found


def _files(cwd: Path) -> list[Path]:
    user = platformdirs.user_config_path(_APP) / "transfer2go.toml"
    return [p for p in (cwd / "transfer2go.toml", user, Path("/etc/transfer2go.toml")) if p.is_file()]


def load_settings(
    *,
    need_federation: bool = True,
    environ: Mapping[str, str] | None = None,
    files: Sequence[Path] | None = None,
    **flags: object,
) -> Settings:
    """Fold all layers into one Settings.

    `flags` are named as settings are, with `_` for `.` (`site`, `web_port`, `endpoint_url`, `policy_lease_s`…);
    None means not given. Without a sites.toml: NotFound, or with `need_federation=False` an empty registry.
    Raises BadSettings with every fault; TypeError for an unknown flag.
    """
    environ = os.environ if environ is None else environ
    by_flag = {key.replace(".", "_"): key for key in NODE}
    if odd := flags.keys() - by_flag.keys():
        raise TypeError(f"load_settings() has no setting {', '.join(sorted(odd))}")
    reading, cwd = Reading(), Path.cwd()
    given = {by_flag[name]: value for name, value in flags.items() if value is not None}
    reading.add(lambda key: f"flag --{key.replace('.', '-').replace('_', '-')}", cwd, given)
    env = _environment(environ, reading)
    reading.add(lambda key: "T2G_" + key.upper().replace(".", "_"), cwd, env)
    for path in _files(cwd) if files is None else files:
        reading.add_file(path)
    state = Path(str(reading.take("state", platformdirs.user_state_path(_APP))))
    cache = Path(str(reading.take("cache", platformdirs.user_cache_path(_APP))))
    sites_path = Path(str(reading.take("sites", state / "sites.toml")))
    site = _own_file(reading, state)
    registry = Registry()
    if sites_path.is_file():
        registry = _registry(reading, sites_path)
        if site is not None and site not in registry.names and not reading.faults:
            registry.entry(site)
    elif need_federation and not reading.faults:
        raise NotFound(
            "no federation here", where=f"{sites_path} does not exist", next="run `transfer2go up` or set T2G_SITES"
        )
    links = read_links(reading, registry.names, read_tools(reading))
    settings = Settings(
        registry=registry,
        site=site,
        state=state,
        cache=cache,
        sites_path=sites_path,
        keys=Path(str(reading.take("keys", state / site / "keys" if site else state / "keys"))),
        datadir=Path(str(reading.take("datadir", state / site / "worker-0" if site else state / "client"))),
        web_host=str(reading.take("web_host", "127.0.0.1")),
        web_port=_int(reading.take("web_port", 0)),
        endpoint_url=str(reading.take("endpoint.url", "")),
        path_rules=_path_rules(reading),
        stores=read_stores(reading),
        http_doors=read_doors(reading),
        link_rates=links.rates,
        link_tools=links.tools,
        chunk_queue_bytes=_int(reading.take("chunk_queue_bytes", CHUNK_QUEUE_BYTES)),
        door_host=str(reading.take("door.host", "")),
        door_announce=str(reading.take("door.announce", "")),
        door_port=_int(reading.take("door.port", 0)),
        door_cert=_path_or_none(reading.take("door.cert", None)),
        door_key=_path_or_none(reading.take("door.key", None)),
        door_ca=_path_or_none(reading.take("door.ca", None)),
        door_rate=_int(reading.take("door.rate", 0)),
        policy=_policy(reading, registry),
        secrets=_secrets(reading, registry, site),
        values=tuple(reading.values),
    )
    if reading.faults:
        raise BadSettings(reading.faults)
    return settings


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _path_or_none(value: object) -> Path | None:
    return value if isinstance(value, Path) else None


def _own_file(reading: Reading, state: Path) -> Site | None:
    """Add the site's own file as the weakest layer; return the site's name, if one is named anywhere."""
    named = reading.take("site", None)
    config = reading.take("site_config", state / named / "site.toml" if isinstance(named, Site) else None)
    if not isinstance(config, Path):
        return None
    explicit = any("site_config" in layer.raw for layer in reading.layers)
    if config.is_file():
        reading.add_file(config)
        own = reading.layers[-1].raw.get("site")
        if named is None:
            reading.values = [v for v in reading.values if v.name != "site"]
            named = reading.take("site", None)
        elif own is not None and own != named:
            reading.faults.append(f"site = {named} but {config} is the file of {own}")
    elif explicit:
        reading.faults.append(f"site_config = {config} does not exist")
    return named if isinstance(named, Site) else None
