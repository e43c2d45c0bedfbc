"""`transfer2go key`: a site's root key, made once and kept offline, and the working keys that it certifies."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streams.cli import piped, screen
from streams.cli.command import Noun, at_site, json_option
from streams.errors import NeverWorks
from streams.settings import Settings
from streams.settings.public_keys import public_key_text

if TYPE_CHECKING:
    from streams.core import records as m

_DAY_MS = 86_400_000
_DAYS_MAX = 3660
_EARLY_MS = 300_000
"""A key is good so long before it was issued: clocks of two machines differ."""


def _passphrase_option(command: Any) -> Any:
    return click.option(
        "--passphrase-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Its first line is the passphrase; otherwise it is asked for.",
    )(command)


def _passphrase(file: Path | None, *, confirm: bool) -> str:
    from streams.keys.files import read_passphrase

    if file is not None:
        return read_passphrase(file)
    asked: str = click.prompt("passphrase of the root key", hide_input=True, confirmation_prompt=confirm, err=True)
    return asked


@click.group(cls=Noun)
def key() -> None:
    """Keys of a site: init, issue, list, show.

    The root key is made once, kept offline, and pinned at every site by its public half. It certifies working keys,
    which sign the site's seals.
    """


@key.command()
@click.argument("file", type=click.Path(path_type=Path))
@_passphrase_option
@json_option
@click.pass_obj
def init(settings: Settings, file: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Make the root key of a site in FILE, under a passphrase, and print the line for every site's sites.toml."""
    from streams.keys.files import make_root

    site = at_site(settings).here
    root = make_root(file, site, _passphrase(passphrase_file, confirm=True))
    _put_root(str(site), root.public, as_json)
    screen.say(f"keep {file} and its passphrase offline; put the line into sites.toml of every site")


def _put_root(site: str, public: bytes, as_json: bool) -> None:
    if as_json:
        screen.put_json({"kind": "root", "site": site, "root_key": public_key_text(public)})
    else:
        screen.put(f"[sites.{site}]")
        screen.put(f'root_key = "{public_key_text(public)}"')


@key.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["sealer"]), default="sealer", show_default=True, help="What it may sign.")
@click.option("--days", type=click.IntRange(1, _DAYS_MAX), default=366, show_default=True, help="It is good so long.")
@click.option("--to", "directory", type=click.Path(path_type=Path), metavar="DIR", help="Not among the site's keys.")
@_passphrase_option
@json_option
@click.pass_obj
def issue(
    settings: Settings,
    file: Path,
    kind: str,
    days: int,
    directory: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make a working key, certified by the root key in FILE, where the site's processes find it."""
    from streams.keys import files

    settings = at_site(settings)
    site, pinned = settings.here, settings.entry(settings.here).root_key
    owner, public = files.public_of_root(file)
    if owner != site:
        raise NeverWorks(f"this is the root key of {owner}, not of {site}", str(file), "name its site by --site")
    if pinned and public != pinned:
        raise NeverWorks(
            f"sites.toml pins another root_key of {site}", str(file), "is it an old one? see `transfer2go key show`"
        )
    now_ms = int(time.time() * 1000)
    root = files.unlock_root(file, _passphrase(passphrase_file, confirm=False))
    made = files.issue(
        root, settings.keys if directory is None else directory, kind, now_ms - _EARLY_MS, now_ms + days * _DAY_MS
    )
    _show([(str(made.path), made.certificate, "" if pinned else _NOT_PINNED.format(site=site))], as_json)


_NOT_PINNED = "sites.toml pins no root_key of {site}"


@key.command("list")
@json_option
@click.pass_obj
def list_keys(settings: Settings, as_json: bool) -> None:
    """The working keys of a site, until when they are good, and which of them may not sign, and why."""
    from streams.keys import files

    settings = at_site(settings)
    rows = [(str(path), files.load_working(path).certificate) for path in files.working_keys(settings.keys)]
    with piped.to_its_end():
        _show([(path, certificate, _fault(settings, certificate)) for path, certificate in rows], as_json)


@key.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def show(settings: Settings, file: Path, as_json: bool) -> None:
    """What a key's file holds: of a root key the line for sites.toml. No passphrase is needed."""
    from streams.keys import files

    try:
        site, public = files.public_of_root(file)
    except NeverWorks:
        certificate = files.load_working(file).certificate
        _show([(str(file), certificate, _fault(at_site(settings), certificate))], as_json)
    else:
        _put_root(str(site), public, as_json)


def _fault(settings: Settings, certificate: m.Certificate) -> str:
    from streams.keys.files import fault_of

    entry = settings.entry(settings.here)
    now_ms = int(time.time() * 1000)
    return fault_of(certificate, entry.name, entry.root_key, entry.revoked_keys, certificate.kind, now_ms)


def _show(rows: list[tuple[str, m.Certificate, str]], as_json: bool) -> None:
    def told(row: tuple[str, m.Certificate, str]) -> dict[str, Any]:
        path, one, fault = row
        return {
            "kind": one.kind,
            "site": one.site,
            "kid": one.kid,
            "not_before_ms": one.not_before_ms,
            "not_after_ms": one.not_after_ms,
            "may_sign": not fault,
            "fault": fault,
            "file": path,
        }

    def columns(row: tuple[str, m.Certificate, str]) -> tuple[str, ...]:
        path, one, fault = row
        until = datetime.fromtimestamp(one.not_after_ms // 1000, UTC).isoformat()[:16] + "Z"
        return (one.kid, one.kind, one.site, until, fault or "may sign", path)

    screen.listing(rows, as_json, told, ("kid", "kind", "site", "good until", "state", "file"), columns)
