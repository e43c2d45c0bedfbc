"""Whether a site may do something about what it keeps: None, or why not, in words. Pure.

Every gate is asked of a view, and what it allows is a step with the number behind the view's last: where the view
missed a step of the site's own chain, the step is void. What a number does not guard is written at the gate.

An order of looking is part of the rules. Before an ask, a promise or a removal: note the chain's last number, let the
plane look at the file under its lock, let the view reach the ends of the site's journals as they are then, ask the
gate, publish behind the noted number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from streams.core.keeping.chains import ASKS_OPEN_MAX, ChainRow, Claims, CountedRemoval, GivenPromise, OpenAsk
from streams.core.keeping.words import NEVER_HELD, ReplicaRow
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, Site
from streams.core.records.keeping import NotedClaim, ReliedOn


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """What the plane found under a name; `adler32` None: not read back."""

    bytes: int
    adler32: Adler32 | None
    version: str


@dataclass(frozen=True, slots=True)
class OtherDataset:
    """The same LFN at the same endpoint in another dataset: its row there, and the live claim of that chain on it."""

    dataset: Dataset
    replica: ReplicaRow
    claim: str = ""


@dataclass(frozen=True, slots=True)
class FileHere:
    """A file at an endpoint of this site: what the catalogue says, what the plane found, what other datasets say.

    `adler32` is None of a part of a file that never was here. `known`: in its dataset, at whatever site.
    """

    lfn: Lfn
    block: Block
    endpoint: str
    bytes: int
    adler32: Adler32 | None
    replica: ReplicaRow = NEVER_HELD
    found: PlacedFile | None = None
    others: tuple[OtherDataset, ...] = ()
    known: bool = True
    owner: str = ""
    """Who registered it here; "" of what landed, or where that is not known."""


def why_it_goes(file: FileHere) -> str | None:
    """Whether a removal of the file is going on, in whatever chain of the site."""
    rows = [(f"its removal no {{}} in {other.dataset}", other.replica) for other in file.others]
    for words, row in [("its removal no {}", file.replica), *rows]:
        if row.removal is not None:
            return f"{words.format(row.removal.no)} has not ended"
    return None


def why_not_of_this_dataset(file: FileHere) -> str | None:
    """A holder is counted per (dataset, LFN): a promise in one chain ends no ask in another."""
    for other in file.others:
        if other.replica.held or other.claim:
            return f"it is also in {other.dataset}"
    return None if file.replica.held else f"it is not held in {file.block.dataset}"


def why_not_here(file: FileHere) -> str | None:
    """Why a site cannot speak for a file: it does not hold it whole, in this dataset and no other, or it is going."""
    if (why := why_it_goes(file) or why_not_of_this_dataset(file)) is not None:
        return why
    if file.found is None:
        return "it is not on the disk"
    if file.found.bytes != file.bytes:
        return f"it has {file.found.bytes} bytes on the disk and {file.bytes} in the catalogue"
    if file.found.adler32 is not None and file.found.adler32 != file.adler32:
        return f"its adler32 is {file.found.adler32} on the disk and {file.adler32} in the catalogue"
    return None


def why_no_step(chain: ChainRow) -> str | None:
    """Why nothing this site says in the chain would count."""
    if chain.dispute is None:
        return None
    return (
        f"the chain of {chain.site} about {chain.dataset} is disputed: its step {chain.dispute.no} continues what "
        f"never counted; settle it, with a number above {chain.dispute.highest_no}"
    )


def why_no_claim(chain: ChainRow, claim: NotedClaim) -> str | None:
    """Why a claim cannot be noted now."""
    if (why := why_no_step(chain)) is not None:
        return why
    return None if chain.claims.named(claim.claim) is None else f"{claim.claim} is noted already"


def why_no_claim_end(chain: ChainRow, claim: str, transfers_open: int, words_unheard: int) -> str | None:
    """Why a claim cannot end now. Both numbers are of transfers to this site under the claim."""
    if (why := why_no_step(chain)) is not None:
        return why
    if chain.claims.named(claim) is None:
        return f"{claim} is not noted"
    if transfers_open:
        return f"{transfers_open} transfers under {claim} are open"
    return f"the words of {words_unheard} files under {claim} are not heard yet" if words_unheard else None


def claim_shown(claims: Claims, claim: str) -> NotedClaim | None:
    """The live claim of this name, where the view shows it: then it shows every step before it too."""
    return claims.named(claim)


def why_no_landing(claims: Claims, claim: str) -> str | None:
    """Why nothing lands under a claim yet. A consumer needs no claim, and nobody asks for it here."""
    shown = claim_shown(claims, claim)
    return f"its claim {claim} is not noted, or this view has not heard it" if shown is None else None


def held_elsewhere(file: FileHere) -> Dataset | None:
    """Another dataset in which this site holds the file."""
    return next((other.dataset for other in file.others if other.replica.held), None)


def why_no_part(claims: Claims, claim: str, file: FileHere, word: str) -> str | None:
    """Why a part of a file is not opened now, in a view that may lag. `claims`: of the site, in the file's dataset.

    A view that shows the claim shows the removals that counted before it. Those that come later do not count while the
    claim lives. Removals of other chains of the site no number guards: a part that finds the file there adopts it only
    where the gate is open once more, in a view that has since reached the ends of the site's journals, and the same
    version is there still. An ask minds the claims of all chains, so one of the two sees the other.

    A worker that has slept may open what is over: its view shows neither the claim's end nor that `word` was taken
    back, and the file comes again, known to no catalogue. So its view must first reach the ends of the journals.
    """
    live = claim_shown(claims, claim)
    if live is None:
        return why_no_landing(claims, claim)
    if not live.lands:
        return f"nothing lands under {claim}, the claim of a move's source"
    if not live.covers(file.endpoint, file.block, file.lfn):
        return f"{claim} does not cover it"
    if word in file.replica.taken:
        return "it landed by this transfer and was removed since"
    if (why := why_it_goes(file)) is not None:
        return why
    other = held_elsewhere(file)
    return None if other is None else f"it is here in {other}: another chain may be removing it"


def why_no_ask(chain: ChainRow, *, copies: int, asked: Collection[Site]) -> str | None:
    """Why no ask can be made in the chain now."""
    if (why := why_no_step(chain)) is not None:
        return why
    if len(chain.asks) >= ASKS_OPEN_MAX:
        return f"{len(chain.asks)} asks are open, of {ASKS_OPEN_MAX}"
    return f"{copies} promises are needed, and {len(asked)} sites could give one" if len(asked) < copies else None


def why_no_leaving(chain: ChainRow, file: FileHere, cause: IntentId | None, owner: str | None = None) -> str | None:
    """Why this file cannot be asked for in an ask of this cause. `owner`: who alone may have registered it.

    Words and other datasets are guarded by no number of this chain: the order of looking guards them (see above).
    """
    if (claim := chain.claims.protecting(file.endpoint, file.block, file.lfn, cause)) is not None:
        return f"it is claimed by {claim.claim}"
    if any(ask.endpoint == file.endpoint for ask in chain.asks_for(file.lfn)):
        return "it is asked for already"
    if owner is not None and file.owner not in ("", owner):
        return f"it was registered by {file.owner}"
    return why_not_here(file)


def why_no_promise(chain: ChainRow, asker: ChainRow, ask: OpenAsk, file: FileHere) -> str | None:
    """Why this site does not promise to keep a file that another would remove. `asker`: that site's chain, as heard."""
    here = chain.site
    if (why := why_no_step(chain) or why_no_step(asker)) is not None:
        return why
    open_ask = asker.ask(ask.no)
    if open_ask is None or open_ask.sha256 != ask.sha256 or file.lfn not in open_ask.by_lfn:
        return f"{asker.site} asks for it no more"
    if here not in ask.asked:
        return f"{asker.site} did not ask {here}"
    theirs = open_ask.by_lfn[file.lfn]
    if (theirs.bytes, theirs.adler32) != (file.bytes, file.adler32):
        return f"it is another file at {asker.site}: {theirs.bytes} bytes, adler32 {theirs.adler32}"
    own = chain.asks_for(file.lfn)
    if any(not one.copies for one in own):
        return f"{here} removes it for good"
    if own and (why := why_not_the_leaver(here, asker.site)) is not None:
        return why
    return why_not_here(file)


def why_not_the_leaver(here: Site, asker: Site) -> str | None:
    """Of two sites that would both remove a file one must give in, or both refuse for ever. Safety does not need it."""
    return None if here < asker else f"{here} would remove it too, and the lesser of both names keeps it"


def answers_to(asker: Site, ask: OpenAsk, chains: Mapping[Site, ChainRow]) -> dict[Site, tuple[GivenPromise, ...]]:
    """What other sites, by name, said to this very ask, where their chains are sound."""
    return {
        site: tuple(given for given in chains[site].promises if given.answers(asker, ask))
        for site in sorted(chains)
        if site != asker and not chains[site].disputed
    }


def promises_for(
    lfn: Lfn, answers: Mapping[Site, tuple[GivenPromise, ...]], holders: Collection[Site]
) -> tuple[ReliedOn, ...]:
    """Promises of a file that its removal may rely on, one a site, of sites that the view still shows as holders."""
    out: list[ReliedOn] = []
    for site, given in answers.items():
        no = next((one.no for one in given if lfn in one.keeps), None)
        if no is not None and site in holders:
            out.append(ReliedOn(site, no))
    return tuple(out)


def why_no_removal(
    chain: ChainRow,
    ask: OpenAsk,
    lfn: Lfn,
    *,
    now_ms: int,
    promises: Collection[ReliedOn],
    stand_ins: Collection[FileHere] = (),
) -> str | None:
    """Why a site does not decide yet to remove a file of its own ask.

    `stand_ins`: other endpoints of the site, where its policy lets them count, looked at behind the chain's last
    number: no removal and no end of an ask stands between the look and the decision.
    """
    if (why := why_no_step(chain)) is not None:
        return why
    open_ask = chain.ask(ask.no)
    if open_ask is None or lfn not in open_ask.by_lfn:
        return "it is asked for no more"
    if now_ms < ask.not_before_ms:
        return f"not before {ask.not_before_ms}"
    for other in stand_ins:
        if other.endpoint == ask.endpoint:
            return f"{other.endpoint} cannot stand for itself"
        if (why := why_not_here(other)) is not None:
            return f"{other.endpoint}: {why}"
    have = len({promise.site for promise in promises}) + len({other.endpoint for other in stand_ins})
    return f"{have} of {ask.copies} other copies are promised" if have < ask.copies else None


def why_no_loss(chain: ChainRow, lfn: Lfn) -> str | None:
    """Why a site does not say yet, outside the chain, that it has lost a file.

    An ask may rely on it at another endpoint of the site: the own chain orders removals, so what ends one stands there.
    """
    if not (own := chain.asks_for(lfn)):
        return None
    return f"its ask no {own[0].no} is open and must end first"


def why_no_unlink(
    removal: CountedRemoval, found_version: str | None, *, ordered_by: str, worker: str, locked: bool
) -> str | None:
    """Why an executor does not unlink, asked between looking and unlinking, under the lock of the name.

    `ordered_by`: the process that told it to. `worker`: the process above it now, "" when that is gone.
    """
    if not locked:
        return "the lock of the name is not held"
    if ordered_by != worker:
        return "the process that ordered it is gone"
    if found_version is None:
        return "it is gone already"
    if found_version != removal.version:
        return f"another file is there: version {found_version}, not {removal.version}"
    return None


def why_no_exchange(opened_on_version: str, found_version: str | None, *, locked: bool) -> str | None:
    """Why a repair does not put the whole file in the damaged one's place, asked under the lock of the name."""
    if not locked:
        return "the lock of the name is not held"
    if found_version is None:
        return "nothing is there to be replaced"
    return None if found_version == opened_on_version else "another file is there since the repair began"
