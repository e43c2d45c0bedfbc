"""Records of one transfer at its destination, from its plan to its last word."""

from __future__ import annotations

from dataclasses import dataclass

from streams.core import topics
from streams.core.names import Destination, IntentId, ManifestId, Site, Text
from streams.core.policy import MANIFEST_ITEMS_MAX
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import field_checks
from streams.core.records.limits import POSITION_MAX
from streams.core.records.manifests import ManifestWritten, manifest_fault
from streams.core.records.registry import Row, outline_of, record
from streams.core.records.values import Ended, FailedItems, Landed, Reason, Unit, Verdict

ROUTES_MAX = 64
PLANES_MAX = 16


def _planned(p: TransferPlanned) -> str | None:
    inside = manifest_fault(p.body)
    if inside is not None:
        return f"body.{inside}"
    if p.manifest != p.body.manifest:
        return "manifest: not that of the body"
    return _plan(p)


def _plan(p: TransferPlanned | PlanOutline) -> str | None:
    if len({route.site for route in p.routes}) != len(p.routes) or len(p.routes) > ROUTES_MAX:
        return f"routes: over {ROUTES_MAX}, or a site is named twice"
    if p.plane is not None and (why := field_checks.word("plane", p.plane)) is not None:
        return why
    for n, route in enumerate(p.routes):
        if (why := field_checks.word(f"routes[{n}].plane", route.plane)) is not None:
            return why
    return field_checks.from_one("decision_no", p.decision_no) or field_checks.priority(p.priority)


@dataclass(frozen=True, slots=True)
class Route:
    """By which carrier a site is asked, and why."""

    site: Site
    plane: str
    why: Text


@record(
    topic=topics.TRANSFERS,
    key=lambda r: r.manifest,
    author=lambda r: r.destination.site,
    check=_planned,
    row=Row.TRANSFER,
)
@dataclass(frozen=True, slots=True)
class TransferPlanned:
    """`plane`: the carrier that the intent insists on. Else `routes`: of the sites that are asked by another carrier
    than the log, in the order in which they are asked. `repair`: as the intent says.
    """

    manifest: ManifestId
    destination: Destination
    decision_no: int
    priority: int
    plane: str | None
    routes: tuple[Route, ...]
    repair: bool
    body: ManifestWritten


@outline_of(TransferPlanned, check=_plan)
@dataclass(frozen=True, slots=True)
class PlanOutline:
    """A TransferPlanned without its manifest, for who has judged that where it was written. No record: never sent."""

    manifest: ManifestId
    destination: Destination
    decision_no: int
    priority: int
    plane: str | None
    routes: tuple[Route, ...]
    repair: bool


def _transfer_decided(d: TransferDecided) -> str | None:
    return field_checks.from_one("decision_no", d.decision_no) or field_checks.priority(d.priority)


@record(topic=topics.TRANSFERS, key=lambda r: r.manifest, check=_transfer_decided, row=Row.TRANSFER)
@dataclass(frozen=True, slots=True)
class TransferDecided:
    manifest: ManifestId
    decision_no: int
    verdict: Verdict
    priority: int
    reason: Reason | None = None


def _opened(p: PartOpened) -> str | None:
    return (
        field_checks.word("endpoint", p.endpoint)
        or field_checks.apart(MANIFEST_ITEMS_MAX, [("present", p.present)], p.failed)
        or field_checks.in_order(p.landed, p.present)
    )


@record(topic=topics.TRANSFERS, key=lambda r: r.manifest, check=_opened, row=Row.TRANSFER)
@dataclass(frozen=True, slots=True)
class PartOpened:
    """The plane holds the part files of `attempt`; `present` items were found whole at the destination."""

    manifest: ManifestId
    attempt: int
    endpoint: str
    present: Ranges
    failed: tuple[FailedItems, ...] = ()
    landed: tuple[Landed, ...] = ()


@record(topic=topics.TRANSFERS, key=lambda r: r.manifest, row=Row.TRANSFER)
@dataclass(frozen=True, slots=True)
class PartLost:
    """The part files of `attempt` are gone for good (or were dropped after a cancellation)."""

    manifest: ManifestId
    attempt: int
    reason: Reason


@record(
    topic=topics.TRANSFERS,
    key=lambda r: r.manifest,
    check=lambda e: field_checks.from_one("request_no", e.request_no),
    row=Row.TRANSFER,
)
@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """`at_ms`: when it was found, by the destination's clock; 0 where an earlier release did not say."""

    manifest: ManifestId
    source: Site
    request_no: int
    at_ms: int = 0


def _source_failed(f: SourceFailed) -> str | None:
    return (
        field_checks.from_one("request_no", f.request_no)
        or field_checks.word("plane", f.plane)
        or field_checks.within("items", f.items, MANIFEST_ITEMS_MAX)
    )


@record(topic=topics.TRANSFERS, key=lambda r: r.manifest, check=_source_failed, row=Row.TRANSFER)
@dataclass(frozen=True, slots=True)
class SourceFailed:
    """A source said that it cannot read now what it was asked for. `plane`: the carrier by which it was asked, or by
    which it refused one that it does not have.

    No `items`: nothing more comes of request `request_no`, and of no other. With `items` (numbers within the manifest):
    these cannot be had there now, and the rest of the request goes on; with a reason that is not transient, never. Of
    items that came whole and were not the file, who gave them is said so too. `at_ms`: when the destination's plane
    heard it, by its clock; the source may be asked again after a back-off read from it.
    """

    manifest: ManifestId
    source: Site
    request_no: int
    plane: str
    items: Ranges
    reason: Reason
    at_ms: int


def _progress(p: TransferProgress) -> str | None:
    return (
        field_checks.word("endpoint", p.endpoint)
        or field_checks.within("verified", p.verified, POSITION_MAX)
        or field_checks.within("adopted", p.adopted, POSITION_MAX)
        or field_checks.apart(MANIFEST_ITEMS_MAX, [("sealed", p.sealed)], p.failed)
        or field_checks.in_order(p.landed, p.sealed)
    )


@record(
    topic=topics.CHUNK_EVENTS,
    key=lambda r: r.manifest,
    author=lambda r: r.destination.site,
    check=_progress,
    row=Row.TRANSFER,
)
@dataclass(frozen=True, slots=True)
class TransferProgress:
    """Ranges written *and synced*, items sealed under their final names, items that cannot arrive.

    `adopted`: ranges that an earlier attempt had brought, and a source's checksums confirmed: they did not come again.
    """

    manifest: ManifestId
    destination: Destination
    attempt: int
    endpoint: str
    verified: Ranges
    sealed: Ranges
    failed: tuple[FailedItems, ...] = ()
    landed: tuple[Landed, ...] = ()
    adopted: Ranges = EMPTY


def _reported(r: TransferReported) -> str | None:
    if r.manifest.intent != r.intent:
        return "manifest: not of the record's intent"
    if r.items > MANIFEST_ITEMS_MAX:
        return f"items: {r.items}, over {MANIFEST_ITEMS_MAX}"
    # Items 0 also says: not planned as yet, so that what is sealed is known and what it is part of is not.
    if r.items and r.sealed + r.failed > r.items:
        return "items: fewer than sealed and failed together"
    if (r.items and r.verified > r.total) or r.total > POSITION_MAX:
        return "verified: more than total, or total too large"
    if len(r.planes) > PLANES_MAX or list(r.planes) != sorted(set(r.planes)):
        return f"planes: over {PLANES_MAX}, or not in order, each once"
    return next(filter(None, (field_checks.word("planes", plane) for plane in r.planes)), None) or field_checks.word(
        "state", r.state
    )


@record(
    topic=topics.REPORTS, key=lambda r: r.intent, author=lambda r: r.destination.site, check=_reported, row=Row.INTENT
)
@dataclass(frozen=True, slots=True)
class TransferReported:
    """A transfer's state in numbers, for its intent. `verified` and `total` in units; `sealed`, `failed` in items.

    `planes`: the carriers by which its bytes were asked for so far.
    """

    intent: IntentId
    manifest: ManifestId
    destination: Destination
    decision_no: int
    state: str
    verified: int
    total: int
    sealed: int
    failed: int
    items: int
    waits_for: Text
    reason: Reason | None = None
    unit: Unit = Unit.BYTES
    planes: tuple[str, ...] = ()


def _completion(c: CompletionRecord) -> str | None:
    if c.manifest.intent != c.intent:
        return "manifest: not of the record's intent"
    if c.items > MANIFEST_ITEMS_MAX:
        return f"items: {c.items}, over {MANIFEST_ITEMS_MAX}"
    why = field_checks.apart(c.items, [("sealed", c.sealed), ("cancelled", c.cancelled)], c.failed)
    if why is not None:
        return why
    if c.sealed.size + c.cancelled.size + sum(f.items.size for f in c.failed) != c.items:
        return "items: one is neither sealed nor failed nor cancelled"
    if c.ended is Ended.DONE and c.sealed.size != c.items:
        return "ended: done, yet not every item is sealed"
    if (why := field_checks.in_order(c.landed, c.sealed)) is not None:
        return why
    if c.landed and c.bytes != sum(one.bytes for one in c.landed):
        return "bytes: not those of the files that landed"
    return field_checks.sha256("manifest_sha256", c.manifest_sha256)


@record(
    topic=topics.COMPLETIONS,
    key=lambda r: r.intent,
    author=lambda r: r.destination.site,
    check=_completion,
    row=Row.INTENT,
)
@dataclass(frozen=True, slots=True)
class CompletionRecord:
    """The destination's last word: a pure function of the closed row, so that it can be published again, byte-equal."""

    intent: IntentId
    manifest: ManifestId
    destination: Destination
    ended: Ended
    items: int
    sealed: Ranges
    failed: tuple[FailedItems, ...]
    cancelled: Ranges
    bytes: int
    manifest_sha256: str
    landed: tuple[Landed, ...] = ()


def _closed(c: TransferClosed) -> str | None:
    if c.completion.manifest != c.manifest:
        return "completion: of another manifest"
    why = _completion(c.completion)
    return None if why is None else f"completion.{why}"


@record(
    topic=topics.TRANSFERS,
    key=lambda r: r.manifest,
    author=lambda r: r.completion.destination.site,
    check=_closed,
    row=Row.TRANSFER,
)
@dataclass(frozen=True, slots=True)
class TransferClosed:
    """The last word of a transfer, kept so that a closed row can say it again.

    `acknowledged`: completion and replicas are in the log. False fixes the last word before it is published: the
    first that is heard of a manifest counts, whatever its plane still says.
    """

    manifest: ManifestId
    completion: CompletionRecord
    acknowledged: bool = True
