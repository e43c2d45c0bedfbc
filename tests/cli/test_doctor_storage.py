"""What `doctor` says of a site's storage: how much room it has, and whether it is the site's own."""

from __future__ import annotations

from pathlib import Path

from streams.cli.doctor import _storage
from streams.core.names import Site
from streams.settings import Registry, Settings
from streams.storage import marker
from streams.storage.posix import PosixEndpoint

A = Site("T1_A")


def test_another_disk_in_its_place_is_a_warning(tmp_path: Path) -> None:
    settings = Settings(Registry(partitions=1, sites=()), A, tmp_path, tmp_path, tmp_path / "s", tmp_path / "c")
    root = tmp_path / A / "storage"
    root.mkdir(parents=True)
    assert _storage(settings, A, root).state == "ok", "of before: it has no marker, and none is remembered"
    with PosixEndpoint(str(root)) as storage:
        marker.mark(storage, marker.Remembered.of(tmp_path, A, "default"))
    told = _storage(settings, A, root)
    assert (told.state, told.words.startswith(f"{root}, "), told.words.endswith(" free")) == ("ok", True, True)
    root.rename(root.with_name("away"))
    root.mkdir()
    told = _storage(settings, A, root)
    assert told.state == "warn"
    assert "the storage of T1_A has no marker" in told.words
