"""What a site owes about what it keeps: read off rows, asked again at any time. Pure; nothing carries it out yet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from streams.core.keeping import gates
from streams.core.keeping.chains import ChainRow, CountedRemoval, GivenPromise, OpenAsk
from streams.core.keeping.words import ReplicaRow
from streams.core.names import Lfn, Site, Text
from streams.core.records import FilesLost
from streams.core.records.keeping import (
    ClaimDecided,
    KeepPromised,
    KeptFile,
    NotedClaim,
    ReliedOn,
    RemovalDecided,
    RemovedFiles,
)

ASK_ENDS_MS = 24 * 3600 * 1000
"""An ask ends as kept so long after its last promise: a site that is away for a day is not waited for."""


@dataclass(frozen=True, slots=True)
class NoteClaims:
    """Note what is wanted and does not stand; end what stands and is wanted no more (gates: `why_no_claim_end`)."""

    extinguished_by: ClassVar[tuple[type, ...]] = (ClaimDecided,)
    noted: tuple[NotedClaim, ...]
    ended: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnswerAsk:
    """Look at these files of another site's ask, and promise or refuse each."""

    extinguished_by: ClassVar[tuple[type, ...]] = (KeepPromised,)
    asker: Site
    ask: OpenAsk
    lfns: tuple[Lfn, ...]


@dataclass(frozen=True, slots=True)
class DecideAsk:
    """Remove and keep these files of the site's own ask."""

    extinguished_by: ClassVar[tuple[type, ...]] = (RemovalDecided,)
    ask_no: int
    removed: tuple[RemovedFiles, ...]
    kept: tuple[KeptFile, ...]


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """The plane: unlink it (gates: `why_no_unlink`), sync its directory, say FilesLost with the removal's number."""

    extinguished_by: ClassVar[tuple[type, ...]] = (FilesLost,)
    removal: CountedRemoval


def claims_owed(chain: ChainRow, wanted: Collection[NotedClaim], over: Collection[str]) -> NoteClaims | None:
    """`wanted`: of what the site takes part in. `over`: claims whose transfers are closed and whose words are heard."""
    noted = tuple(claim for claim in wanted if gates.why_no_claim(chain, claim) is None)
    ended = tuple(name for name in over if chain.claims.named(name) is not None and not chain.disputed)
    return NoteClaims(noted, ended) if noted or ended else None


def answers_owed(chain: ChainRow, chains: Iterable[ChainRow]) -> Iterator[AnswerAsk]:
    """What this site has to say to asks that name it. `chains`: of the same dataset, at the other sites."""
    if chain.disputed:
        return
    for asker in chains:
        for ask in asker.asks:
            if asker.site == chain.site or asker.disputed or chain.site not in ask.asked:
                continue
            given = [one for one in chain.promises if one.answers(asker.site, ask)]
            said = {lfn for one in given for lfn in (*one.keeps, *one.refusals)}
            lfns = tuple(file.lfn for file in ask.files if file.lfn not in said)
            if lfns:
                yield AnswerAsk(asker.site, ask, lfns)


def decisions_owed(
    chain: ChainRow,
    chains: Mapping[Site, ChainRow],
    still_here: Collection[Lfn],
    holders: Mapping[Lfn, Collection[Site]],
    *,
    process: str,
    now_ms: int,
) -> Iterator[DecideAsk]:
    """What becomes of the site's own open asks, one by one: each may have 1,000 files.

    `still_here`: their files that are held and that no look has missed. `holders`: sites that the view shows as such.
    """
    if chain.disputed:
        return
    for ask in chain.asks:
        removed: dict[tuple[ReliedOn, ...], list[Lfn]] = {}
        kept: list[KeptFile] = []
        answers = gates.answers_to(chain.site, ask, chains)
        for file in ask.files:
            holding = holders.get(file.lfn, ())
            promises = gates.promises_for(file.lfn, answers, holding)
            why = gates.why_no_removal(chain, ask, file.lfn, now_ms=now_ms, promises=promises)
            end = _why_it_ends(ask, file.lfn, answers, holding, file.lfn in still_here, process, now_ms)
            if why is None and end is None:
                removed.setdefault(promises[: ask.copies], []).append(file.lfn)
            elif end is not None:
                kept.append(KeptFile(file.lfn, Text(end[:400])))
        if removed or kept:
            groups = tuple(RemovedFiles(tuple(lfns), promises) for promises, lfns in removed.items())
            yield DecideAsk(ask.no, groups, tuple(kept))


def _why_it_ends(
    ask: OpenAsk,
    lfn: Lfn,
    answers: Mapping[Site, tuple[GivenPromise, ...]],
    holding: Collection[Site],
    still_here: bool,
    process: str,
    now_ms: int,
) -> str | None:
    """Why an ask ends as kept for a file; None while it may still be promised, or can be decided."""
    if ask.process != process:
        return "the process that asked for it is gone"
    if not still_here:
        return "it is not here any more"
    refused: dict[Site, str] = {}
    promised: set[Site] = set()
    last_ms = ask.at_ms
    for site in ask.asked:
        for given in answers.get(site, ()):
            if lfn in given.keeps:
                promised.add(site)
                # A clock that is ahead postpones nothing.
                last_ms = max(last_ms, given.at_ms if given.at_ms <= now_ms else last_ms)
            if lfn in given.refusals:
                refused[site] = given.refusals[lfn]
        if site in promised and site not in holding:
            # It gave the file away since, which others promised it to keep: it may be asked again.
            promised.discard(site)
            refused[site] = "it has it no more"
    if len(set(ask.asked) - (refused.keys() - promised)) < ask.copies:
        return "; ".join(f"{site}: {refused[site]}" for site in sorted(refused))
    if now_ms >= last_ms + ASK_ENDS_MS:
        return f"{len(promised)} of {ask.copies} other copies promised, no more for a day"
    return None


def removals_owed(replicas: Iterable[ReplicaRow]) -> list[RemoveFile]:
    """What the executor owes: removals that counted and have not ended."""
    return [RemoveFile(row.removal) for row in replicas if row.removal is not None]


def claims_that_wait(chain: ChainRow, going: Iterable[CountedRemoval]) -> Iterator[tuple[NotedClaim, CountedRemoval]]:
    """Claims under which a file cannot land before its removal has ended; of several on one file the first."""
    for removal in going:
        claim = chain.claims.protecting(removal.endpoint, removal.block, removal.lfn, None)
        if claim is not None and claim.lands:
            yield claim, removal
