"""Carries commands out: the worker's only way to its plane and to the log. Answers nothing: facts do.

Every branch returns at once; a command that cannot be taken now is refused with False and asked again. What needs the
catalogue is catalogue_tasks.py's.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import structlog

from streams import wire
from streams.core import commands as c
from streams.core import records as m
from streams.core.channel import DOOR, NO_TOOLS
from streams.core.completion import replicas_of
from streams.core.intent import IntentRow
from streams.core.keeping.landing import OpenableItems
from streams.core.manifest import Manifest
from streams.core.names import IntentId, ManifestId, Site
from streams.core.policy import Policy
from streams.core.routing import relays, routes
from streams.core.selectors import Selector
from streams.errors import Transfer2goError, WireError
from streams.planes import orders
from streams.wire import Framed, planned
from streams.worker.rows import TableFailed

log = structlog.get_logger(__name__)

ENVIRONMENT = (TableFailed, OSError, MemoryError)
"""No record's fault and no command's: the worker ends, commits nothing past it, and is started again."""

LARGE_BYTES = 8_000
"""A manifest of some hundred files: what says a larger one's items takes milliseconds, and is made by a thread."""

DECODED_MAX = 16
"""Of manifests that a thread decoded and the loop has not taken over: older ones are decoded again."""

Acknowledged = Callable[[Exception | None], None]


_OfManifest = c.RequestChunks | c.CloseTransfer


class Sending(Protocol):
    """The publish gate (kafka/publish.Publisher)."""

    def send(self, message: m.Message | Framed, on_ack: Acknowledged | None = None) -> None: ...


class Plane(Protocol):
    """The worker's plane process (planes/host/plane_process.PlaneProcess)."""

    @property
    def writer(self) -> str: ...

    def tell(self, order: orders.Order) -> bool: ...


class Consulted(Protocol):
    """What needs the catalogue (catalogue_tasks.CatalogueTasks)."""

    def decide(self, body: m.TransferIntent) -> None: ...

    def release(self, intent: IntentId, decision_no: int) -> None: ...

    def then(self, key: object, act: Callable[[], object]) -> None: ...


class Landing(Protocol):
    """What parts are opened under (landing_claims.LandingClaimTasks)."""

    def note(self, manifest: ManifestId, framed: bytes, selectors: Collection[Selector]) -> None: ...

    def may_open(
        self, manifest: ManifestId, attempt: int, framed: bytes, selectors: Collection[Selector]
    ) -> OpenableItems | None: ...

    def forget(self, manifest: ManifestId) -> None: ...

    def drop(self, belong: Callable[[ManifestId], bool]) -> None: ...


class Bodies(Protocol):
    """Rows and manifests, read from outside a turn. Bodies are framed."""

    def intent_row(self, intent: IntentId) -> IntentRow | None: ...

    def waiting_body(self, manifest: ManifestId, source: Site) -> bytes | None: ...

    def body(self, manifest: ManifestId) -> bytes | None: ...

    def manifest(self, manifest: ManifestId) -> Manifest | None: ...

    def known_manifest(self, manifest: ManifestId) -> Manifest | None: ...

    def remember_manifest(self, key: ManifestId, manifest: Manifest, size: int) -> Manifest: ...


def at_once(act: Callable[[], bool]) -> bool:
    """In place of a thread (large_manifests.LargeManifests)."""
    act()
    return True


class Effects:
    """Dispatch over Command for one worker."""

    def __init__(
        self,
        here: Site,
        policy: Policy,
        publisher: Sending,
        plane: Plane,
        consulted: Consulted,
        rows: Bodies,
        now_ms: Callable[[], int],
        aside: Callable[[Callable[[], bool]], bool] = at_once,
        doors: Callable[[], Collection[Site]] = tuple,
        regions: Mapping[Site, str] | None = None,
        tools: Mapping[Site, str] = NO_TOOLS,
        dials: Callable[[], Collection[Site]] = tuple,
        own_door: Callable[[], str] = str,
        foreign: Callable[[], Collection[Site]] = tuple,
        *,
        landing: Landing,
    ) -> None:
        """`doors`: the sites that have an open door. `regions`: of those that have one. `tools`: of this site's links.
        `dials`: those without one that connect to the plane's own, and `own_door` where that can be connected to.
        `foreign`: those whose doors are of another make."""
        self.here, self.policy = here, policy
        self.publisher, self.plane, self.consulted, self.rows = publisher, plane, consulted, rows
        self.now_ms, self.aside, self.doors, self.regions = now_ms, aside, doors, regions or {}
        self.tools, self.dials, self.own_door, self.foreign = tools, dials, own_door, foreign
        self.landing = landing
        self.lost: deque[c.Command] = deque()
        """Commands whose records the publisher gave up, told on its thread; no more than its buffer held."""
        self._broken: Exception | None = None
        """What the environment broke aside."""
        self._decoded: deque[tuple[ManifestId, Manifest, int]] = deque(maxlen=DECODED_MAX)
        """Manifests that were decoded aside, for the loop to remember: only it touches what it remembers."""

    def __call__(self, command: c.Command) -> bool:
        """Carries `command` out; False when it cannot be taken now. What the environment breaks is raised."""
        if self._broken is not None:
            raise self._broken
        return self._carried_out(command, lambda: self._do(command))

    def _carried_out(self, command: c.Command, act: Callable[[], bool]) -> bool:
        try:
            return act()
        except WireError as error:
            # Asking again at once would not help: it waits to settle like one that was sent.
            log.error("a command's record is refused by our own gate", command=type(command).__name__, why=str(error))
            return True
        except Transfer2goError as error:
            log.warning("command not taken", command=type(command).__name__, why=str(error))
        except ENVIRONMENT:
            raise
        except Exception:
            # No fault of the record whose turn asked for it: that one is folded and put. The command stays owed.
            log.exception("command not taken", command=type(command).__name__)
        return False

    def _do(self, command: c.Command) -> bool:
        match command:
            case c.DecideIntent(intent):
                return self._decide_soon(intent)
            case c.ReleaseIntent(intent, decision_no):
                self.consulted.release(intent, decision_no)
            case c.PublishDecision(said) | c.DecideTransfer(said) | c.ReportTransfer(said) | c.RepeatCompletion(said):
                self._say(command, said)
            case c.PublishAnswer(answer):
                self._say(command, answer)
            case c.WriteManifests() if command.looks:
                # What a view behind its journals misses is seen by the next look.
                return self.plane.tell(orders.Write(command))
            case c.WriteManifests():
                self.consulted.then(command.id, lambda: self.plane.tell(orders.Write(command)))
            case c.PlanTransfer():
                self._plan(command)
            case c.OpenPart():
                return self._open(command)
            case c.StopPart():
                body = self.rows.body(command.manifest)
                return self.plane.tell(orders.Stop(command.manifest, command.attempt, command.reason, body))
            case c.FailItems(manifest, failed):
                return self.plane.tell(orders.Fail(manifest, failed))
            case c.RequestChunks():
                return self._with_manifest(command, lambda manifest: self._request(command, manifest))
            case c.BringByTool(manifest, source, request_no, attempt, plane, ranges):
                return self.plane.tell(orders.Bring(manifest, source, request_no, attempt, plane, ranges))
            case c.ExpireLease():
                self._say(command, m.LeaseExpired(command.manifest, command.source, command.request_no, self.now_ms()))
            case c.FixCompletion():
                self._say(command, m.TransferClosed(command.manifest, command.completion, acknowledged=False))
            case c.CloseTransfer():
                return self._with_manifest(command, lambda manifest: self._close(command, manifest))
            case c.ServeChunks(request):
                return self.plane.tell(orders.Serve(request))
            case _:
                return False
        return True

    def _plan(self, command: c.PlanTransfer) -> None:
        body = self.rows.waiting_body(command.manifest, command.source)
        if body is not None:
            plane, number, priority = command.plane, command.decision_no, command.priority
            source, most = command.source, self.policy.relays_max
            before = relays(self.here, source, command.destinations, self.regions, most)
            ways = routes(
                *(source, self.doors()),
                whole=command.whole,
                dials=self.dials(),
                tools=self.tools,
                plane=plane,
                before=before,
                foreign=self.foreign(),
            )
            if len(body) <= LARGE_BYTES:  # else it is decoded once, when its parts are to be opened
                self.landing.note(command.manifest, body, self._selectors(command.manifest))
            plan = planned(command.manifest, self.here, number, priority, plane, ways, body, repair=command.repair)
            self._say(command, plan)
            return
        # The row fell back behind its end, or `waiting` lost it. The transfer answers a decision as it answers a plan:
        # closed, with its last word; open, with its state.
        log.warning("a manifest that counts is not kept here", manifest=command.manifest, mend="transfer2go rebuild")
        self._say(
            command, m.TransferDecided(command.manifest, command.decision_no, m.Verdict.ACCEPTED, command.priority)
        )

    def _open(self, command: c.OpenPart) -> bool:
        body = self.rows.body(command.manifest)
        if body is None:
            return self._missing(command.manifest)
        of, done = command.manifest, (command.verified, command.sealed, command.failed)
        may: OpenableItems | None = OpenableItems()
        if not command.again:
            may = self.landing.may_open(of, command.attempt, body, self._selectors(of))
        if may is None:
            return False
        excused = (may.removed, may.landed, may.refused)
        return self.plane.tell(orders.Open(of, body, command.attempt, *done, command.repair, *excused))

    def _selectors(self, manifest: ManifestId) -> Collection[Selector]:
        """Of the manifest's intent, none where its row has no body any more."""
        row = self.rows.intent_row(manifest.intent)
        return () if row is None or row.body is None else row.body.selectors

    def _missing(self, manifest: ManifestId) -> bool:
        """A body that its table lost comes with the next plan; until then asking settles as if it were sent."""
        log.warning("the body of an open transfer is not kept here", manifest=manifest, mend="transfer2go rebuild")
        return True

    def _with_manifest(self, command: _OfManifest, say: Callable[[Manifest], bool]) -> bool:
        """Has what a command of a manifest says be said: here and now, or by the thread where the manifest is large."""
        while self._decoded:
            self.rows.remember_manifest(*self._decoded.popleft())
        body = self.rows.body(command.manifest)
        if body is None:
            return self._missing(command.manifest)
        if len(body) <= LARGE_BYTES:
            manifest = self.rows.manifest(command.manifest)
            assert manifest is not None
            return say(manifest)
        known = self.rows.known_manifest(command.manifest)
        return self.aside(lambda: self._say_aside(command, known, body, say))

    def _say_aside(
        self, command: _OfManifest, known: Manifest | None, body: bytes, say: Callable[[Manifest], bool]
    ) -> bool:
        """From a thread, which must live on: what is not taken is owed again."""

        def act() -> bool:
            manifest = known if known is not None else Manifest(wire.decode_stored(m.ManifestWritten, body))
            if known is None:
                self._decoded.append((command.manifest, manifest, len(body)))
            return say(manifest)

        taken = False
        try:
            taken = self._carried_out(command, act)
        except ENVIRONMENT as error:
            self._broken = error
        if not taken:
            self.lost.append(command)
        return taken

    def _request(self, command: c.RequestChunks, manifest: Manifest) -> bool:
        capability = m.READS_URLS if command.plane == DOOR else ""
        if command.plane == DOOR and command.source in self.dials() and (url := self.own_door()):
            ticket = secrets.token_urlsafe(32)
            number = command.request_no
            if not self.plane.tell(orders.Expect(command.manifest, command.source, number, ticket)):
                return False
            capability = f"{url} {ticket}"
        self._say(
            command,
            m.ChunksRequested(
                manifest=command.manifest,
                destination=self.here,
                source=command.source,
                request_no=command.request_no,
                attempt=command.attempt,
                plane=command.plane,
                items=manifest.requested(command.ranges, command.source),
                ranges=command.ranges,
                until_ms=self.now_ms() + int(self.policy.lease_s * 1000),
                capability=capability,
            ),
        )
        return True

    def _close(self, command: c.CloseTransfer, manifest: Manifest) -> bool:
        """Completion and replicas first; TransferClosed only when the broker has them all."""
        held = replicas_of(command.completion, manifest, self.here)
        waiting = 1 + len(held)

        def acknowledged(error: Exception | None) -> None:
            nonlocal waiting
            if error is not None:
                waiting = -1  # one lost: the whole is owed again
                self.lost.append(command)
                return
            waiting -= 1
            if waiting == 0:
                self._say_last(command)

        records: tuple[m.Message, ...] = (*held, command.completion)
        for record in records:
            self.publisher.send(record, acknowledged)
        return True

    def _say_last(self, command: c.CloseTransfer) -> None:
        try:
            self._say(command, m.TransferClosed(command.manifest, command.completion))
        except Transfer2goError as error:
            log.warning("not published, owed again", record="TransferClosed", why=str(error))
            self.lost.append(command)

    def _say(self, command: c.Command, record: m.Message | Framed) -> None:
        """Publishes the record of a command, which is owed again when the record is lost."""

        def acknowledged(error: Exception | None) -> None:
            if error is not None:
                self.lost.append(command)

        self.publisher.send(record, acknowledged)

    def _decide_soon(self, intent: IntentId) -> bool:
        row = self.rows.intent_row(intent)
        if row is None or row.body is None:
            return False
        self.consulted.decide(row.body)
        return True
