"""I2 on disk, of files that no transfer brought: what a site has registered is read back as it was registered.

The last word on each file counts. What a transfer brought since is judged by its completion. A file found wrong is
looked up in the journal once more: what was registered anew or given up meanwhile is no fault.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress

from streams import wire
from streams.audit_storage import Disks
from streams.core import messages as m
from streams.core.ledger import Docket, Invariant, Place
from streams.core.ledger.findings import FINDINGS_MAX
from streams.core.names import Site, Text
from streams.core.selection import Kind, Selector
from streams.core.topics import REPLICAS
from streams.errors import Transfer2goError, WireError
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.views import scratch
from streams.views.catalogue import Catalogue, Replica
from streams.views.folding import Changes

_I2 = Invariant.NO_LIE
_PAGE = 1000
_FILES_MAX = 4000
"""Rows changed in memory before they are written."""
_BROUGHT = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "audit", Text("a transfer brought it"))


def check_registered(
    settings: Settings, disks: Disks, read: Collection[Site], sites: Collection[Site], docket: Docket
) -> int:
    """Read back every registered replica at `sites`; how many files. `read`: sites whose journals can be replayed."""
    files = 0
    for site in sorted(sites):
        if site not in read:
            docket.cannot(_I2, f"what {site} has registered: its journals were not read")
            continue
        wrong: dict[str, tuple[Replica, str]] = {}
        more = 0
        try:
            for lfn, replica in _registered(settings, site):
                files += 1
                fault = disks.fault(site, lfn, replica.bytes, replica.adler32)
                if fault is not None and len(wrong) < FINDINGS_MAX:
                    wrong[lfn] = replica, fault
                elif fault is not None:
                    more += 1
            _tell(wrong, _last_words(settings, site, wrong), site, docket)
        except Transfer2goError as error:
            docket.cannot(_I2, f"what {site} has registered: {error}")
        if more:
            docket.cannot(_I2, f"registered files at {site} that are wrong too, not looked up", more)
    return files


def _tell(
    wrong: dict[str, tuple[Replica, str]],
    last: dict[str, tuple[m.HeldFile | None, Place]],
    site: Site,
    docket: Docket,
) -> None:
    for lfn, (replica, fault) in wrong.items():
        now, place = last.get(lfn, (None, None))
        if now is None or (now.block, now.bytes, now.adler32) != (replica.block, replica.bytes, replica.adler32):
            docket.wait(_I2, "files registered anew or given up while the audit was reading")
        else:
            docket.find(_I2, f"{lfn} at {site}, registered in {replica.block}, {fault}", place)


def _registered(settings: Settings, site: Site) -> Iterator[tuple[str, Replica]]:
    """Replicas that `site` has by registration; folded into a database of a moment, so that memory stays bounded."""
    with scratch.database() as db:
        changes = Changes(db)
        for _, fact in _facts(settings, site):
            if isinstance(fact, m.FilesLost):
                changes.lose(fact)
            elif fact.manifest is None:
                changes.hold(fact)
            else:
                names = tuple(file.lfn for file in fact.files)
                changes.lose(m.FilesLost(fact.dataset, site, names, _BROUGHT))
            if changes.touched >= _FILES_MAX:
                changes.write()
                changes = Changes(db)
        changes.write()
        known = Catalogue(db)
        for dataset in known.datasets():
            cursor: str | None = ""
            while cursor is not None:
                selector = Selector(Kind.DATASET, dataset.name)
                page, cursor = known.listing([selector], cursor, _PAGE, prefer=site)
                for file in page:
                    yield from ((str(file.lfn), replica) for replica in file.replicas if replica.site == site)


def _last_words(settings: Settings, site: Site, wanted: Collection[str]) -> dict[str, tuple[m.HeldFile | None, Place]]:
    """What the journal says last of these files, and where; None for one that was given up, or brought."""
    last: dict[str, tuple[m.HeldFile | None, Place]] = {}
    if not wanted:
        return last
    for place, fact in _facts(settings, site):
        if isinstance(fact, m.FilesLost):
            last.update((lfn, (None, place)) for lfn in fact.lfns if lfn in wanted)
        else:
            registered = fact.manifest is None
            last.update((f.lfn, (f if registered else None, place)) for f in fact.files if f.lfn in wanted)
    return last


def _facts(settings: Settings, site: Site) -> Iterator[tuple[Place, m.FilesHeld | m.FilesLost]]:
    for record in replay(settings, site, [REPLICAS]):
        with suppress(WireError):  # the first reading has refused it already
            fact = wire.decode(REPLICAS, record.key, record.value, record.headers, site).message
            if isinstance(fact, m.FilesHeld | m.FilesLost):
                yield Place(site, *record[:3]), fact
