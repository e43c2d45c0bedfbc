"""Records of an intent: what is asked, and what its home decides."""

from __future__ import annotations

from dataclasses import dataclass

from streams.core import topics
from streams.core.names import Dataset, Destination, IntentId, Lfn, Site, Text, shown
from streams.core.records import field_checks
from streams.core.records.limits import NAMES_MAX, NUMBER_MAX, POSITION_MAX, SITES_MAX
from streams.core.records.registry import Row, record
from streams.core.records.values import OF_A_SITE, Answer, Asked, Reason, Verb, Verdict
from streams.core.selections import parts
from streams.core.selectors import Kind, Selector
from streams.errors import Transfer2goError

_UNSAID = Text("")


def _intent(i: TransferIntent) -> str | None:
    return (
        field_checks.priority(i.priority)
        or field_checks.some("selectors", i.selectors, NAMES_MAX)
        or field_checks.some("destinations", i.destinations, SITES_MAX)
        or (_removal(i) if i.verb is Verb.REMOVE else _copy(i))
        or _part(i)
        or _growth(i)
        or (None if i.plane is None else field_checks.word("plane", i.plane))
    )


def _copy(i: TransferIntent) -> str | None:
    if i.verb is Verb.MOVE:
        return _move(i)
    if i.copies != 1:
        return "copies: of a removal only"
    if i.release_from:
        return "release_from: of a move only"
    return "reason: of a removal only" if i.reason else None


def _move(i: TransferIntent) -> str | None:
    """A move names the sites that whole files leave, and none of them is where they go."""
    if i.copies < 1:
        return f"copies: {i.copies}, and one at least must be kept"
    given = next((name for name in ("selection", "repair") if getattr(i, name)), None)
    if given is not None:
        return f"{given}: of a copy only"
    consumer = next((d for d in i.destinations if d.consumer), None)
    if consumer is not None:
        return f"destinations: {consumer} keeps no files"
    both = {d.site for d in i.destinations}.intersection(i.release_from)
    if both:
        return f"release_from: {min(both)} is a destination too"
    return field_checks.some("release_from", i.release_from, SITES_MAX)


def _removal(i: TransferIntent) -> str | None:
    """A removal names files and sites, and why. How bytes would travel is nothing to it."""
    if i.copies < 1:
        return f"copies: {i.copies}, and one at least must be kept"
    given = [name for name in ("source", "selection", "plane", "open", "repair", "release_from") if getattr(i, name)]
    if given:
        return f"{given[0]}: of a copy only"
    consumer = next((d for d in i.destinations if d.consumer), None)
    return None if consumer is None else f"destinations: {consumer} keeps no files"


def _part(i: TransferIntent) -> str | None:
    entries = parts.means_entries(i.selection)
    if i.format is not None and (not entries or i.format not in parts.FORMATS):
        return f"format: of entries only, one of {', '.join(parts.FORMATS)}"
    if not entries and (consumer := next((d for d in i.destinations if d.consumer), None)) is not None:
        return f"destinations: {consumer} reads entries, and none are asked for"
    return None if i.selection is None else _spelled("selection", i.selection)


def _spelled(name: str, selection: str) -> str | None:
    try:
        known = parts.canonical(selection)
    except Transfer2goError as error:
        return f"{name}: {error.what}"
    return None if known == selection else f"{name}: not in its one spelling, {shown(known, 60)!r}"


def _growth(i: TransferIntent) -> str | None:
    ends = [name for name in ("until_ms", "until_items") if getattr(i, name) is not None]
    if ends and not i.open:
        return f"{ends[0]}: of an open intent only"
    return "until_items: 0" if i.until_items == 0 else None


@record(topic=topics.INTENTS, key=lambda r: r.intent, author=lambda r: r.intent.home, check=_intent, row=Row.INTENT)
@dataclass(frozen=True, slots=True)
class TransferIntent:
    """A producer's wish. `priority` 0…9, higher first; the same intent id with the same body changes nothing.

    `selection` is a part of each file, in the words of core/selections/parts.py; `format` what entries land as. An
    `open` intent takes what is registered later, until one of `until_…` or a close. `plane`: the one carrier that its
    bytes may come by; None: each destination chooses. `repair`: of the home itself, which has damaged files under
    these names; they are replaced, and what of them is right need not come.

    `verb` remove: the files go from the destinations, each once `copies` other sites have promised to keep it; `reason`
    says why. `verb` move: they go so from the sites of `release_from`, each once it is at every destination.
    `owner`: whose they are to be, "" the requester's (`owner_of`).
    """

    intent: IntentId
    requester: Text
    selectors: tuple[Selector, ...]
    destinations: tuple[Destination, ...]
    source: Site | None = None
    priority: int = 5
    deadline_ms: int | None = None
    selection: str | None = None
    format: str | None = None
    open: bool = False
    until_ms: int | None = None
    until_items: int | None = None
    plane: str | None = None
    repair: bool = False
    verb: Verb = Verb.COPY
    copies: int = 1
    reason: Text = _UNSAID
    owner: Text = _UNSAID
    release_from: tuple[Site, ...] = ()


def owner_of(body: TransferIntent) -> str:
    """Whose the files are: a group or a person, who may ask from several machines."""
    return body.owner or body.requester.partition("@")[0]


def leaving_sites(body: TransferIntent) -> tuple[Site, ...]:
    """From which sites files go by it."""
    if body.verb is Verb.REMOVE:
        return tuple(destination.site for destination in body.destinations)
    return body.release_from


def parts_of(body: TransferIntent) -> tuple[Dataset | None, ...]:
    """What a site reports of a removal, or as a move's source, one by one: datasets, those of blocks too, by name;
    None: the files by name."""
    names = {s.name.partition("#")[0] for s in body.selectors if s.kind is not Kind.FILE}
    files = (None,) if any(s.kind is Kind.FILE for s in body.selectors) else ()
    return (*(Dataset(name) for name in sorted(names)), *files)


def _asked(a: IntentAsked) -> str | None:
    if (a.asked is Asked.PRIORITY) != (a.priority is not None):
        return "priority: given exactly when it is asked for"
    if (a.asked in OF_A_SITE) != (a.site is not None):
        return "site: given exactly when it is asked of a site"
    if a.reason and a.asked is not Asked.DENY:
        return "reason: of a denial only"
    return None if a.priority is None else field_checks.priority(a.priority)


@record(
    topic=topics.INTENTS, key=lambda r: r.intent, author=lambda r: r.site or r.intent.home, check=_asked, row=Row.INTENT
)
@dataclass(frozen=True, slots=True)
class IntentAsked:
    """What somebody asks of an intent's home, or of a `site`: approve, deny. Each speaks for itself."""

    intent: IntentId
    asked: Asked
    asked_by: Text
    priority: int | None = None
    site: Site | None = None
    reason: Text = _UNSAID


@record(
    topic=topics.DECISIONS,
    key=lambda r: r.intent,
    author=lambda r: r.site,
    check=lambda r: (
        field_checks.from_one("answer_no", r.answer_no)
        or ("reason: of a denial only" if r.reason and r.answer is not Answer.DENIED else None)
    ),
    row=Row.INTENT,
)
@dataclass(frozen=True, slots=True)
class SiteAnswered:
    """Whether `site` takes part in an intent. The first that is not pending stays; `by` of a pending one is who may."""

    intent: IntentId
    site: Site
    answer_no: int
    answer: Answer
    by: Text
    reason: Text = _UNSAID


def _decided(d: IntentDecided) -> str | None:
    if d.body.intent != d.intent:
        return "body.intent: not the record's intent"
    if d.verdict is Verdict.ACCEPTED and d.source is None and d.body.verb is Verb.COPY:
        return "source: an accepted intent needs one"
    if d.source_no > NUMBER_MAX:
        return f"source_no: over {NUMBER_MAX}"
    inside = _intent(d.body)
    return (
        field_checks.from_one("decision_no", d.decision_no)
        or field_checks.priority(d.priority)
        or (inside and f"body.{inside}")
    )


@record(
    topic=topics.DECISIONS,
    key=lambda r: r.intent,
    author=lambda r: r.intent.home,
    check=_decided,
    row=Row.INTENT,
    once_in=topics.INTENTS,
)
@dataclass(frozen=True, slots=True)
class IntentDecided:
    """The home's word; the highest `decision_no` wins. `source` writes the manifests of `source_no`."""

    intent: IntentId
    decision_no: int
    verdict: Verdict
    body: TransferIntent
    source: Site | None
    source_no: int
    priority: int
    reason: Reason | None = None


REASONS_MAX = 32


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """Files that stay for one reason: how many, and the first by name."""

    reason: Text
    files: int
    first: Lfn


def _reported(r: RemovalReported) -> str | None:
    for name in ("part", "removed", "removed_bytes", "kept", "kept_bytes", "open", "open_bytes"):
        if not 0 <= getattr(r, name) <= POSITION_MAX:
            return f"{name}: {getattr(r, name)} is none"
    if r.part > NAMES_MAX:
        return f"part: over {NAMES_MAX}"
    if len(r.reasons) > REASONS_MAX:
        return f"reasons: over {REASONS_MAX}"
    if r.last and r.open:
        return f"last: {r.open} files are open"
    return None if sum(one.files for one in r.reasons) == r.kept else "reasons: not of as many files as are kept"


@record(topic=topics.REPORTS, key=lambda r: r.intent, author=lambda r: r.site, check=_reported, row=Row.INTENT)
@dataclass(frozen=True, slots=True)
class RemovalReported:
    """How far a removal has come at `site`, in the n-th of `parts_of` its body. A later report takes the place of one
    before; the last one stands."""

    intent: IntentId
    site: Site
    part: int
    removed: int
    removed_bytes: int
    kept: int
    kept_bytes: int
    open: int
    open_bytes: int
    last: bool
    reasons: tuple[KeptFiles, ...] = ()
    waits_for: Text = _UNSAID
