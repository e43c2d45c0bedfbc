"""Configuration values and the layers they come from: parsing, origins, faults. What a file means is not here."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from streams.core.names import Site
from streams.core.path_rules import PathRules
from streams.core.policy import CODECS, PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX, Policy
from streams.errors import InvalidName, NeverWorks, did_you_mean

_OWNED = {
    "bootstrap.servers",
    "group.id",
    "client.id",
    "acks",
    "enable.idempotence",
    "transactional.id",
    "partitioner",
    "isolation.level",
    "enable.auto.commit",
    "enable.partition.eof",
    "auto.offset.reset",
    "test.mock.num.brokers",
}
"""Kafka settings that carry a guarantee; a configuration file may not change them."""
_SECRET_WORDS = ("password", "secret", "token", "jaas", "key.pem", "oauthbearer.config", "passphrase")


@dataclass(frozen=True, slots=True)
class Value:
    """One value as `config show --origin` prints it: secrets are masked already."""

    name: str
    value: str
    origin: str


def _whole(low: int, high: int) -> Callable[[object, Path], int]:
    def parse(raw: object, base: Path) -> int:
        try:
            value = int(raw) if isinstance(raw, str) else raw
        except ValueError:
            value = None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"want a whole number from {low:,} to {high:,}")
        return value

    return parse


def _seconds(raw: object, base: Path) -> float:
    try:
        value = float(raw) if isinstance(raw, str | int | float) and not isinstance(raw, bool) else -1.0
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise ValueError("want a number of seconds above 0")
    return value


def text(raw: object, base: Path) -> str:
    if not isinstance(raw, str) or not raw.isprintable():
        raise ValueError("want printable text")
    return raw


def _host(raw: object, base: Path) -> str:
    host = text(raw, base)
    if not host or any(c in host for c in "/@?# "):
        raise ValueError("want a host or an address to bind, as 127.0.0.1")
    return host


def _announced(raw: object, base: Path) -> str:
    parts = urlsplit(f"//{text(raw, base)}")
    try:
        whole = bool(parts.hostname) and parts.netloc == str(raw) and "@" not in parts.netloc and parts.port != 0
    except ValueError:  # no such port
        whole = False
    if not whole:
        raise ValueError("want HOST or HOST:PORT, as peers reach it")
    return str(raw)


def _path(raw: object, base: Path) -> Path:
    if not isinstance(raw, str | Path) or not str(raw):
        raise ValueError("want a path")
    return (base / Path(raw).expanduser()).absolute()


def _site(raw: object, base: Path) -> Site:
    return Site(text(raw, base))


def _url(raw: object, base: Path) -> str:
    url = text(raw, base)
    if url and "://" not in url:
        raise ValueError("want a URL, as file:///data/storage")
    if url.startswith("memory:"):  # each process would have its own, and lose it
        raise ValueError("a storage in memory keeps no site's files; want file:///data/storage")
    return url


def _rules(raw: object, base: Path) -> PathRules:
    try:
        return PathRules.configured(raw)
    except NeverWorks as fault:
        raise ValueError(str(fault)) from fault


def _codec(raw: object, base: Path) -> str:
    if not isinstance(raw, str) or raw not in CODECS:
        raise ValueError(f"want one of {', '.join(CODECS)}")
    return raw


def _policy_kind(name: str, default: object) -> Callable[[object, Path], object]:
    if name == "payload_codec":
        return _codec
    if isinstance(default, str):
        return text
    return _seconds if isinstance(default, float) else _whole(1, _BIG)


_BIG = 1 << 40
NODE: dict[str, Callable[[object, Path], object]] = {
    "state": _path,
    "cache": _path,
    "sites": _path,
    "site": _site,
    "site_config": _path,
    "datadir": _path,
    "keys": _path,
    "web_host": _host,
    "web_port": _whole(0, 65535),
    "endpoint.url": _url,
    "endpoint.rules": _rules,
    "chunk_queue_bytes": _whole(1 << 20, 1 << 30),
    "door.host": _host,
    "door.announce": _announced,
    "door.port": _whole(0, 65535),
    "door.cert": _path,
    "door.key": _path,
    "door.ca": _path,
    "door.rate": _whole(0, _BIG),
    **{f"policy.{f.name}": _policy_kind(f.name, f.default) for f in fields(Policy) if f.name != "credit_bytes"},
}
SHARED: dict[str, Callable[[object, Path], int]] = {
    "partitions": _whole(1, 1000),
    "table_version": _whole(1, 1_000_000),
    "payload_bytes": _whole(4096, PAYLOAD_BYTES_MAX),
    "credit_bytes": _whole(2 * RECORD_BYTES_MAX, _BIG),
}


def flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def unknown(key: str, known: Iterable[str]) -> str:
    hint = did_you_mean(key, known)
    return f"{key} is not a setting" + (f" ({hint})" if hint else "")


def masked(key: str, value: str) -> str:
    """`value` as it may be shown: stars where `key` names a secret."""
    return "***" if any(word in key for word in _SECRET_WORDS) else value


@dataclass(slots=True)
class Layer:
    origin: Callable[[str], str]
    base: Path
    raw: dict[str, object]


class Reading:
    """One pass over the layers: collects values with their origins, and every fault."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.faults: list[str] = []
        self.values: list[Value] = []

    def read(self, path: Path) -> dict[str, object]:
        try:
            return tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as e:
            self.faults.append(f"{path} cannot be read: {getattr(e, 'strerror', None) or e}")
        except tomllib.TOMLDecodeError as e:
            self.faults.append(f"{path} is not TOML: {e}")
        return {}

    def add_file(self, path: Path) -> None:
        self.add(lambda _: str(path), path.parent, dict(flat(self.read(path))))

    def add(self, origin: Callable[[str], str], base: Path, raw: dict[str, object]) -> None:
        for key in raw:
            if key not in NODE and not key.startswith(("doors.", "kafka.", "links.", "stores.", "tools.")):
                self.faults.append(f"{origin(key)}: {unknown(key, NODE)}")
        self.layers.append(Layer(origin, base, raw))

    def parsed(self, key: str, raw: object, base: Path, origin: str) -> object:
        try:
            value = (NODE.get(key) or SHARED[key])(raw, base)
        except (ValueError, InvalidName) as e:
            self.faults.append(f"{key} = {raw!r} from {origin}: {e}")
            return None
        self.values.append(Value(key, masked(key, str(value)), origin))
        return value

    def take(self, key: str, default: object) -> object:
        """The strongest layer's value of `key`; `default` (not parsed) when none has it or it is faulty."""
        for layer in self.layers:
            if key in layer.raw:
                value = self.parsed(key, layer.raw[key], layer.base, layer.origin(key))
                return default if value is None else value
        self.values.append(Value(key, "" if default is None else str(default), "default"))
        return default

    def client_settings(self, raw: Mapping[str, object], origin: str, shown: str) -> dict[str, str]:
        good: dict[str, str] = {}
        for key, value in raw.items():
            if key in _OWNED:
                self.faults.append(f"{shown}.{key} from {origin}: this one is not yours to set")
            elif not isinstance(value, str | int | float | bool):
                self.faults.append(f"{shown}.{key} from {origin}: want text, a number or true/false")
            else:
                good[key] = str(value).lower() if isinstance(value, bool) else str(value)
                self.values.append(Value(f"{shown}.{key}", masked(key, good[key]), origin))
        return good
