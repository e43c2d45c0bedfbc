"""A worker's consumer: Faust's, which hears every record of its partitions or stops; deliveries.py has the bookkeeping.

an offset was set while a fetch was under way: its records were taken for new ones, older ones were dropped behind
them, and the commit passed those                → a fetch knows at which position it was taken; nothing is dropped
records delivered before the flow resumed were cleared from their queues  → a flow that runs is not resumed again
the position stayed where nothing is committed                            → it is set to the first record there
the end of one recovery resumed streams in the next rebalance             → no generation holds between two
a commit passes one hole of those that transactions leave (a mirror's: one a batch), and none where two follow
offset 0: offsets lagged by minutes         → what is fetched and open is asked, not what is missing
a commit refused behind a rebalance counted as made: what was delivered again was heard and never committed
                                            → what the broker took counts, and that only
a stream written in Python acknowledges what it passes by unheard         → what no stream tracked is not
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Awaitable, Coroutine, Generator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP, Message
from mode.utils.queues import FlowControlEvent

from agents import membership
from agents.deliveries import Deliveries
from agents.process import die

NO_GENERATION = -1
LOST_S = 10.0
"""How long a record may be open behind acknowledged ones: it reached no stream, and only a start delivers it again."""


BEGIN_MS, USUAL_MS, IDLE_MS = 500, 1500, 5000
"""How long the broker may keep a fetch that finds nothing; what comes is answered at once. A position that is set
meanwhile waits for the answer: so they are short while a worker begins. Each names every partition, which costs both
sides some milliseconds: so they are long while nothing comes."""
BEGIN_S, QUIET_S = 20.0, 30.0
"""Since positions were set, and since a record was heard."""
BUSY_RECORDS, FLOOD_RECORDS, HALF_S = 60.0, 2000.0, 0.25
PACE_S, PACE_MAX_S = 0.000125, 0.05
"""A fetch follows one that brought records later while many come: PACE_S for each that came lately, which are counted
with a weight that halves each HALF_S. 200 a second make it 9 ms, 1,000 make it 45. Asked for at once, each record has a
fetch of its own, which names every partition. What comes one by one, as the facts of a lone intent do, is asked for at
once; so is what comes by thousands, as a changelog that is read again: no fetch would be spared."""


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Where positions are set and records fetched, each in one step: none comes between the parts of another."""

    position_no = 0
    """How often positions were set, by an assignment or a seek."""
    _positioned_s = _heard_s = float("-inf")
    _recent, _counted_s = 0.0, float("-inf")

    def _positioned(self) -> None:
        self.position_no += 1
        self._positioned_s = time.monotonic()

    async def on_start(self) -> None:
        await super().on_start()
        self._pace(self._ensure_consumer()._fetcher)
        if not self.app.client_only:
            await membership.succeed(self._datadir, self._ensure_consumer()._coordinator)

    @property
    def _datadir(self) -> Path:
        return Path(self.app.conf.datadir)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._positioned()
        membership.note(self._datadir, self._ensure_consumer()._coordinator)
        await super().on_partitions_assigned(assigned, generation_id)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Sets the position of every partition of streams, all at once: to what is committed, else to the beginning."""
        found: Mapping[TP, int] = await self.call_thread(self._seek_to_committed)
        return found

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        places = [tp for tp in consumer.assignment() if not self.consumer._is_changelog_tp(tp)]
        committed = await consumer._coordinator.fetch_committed_offsets(places)
        offsets = {tp: found.offset for tp, found in committed.items() if found.offset >= 0}
        fresh = [tp for tp in places if tp not in offsets]
        begins = await consumer.beginning_offsets(fresh) if fresh else {}
        for tp, offset in {**begins, **offsets}.items():
            consumer.seek(tp, offset)
        self._positioned()
        return offsets

    async def _fetch_records(self, consumer: Any, *args: Any, **options: Any) -> tuple[Any, int]:
        records = await super()._fetch_records(consumer, *args, **options)
        now_s = time.monotonic()
        consumer._fetcher._fetch_max_wait_ms = self._wait_ms(bool(records), now_s)
        self._recent = self._still_counted(now_s) + sum(map(len, records.values()))
        self._counted_s = now_s
        return records, self.position_no

    def _still_counted(self, now_s: float) -> float:
        """Records heard lately."""
        return self._recent * math.pow(0.5, (now_s - self._counted_s) / HALF_S)

    def _pace(self, fetcher: Any) -> None:
        fetch = fetcher._proc_fetch_request

        async def paced(*args: Any) -> bool:
            found: bool = await fetch(*args)
            recent = self._still_counted(time.monotonic())
            if found and BUSY_RECORDS <= recent < FLOOD_RECORDS:
                for waiter in fetcher._fetch_waiters:  # what came is delivered meanwhile
                    fetcher._notify(waiter)
                await asyncio.sleep(min(PACE_MAX_S, PACE_S * recent))
            return found

        fetcher._proc_fetch_request = paced

    def _wait_ms(self, heard: bool, now_s: float) -> int:
        """What the next fetch may wait."""
        if heard:
            self._heard_s = now_s
        if now_s - self._positioned_s < BEGIN_S:
            return BEGIN_MS
        return USUAL_MS if now_s - max(self._positioned_s, self._heard_s) < QUIET_S else IDLE_MS


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Every record that it fetched is acknowledged by its stream, or delivered again after a rebalance or a start."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.deliveries = Deliveries()
        self.fetches = self._committing_at = 0
        self._read_offset = _NeverRead()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def unheard(self, tp: TP) -> list[int]:
        """Offsets of what was fetched of a partition and is not acknowledged."""
        self._settle()
        return self.deliveries.unheard(tp)

    # positions

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._settle()  # Faust forgets what is acknowledged, and commits once more
        self.app.consumer_generation_id = NO_GENERATION
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._begin(self._thread.position_no)
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        await self.seek_to_committed()
        self._begin(self._thread.position_no)

    def _begin(self, position_no: int) -> None:
        """What was fetched before the position was set counts no more. A fetch may tell it before who set it does."""
        if position_no > self.deliveries.position_no:
            for known in (self._acked, self._acked_index, self._committed_offset):
                known.clear()
            self.deliveries.begin(position_no)

    # records

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Any]]:
        # Called when all that the call before brought is delivered.
        self.fetches += 1
        fetched = await super()._getmany(active_partitions, timeout)
        records, position_no = fetched or ({}, self.deliveries.position_no)
        self._begin(position_no)
        fresh = {}
        for tp, batch in records.items():
            if not self.app.topics.acks_enabled_for(tp.topic):
                fresh[tp] = batch
            elif position_no == self.deliveries.position_no:  # else it comes again, from the position set since
                self.deliveries.fetched(tp, (record.offset for record in batch))
                fresh[tp] = batch
        return fresh

    def ack(self, message: Message) -> bool:
        """Of what no stream tracked nothing is acknowledged: it was passed by, in a rebalance, and comes again."""
        return bool(message.tracked and super().ack(message))

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets that were never fetched hold nothing up."""

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:
        """As a service's. Faust makes four tasks to hand a record over, so that one which waits ends with the flow:
        what can be handed over at once needs none of them.
        """
        first, *others = coros
        if timeout is not None or not all(map(inspect.iscoroutine, coros)):
            return await super().wait_first(*coros, timeout=timeout)
        begun: _Begun | None = None
        try:
            begun = _Begun(first)
        finally:
            if begun is None or begun.done:
                for other in others:
                    other.close()
        return None if begun.done else await super().wait_first(begun, *others)

    async def verify_all_partitions_active(self) -> None:
        """Faust's look for lagging streams, a third of an idle worker: what reached none is found at each commit."""

    # commits

    def _settle(self) -> None:
        """Takes over what streams acknowledged: they write it where Faust's consumer would look for it."""
        for tp, offsets in self._acked.items():
            self.deliveries.acknowledged(tp, offsets)
        self._acked.clear()
        self._acked_index.clear()

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        self._settle()
        lost = self.deliveries.lost(time.monotonic(), LOST_S)
        if lost:
            (topic, partition), offset = next(iter(lost.items()))
            what = "a record reached no stream; nothing behind it is committed"
            die(what, topic=topic, partition=partition, offset=offset, partitions=len(lost))
        return (tp for tp in self.deliveries.places if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self.deliveries.committable(tp)

    async def _commit_tps(self, tps: Iterable[TP], start_new_transaction: bool) -> bool:
        self._committing_at = self.deliveries.position_no  # one commit at a time
        return bool(await super()._commit_tps(tps, start_new_transaction))

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        """Commits; counts as committed what the broker took, and that only, if the position is the same still.

        What it refuses is of a generation that is over: the next one delivers it again.
        """
        assigned = self.assignment()
        taken = {tp: offset for tp, offset in offsets.items() if tp in assigned}
        if not taken:
            return False
        await self.app.producer.flush()
        if not await self._commit(taken):
            return False
        self.app.tables.on_commit(taken)
        if self._committing_at == self.deliveries.position_no:
            self._committed_offset.update(taken)
        self.app.monitor.on_tp_commit(taken)
        return True


class _Begun(Awaitable[None]):
    """A coroutine that has run up to where it waits for something the first time; awaited, it goes on there."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine, self.done = coroutine, False
        try:
            self._waits_for = coroutine.send(None)
        except StopIteration:
            self.done = True

    def __await__(self) -> Generator[Any, Any, None]:
        while True:
            try:
                answer = yield self._waits_for
            except BaseException as error:  # noqa: BLE001  also that it is cancelled
                step = partial(self._coroutine.throw, error)
            else:
                step = partial(self._coroutine.send, answer)
            try:
                self._waits_for = step()
            except StopIteration:
                return


class _NeverRead(dict[TP, int | None]):
    """Where Faust looks up to where a partition was delivered, to drop what lies before: nowhere."""

    def __getitem__(self, tp: TP) -> None:
        return None


_resume = FlowControlEvent.resume


def _resume_once(self: FlowControlEvent) -> None:
    if not self.is_active():
        _resume(self)


def install() -> None:
    driver.Transport.Consumer = Consumer
    FlowControlEvent.resume = _resume_once
