"""Sites of a stage with disks of their own: files there, and what is said to be held."""

from __future__ import annotations

from pathlib import Path

from streams.core import records as m
from streams.core.names import Adler32, Lfn, Site
from streams.storage.checksums import adler32, adler32_hex
from tests.audit.conftest import Stage
from tests.audit.history import BLOCK, DATASET, WHY, B, Federation

CONTENTS = {"a": b"hello", "b": b"x" * 3000, "empty": b""}


def adler(content: bytes) -> Adler32:
    return Adler32(adler32_hex(adler32(content)))


def disk(at: Stage, site: Site) -> Path:
    """The storage of a site, which its site.toml names."""
    storage = at.settings.state / site / "storage"
    (storage / "store").mkdir(parents=True)
    (at.settings.state / site / "site.toml").write_text(f'site = "{site}"\n[endpoint]\nurl = "{storage.as_uri()}"\n')
    return storage / "store"


def filled(store: Path) -> None:
    for name, content in CONTENTS.items():
        (store / name).write_bytes(content)


def held(site: Site, **contents: bytes) -> m.FilesHeld:
    files = (m.HeldFile(Lfn(f"/store/{name}"), BLOCK, len(c), adler(c), "") for name, c in contents.items())
    return m.FilesHeld(DATASET, site, tuple(files))


def lost(site: Site, *names: str) -> m.FilesLost:
    return m.FilesLost(DATASET, site, tuple(Lfn(f"/store/{name}") for name in names), WHY)


def say(at: Stage, *facts: m.Message, site: Site = B) -> None:
    """A site says more, as of now."""
    world = Federation()
    world.logs.clear()
    registrar = world.writer(site, "register", "cli")
    for fact in facts:
        registrar.say(fact)
    world.mirror()
    at.play(world)
