"""The directories of a site's workers, where they are here: tables and views opened beside the worker that has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rocksdict import AccessType, BlockBasedOptions, Cache, Rdict

from streams.core.names import Site
from streams.errors import Temporary
from streams.settings import Settings
from streams.views import rows as views
from streams.worker import rows

_OFFSET_KEY = b"__faust\0offset__"
"""Under which Faust keeps up to which record of its changelog a table's partition is."""
_GENERATION = re.compile(r"v(\d+)")
_CACHE_BYTES = 8 << 20
"""Of blocks of all databases of a worker's directory together."""


@dataclass(frozen=True, slots=True)
class WorkerDirectory:
    """A worker's directory, opened. `tables`: databases by (table, partition). `view`: None where there is none."""

    path: Path
    tables: dict[tuple[str, int], Any]
    view: Any
    generations: tuple[int, ...]
    """Of tables that lie there and are not of the generation that was asked for."""

    def persisted(self, table: str, partition: int) -> int:
        """The offset of the last record of the changelog that a table's partition has; -1: it has none."""
        raw = self.tables[table, partition].get(_OFFSET_KEY)
        return -1 if raw is None else int(raw)

    def rows(self, table: str, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """By key, as `TableFold.table` gives them."""
        place = partition.to_bytes(4, "big")
        for key, row in self.tables[table, partition].items():
            if key != _OFFSET_KEY:
                yield place + key, row


def found_directories(settings: Settings, site: Site) -> list[Path]:
    """Those of a site's workers that are on this machine, as far as the state directory and the settings tell."""
    found = sorted((settings.state / site).glob("worker-*"))
    if settings.site == site and settings.datadir not in found:
        found.append(settings.datadir)
    return [path for path in found if (path / "faust").is_dir() or (path / "view").is_dir()]


@contextmanager
def opened(path: Path, generation: int, partitions: int) -> Iterator[WorkerDirectory]:
    """A worker's directory as it stands now; its worker may run, and go on. Temporary where it cannot be read."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="t2g-tables-")))
        blocks = BlockBasedOptions()
        blocks.set_block_cache(Cache(_CACHE_BYTES))
        blocks.set_cache_index_and_filter_blocks(True)

        def read(at: Path, name: str) -> Any:
            options = views.options(secondary=True)
            options.set_block_based_table_factory(blocks)
            try:
                db = Rdict(str(at), options, access_type=AccessType.secondary(str(scratch / name)))
            except Exception as error:
                raise Temporary(f"a worker's directory cannot be read: {error}", str(at)) from error
            stack.callback(db.close)
            return db

        kept = path / "faust" / f"v{generation}" / "tables"
        tables = {
            (table, partition): read(at, f"{table}-{partition}")
            for table in rows.NAMES
            for partition in range(partitions)
            if (at := kept / f"{table}-{partition}.db").is_dir()
        }
        others = sorted(
            int(found[1])
            for one in (path / "faust").glob("v*")
            if (found := _GENERATION.fullmatch(one.name)) and int(found[1]) != generation
        )
        view = read(path / "view", "view") if (path / "view").is_dir() else None
        yield WorkerDirectory(path, tables, view, tuple(others))
