"""One site's worker: the only place that wires. `app()` is what `faust -A agents worker` runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

import faust
import structlog
from faust import auth
from faust.cli.agents import agents as agents_command

from agents import changelogs, families, faust_fixes, process, tables
from agents.assignment import Assignment
from streams.core import records as m
from streams.core.keeping.chains import ChainRow, Claims, CountedRemoval
from streams.core.keeping.gates import FileHere, PlacedFile
from streams.core.names import Block, Dataset, IntentId, Lfn, ManifestId, Site
from streams.core.owed import takes_part
from streams.core.policy import Policy
from streams.core.routing import Holders
from streams.core.selectors import Selector
from streams.core.topics import partition_of
from streams.errors import CLUSTER_AWAY, Temporary, Transfer2goError
from streams.kafka import admin, client
from streams.kafka.publish import Publisher, wall_ms
from streams.planes.host.keeper import PlaneKeeper
from streams.settings import Settings, load_settings
from streams.views.intent_rows import OPEN
from streams.views.keeping import Removed
from streams.views.view import View
from streams.wire.release import DIALS_SINCE
from streams.worker import rows
from streams.worker.api import USUAL_PORT, Api, Vitals
from streams.worker.catalogue_tasks import CatalogueTasks
from streams.worker.dispatcher import Dispatcher
from streams.worker.effects import Effects
from streams.worker.keeping import KeepingTasks
from streams.worker.landing_claims import LandingClaimTasks, NamedFile
from streams.worker.large_manifests import LargeManifests
from streams.worker.removing import HeldHere, MovedFiles
from streams.worker.scheduler import SLICE_S, Scheduler
from streams.worker.turn import Turns

log = structlog.get_logger(__name__)

ANNOUNCE_S = 10
DEAD_LETTER_S = 35.0
"""Longer than the publisher keeps trying."""
CHANGELOG_SEGMENT_BYTES = 32 * 1024 * 1024
"""Small, since compaction passes by the segment that is written to, and a take-over reads it all."""
LOOK_S = 5.0
"""A thread waits so long for the loop."""
TICK_S = 1.0
"""Due rows are looked for this often at least: at once when one falls due, and the clock may be set forward."""


@cache
def app() -> faust.App:
    try:
        return build_app(load_settings())
    except Transfer2goError as error:  # of the settings; who asks is Faust's command line
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None


class CatalogueViews:
    """What catalogue tasks ask of the views."""

    def __init__(self, settings: Settings, view: View) -> None:
        self.settings, self.view = settings, view
        self._doors, self._dials, self._doors_ms = frozenset[Site](), frozenset[Site](), 0
        self._foreign = frozenset[Site]()
        self._own_doors: dict[str, str] = {}
        """Of this site's planes, by the name under which each writes."""

    def catch_up(self, timeout_s: float) -> bool:
        return self.view.catch_up(timeout_s)

    def found(self, body: m.TransferIntent) -> Holders:
        resolution = self.view.catalogue.holders(body.selectors)
        per_site = {site: (total.files, total.bytes) for site, total in resolution.per_site.items()}
        return Holders(resolution.files, per_site, resolution.unknown)

    def sites(self) -> tuple[Site, ...]:
        return self.settings.registry.names

    def decision(self, intent: IntentId) -> m.IntentDecided | None:
        """The last one, as the view of intents has it; that lags a little behind the one of replicas."""
        head = self.view.intents.head(intent)
        return None if head is None else head.decision

    def alive(self) -> tuple[Site, ...]:
        return tuple({a.site for a in self.view.sites.alive(None, wall_ms(), role="worker")})

    def doors(self) -> frozenset[Site]:
        """Who has an open door, as of a second ago at most: it is asked for each plan, on the loop."""
        self._look_at_doors()
        return self._doors

    def foreign(self) -> frozenset[Site]:
        """Of those, whose doors are of another make."""
        self._look_at_doors()
        return self._foreign

    def dials(self) -> frozenset[Site]:
        """Who has none and connects to this site's, while that has one: such as run a release that can."""
        self._look_at_doors()
        return self._dials

    def by_door(self) -> frozenset[Site]:
        """Who can be asked by door, one way or the other."""
        self._look_at_doors()
        return self._doors | self._dials

    def _look_at_doors(self) -> None:
        now_ms = wall_ms()
        if 0 <= now_ms - self._doors_ms < 1000:
            return
        self._doors_ms = now_ms
        planes = list(self.view.sites.alive(None, now_ms, role="plane"))
        self._doors = frozenset(a.site for a in planes if a.door)
        own = frozenset(a.site for a in planes if m.is_own_door(a.door))
        self._foreign = self._doors - own
        others = frozenset(a.site for a in planes if a.release >= DIALS_SINCE) - self._doors
        self._dials = others if self.settings.here in own else frozenset()
        self._own_doors = {a.writer: a.door for a in planes if a.site == self.settings.here and m.is_own_door(a.door)}

    def door_of(self, writer: str) -> str:
        """Where the door of one of this site's planes can be connected to; "" while it has none."""
        self._look_at_doors()
        return self._own_doors.get(writer, "")


class KeepingFromView:
    """What tasks of keeping ask of the view, which may not be open yet when this is made."""

    def __init__(self, here: Site, view: View, policy: Policy) -> None:
        self.here, self.view, self.policy = here, view, policy

    def catch_up(self, timeout_s: float) -> bool:
        return self.view.catch_up(timeout_s)

    def chain(self, site: Site, dataset: Dataset) -> ChainRow:
        return self.view.chains.chain(site, dataset)

    def chains(self, dataset: Dataset) -> dict[Site, ChainRow]:
        return self.view.chains.chains(dataset)

    def catch_up_own(self, timeout_s: float) -> bool:
        return self.view.catch_up_own(timeout_s)

    def claims(self, site: Site, dataset: Dataset) -> Claims:
        return self.view.chains.claims(site, dataset)

    def claiming(self) -> Iterator[IntentId]:
        return self.view.chains.claiming(self.here)

    def claims_of(self, intent: IntentId) -> Iterator[tuple[Dataset, str]]:
        return self.view.chains.claims_of(intent, self.here)

    def is_released(self, intent: IntentId) -> bool:
        head = self.view.intents.head(intent)
        decision = None if head is None else head.decision
        if head is None or decision is None:
            return False
        return decision.verdict is m.Verdict.RELEASED or (self.here in head.leaving and head.ended)

    def is_over(self, intent: IntentId) -> bool:
        head = self.view.intents.head(intent)
        return head is not None and head.ended

    def files(self, site: Site, endpoint: str, named: Sequence[NamedFile]) -> list[FileHere]:
        return self.view.chains.files(site, endpoint, named)

    def asking(self) -> Iterator[tuple[Site, Dataset]]:
        return self.view.chains.asking()

    def leaving(self, site: Site) -> Iterator[Dataset]:
        return self.view.chains.leaving(site)

    def going_steps(self, site: Site, dataset: Dataset) -> Iterator[tuple[int, str]]:
        return self.view.chains.going_steps(site, dataset)

    def going(self, site: Site, dataset: Dataset, step: tuple[int, str]) -> Sequence[CountedRemoval]:
        return self.view.chains.going(site, dataset, step)

    def held(self, selectors: Sequence[Selector], cursor: str, limit: int) -> tuple[list[HeldHere], str | None]:
        files, behind = self.view.catalogue.listing(selectors, cursor, limit, prefer=self.here)
        found = []
        for file in files:
            mine = next((one for one in file.replicas if one.site == self.here), None)
            if mine is not None:
                replicas = [one for one in file.replicas if one.dataset == mine.dataset]
                holders, words = tuple(one.site for one in replicas), {one.site: one.words for one in replicas}
                found.append(HeldHere(file.lfn, mine.block, mine.bytes, mine.adler32, holders, words))
        return found, behind

    def holders(self, dataset: Dataset, lfns: Sequence[Lfn]) -> dict[Lfn, tuple[Site, ...]]:
        found: dict[Lfn, tuple[Site, ...]] = {}
        for lfn, one in self.view.catalogue.replicas(lfns):
            if one.dataset == dataset:
                found[lfn] = (*found.get(lfn, ()), one.site)
        return found

    def dataset_of(self, lfns: Sequence[Lfn]) -> Dataset | None:
        replicas = [one for _, one in self.view.catalogue.replicas(lfns)]
        here = {one.dataset for one in replicas if one.site == self.here}
        return min(here or {one.dataset for one in replicas}, default=None)

    def removed(self, intent: IntentId, dataset: Dataset) -> Removed:
        return dict(self.view.chains.removed(intent, self.here)).get(dataset, Removed())

    def are_kept(self, intent: IntentId, dataset: Dataset, lfns: Sequence[Lfn]) -> list[bool]:
        return self.view.chains.are_kept(intent, self.here, dataset, lfns)

    def kept(self, intent: IntentId, dataset: Dataset) -> Iterator[tuple[Lfn, int, str]]:
        return self.view.chains.kept(intent, self.here, dataset)

    def arrivals(self, intent: IntentId) -> MovedFiles:
        head = self.view.intents.head(intent)
        if head is None:
            return MovedFiles(some=False, all=False, files=0, to=frozenset())
        sides = [head.side(destination, head.chain.source_no) for destination in head.taking]
        lost = sum(side.failed + side.cancelled for side in sides)
        to = frozenset(destination.site for destination in head.taking)
        return MovedFiles(any(side.closed for side in sides), head.landed, max(0, head.files - lost), to)

    def takes_part(self, intent: IntentId) -> bool:
        head = self.view.intents.head(intent)
        answers = () if head is None else head.answers
        return takes_part(next((one for one in answers if one.site == self.here), None), self.policy)

    def reported(self, intent: IntentId) -> list[int]:
        head = self.view.intents.head(intent)
        return [] if head is None else list(head.side(self.here, 0).closed.numbers())

    def removals(self) -> Iterator[m.IntentDecided]:
        cursor: str | None = ""
        while cursor is not None:
            page = self.view.intents.page(state=OPEN, site=self.here, cursor=cursor)
            yield from (one.decision for one in page.intents if one.decision is not None)
            cursor = page.cursor

    def file(
        self, site: Site, block: Block, leaving: m.LeavingFile, endpoint: str, found: PlacedFile | None
    ) -> FileHere:
        return self.view.chains.file(site, block, leaving, endpoint, found)


class SiteWorker:
    """The parts of a running worker, and their beginning and end. Made, it has opened nothing: see `open`."""

    def __init__(self, settings: Settings) -> None:
        self.settings, here = settings, settings.here
        self.name = settings.datadir.name
        self.publisher = Publisher(settings, here, self.name, "worker", opened=False)
        self.keeper = PlaneKeeper(settings, self.name, self._plane_started)
        self.plane = self.keeper.plane
        self.view = View(
            settings,
            settings.datadir,
            self._refused,
            self._view_died,
            self._keeping_heard,
            self._decided,
            self._moved,
            opened=False,
        )
        self.app = _faust_app(settings)
        partitions = settings.registry.partitions
        self.tables = tables.build(self.app, partitions)
        self.turns = Turns(rows.Tables(**self.tables), here)
        views = CatalogueViews(settings, self.view)
        self.catalogue_tasks = CatalogueTasks(views, settings.policy, self.publisher.send)
        self.large_manifests = LargeManifests()
        keeping, process_name = KeepingFromView(here, self.view, settings.policy), f"{self.name}/{os.urandom(8).hex()}"
        self.landing_claims = LandingClaimTasks(
            here,
            keeping,
            self.publisher.send,
            process_name,
            wall_ms,
            self._may_be_opened,
            has_ended=self._has_ended,
        )
        tools = {site: one.tool.name for site, one in settings.link_tools.items()}
        self.effects = Effects(
            here,
            settings.policy,
            self.publisher,
            self.plane,
            self.catalogue_tasks,
            self.turns,
            wall_ms,
            self.large_manifests,
            views.doors,
            settings.registry.regions,
            tools,
            views.dials,
            lambda: views.door_of(self.plane.writer),
            views.foreign,
            landing=self.landing_claims,
        )
        self.scheduler = Scheduler(
            here,
            settings.policy,
            partitions,
            self.effects,
            wall_ms,
            keeps=self.turns.keeps,
            doors=views.by_door,
            link_rates=settings.link_rates,
            tools=tools,
            opening=self.landing_claims.why_not,
        )
        self.dispatcher = Dispatcher(here, self.turns, self.scheduler, self.effects, self.plane, wall_ms)
        self.guard = process.StallGuard()
        read = families.register(self.app, self.dispatcher, self.publisher, self.guard, here, settings.peers)
        self.keeping_tasks = KeepingTasks(
            here,
            keeping,
            self.plane,
            self.publisher.send,
            lambda dataset: self.scheduler.is_awake(partition_of(dataset, partitions)),
            process_name,
            wall_ms,
            removals=keeping,
        )
        self.assignment = Assignment(self.app, self.dispatcher, self.guard, read, self.keeping_tasks.scan_soon)
        self.api = Api(settings, self.view, self._vitals())
        self._loop: asyncio.AbstractEventLoop | None = None

    def _vitals(self) -> Vitals:
        return Vitals(
            partitions=lambda: self.assignment.owned,
            awake=lambda: self.assignment.awake,
            plane_alive=lambda: self.plane.alive,
            parts_open=lambda: len(self.dispatcher.scheduler.admission.opened),
            records=lambda: dict(self.dispatcher.counts),
            orders_dropped=lambda: self.plane.dropped,
            longest_stall_s=lambda: self.guard.longest_s,
        )

    @property
    def changelogs(self) -> list[tuple[str, int, dict[str, str]]]:
        """Faust would make these itself, but late: its consumer complains of each until then."""
        config = {"cleanup.policy": "compact", "segment.bytes": str(CHANGELOG_SEGMENT_BYTES)}
        partitions = self.settings.registry.partitions
        return [(table.table.changelog_topic_name, partitions, config) for table in self.tables.values()]

    def _refused(self, letter: m.DeadLetter) -> None:
        """From the view's thread, which passes the record only when its dead letter is safe."""
        answered: SimpleQueue[Exception | None] = SimpleQueue()
        self.publisher.send(letter, answered.put)
        try:
            error = answered.get(timeout=DEAD_LETTER_S)
        except Empty:
            raise Temporary("a dead letter was not acknowledged", letter.topic) from None
        if error is not None:
            raise Temporary(f"a dead letter was not published: {error}", letter.topic)

    def _keeping_heard(self, fact: m.ChainStep | m.ReplicasChecked | m.FilesHeld | m.FilesLost) -> None:
        if isinstance(fact, m.FilesHeld):
            self.keeping_tasks.removals.landed(fact)
            return
        if not isinstance(fact, m.ReplicasChecked):
            self.landing_claims.heard(fact)
        self.keeping_tasks.heard(fact)

    def _decided(self, decision: m.IntentDecided) -> None:
        self.keeping_tasks.removals.decided(decision)
        self.landing_claims.decided(decision)

    def _moved(self, intent: IntentId) -> None:
        self.keeping_tasks.removals.arrived(intent)
        self.landing_claims.moved(intent)

    def _has_ended(self, intent: IntentId) -> bool:
        """From the thread of claims: tables are read on the loop."""
        partition, loop = self.scheduler.partition(intent), self._loop
        if loop is None or not self.scheduler.is_awake(partition):
            return False

        async def look() -> bool:
            open_transfers = self.turns.tables.transfers.keys(partition, rows.open_key(f"{intent}."))
            return self.scheduler.is_awake(partition) and next(iter(open_transfers), None) is None

        try:
            return asyncio.run_coroutine_threadsafe(look(), loop).result(LOOK_S)
        except TimeoutError:
            return False

    def _may_be_opened(self, manifest: ManifestId) -> None:
        """From the thread of claims: the loop tells the plane."""
        if self._loop is not None:
            partition = self.scheduler.partition(manifest)
            self._loop.call_soon_threadsafe(self.scheduler.fall_due, partition, manifest)

    def _view_died(self, error: Exception) -> None:
        process.die("the view cannot go on", why=str(error))

    def _plane_started(self) -> None:
        """From the keeper's thread: a new plane is told everything, also what woke before there was any."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.dispatcher.plane_restarted)
        self.keeping_tasks.plane_restarted()

    def open(self) -> None:
        """Take the data directory, see that the topics are there, start plane and view; blocks. Before Faust starts.

        Raises NeverWorks when another worker has the directory, or topics or settings do not fit; else Temporary.
        """
        settings = self.settings
        self.view.open()
        _clear_old_tables(self.app, settings)
        admin.check(settings, [settings.here])
        admin.create_topics(settings, settings.here, self.changelogs)
        self.publisher.open()
        self.keeper.start()  # a plane takes as long to start as Faust does to join and recover
        self.view.start()

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.api.start()
        self.large_manifests.start()
        self.catalogue_tasks.start()
        self.keeping_tasks.start()
        self.landing_claims.start()
        await asyncio.to_thread(self._refuse_other_registry)

    def _refuse_other_registry(self) -> None:
        settings = self.settings
        self.view.catch_up(10.0)
        others = self.view.sites.with_other_digest(settings.here, settings.registry.digest, wall_ms(), role="worker")
        if others:
            raise Temporary(  # one that was killed is taken for alive for half a minute
                f"worker {others[0].writer} of {settings.here} runs with another sites.toml",
                next="stop all workers of the site, then start them with the same one",
            )

    async def run_clock(self) -> None:
        """Asks due rows for ever, in slices; what the environment breaks ends the process."""
        while True:
            due = self.scheduler.next_due_ms()
            now_ms = wall_ms()
            wait_s = TICK_S if due is None else min(TICK_S, max(0.0, (due - now_ms) / 1000))
            self.scheduler.looks_at_ms = now_ms + int(wait_s * 1000)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.scheduler.soon.wait(), wait_s)
            self.guard.check()
            try:
                while self.dispatcher.tick():
                    await asyncio.sleep(SLICE_S)  # as long for hearing as for asking, or neither would come to an end
            except Exception as error:
                log.exception("rows cannot be asked")
                process.die("what is owed cannot be read here now", why=f"{type(error).__name__}: {error}")

    async def run_announcements(self) -> None:
        """Says for ever that this worker lives, and its last sequence numbers."""
        while True:
            try:
                self.publisher.announce(
                    api=self.api.address, endpoints=tuple(self.settings.endpoints), every_s=ANNOUNCE_S
                )
            except CLUSTER_AWAY as error:
                log.warning("not announced", why=str(error))
            self.dispatcher.forget_expired()
            await asyncio.sleep(ANNOUNCE_S)

    def stop(self) -> None:
        self.api.stop()
        self.catalogue_tasks.stop()
        self.keeping_tasks.stop()
        self.landing_claims.stop()
        self.large_manifests.stop()
        self.keeper.stop()
        self.publisher.close(5.0)
        self.view.stop()


class SiteApp(faust_fixes.DurableApp):
    """Opens what a worker needs when it starts as one; an app that is only looked at, or sends, opens nothing."""

    before_start: Callable[[], None]

    @property
    def is_worker(self) -> bool:
        return not (self.client_only or self.producer_only)

    def on_init_dependencies(self) -> Iterable[Any]:
        services: Iterable[Any] = super().on_init_dependencies()
        self.sensors.remove(self.monitor)  # its counts, which nobody reads, are kept at every step of every record
        return services

    async def on_first_start(self) -> None:
        if self.is_worker:
            try:
                await asyncio.to_thread(self.before_start)
            except Transfer2goError as error:
                _give_up(error)
        await super().on_first_start()


def _topics_of(_command: object, agent: Any) -> str:
    """What `faust agents` shows of an agent: Faust itself fails at one that reads several topics."""
    first, *more = agent.channel.topics
    return f"{first} and {len(more)} more" if more else str(first)


def _give_up(error: Transfer2goError) -> NoReturn:
    """Ends a worker that cannot begin, with one line: 75 where a later start can succeed, else what never works."""
    if error.retry_helps:
        process.die(str(error))
    log.error(str(error), exit_code=error.exit_code)
    sys.stderr.flush()
    os._exit(error.exit_code)


def _faust_app(settings: Settings) -> SiteApp:
    faust_fixes.install()
    agents_command._maybe_topic = _topics_of
    datadir = Path(settings.datadir) / "faust"
    app = SiteApp(
        f"transfer2go-{settings.here}",
        version=settings.registry.generation,
        **client.faust_broker(settings, settings.here, auth),
        store="rocksdb://",
        datadir=str(datadir),
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=30_000,
        topic_disable_leader=True,
        topic_partitions=settings.registry.partitions,
        topic_replication_factor=1,
        broker_session_timeout=10.0,
        broker_heartbeat_interval=3.0,
        broker_commit_interval=1.0,
        producer_acks=-1,
        producer_max_batch_size=changelogs.BUILDER_BYTES,
        table_standby_replicas=0,
        stream_wait_empty=True,
        web_host=settings.web_host,
        web_port=settings.web_port or USUAL_PORT,
    )
    # The worker's API has a server of its own; Faust's command would start its own whatever the settings say.
    app.boot_strategy.enable_web = False
    return app


def _clear_old_tables(app: faust.App, settings: Settings) -> None:
    """Removes tables of other generations: nothing reads them again, and the journals hold all that they held."""
    for old in Path(app.conf.datadir).glob("v*"):
        if old != Path(app.conf.appdir):
            log.warning(
                "tables of another generation are removed; every journal is folded anew",
                found=old.name,
                wanted=f"v{settings.registry.generation}",
                where=str(old),
            )
            shutil.rmtree(old, ignore_errors=True)


def build_app(settings: Settings) -> faust.App:
    """A site's app with everything hung on it. Nothing is opened or asked before it starts as a worker."""
    process.configure_logs()
    worker = SiteWorker(settings)
    app = worker.app
    app.before_start = worker.open
    app.on_partitions_assigned.connect(worker.assignment.on_assigned, weak=False)
    app.on_rebalance_complete.connect(worker.assignment.on_recovered, weak=False)

    async def begin() -> None:
        if not app.is_worker:
            return
        try:
            await worker.start()
        except Transfer2goError as error:
            _give_up(error)
        await asyncio.gather(worker.run_clock(), worker.run_announcements(), worker.guard.tick())

    async def end(_app: faust.App, **_: object) -> None:
        if app.is_worker:
            await asyncio.to_thread(worker.stop)

    app.task(begin)
    app.on_before_shutdown.connect(end, weak=False)
    return app
