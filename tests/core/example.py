"""One intent of three sites and its records, made by plain functions; no checks and no clock here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from streams.core import records as m
from streams.core.channel import DOOR, LOG
from streams.core.manifest import Manifest, digest
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.selectors import Kind, Selector

A, B, C = Site("S_A"), Site("S_B"), Site("S_C")
"""Home, first destination, another site. The source is C unless a test says otherwise."""
INTENT = IntentId(f"{A}.00000000-0000-4000-8000-000000000001")
MANIFEST = ManifestId.of(INTENT, 0, 0)
DATASET = Dataset("/Muon/Run1/RAW")
BLOCK = Block(f"{DATASET}#1")
SHA256 = "ab" * 32


def lfn(number: int) -> Lfn:
    return Lfn(f"/store/muon/{number}.root")


def reason(
    text: str = "gone",
    scope: m.Scope = m.Scope.SOURCE,
    failure_class: m.FailureClass = m.FailureClass.PERMANENT,
    phase: str = "read",
) -> m.Reason:
    return m.Reason(scope, failure_class, phase, Text(text))


def failed(text: str, *items: int) -> m.FailedItems:
    return m.FailedItems(Ranges.of(*items), reason(text))


def item(
    number: int, length: int, *, holder: Site | None = C, why: m.Reason | None = None, others: tuple[Site, ...] = ()
) -> m.Item:
    adler32, version = None if why else Adler32(f"{number:08x}"), f"v{number}"
    return m.Item(lfn(number), DATASET, BLOCK, lfn(number), "", length, length, adler32, version, holder, why, others)


def body(
    *,
    intent: IntentId = INTENT,
    destinations: Sequence[Site] = (B,),
    source: Site | None = None,
    priority: int = 5,
    deadline_ms: int | None = None,
    files: Iterable[int] = (0, 1),
    plane: str | None = None,
) -> m.TransferIntent:
    selectors = tuple(Selector(Kind.FILE, lfn(n)) for n in files)
    to = tuple(destinations)
    return m.TransferIntent(intent, Text("ann"), selectors, to, source, priority, deadline_ms, plane=plane)


def decided(
    number: int = 1,
    verdict: m.Verdict = m.Verdict.ACCEPTED,
    *,
    wish: m.TransferIntent | None = None,
    source: Site | None = C,
    source_no: int = 0,
    priority: int = 5,
) -> m.IntentDecided:
    wish = wish or body()
    why = None if verdict is m.Verdict.ACCEPTED else reason("as decided", m.Scope.POLICY)
    return m.IntentDecided(wish.intent, number, verdict, wish, source, source_no, priority, why)


def cancel() -> m.IntentAsked:
    return m.IntentAsked(INTENT, m.Asked.CANCEL, Text("bob"))


def close() -> m.IntentAsked:
    return m.IntentAsked(INTENT, m.Asked.CLOSE, Text("bob"))


def growing(until_ms: int | None = None, until_items: int | None = None, source: Site | None = C) -> m.TransferIntent:
    """An open intent over a dataset."""
    chosen = (Selector(Kind.DATASET, DATASET),)
    return m.TransferIntent(
        INTENT, Text("ann"), chosen, (B,), source, 5, open=True, until_ms=until_ms, until_items=until_items
    )


def raised(priority: int) -> m.IntentAsked:
    return m.IntentAsked(INTENT, m.Asked.PRIORITY, Text("bob"), priority)


def written(
    no: int = 0,
    items: Sequence[m.Item] | None = None,
    *,
    prev: m.ManifestWritten | None = None,
    source: Site = C,
    source_no: int = 0,
    last: bool = True,
    intent: IntentId = INTENT,
) -> m.ManifestWritten:
    items = tuple(items) if items is not None else (item(2 * no, 100), item(2 * no + 1, 50))
    before = digest(prev) if prev else "" if no == 0 else SHA256
    return m.ManifestWritten(intent, source, source_no, no, before, f"after {no}", m.Unit.BYTES, items, last)


def chain(count: int, *, source_no: int = 0, source: Site = C, ends: bool = True) -> list[m.ManifestWritten]:
    """`count` manifests of two files each, chained; the final one is `last` where the chain `ends`."""
    out: list[m.ManifestWritten] = []
    for no in range(count):
        last = ends and no == count - 1
        out.append(written(no, prev=out[-1] if out else None, source=source, source_no=source_no, last=last))
    return out


def planned(
    manifest: m.ManifestWritten,
    number: int = 1,
    priority: int = 5,
    *,
    doors: tuple[Site, ...] = (),
    plane: str | None = None,
) -> m.TransferPlanned:
    routes = tuple(m.Route(site, DOOR, Text("it has a door")) for site in doors)
    return m.TransferPlanned(manifest.manifest, B, number, priority, plane, routes, False, manifest)


def told(
    number: int, verdict: m.Verdict = m.Verdict.ACCEPTED, priority: int = 5, manifest: ManifestId = MANIFEST
) -> m.TransferDecided:
    why = None if verdict is m.Verdict.ACCEPTED else reason("as decided", m.Scope.POLICY)
    return m.TransferDecided(manifest, number, verdict, priority, why)


def opened(
    attempt: int = 1, present: Ranges = EMPTY, failed: tuple[m.FailedItems, ...] = (), manifest: ManifestId = MANIFEST
) -> m.PartOpened:
    return m.PartOpened(manifest, attempt, "default", present, failed)


def lost(attempt: int = 1, *, stopped: bool = False, manifest: ManifestId = MANIFEST) -> m.PartLost:
    why = reason("part gone", m.Scope.DESTINATION, m.FailureClass.TRANSIENT, "stop" if stopped else "open")
    return m.PartLost(manifest, attempt, why)


def progress(
    verified: Ranges = EMPTY,
    sealed: Ranges = EMPTY,
    failed: tuple[m.FailedItems, ...] = (),
    attempt: int = 1,
    manifest: ManifestId = MANIFEST,
) -> m.TransferProgress:
    return m.TransferProgress(manifest, B, attempt, "default", verified, sealed, failed)


def requested(
    number: int,
    ranges: Ranges,
    *,
    source: Site = C,
    attempt: int = 1,
    until_ms: int = 9_000,
    of: m.ManifestWritten | None = None,
    plane: str = LOG,
) -> m.ChunksRequested:
    manifest = Manifest(of or written())
    return m.ChunksRequested(
        manifest.body.manifest, B, source, number, attempt, plane, manifest.requested(ranges, source), ranges, until_ms
    )


def expired(number: int, source: Site = C, manifest: ManifestId = MANIFEST, at_ms: int = 0) -> m.LeaseExpired:
    return m.LeaseExpired(manifest, source, number, at_ms)


def source_failed(
    number: int,
    items: Ranges = EMPTY,
    at_ms: int = 5_000,
    source: Site = C,
    plane: str = LOG,
    why: m.Reason | None = None,
) -> m.SourceFailed:
    why = why or m.Reason(m.Scope.SOURCE, m.FailureClass.TRANSIENT, "read", Text("the store is away"))
    return m.SourceFailed(MANIFEST, source, number, plane, items, why, at_ms)


def removal(
    *, files: Iterable[int] = (0, 1), dataset: Dataset | None = None, sites: Sequence[Site] = (B,), copies: int = 1
) -> m.TransferIntent:
    """Somebody asks that files go from sites."""
    named = tuple(Selector(Kind.FILE, lfn(n)) for n in files)
    whole = (Selector(Kind.DATASET, dataset),) if dataset is not None else ()
    asked = replace(body(destinations=sites), selectors=named + whole)
    return replace(asked, verb=m.Verb.REMOVE, copies=copies, reason=Text("full"))


def removed(
    part: int = 0, gone: int = 2, kept: int = 0, going: int = 0, *, site: Site = B, last: bool = True
) -> m.RemovalReported:
    reasons = (m.KeptFiles(Text("the last copy"), kept, lfn(0)),) if kept else ()
    return m.RemovalReported(INTENT, site, part, gone, 10 * gone, kept, 10 * kept, going, 10 * going, last, reasons)


def approval(asked: m.Asked = m.Asked.APPROVE, site: Site = B) -> m.IntentAsked:
    """Somebody asks a site to take part, or not to."""
    reason = Text("full") if asked is m.Asked.DENY else Text("")
    return m.IntentAsked(INTENT, asked, Text("bob"), site=site, reason=reason)


def answered(answer: m.Answer = m.Answer.PENDING, number: int = 1, site: Site = B) -> m.SiteAnswered:
    reason = Text("full") if answer is m.Answer.DENIED else Text("")
    return m.SiteAnswered(INTENT, site, number, answer, Text("bob"), reason)


def release() -> m.IntentAsked:
    return m.IntentAsked(INTENT, m.Asked.RELEASE, Text("bob"))


def reported(
    manifest: ManifestId = MANIFEST, destination: Site = B, number: int = 1, state: str = "active", verified: int = 0
) -> m.TransferReported:
    return m.TransferReported(INTENT, manifest, destination, number, state, verified, 150, 0, 0, 2, Text(""))


def completed(
    manifest: ManifestId = MANIFEST,
    destination: Site = B,
    *,
    items: int = 2,
    failed: tuple[m.FailedItems, ...] = (),
    cancelled: Ranges = EMPTY,
) -> m.CompletionRecord:
    """Done but for what is `failed` or `cancelled`."""
    rest = Ranges([(0, items)]) - cancelled
    for group in failed:
        rest = rest - group.items
    ended = m.Ended.CANCELLED if cancelled else m.Ended.PARTLY if failed else m.Ended.DONE
    return m.CompletionRecord(
        INTENT, manifest, destination, ended, items, rest, failed, cancelled, 75 * rest.size, SHA256
    )


def closed(completion: m.CompletionRecord | None = None, *, acknowledged: bool = True) -> m.TransferClosed:
    completion = completion or completed()
    return m.TransferClosed(completion.manifest, completion, acknowledged)
