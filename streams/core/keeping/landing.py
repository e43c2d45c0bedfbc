"""Under which claims the files of a manifest land here, and what of it may be opened. Pure.

A dataset or a block that an intent names is claimed once, under the intent's name. Files by name, and parts of files,
are claimed manifest by manifest: only the manifest says of which dataset they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from streams.core.keeping import gates
from streams.core.keeping.chains import Claims
from streams.core.keeping.gates import FileHere
from streams.core.names import Dataset, Text, shown
from streams.core.ranges import EMPTY, Ranges
from streams.core.records.keeping import NotedClaim
from streams.core.records.manifests import ManifestWritten
from streams.core.records.values import FailedItems, FailureClass, Reason, Scope
from streams.core.selectors import Kind, Selector


@dataclass(frozen=True, slots=True)
class LandingClaim:
    """A claim in the chain of `dataset`, and the numbers of the manifest's items that land under it."""

    dataset: Dataset
    claim: NotedClaim
    items: Ranges


@dataclass(frozen=True, slots=True)
class OpenableItems:
    """What of a manifest may be opened: all but these.

    `removed`: items that landed by this manifest and were removed since; they count as sealed, for its row fell back.
    `refused`: items that may never land here. `waits_for`: why none may be opened yet, "" where the rest may.
    """

    removed: Ranges = EMPTY
    refused: tuple[FailedItems, ...] = ()
    waits_for: str = ""


def landing_claims(body: ManifestWritten, selectors: Collection[Selector], endpoint: str) -> Iterator[LandingClaim]:
    """`selectors`: of the manifest's intent, none where they are not known: then each file is claimed by name."""
    items: dict[Dataset, list[int]] = {}
    for number, item in enumerate(body.items):
        if item.reason is None:
            items.setdefault(item.dataset, []).append(number)
    for dataset, numbers in sorted(items.items()):
        named = tuple(s for s in selectors if s.kind is not Kind.FILE and s.name.partition("#")[0] == dataset)
        names = {selector.name for selector in named}
        under = [n for n in numbers if dataset in names or body.items[n].block in names]
        if under:
            claim = NotedClaim(body.intent, endpoint, named, intent=body.intent)
            yield LandingClaim(dataset, claim, Ranges.of(*under))
        if rest := [n for n in numbers if n not in Ranges.of(*under)]:
            files = dict.fromkeys(Selector(Kind.FILE, body.items[n].target) for n in rest)
            claim = NotedClaim(body.manifest, endpoint, tuple(files), intent=body.intent)
            yield LandingClaim(dataset, claim, Ranges.of(*rest))


def without_removed(claims: Iterable[LandingClaim], files: Mapping[int, FileHere], word: str) -> Iterator[LandingClaim]:
    """Those under which something is still to land. `files`: by item number. `word`: of the manifest's landings."""
    for one in claims:
        if any(word not in files[number].replica.taken for number in one.items.numbers()):
            yield one


def openable(
    claims: Iterable[LandingClaim], live: Mapping[Dataset, Claims], files: Mapping[int, FileHere], word: str
) -> OpenableItems:
    """`live`: the site's live claims, by dataset, and `files` by item number, both of a view that has caught up."""
    removed: list[int] = []
    refused: dict[str, list[int]] = {}
    for one in claims:
        for number in one.items.numbers():
            file = files[number]
            if word in file.replica.taken:
                removed.append(number)
            elif (why := gates.why_no_part(live[one.dataset], one.claim.claim, file, word)) is not None:
                if gates.why_it_goes(file) is not None or gates.held_elsewhere(file) is None:
                    return OpenableItems(waits_for=why)
                refused.setdefault(why, []).append(number)
    failed = (
        FailedItems(
            Ranges.of(*numbers),
            Reason(Scope.DESTINATION, FailureClass.PERMANENT, "open", Text(shown(why, 390))),
        )
        for why, numbers in refused.items()
    )
    return OpenableItems(Ranges.of(*removed), tuple(failed))
