"""Doors of another make that give a site's files, as its configuration names them: `[doors.NAME]` tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from streams.core.names import shown
from streams.core.records import field_checks
from streams.core.records.chunks import REDIRECTS_MAX
from streams.errors import did_you_mean
from streams.settings.parsing import Reading, Value, text

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
KIND = "http"
"""What is spoken: GET with one range."""


@dataclass(frozen=True, slots=True)
class HttpDoor:
    """A server that gives what the site's storage holds. `url`: of the storage's root, with a slash at its end.

    `token_file`: of a bearer token; None where none is needed. `redirects`: hosts to which it may lead, as HOST or
    *.DOMAIN.
    """

    name: str
    url: str
    token_file: Path | None = None
    redirects: tuple[str, ...] = ()


def read_doors(reading: Reading) -> tuple[HttpDoor, ...]:
    """Every door that any layer names; each setting from the strongest layer that has it. By name."""
    found: dict[str, dict[str, object]] = {}
    origins: dict[str, str] = {}
    for layer in reading.layers:
        for key, raw in layer.raw.items():
            if not key.startswith("doors."):
                continue
            name, _, setting = key.removeprefix("doors.").partition(".")
            origin = layer.origin(key)
            given = found.setdefault(name, {})
            origins.setdefault(name, origin)
            if setting not in _FIELDS:
                hint = did_you_mean(setting, _FIELDS)
                what = f"{shown(key)} is not a setting of a door of another make" + (f" ({hint})" if hint else "")
                reading.faults.append(f"{origin}: {what}")
            elif setting not in given:
                try:
                    given[setting] = _FIELDS[setting](raw, layer.base)
                    reading.values.append(Value(key, str(given[setting]), origin))
                except ValueError as error:
                    given[setting] = None
                    said = "***" if "@" in str(raw) else shown(repr(raw))  # a URL may hold a password
                    reading.faults.append(f"{key} = {said} from {origin}: {error}")
    doors: list[HttpDoor] = []
    for name, given in sorted(found.items()):
        if not _NAME.fullmatch(name):
            reading.faults.append(f"{origins[name]}: doors.{shown(name)}: want letters, digits, _ and - (40 at most)")
        elif "kind" not in given or "url" not in given:
            reading.faults.append(f'{origins[name]}: doors.{name} needs kind = "{KIND}" and a url')
        elif None not in given.values():
            del given["kind"]
            doors.append(HttpDoor(name, **given))  # type: ignore[arg-type]  # by their parsers
    return tuple(doors)


def _kind(raw: object, base: Path) -> str:
    if raw != KIND:
        raise ValueError(f'want "{KIND}": nothing else is spoken')
    return KIND


def _url(raw: object, base: Path) -> str:
    url = text(raw, base).rstrip("/") + "/"
    try:
        whole = bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:  # no such port
        whole = False
    if not whole or not field_checks.is_http(url):
        raise ValueError(
            "want http://HOST[:PORT]/PATH or https://…, where the storage's root is given, without a query"
        )
    return url


def _token_file(raw: object, base: Path) -> Path:
    if not isinstance(raw, str) or not raw:
        raise ValueError("want the path of a file with the token; the token itself stands in no setting")
    return (base / Path(raw).expanduser()).absolute()


def _redirects(raw: object, base: Path) -> tuple[str, ...]:
    good = isinstance(raw, list) and all(isinstance(one, str) and field_checks.is_host_pattern(one) for one in raw)
    if not isinstance(raw, list) or not good or len(raw) > REDIRECTS_MAX:
        raise ValueError(f'want a list of hosts, {REDIRECTS_MAX} at most, as ["*.pool.example.org"]')
    return tuple(raw)


_FIELDS: dict[str, Callable[[object, Path], object]] = {
    "kind": _kind,
    "url": _url,
    "token_file": _token_file,
    "redirects": _redirects,
}
