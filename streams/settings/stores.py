"""The stores of a site as its configuration names them: `[stores.NAME]` tables and `T2G_STORES_NAME_…` variables."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from streams.core.names import Lfn, shown
from streams.core.store_names import Store, name_fault
from streams.errors import InvalidName, did_you_mean
from streams.settings.parsing import Reading, Value, masked, text

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{1,254}")
_ENVIRONMENT = "T2G_STORES_"


def _url(raw: object, base: Path) -> str:
    parts = urlsplit(text(raw, base))
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ValueError("want http://HOST[:PORT] or https://HOST[:PORT]")
    return parts.geturl().rstrip("/")


def _bucket(raw: object, base: Path) -> str:
    if not _BUCKET.fullmatch(text(raw, base)):
        raise ValueError("want the name of a bucket")
    return str(raw)


def _prefix(raw: object, base: Path) -> str:
    prefix = text(raw, base).strip("/")
    if any(step in ("", ".", "..") for step in prefix.split("/")) and prefix:
        raise ValueError("want what keys begin with, as run2026/raw/")
    return f"{prefix}/" if prefix else ""


def _yes(raw: object, base: Path) -> bool:
    if raw in (True, "true", "1", "yes"):
        return True
    if raw in (False, "false", "0", "no"):
        return False
    raise ValueError("want true or false")


def _path(raw: object, base: Path) -> str:
    return str((base / Path(text(raw, base)).expanduser()).absolute())


_FIELDS: dict[str, Callable[[object, Path], str | bool]] = {
    "url": _url,
    "bucket": _bucket,
    "prefix": _prefix,
    "region": text,
    "path_style": _yes,
    "direct": _yes,
    "lfn": lambda raw, base: Lfn(text(raw, base).rstrip("/")),
    "ca_file": _path,
    "credentials_file": _path,
    "profile": text,
    "access_key_id": text,
    "secret_access_key": text,
    "session_token": text,
}


def variable(name: str) -> str | None:
    """The setting that an environment variable stands for: T2G_STORES_CERN_URL is stores.cern.url."""
    if not name.startswith(_ENVIRONMENT):
        return None
    for key in sorted(_FIELDS, key=len, reverse=True):
        store = name.removeprefix(_ENVIRONMENT).removesuffix("_" + key.upper())
        if store != name.removeprefix(_ENVIRONMENT):
            return f"stores.{store.lower().replace('_', '-')}.{key}"
    return None


def read_stores(reading: Reading) -> tuple[Store, ...]:
    """Every store any layer names; each setting from the strongest layer that has it."""
    found: dict[str, dict[str, str | bool]] = {}
    for layer in reading.layers:
        for key, raw in layer.raw.items():
            if not key.startswith("stores."):
                continue
            name, _, setting = key.removeprefix("stores.").partition(".")
            origin = layer.origin(key)
            if setting not in _FIELDS:
                hint = did_you_mean(setting, _FIELDS)
                what = f"{shown(key)} is not a setting of a store" + (f" ({hint})" if hint else "")
                reading.faults.append(f"{origin}: {what}")
            elif setting not in found.setdefault(name, {}):
                found[name][setting] = _parsed(reading, key, setting, raw, layer.base, origin)
    return _without_faults(reading, found)


def _parsed(reading: Reading, key: str, setting: str, raw: object, base: Path, origin: str) -> str | bool:
    try:
        value = _FIELDS[setting](raw, base)
    except (ValueError, InvalidName) as error:
        given = "***" if "@" in str(raw) else masked(key, repr(raw))  # a URL may hold a password
        reading.faults.append(f"{key} = {given} from {origin}: {error}")
        return ""
    reading.values.append(Value(key, masked(key, str(value)), origin))
    return value


def _without_faults(reading: Reading, found: dict[str, dict[str, str | bool]]) -> tuple[Store, ...]:
    stores: list[Store] = []
    for name, given in sorted(found.items()):
        fault = name_fault(name)
        if fault is None and ("url" not in given or "bucket" not in given):
            fault = f"stores.{name} needs a url and a bucket"
        if fault is None and bool(given.get("access_key_id")) != bool(given.get("secret_access_key")):
            fault = f"stores.{name} has one of access_key_id and secret_access_key: set both, or neither"
        if fault is not None:
            reading.faults.append(fault)
            continue
        store = Store(name, **given)  # type: ignore[arg-type]  # by name, from parsers of just these types
        for other in stores:
            if store.base == other.base or other.holds(store.base) or store.holds(other.base):
                reading.faults.append(f"stores.{name}.lfn = {store.base} and that of {other.name} lie in each other")
        stores.append(store)
    return tuple(stores)
