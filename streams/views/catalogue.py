"""Which site holds which file: the reading side, in process or as a RocksDB secondary. Nothing is written here.

What is read here becomes a fact only as a manifest or a decision. Answers are as old as the last record applied (or,
for a secondary, the last `refresh`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self, TypeVar

from streams.core.names import Adler32, Block, Dataset, Lfn, Site
from streams.core.selectors import Kind, Selector
from streams.views import rows
from streams.views.rows import ALL, NOTHING, Entry, Total
from streams.views.selected import Plan

L = TypeVar("L", bound=str)
_SCAN = 1024
"""Listing keys read ahead of their rows: one multi-get for each."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A file at a site; `version` binds only that site."""

    site: Site
    dataset: Dataset
    block: Block
    bytes: int
    adler32: Adler32
    version: str
    words: tuple[str, ...] = field(default=(), compare=False)
    """Of what brought or registered it, those that stand: of a landing its manifest."""

    @property
    def told(self) -> dict[str, Any]:
        """What is said of it outside: the version is its site's."""
        return {name: getattr(self, name) for name in ("site", "dataset", "block", "bytes", "adler32")}


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """A file of a selection. No replicas: every site lost it, or (dataset and block None) nobody ever named it.

    `conflict`: its holders disagree on size or checksum. The asking site's replica comes first.
    """

    lfn: Lfn
    dataset: Dataset | None
    block: Block | None
    replicas: tuple[Replica, ...]
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """Totals under a name: `known` counts each file once, `per_site` what each site holds of it."""

    name: str
    known: Total
    per_site: dict[Site, Total]


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a selection comes to. A site whose files equal `files` holds all of it; `unknown` names matched nothing."""

    files: int
    bytes: int
    per_site: dict[Site, Total] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


# names that come again and again in a listing
_site = lru_cache(4096)(Site)
_dataset = lru_cache(4096)(Dataset)
_block = lru_cache(4096)(Block)


def _replica(e: Entry) -> Replica:
    block = _block(f"{e.dataset}#{e.block}")
    return Replica(_site(e.site), _dataset(e.dataset), block, e.bytes, Adler32(e.adler32), e.version, e.words)


def _file(lfn: str, entries: Sequence[Entry], prefer: Site | None, block: str = "") -> CatalogueFile:
    """One replica per site: the one registered in `block`'s dataset where a site has several.

    Without `block`, the file's own is the asking site's word, else the first by name (sites may disagree).
    """
    if not block and entries:
        named = min(entries, key=lambda e: (not e.held, e.site != prefer, e.dataset, e.block))
        block = f"{named.dataset}#{named.block}"
    dataset = block.partition("#")[0]
    by_site: dict[str, Entry] = {}
    for e in sorted(entries, key=lambda e: (e.site != prefer, e.site, e.dataset != dataset, e.dataset)):
        if e.held:
            by_site.setdefault(e.site, e)
    return CatalogueFile(
        Lfn(lfn),
        _dataset(dataset) if block else None,
        _block(block) if block else None,
        tuple(_replica(e) for e in by_site.values()),
        conflict=len({(e.bytes, e.adler32) for e in by_site.values()}) > 1,
    )


class Catalogue:
    """Reads the rows that folding.py writes. Safe to share between threads."""

    def __init__(self, db: Any) -> None:
        self._db = db

    @classmethod
    def open_secondary(cls, path: str, scratch: str) -> Self:
        """For another process than the view's; `scratch` is a directory of its own."""
        return cls(rows.open_secondary(path, scratch))

    def refresh(self) -> None:
        """A secondary: see what the view wrote since."""
        self._db.try_catch_up_with_primary()

    def close(self) -> None:
        self._db.close()

    def where(self, lfn: Lfn) -> list[Replica]:
        """Every replica, by dataset and site."""
        return [_replica(e) for e in rows.unpack_file(self._db.get(rows.file_key(lfn))) if e.held]

    def replicas(self, lfns: Sequence[Lfn]) -> list[tuple[Lfn, Replica]]:
        """`where` for many at once: every replica, of a site in several datasets too."""
        return [(lfn, _replica(e)) for lfn, entries in self._entries(lfns) for e in entries if e.held]

    def files(self, lfns: Sequence[Lfn], prefer: Site | None = None) -> list[CatalogueFile]:
        """Of each name, in the order asked, one replica per site."""
        return [_file(lfn, entries, prefer) for lfn, entries in self._entries(lfns)]

    def _entries(self, lfns: Sequence[L]) -> Iterator[tuple[L, tuple[Entry, ...]]]:
        found = self._db.get([rows.file_key(lfn) for lfn in lfns]) if lfns else []
        yield from ((lfn, rows.unpack_file(row)) for lfn, row in zip(lfns, found, strict=True))

    def datasets(self, prefix: str = "", behind: str = "") -> Iterator[Summary]:
        """Datasets whose name starts with `prefix`, in order, from behind the name `behind` on."""
        return self._summaries(rows.dataset_key(prefix), rows.dataset_key(behind) if behind else b"")

    def blocks(self, dataset: Dataset, behind: str = "") -> Iterator[Summary]:
        """Blocks of a dataset, as `datasets`."""
        return self._summaries(rows.block_key(dataset, ""), rows.BLOCK + behind.encode() if behind else b"")

    def _summaries(self, prefix: bytes, behind: bytes) -> Iterator[Summary]:
        for key, row in rows.scan(self._db, prefix, max(prefix, behind + b"\0") if behind else b""):
            totals = rows.unpack_totals(row)
            yield Summary(key[1:].decode(), totals.pop(ALL, NOTHING), {Site(s): t for s, t in totals.items()})

    def totals(self, selector: Selector) -> bytes:
        """The totals row of a dataset or block, for who compares it with an earlier one. Empty: nobody knows it."""
        kind = rows.DATASET if selector.kind is Kind.DATASET else rows.BLOCK
        return self._db.get(kind + selector.name.encode()) or b""

    def block_totals(self, dataset: Dataset) -> Iterator[tuple[Block, bytes]]:
        for key, row in rows.scan(self._db, rows.block_key(dataset, "")):
            yield _block(key[1:].decode()), row

    def holders(self, selectors: Sequence[Selector]) -> Resolution:
        """Totals of a selection from the totals of its blocks: as quick for a million files as for one.

        Each file counts once, save one that sites put into different selected blocks.
        """
        plan = Plan(selectors)
        known, per_site, unknown = NOTHING, dict[str, Total](), list[str]()
        for selector in plan.wide:
            totals = rows.unpack_totals(self.totals(selector))
            if not totals:
                unknown.append(selector.name)
            known = known.plus(*totals.pop(ALL, NOTHING))
            for site, total in totals.items():
                per_site[site] = per_site.get(site, NOTHING).plus(*total)
        for lfn, entries in self._entries(plan.lfns):
            if not entries:
                unknown.append(lfn)
            elif plan.place(entries) is None:
                known = known.plus(1, max((e.held, e.bytes) for e in entries)[1])
                for site, size in {e.site: e.bytes for e in entries if e.held}.items():
                    per_site[site] = per_site.get(site, NOTHING).plus(1, size)
        return Resolution(known.files, known.bytes, {Site(s): t for s, t in sorted(per_site.items())}, tuple(unknown))

    def listing(
        self, selectors: Sequence[Selector], cursor: str = "", limit: int = 1000, *, prefer: Site | None = None
    ) -> tuple[list[CatalogueFile], str | None]:
        """Up to `limit` files of a selection, each once, and the cursor behind them (None: that was the last).

        Order: selectors as given, then block, then LFN. A cursor stays good while files come and go: it is a place in
        that order. An unknown block or dataset lists nothing; an unknown file is listed without replicas.
        """
        out: list[CatalogueFile] = []
        behind = ""
        for at, file in self._walk(Plan(selectors), cursor, prefer):
            if len(out) == limit:
                return out, behind
            out.append(file)
            behind = at
        return out, None

    def _walk(self, plan: Plan, cursor: str, prefer: Site | None) -> Iterator[tuple[str, CatalogueFile]]:
        """(cursor behind it, file) of a selection, from behind `cursor` on."""
        first, last_seen, index = plan.behind(cursor)
        for number, selector in enumerate(plan.wide[first:], first):
            prefix = rows.MEMBER + selector.name.encode() + (b"#" if selector.kind is Kind.DATASET else b"\0")
            start = prefix
            if number == first and last_seen is not None:
                block, lfn = last_seen
                start = rows.MEMBER + f"{block}\0{lfn}\0".encode()
            for block, lfn, entries in self._members(prefix, start):
                # The row may be newer than the key: a file that moved meanwhile is met (or was) at its new place.
                if plan.place(entries) == (number, block):
                    yield f"{number} {block} {lfn}", _file(lfn, entries, prefer, block)
        for at in range(index, len(plan.lfns), _SCAN):
            for number, (lfn, entries) in enumerate(self._entries(plan.lfns[at : at + _SCAN]), at):
                if plan.place(entries) is None:
                    yield f"{len(plan.wide)} {number + 1}", _file(lfn, entries, prefer)

    def _members(self, prefix: bytes, start: bytes) -> Iterator[tuple[str, str, tuple[Entry, ...]]]:
        """(block, lfn, row) of a listing's keys from `start` on."""
        for chunk in rows.batched(rows.scan(self._db, prefix, start), _SCAN):
            names = [key[1:].decode().split("\0", 1) for key, _ in chunk]
            for (block, _), (lfn, entries) in zip(names, self._entries([lfn for _, lfn in names]), strict=True):
                yield block, lfn, entries
