"""What a removal or a release would come to, as the log says now. The sites decide; nothing is asked here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from streams.cli import holdings, screen
from streams.cli.site_chain import chains_at
from streams.client.intent_snapshot import Snapshot
from streams.core.keeping.chains import Claims
from streams.core.names import Block, Dataset, Lfn, Site
from streams.core.selectors import Selector
from streams.errors import NotFound
from streams.settings import Settings
from streams.views.catalogue import CatalogueFile

DEFAULT_ENDPOINT = ""


@dataclass
class Preview:
    """Of one site: files of the selection that it holds, and why some would stay, as far as is known here."""

    site: Site
    files: int = 0
    bytes: int = 0
    stays: Counter[str] = field(default_factory=Counter)
    asked: set[Site] = field(default_factory=set)

    @property
    def goes(self) -> int:
        """Files that would be asked for."""
        return self.files - sum(self.stays.values())

    @property
    def told(self) -> dict[str, Any]:
        return {
            "site": self.site,
            "files": self.files,
            "bytes": self.bytes,
            "would_be_asked": self.goes,
            "asked_of": sorted(self.asked),
            "stays": dict(self.stays.most_common()),
        }


def preview(settings: Settings, chosen: Sequence[Selector], sites: Sequence[Site], copies: int) -> list[Preview]:
    """What would go where. NotFound for a name that nobody knows, and where no site holds anything."""
    found = {site: Preview(site) for site in sites}
    with ExitStack() as stack:
        claims = ClaimsOf(settings, stack)
        for selector in dict.fromkeys(chosen):
            known = False
            for file in holdings.files(settings, settings.here, selector):
                known = True
                for one in file.replicas:
                    if one.site in found:
                        _add(found[one.site], file, one.dataset, one.block, one.bytes, copies, claims)
            if not known:
                raise NotFound(f"no site is known to hold {selector.name}", next="see `transfer2go file list`")
    if not any(one.files for one in found.values()):
        raise NotFound(f"{' and '.join(sites)} hold nothing of it", next="see `transfer2go file where`")
    return list(found.values())


def _add(
    into: Preview, file: CatalogueFile, dataset: Dataset, block: Block, size: int, copies: int, claims: ClaimsOf
) -> None:
    into.files, into.bytes = into.files + 1, into.bytes + size
    others = {one.site for one in file.replicas if one.dataset == dataset and one.site != into.site}
    claim = claims.protecting(into.site, dataset, block, file.lfn)
    if claim is not None:
        into.stays[f"claimed by {claim}"] += 1
    elif len(others) < copies:
        into.stays["the last copy" if not others else f"fewer than {copies} other copies"] += 1
    else:
        into.asked |= others


class ClaimsOf:
    """Claims, dataset by dataset as they are asked for; of each the chains are read once."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._settings, self._stack = settings, stack
        self._known: dict[tuple[Site, Dataset], Claims] = {}

    def protecting(self, site: Site, dataset: Dataset, block: Block, lfn: Lfn) -> str | None:
        """Which claim keeps a file at a site."""
        claims = self._known.get((site, dataset))
        if claims is None:
            chains = self._stack.enter_context(chains_at(self._settings, self._settings.here, dataset, site))
            claims = self._known[site, dataset] = chains.claims(site, dataset)
        found = claims.protecting(DEFAULT_ENDPOINT, block, lfn, None)
        return None if found is None else found.claim


def show(found: Iterable[Preview], as_json: bool) -> None:
    rows = list(found)
    screen.listing(
        rows,
        as_json,
        lambda one: one.told,
        ("site", ">files", ">size", ">asked for", "of", "stays"),
        lambda one: (
            one.site,
            one.files,
            screen.size(one.bytes),
            one.goes,
            " ".join(sorted(one.asked)) or "-",
            "; ".join(_stays(one)) or "-",
        ),
    )


def _stays(one: Preview) -> Iterator[str]:
    for why, count in one.stays.most_common(3):
        yield f"{count:,} {why}"


def show_claims(settings: Settings, of: Snapshot, as_json: bool) -> None:
    """What destinations claim for an intent, dataset by dataset, as the cluster of this site has it."""
    rows: list[dict[str, Any]] = []
    with chains_at(settings, settings.here) as chains:
        for arrivals in of.destinations:
            site = arrivals.destination.site
            for dataset, name in chains.claims_of(of.intent, site):
                claim = chains.claims(site, dataset).named(name)
                names = [] if claim is None else [selector.name for selector in claim.selectors]
                rows.append({"site": site, "dataset": dataset, "claim": name, "names": names})
    screen.listing(
        rows,
        as_json,
        dict,
        ("site", "dataset", ">names", "first"),
        lambda row: (row["site"], row["dataset"], len(row["names"]), row["names"][0] if row["names"] else "-"),
        empty="nothing is claimed for it",
    )
