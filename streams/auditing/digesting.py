"""`audit digest`: the roots of all journals, whatever their records say. Nothing is judged, nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.auditing.coverage import Journals, find_journals, refuse
from streams.auditing.origins import origin_of
from streams.auditing.table_digests import TableDigest, TableDigests
from streams.auditing.table_fold import room
from streams.core.ledger.cuts import JournalId, JournalRoot, JournalRoots, digest_of
from streams.core.ledger.trees import leaf_of
from streams.core.names import Site
from streams.core.topics import TO_EVERY_PEER, split
from streams.errors import InvalidName, NotFound, Transfer2goError, UsageError
from streams.kafka.replay import replay
from streams.settings import ROW_FORMAT, Settings


@dataclass(frozen=True, slots=True)
class Cut:
    """Journals as they stood at some time: the digest that was told then, and each one's root."""

    digest: str
    journals: Mapping[JournalId, JournalRoot]


@dataclass(frozen=True, slots=True)
class DigestReport:
    """`unreachable`: sites that could not be read, and why. `rewritten`: journals that are not as `at` has them.

    `tables`: of the rows that these journals give, where they were asked for.
    """

    digest: str
    journals: tuple[JournalRoot, ...]
    unreachable: Mapping[Site, str]
    read: frozenset[Site]
    at: Cut | None = None
    tables: tuple[TableDigest, ...] = ()

    @property
    def rewritten(self) -> tuple[JournalId, ...]:
        """Of the cut those that are shorter now, or have another root."""
        now = {one.journal: one for one in self.journals}
        return tuple(
            journal
            for journal, then in sorted(self._then.items())
            if (journal in now or journal.site in self.read) and now.get(journal) != then
        )

    @property
    def unseen(self) -> tuple[JournalId, ...]:
        """Journals of the cut that every site holds, and of which nothing was read."""
        now = {one.journal for one in self.journals}
        return tuple(
            sorted(
                journal
                for journal in self._then
                if journal.topic in TO_EVERY_PEER and journal not in now and journal.site not in self.read
            )
        )

    @property
    def _then(self) -> Mapping[JournalId, JournalRoot]:
        return {} if self.at is None else {j: one for j, one in self.at.journals.items() if one.size}


def read_digest(
    settings: Settings,
    *,
    sites: Iterable[Site] = (),
    at: Cut | None = None,
    tables: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> DigestReport:
    """Of `sites`, by default all: their own journals, and those of the others by one of their copies.

    A site that does not answer is reported, and read by the copies of its journals. `at`: as they stood then.
    `tables`: the journals of the cut are folded too, which takes ten times as long. Temporary where there is no room.
    """
    chosen = [settings.entry(site).name for site in sites] or list(settings.registry.names)
    unreachable: dict[Site, str] = {}
    found: list[Journals] = []
    for site in chosen:
        try:
            found.append(find_journals(settings, site))
        except Transfer2goError as error:
            unreachable[site] = str(error)
    refuse(settings, found)
    roots = JournalRoots(None if at is None else {journal: one.size for journal, one in at.journals.items()})
    read: set[Site] = set()
    with room(), ExitStack() as opened:
        digests = TableDigests(opened, settings.registry.partitions) if tables else None

        def heard(journals: Journals, names: list[str]) -> bool:
            return _read(settings, journals.site, names, roots, digests, unreachable, tell)

        read.update(journals.site for journals in found if heard(journals, journals.own))
        for journals in found:
            copies = [topic for topic in journals.copies if split(topic)[0] not in read]
            if copies and journals.site in read:
                heard(journals, copies)
        told = tuple(roots.roots())
        summed = () if digests is None else tuple(digests.told())
    return DigestReport(digest_of(told), told, unreachable, frozenset(read), at, summed)


def _read(
    settings: Settings,
    site: Site,
    topics: list[str],
    roots: JournalRoots,
    digests: TableDigests | None,
    unreachable: dict[Site, str],
    tell: Callable[[str], None],
) -> bool:
    tell(f"reading {len(topics)} journals at {site}")
    try:
        for record in replay(settings, site, topics) if topics else ():
            headers = record.headers or ()
            leaf = leaf_of(record.key, record.value, headers)
            is_of_cut = roots.hear(site, record.topic, record.partition, origin_of(headers), leaf)
            if digests is not None and is_of_cut:
                digests.hear(site, record)
    except Transfer2goError as error:
        unreachable.setdefault(site, str(error))
        return False
    return True


def cut_object(report: DigestReport) -> dict[str, Any]:
    """What `--json` prints, and `--at` reads."""
    tables = {"row_format": ROW_FORMAT, "tables": [one._asdict() for one in report.tables]} if report.tables else {}
    return {"digest": report.digest, "journals": journal_objects(report.journals), **tables}


def journal_objects(journals: Iterable[JournalRoot]) -> list[dict[str, Any]]:
    return [
        {
            "site": j.journal.site,
            "topic": j.journal.topic,
            "partition": j.journal.partition,
            "records": j.size,
            "root": j.root,
        }
        for j in journals
    ]


def read_cut(path: Path) -> Cut:
    """NotFound, or UsageError for what is no cut."""
    try:
        told = json.loads(path.read_text())
        roots = [
            JournalRoot(
                JournalId(Site(one["site"]), str(one["topic"]), int(one["partition"])),
                int(one["records"]),
                str(one["root"]),
            )
            for one in told["journals"]
        ]
        cut = Cut(str(told["digest"]), {one.journal: one for one in roots})
    except OSError as error:
        raise NotFound(f"no cut: {error.strerror}", str(path)) from error
    except (ValueError, KeyError, TypeError, InvalidName) as error:
        raise _no_cut(path, str(error)) from error
    if any(one.size < 0 or one.journal.partition < 0 for one in roots) or digest_of(roots) != cut.digest:
        raise _no_cut(path, "its digest is not that of its journals")
    return cut


def _no_cut(path: Path, why: str) -> UsageError:
    return UsageError(f"not a cut: {why}", str(path), "give a file that `transfer2go audit digest --json` printed")
