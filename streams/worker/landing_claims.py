"""Claims under which transfers land here, until their intents are released, and the gate at which parts are opened.
One thread. It ends claims of moves too, at the sites that their files were to leave.

A part is opened once the view shows the claim that its files land under, has caught up with what this site said, and
shows no removal of them that goes on (core/keeping/landing.py). A claim that is missing is said behind the chain's last
number. Where another step took that number it is void, and said again behind the next: of whichever worker of the site,
for a claim is the same whoever notes it. What is lost on the way is asked for again by the transfer's row.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import structlog

from streams import wire
from streams.core import records as m
from streams.core.keeping import gates, landing
from streams.core.keeping.chains import ChainRow, Claims
from streams.core.keeping.gates import FileHere
from streams.core.keeping.landing import LandingClaim, OpenableItems
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, ManifestId, Site, Text
from streams.core.records.limits import FILES_MAX, NAMES_MAX
from streams.core.selectors import Selector
from streams.errors import WireError

log = structlog.get_logger(__name__)

CATCH_UP_S = 5.0
SAID_S = 10.0
"""A step that was said and not heard is said again after this; one that was heard meanwhile makes it void."""
AGAIN_S = 1.0
"""Transfers that wait are looked at this often, whatever is heard."""
SEEN_MAX = 200
"""Intents with claims that are looked at in one go: a site may have a million."""
WAITING_MAX = 20_000
"""Transfers remembered; one that is forgotten is asked for again."""
DEFAULT_ENDPOINT = ""

Publish = Callable[[m.Message, Callable[[Exception | None], None]], None]
NamedFile = tuple[Lfn, Block, int, Adler32 | None]
"""A file as a manifest has it: name, block, bytes, checksum."""


class LandingViews(Protocol):
    """What the gate reads; each as of the last batch."""

    def catch_up_own(self, timeout_s: float) -> bool:
        """Whether all is applied that this site had said of its replicas and its keeping."""

    def chain(self, site: Site, dataset: Dataset) -> ChainRow: ...

    def claims(self, site: Site, dataset: Dataset) -> Claims: ...

    def files(self, site: Site, endpoint: str, named: Sequence[NamedFile]) -> list[FileHere]: ...

    def claiming(self) -> Iterator[IntentId]:
        """Intents with live claims at this site."""

    def claims_of(self, intent: IntentId) -> Iterator[tuple[Dataset, str]]:
        """The live claims of an intent at this site, by dataset and name."""

    def is_released(self, intent: IntentId) -> bool:
        """Whether its home has released an intent; here, from where its files were to leave, whether it has ended."""

    def is_over(self, intent: IntentId) -> bool:
        """Whether the last words of all its transfers are heard."""


@dataclass
class _Waiting:
    """A transfer that is to land. `attempt` 0: it is only planned yet, and its claims are noted beforehand."""

    manifest: ManifestId
    attempt: int
    framed: bytes
    selectors: Collection[Selector]
    body: m.ManifestWritten | None = None
    claims: tuple[LandingClaim, ...] = ()
    needed: tuple[LandingClaim, ...] = ()
    """Those under which something is still to land."""
    files: dict[int, NamedFile] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Said:
    no: int
    at_s: float


class LandingClaimTasks:
    """`note` and `may_open` from the agents' loop, `heard` from the view's thread, `start`, `stop`.

    `ready` is called in the thread when a transfer's parts may be opened: its row is to be asked again.
    """

    def __init__(
        self,
        here: Site,
        views: LandingViews,
        publish: Publish,
        process: str,
        now_ms: Callable[[], int],
        ready: Callable[[ManifestId], None],
        elapsed_s: Callable[[], float] = time.monotonic,
        *,
        has_ended: Callable[[IntentId], bool],
    ) -> None:
        """`has_ended`: whether this worker acts for an intent now, and no transfer of it is open here: what they landed
        is in the log. Asked in the thread.
        """
        self.has_ended = has_ended
        self.here, self.views, self.publish = here, views, publish
        self.process, self.now_ms, self.ready, self.elapsed_s = process, now_ms, ready, elapsed_s
        self._lock = threading.Lock()
        self._waiting: OrderedDict[ManifestId, _Waiting] = OrderedDict()
        self._openable: OrderedDict[ManifestId, tuple[int, OpenableItems]] = OrderedDict()
        """By the attempt that may be opened."""
        self._said: dict[Dataset, _Said] = {}
        """Steps on their way, of the thread alone."""
        self._released: set[IntentId] = set()
        """Whose claims are to end."""
        self._unseen: Iterator[IntentId] | None = None
        """Intents with claims that this process has not looked at yet."""
        self._news = threading.Event()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="landing-claims", daemon=True)

    def start(self) -> None:
        """Looks at once: intents may have been released before this process began, and nothing is heard of them."""
        self._news.set()
        self._thread.start()

    def stop(self) -> None:
        self._running = False
        self._news.set()

    # from the loop

    def note(self, manifest: ManifestId, framed: bytes, selectors: Collection[Selector]) -> None:
        """The manifest is planned: what it lands under may be said while its plan is on its way."""
        with self._lock:
            self._waiting.setdefault(manifest, _Waiting(manifest, 0, framed, selectors))
        self._news.set()

    def may_open(
        self, manifest: ManifestId, attempt: int, framed: bytes, selectors: Collection[Selector]
    ) -> OpenableItems | None:
        """What of the transfer its plane may open, told once; None while that is not known."""
        with self._lock:
            for_attempt, found = self._openable.pop(manifest, (0, None))
            if for_attempt == attempt:
                return found
            known = self._waiting.get(manifest)
            if known is None or known.attempt < attempt:
                new = _Waiting(manifest, attempt, framed, selectors)
                if known is not None:
                    new = replace(known, attempt=attempt)
                self._waiting[manifest] = new
                while len(self._waiting) > WAITING_MAX:
                    self._waiting.popitem(last=False)
        self._news.set()
        return None

    def why_not(self, manifest: ManifestId) -> str:
        """What its parts wait for; "" where that is nothing, or not known."""
        known = self._waiting.get(manifest)
        return "" if known is None else known.why

    def forget(self, manifest: ManifestId) -> None:
        """The transfer is over."""
        with self._lock:
            self._waiting.pop(manifest, None)
            self._openable.pop(manifest, None)

    def drop(self, belong: Callable[[ManifestId], bool]) -> None:
        """Those that belong are another worker's now."""
        with self._lock:
            known = [one for one in (*self._waiting, *self._openable) if belong(one)]
        for manifest in known:
            self.forget(manifest)

    # from the views' threads

    def decided(self, decision: m.IntentDecided) -> None:
        """What a home decided."""
        if decision.verdict is m.Verdict.RELEASED and self.here in decision.body.destinations:
            self._released.add(decision.intent)
            self._news.set()

    def moved(self, intent: IntentId) -> None:
        """A move may have ended: all of it has arrived, or a claim of its source was noted, maybe after its end."""
        if self.views.is_released(intent):
            self._released.add(intent)
            self._news.set()

    def heard(self, fact: m.ChainStep | m.FilesLost) -> None:
        """Once the view shows it: a claim, or the end of a removal."""
        if fact.site != self.here:
            return
        for claim in fact.noted if isinstance(fact, m.ClaimDecided) else ():
            if not claim.lands and claim.intent is not None:
                self.moved(claim.intent)
        if self._waiting:
            self._news.set()

    # the thread

    def _run(self) -> None:
        while self._running:
            self._news.wait(AGAIN_S if self._waiting or self._released else None)
            self._news.clear()
            if self._running:
                self.step()

    def step(self) -> None:
        """Looks at all that wait, once; a failure is logged, and they wait on."""
        try:
            self._step()
        except Exception:
            log.exception("claims are not noted, tried again")

    def _step(self) -> None:
        with self._lock:
            waiting = list(self._waiting.values())
        missing: dict[Dataset, dict[str, m.NotedClaim]] = {}
        claimed: list[_Waiting] = []
        for one in waiting:
            if one.body is None and not self._read(one):
                self._drop(one)
                continue
            lacks = [c for c in one.needed if gates.why_no_landing(self._live(c.dataset), c.claim.claim) is not None]
            for claim in lacks:
                missing.setdefault(claim.dataset, {})[claim.claim.claim] = claim.claim
            if lacks:
                one.why = "its claim to be noted"
            elif one.attempt:
                claimed.append(one)
            else:
                self._drop(one)
        for dataset, claims in missing.items():
            self._note(dataset, list(claims.values()))
        if claimed and self.views.catch_up_own(CATCH_UP_S):
            for one in claimed:
                self._judge(one)
        self._find_released()
        for intent in list(self._released):
            self._end_claims(intent)

    def _find_released(self) -> None:
        """Looks at some of the intents that have claims since before this process began."""
        if self._unseen is None:
            self._unseen = self.views.claiming()
        seen = list(islice(self._unseen, SEEN_MAX))
        self._released |= {intent for intent in seen if self.views.is_released(intent)}
        if len(seen) == SEEN_MAX:
            self._news.set()

    def _end_claims(self, intent: IntentId) -> None:
        """Behind all that was said under them; by whoever acts for the intent, the others wait for it."""
        if not self.views.is_over(intent):
            return
        if any(self.views.claims_of(intent)) and not self.has_ended(intent):
            return
        if not self.views.catch_up_own(CATCH_UP_S):
            return
        claims: dict[Dataset, list[str]] = {}
        for dataset, name in islice(self.views.claims_of(intent), FILES_MAX):
            claims.setdefault(dataset, []).append(name)
        for dataset, names in claims.items():
            self._say(dataset, (), tuple(names), intent)
        if not claims:
            self._released.discard(intent)

    def _live(self, dataset: Dataset) -> Claims:
        return self.views.claims(self.here, dataset)

    def _read(self, one: _Waiting) -> bool:
        """Finds what it lands under; False for a manifest that cannot be read."""
        try:
            one.body = wire.decode_stored(m.ManifestWritten, one.framed)
        except WireError:
            log.exception("a stored manifest cannot be read", manifest=one.manifest)
            return False
        items = one.body.items
        one.files = {
            n: (item.target, item.block, item.bytes, item.adler32)
            for n, item in enumerate(items)
            if item.reason is None
        }
        here = self._files(one)
        known = {n for n, file in here.items() if file.known}
        one.claims = tuple(landing.landing_claims(one.body, one.selectors, DEFAULT_ENDPOINT, known))
        one.needed = tuple(landing.without_removed(one.claims, here, one.manifest))
        return True

    def _files(self, one: _Waiting) -> dict[int, FileHere]:
        named = list(one.files.values())
        return dict(zip(one.files, self.views.files(self.here, DEFAULT_ENDPOINT, named), strict=True))

    def _note(self, dataset: Dataset, claims: list[m.NotedClaim]) -> None:
        noted, names = list[m.NotedClaim](), 0
        for claim in claims[:FILES_MAX]:
            names += len(claim.selectors)
            if noted and names > NAMES_MAX:
                break  # the next step's
            noted.append(claim)
        intents = {claim.intent for claim in noted}
        self._say(dataset, tuple(noted), (), intents.pop() if len(intents) == 1 else None)

    def _say(
        self, dataset: Dataset, noted: tuple[m.NotedClaim, ...], ended: tuple[str, ...], cause: IntentId | None
    ) -> None:
        """The next step of a chain, unless one is on its way."""
        chain, now_s = self.views.chain(self.here, dataset), self.elapsed_s()
        said = self._said.get(dataset)
        if said is not None and chain.no < said.no and now_s - said.at_s < SAID_S:
            return
        if (why := gates.why_no_step(chain)) is not None:
            for one in self._waiting_for(dataset):
                one.why = why
            return
        head = (*chain.next_head, self.process, self.now_ms(), Text("worker"), cause, Text(""))
        self._said[dataset] = _Said(chain.no + 1, now_s)

        def acknowledged(error: Exception | None) -> None:
            if error is not None:
                self._said.pop(dataset, None)
                self._news.set()

        try:
            self.publish(m.ClaimDecided(*head, noted, ended), acknowledged)
        except Exception:
            self._said.pop(dataset, None)
            raise

    def _waiting_for(self, dataset: Dataset) -> list[_Waiting]:
        with self._lock:
            return [one for one in self._waiting.values() if any(c.dataset == dataset for c in one.needed)]

    def _judge(self, one: _Waiting) -> None:
        live = {claim.dataset: self._live(claim.dataset) for claim in one.claims}
        found = landing.openable(one.claims, live, self._files(one), one.manifest)
        one.why = found.waits_for
        if found.waits_for:
            return
        with self._lock:
            if self._waiting.get(one.manifest) is not one:
                return
            del self._waiting[one.manifest]
            self._openable[one.manifest] = one.attempt, found
            while len(self._openable) > WAITING_MAX:
                self._openable.popitem(last=False)
        self.ready(one.manifest)

    def _drop(self, one: _Waiting) -> None:
        with self._lock:
            if self._waiting.get(one.manifest) is one:
                del self._waiting[one.manifest]
