"""The marker of an endpoint: a small file on its storage that says whose it is, and that a site remembers elsewhere.

Where what a site remembers is not on the storage, another disk is there, or none: nothing may be called lost of it. Who
opens a storage as the site's own (a plane) marks it; who only looks at it compares. The first that is seen is believed.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from streams.core.names import Site, shown
from streams.errors import StorageError, Temporary
from streams.storage.endpoint import Endpoint
from streams.storage.tree import OWN_DIRECTORY

NAME = "marker.json"
"""Among what the endpoint keeps for itself."""


@dataclass(frozen=True, slots=True)
class Marker:
    """`id`: of this storage and no other, 32 hex digits."""

    site: str
    endpoint: str
    id: str

    @classmethod
    def parse(cls, content: bytes) -> Self | None:
        """None of what is no marker: half a file, as a copy by hand may leave it."""
        with suppress(ValueError, TypeError):
            told = json.loads(content)
            if isinstance(told, dict) and all(isinstance(told.get(name), str) for name in cls.__slots__):
                return cls(told["site"], told["endpoint"], told["id"])
        return None

    def packed(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    def __str__(self) -> str:
        return shown(f"{self.site} {self.endpoint} {self.id[:8]}")


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a site remembers of one of its endpoints: a file beside its site.toml."""

    site: Site
    endpoint: str
    path: Path

    @classmethod
    def of(cls, state: Path, site: Site, endpoint: str) -> Self:
        return cls(site, endpoint, state / site / "endpoints" / f"{endpoint}.json")

    @property
    def marker(self) -> Marker | None:
        """Temporary where it is there and cannot be read: whose the storage is would be anybody's guess."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Temporary(
                f"what {self.site} remembers of its storage cannot be read: {error.strerror}", str(self.path)
            ) from error
        found = Marker.parse(content)
        if found is None:
            what = f"what {self.site} remembers of its storage is no marker"
            raise Temporary(what, str(self.path), "remove it, if the right disk is mounted, and restart a worker there")
        return found

    def keep(self, marker: Marker) -> None:
        """The first that is kept stays. OSError where it cannot be."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}.new")
        try:
            with new.open("xb") as file:
                file.write(marker.packed())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(new, self.path)
        finally:
            new.unlink(missing_ok=True)


def check(storage: Endpoint, remembered: Remembered) -> Marker | None:
    """The storage's marker, if it is the one that is remembered; None where none is remembered and none is there.

    Temporary, in one line, where another storage is mounted, or none.
    """
    content = storage.read_own(NAME)
    found = None if content is None else Marker.parse(content)
    known = remembered.marker
    if content is None and known is None:
        return None
    if (
        found is not None
        and known in (None, found)
        and (found.site, found.endpoint)
        == (
            remembered.site,
            remembered.endpoint,
        )
    ):
        return found
    site = remembered.site
    had = "" if known is None else f", and {known} is remembered"
    if content is None:
        what = f"the storage of {site} has no marker{had}: another disk is mounted there, or none"
    else:
        what = f"this storage is not that of {site}: its marker is {found or 'none that can be read'}{had}"
    stale = remembered.path if known is not None else f"{NAME} in its {OWN_DIRECTORY}"
    then = f"mount the right disk; if this is the right one, remove {stale} and restart a worker of {site}"
    raise Temporary(what, storage.root, then)


def mark(storage: Endpoint, remembered: Remembered) -> Marker:
    """The marker, made where there is none yet, remembered from now on. Raises as `check`; StorageError, OSError."""
    found = check(storage, remembered)
    if found is None:
        own = Marker(remembered.site, remembered.endpoint, secrets.token_hex(16))
        storage.write_own(NAME, own.packed(), once=True)
        found = check(storage, remembered)
        if found is None:
            raise StorageError("the marker that was written is not there")
    if remembered.marker is None:
        remembered.keep(found)
        check(storage, remembered)
    return found
