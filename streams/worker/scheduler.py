"""When rows are asked what they owe, and what keeps a command from being carried out twice at once.

After each turn its row is asked; what is due goes to effects, the rest to a heap of due times. What was carried out and
not yet heard back is not carried out again for `settle_s`. After an assignment a partition is asleep: its facts are
folded, nothing is asked, until it has caught up with the offsets noted at the assignment; then every open row falls
due.

Asking goes in slices: once SLICE_S of one have passed no further row or command is begun, and what is left is due at
the next. So the event loop gets its turn however much is open.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from streams.core import commands as c
from streams.core import records as m
from streams.core.channel import DOOR, LOG, NO_TOOLS, RELAY, TOOL, Channel, tool_of
from streams.core.credit import Credit
from streams.core.door_rests import DoorRests
from streams.core.intent import IntentRow
from streams.core.manifest import ManifestIndex
from streams.core.names import IntentId, ManifestId, Site
from streams.core.owed import open_part, owed_intent, owed_transfer, report, waits_for
from streams.core.policy import Policy
from streams.core.ranges import EMPTY, Ranges
from streams.core.sources import relays_of
from streams.core.topics import partition_of
from streams.core.transfer import State, TransferRow
from streams.worker.admission import Admission

RowKey = IntentId | ManifestId
"""What a row is kept under; its type says which kind of row it is."""
SLICE_S = 0.02
"""Of the event loop, in one go: what else runs on it (heartbeats, fetches, other records) waits no longer."""
RETRY_MS = 200
"""What effects could not take (a full buffer) is offered again after this."""
IDLE_MS = 5_000
"""An open transfer is asked at least this often, whatever it waits for."""
OPEN_SETTLE_MS = 10_000
"""Opening may read files back, and each order carries the manifest: a plane that has it need not be told soon again."""
RECORD_SETTLE_MS = 30_000
"""A record for this site's log is on its way as long as the publisher keeps trying, and what it gives up is owed again
at once. Said again because a busy loop had not heard it within 2 s, records made the loop busier (seen: of 300 intents
at once each was planned twice and asked for three times)."""
REPORTS_A_SECOND = 20
"""Of all open transfers together: each is a record at every site, and costs two of them 2 ms of a core. Up to 40 report
every `policy.report_s`."""
SENT_REMEMBERED = 20_000


Doing = Callable[[c.Command], bool]
"""Carries a command out without waiting; False when it cannot be taken now."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A command that was carried out: when, and whose row owes it."""

    at_ms: int
    partition: int
    key: RowKey


@dataclass
class _Partition:
    """What a worker remembers of a partition it owns; all of it can be read off the rows again."""

    awake: bool = False
    due: list[tuple[int, RowKey]] = field(default_factory=list)
    at: dict[RowKey, int] = field(default_factory=dict)
    """Key of a row → its entry in `due` that counts."""


class Scheduler:
    """Due times, settling, credit and reports of the partitions a worker owns."""

    def __init__(
        self,
        here: Site,
        policy: Policy,
        partitions: int,
        do: Doing,
        now_ms: Callable[[], int],
        elapsed_s: Callable[[], float] = time.monotonic,
        keeps: Callable[[ManifestId, int], bool] = lambda manifest, decision_no: False,
        doors: Callable[[], Collection[Site]] = tuple,
        link_rates: Mapping[Site, int] | None = None,
        tools: Mapping[Site, str] = NO_TOOLS,
        opening: Callable[[ManifestId], str] = lambda manifest: "",
    ) -> None:
        """`keeps`: whether an open transfer's row, under this decision or a later one, and its body stand in this
        worker's tables. `doors`: the sites that have an open door. `link_rates`: bytes a second from their doors.
        `tools`: those on this site's links. `opening`: what the parts of a transfer wait for.
        """
        self.here, self.policy, self.partitions = here, policy, partitions
        self.do, self.now_ms, self._elapsed_s, self._keeps, self._doors = do, now_ms, elapsed_s, keeps, doors
        self.owned: dict[int, _Partition] = {}
        self.admission = Admission()
        self._tools, self._opening = tools, opening
        credit_bytes = {LOG: policy.credit_bytes, DOOR: policy.door_credit_bytes, TOOL: policy.door_credit_bytes}
        self.credit = Credit(credit_bytes, int(policy.lease_s * 1000), partitions, link_rates)
        self.door_rests = DoorRests(policy)
        self.soon = asyncio.Event()
        """Set when something falls due before `looks_at_ms`."""
        self.looks_at_ms = 0
        """When whoever waits for `soon` looks again by himself; what is due at once is due before it."""
        self.asked: dict[ManifestId, int] = {}
        """Since when the oldest open request of a transfer waits."""
        self._slice_end_s = 0.0
        self._sent: OrderedDict[tuple[object, ...], _Sent] = OrderedDict()
        """By command, the oldest first."""
        self._unheard: dict[ManifestId, dict[Site, c.RequestChunks]] = {}
        """Requests sent and perhaps not folded yet: they use credit already."""
        self._to_grant: dict[Channel, None] = {}
        """Channels in which somebody may be granted a request."""
        self._replan: dict[IntentId, Ranges | None] = {}
        """Manifests whose transfers are planned again, after an assignment, until they answer; None: all open ones."""
        self._reported: dict[ManifestId, tuple[int, m.TransferReported]] = {}

    # partitions

    def own(self, partition: int) -> None:
        """A partition was assigned: asleep until `wake`."""
        self.owned[partition] = _Partition()

    def drop(self, partition: int) -> None:
        """A partition went to another worker: forget what was remembered of it."""
        self.owned.pop(partition, None)
        self.credit.drop(partition)
        self._to_grant = {channel: None for channel in self._to_grant if channel.key != partition}
        self._replan = {i: left for i, left in self._replan.items() if self.partition(i) != partition}
        self._ask_soon(self.admission.drop(lambda manifest: self.partition(manifest) == partition))
        for known in (self._reported, self._unheard, self.asked):
            for manifest in [manifest for manifest in known if self.partition(manifest) == partition]:
                del known[manifest]

    def wake(self, partition: int) -> None:
        """The partition has caught up: what fell due while it slept is asked now."""
        self.owned[partition].awake = True
        self.soon.set()

    def is_awake(self, partition: int) -> bool:
        return partition in self.owned and self.owned[partition].awake

    def fall_due(self, partition: int, key: RowKey) -> None:
        """The row is asked as soon as its partition is awake."""
        self._at(partition, key, self.now_ms())

    def replan(self, partition: int, intent: IntentId) -> None:
        """The intent is asked as soon as its partition is awake, and plans its open transfers again."""
        self._replan[intent] = None
        self.fall_due(partition, intent)

    def answered(self, manifest: ManifestId) -> None:
        """The transfer said how it stands: it need not be planned again."""
        left = self._replan.get(manifest.intent)
        if left is not None:
            self._replan[manifest.intent] = left - Ranges.of(manifest.no)

    def partition(self, key: RowKey) -> int:
        return partition_of(key, self.partitions)

    def plane_restarted(self) -> None:
        """Every open row is due at once: its part is open nowhere."""
        self.admission.clear()
        for command_id in [k for k in self._sent if k[0] in ("open", "stop", "fail", "write", "serve", "bring")]:
            del self._sent[command_id]
        now = self.now_ms()
        for number, partition in self.owned.items():
            for key in list(partition.at):
                self._at(number, key, now)

    # slices

    def begin_slice(self) -> None:
        self._slice_end_s = self._elapsed_s() + SLICE_S

    @property
    def slice_is_over(self) -> bool:
        return self._elapsed_s() >= self._slice_end_s

    def next_due(self) -> tuple[int, RowKey] | None:
        """(partition, row key) of the row that fell due first, to be asked again; None when there is none."""
        now = self.now_ms()
        while due := [(p.due[0][0], number) for number, p in self.owned.items() if p.awake and p.due]:
            at, number = min(due)
            if at > now:
                return None
            partition = self.owned[number]
            _, key = heapq.heappop(partition.due)
            if partition.at.get(key) == at:
                del partition.at[key]
                return number, key
        return None

    def put_off(self, partition: int, key: RowKey) -> None:
        """The row could not be asked: it is again, later."""
        self._at(partition, key, self.now_ms() + IDLE_MS)

    def next_due_ms(self) -> int | None:
        if self._to_grant:
            return self.now_ms()
        return min((p.due[0][0] for p in self.owned.values() if p.awake and p.due), default=None)

    # asking

    def ask_intent(self, partition: int, row: IntentRow) -> None:
        """Carries out what the intent owes now; the rest is asked for when due."""
        if not self.is_awake(partition):
            return
        replan = EMPTY
        if row.intent in self._replan:
            left, open_now = self._replan[row.intent], row.told_of(row.chain.source_no)
            replan = self._replan[row.intent] = self._not_kept(row, open_now) if left is None else left & open_now
            if not replan:
                del self._replan[row.intent]
        self._carry_out(partition, row.intent, owed_intent(row, self.here, self.policy, replan=replan))

    def _not_kept(self, row: IntentRow, open_now: Ranges) -> Ranges:
        """Of open transfers those whose rows this worker does not have: another's, or lost. A plan is 200 KB."""
        if not row.accepted:
            return open_now
        names = {no: ManifestId.of(row.intent, row.chain.source_no, no) for no in open_now.numbers()}
        own = {no: name for no, name in names.items() if self.partition(name) in self.owned}
        return open_now - Ranges((no, no + 1) for no, name in own.items() if self._keeps(name, row.decision_no))

    def ask_transfer(self, partition: int, row: TransferRow, index: ManifestIndex | None) -> None:
        """Carries out what the transfer owes now; its requests take their place in their channels' queues."""
        self.note_credit(row, index)
        if not self.is_awake(partition):
            if row.state is not State.CLOSED:
                self.fall_due(partition, row.manifest)
            return
        part_here = row.manifest in self.admission.opened
        owed = owed_transfer(
            row,
            index,
            self.here,
            self.policy,
            part_here=part_here,
            now_ms=self.now_ms(),
            rests=self.door_rests,
            doors=self._doors(),
            tools=self._tools,
        )
        requests = [o for o in owed if isinstance(o.command, c.RequestChunks)]
        others = [o for o in owed if not isinstance(o.command, c.RequestChunks) and self._has_room(row, o, partition)]
        if any(isinstance(o.command, c.FailItems) and self._was_in_vain(o.command) for o in others):
            self.doubt_part(row)
        self._carry_out(partition, row.manifest, others)
        self._want(partition, row.manifest, requests)
        if row.state is not State.CLOSED:
            self._at(partition, row.manifest, self.now_ms() + IDLE_MS)
        self.grant()  # before the report, which says whether it waits for credit
        self._report_changes(partition, row, index)

    def _has_room(self, row: TransferRow, owed: c.Owed, partition: int) -> bool:
        return not isinstance(owed.command, c.OpenPart) or self.admission.may_hold(row.manifest, row.items, partition)

    def _want(self, partition: int, manifest: ManifestId, owed: list[c.Owed]) -> None:
        now, wanted = self.now_ms(), dict[tuple[object, ...], c.RequestChunks]()
        for o in owed:
            assert isinstance(o.command, c.RequestChunks)
            if o.due_ms > now:
                self._at(partition, manifest, o.due_ms)
            elif o.command.id not in wanted and self._settled(partition, manifest, o.command):
                wanted[o.command.id] = o.command
        self._to_grant |= dict.fromkeys(self.credit.want(manifest, wanted.values()))

    def grant(self) -> None:
        """Sends requests that have credit, from the queues of those channels where there may be room."""
        first = True  # or a turn that took long would have its request wait for the next tick
        while self._to_grant and (first or not self.slice_is_over):
            first = False
            channel = next(iter(self._to_grant))
            request = self.credit.next(channel) if self.is_awake(channel.key) else None
            if request is None or not self._do(channel.key, request.manifest, request):
                del self._to_grant[channel]
                continue
            self.credit.grant(request)
            self._unheard.setdefault(request.manifest, {})[request.source] = request
        if self._to_grant:
            self.soon.set()

    def answer(self, row: TransferRow, index: ManifestIndex | None, decision_no: int) -> None:
        """Says the transfer's state, or its last word, at once: a plan or decision was heard, perhaps again."""
        if row.completion is not None:
            self.do(c.RepeatCompletion(row.completion))
            return
        said = self._state_of(row, index, decision_no)
        if self.do(c.ReportTransfer(said)):
            self._reported[row.manifest] = (self.now_ms(), said)

    def doubt_part(self, row: TransferRow) -> None:
        """Nothing came for a lease, or items that are to fail do not. Maybe the plane has the part no more, and what it
        said of that was dropped while the broker was away: told to open it again, it says how it is."""
        if row.state is State.ACTIVE and row.manifest in self.admission.opened:
            self.do(open_part(row, again=True))

    def closed(self, manifest: ManifestId) -> None:
        """The transfer is over."""
        self._ask_soon(self.admission.ended(manifest))
        self.asked.pop(manifest, None)
        self._reported.pop(manifest, None)
        self._unheard.pop(manifest, None)
        self._to_grant |= dict.fromkeys(self.credit.forget(manifest, self.now_ms()))
        owned = self.owned.get(self.partition(manifest))
        if owned is not None:
            owned.at.pop(manifest, None)
        self.grant()

    def note_waiting(self, row: TransferRow, index: ManifestIndex | None) -> None:
        """Its plane tells of it: while a relay has nothing yet, or a tool works, that is all that can be told."""
        for site in relays_of(row, index) if index is not None else ():
            self.credit.note_waiting(self.credit.channel(site, DOOR, row.manifest), row.manifest, self.now_ms())
        self.note_tools(row)

    def note_tools(self, row: TransferRow) -> None:
        """What tools are to bring of a transfer is under way, or told to a plane at once: its leases count from now."""
        for source in row.sources:
            for plane in {o.plane for o in source.outstanding if tool_of(o.plane) is not None}:
                channel = self.credit.channel(source.source, plane, row.manifest)
                self.credit.note_waiting(channel, row.manifest, self.now_ms())

    def part_gone(self, manifest: ManifestId) -> None:
        """The plane holds the part no more: there is room for others."""
        self._ask_soon(self.admission.gone(manifest))

    def note_credit(self, row: TransferRow, index: ManifestIndex | None) -> None:
        """Takes in what the row has outstanding."""
        manifest, unit = row.manifest, index.unit_bytes if index is not None else 1
        held = dict.fromkeys(self.credit.channels(manifest), (0, 0))

        def add(source: Site, plane: str, size: int, items: int) -> None:
            channel = self.credit.channel(source, plane, manifest)
            size_before, items_before = held.get(channel, (0, 0))
            held[channel] = size_before + size, items_before + items

        for source in row.sources:
            if source.door_failures:
                relay = index is not None and source.source in relays_of(row, index)
                way = RELAY if relay else DOOR
                self.door_rests.note(source.source, source.door_failed_at_ms, row.manifest, way=way)
            if source.tool_failures:
                self.door_rests.note(source.source, source.tool_failed_at_ms, row.manifest, way=TOOL)
            for asked in source.outstanding:
                to_come = asked.to_come(index) - row.verified if index is not None else asked.ranges
                items = index.line.count_in(to_come) if index is not None else 1
                add(source.source, asked.plane, unit * to_come.size, items)
        until = [o.until_ms for s in row.sources for o in s.outstanding]
        if until:
            self.asked[manifest] = min(until) - int(self.policy.lease_s * 1000)
        else:
            self.asked.pop(manifest, None)
        unheard = self._unheard.get(manifest, {})
        for asked_of, request in list(unheard.items()):
            if not self._is_settling(request) or request.request_no <= row.source_row(asked_of).requested:
                del unheard[asked_of]
            else:
                add(asked_of, request.plane, request.bytes, request.items)
        if not unheard:
            self._unheard.pop(manifest, None)
        lapsed = self.credit.lapsed(manifest, sum(source.lapsed.size for source in row.sources))
        for channel, (size, count) in held.items():
            made = self.credit.note(channel, manifest, size, count, self.now_ms(), lapsed=lapsed)
            self._to_grant |= dict.fromkeys(made)

    # carrying out

    def _is_settling(self, command: c.Command) -> bool:
        sent = self._sent.get(command.id)
        return sent is not None and sent.at_ms + self._settle_ms(command) > self.now_ms()

    def _was_in_vain(self, command: c.Command) -> bool:
        """Whether it was sent, and is owed still after its time."""
        return command.id in self._sent and not self._is_settling(command)

    def _settled(self, partition: int, key: RowKey, command: c.Command) -> bool:
        if not self._is_settling(command):
            return True
        self._at(partition, key, self._sent[command.id].at_ms + self._settle_ms(command))
        return False

    def _settle_ms(self, command: c.Command) -> int:
        if isinstance(command, c.OpenPart):
            return OPEN_SETTLE_MS
        if isinstance(command, c.Published):
            return RECORD_SETTLE_MS
        looks = isinstance(command, c.WriteManifests) and command.looks
        return int((self.policy.renew_s if looks else self.policy.settle_s) * 1000)

    def _carry_out(self, partition: int, key: RowKey, owed: list[c.Owed]) -> None:
        """What the slice leaves no time for is owed by the row still, which is due again at once.

        One command is carried out all the same, or a row that takes long to read would never come to any.
        """
        now, begun = self.now_ms(), False
        for o in owed:
            lease = isinstance(o.command, c.ExpireLease)
            due_ms = self.credit.lease_end(o.command, o.due_ms) if lease else o.due_ms  # type: ignore[arg-type]
            if due_ms > now:
                self._at(partition, key, due_ms)
            elif self._settled(partition, key, o.command):
                if begun and self.slice_is_over:
                    self._at(partition, key, now)
                    return
                self._do(partition, key, o.command)
                begun = True

    def lost(self, command: c.Command) -> None:
        """What was sent for a command did not reach the log: it is owed again now."""
        if isinstance(command, c.ReportTransfer):
            manifest = command.report.manifest
            self._reported.pop(manifest, None)
            self.fall_due(self.partition(manifest), manifest)
        elif (sent := self._sent.pop(command.id, None)) is not None:
            self.fall_due(sent.partition, sent.key)

    def _do(self, partition: int, key: RowKey, command: c.Command) -> bool:
        now = self.now_ms()
        if self.do(command):
            self._sent[command.id] = _Sent(now, partition, key)
            self._sent.move_to_end(command.id)
            self._at(partition, key, now + self._settle_ms(command))
            if len(self._sent) > SENT_REMEMBERED:
                self._sent.popitem(last=False)
            return True
        self._at(partition, key, now + RETRY_MS)
        return False

    def _report_changes(self, partition: int, row: TransferRow, index: ManifestIndex | None) -> None:
        known = self._reported.get(row.manifest)
        if row.state in (State.NEW, State.COMPLETE, State.CLOSING, State.CLOSED):
            return
        now, every_ms = self.now_ms(), int(max(self.policy.report_s, len(self._reported) / REPORTS_A_SECOND) * 1000)
        if known is not None and known[0] + every_ms > now:
            self._at(partition, row.manifest, known[0] + every_ms)  # whether it changed is found out then
            return
        said = self._state_of(row, index, row.decision_no)
        if known is not None and known[1] == said:
            return
        if self.do(c.ReportTransfer(said)):
            self._reported[row.manifest] = (now, said)

    def _state_of(self, row: TransferRow, index: ManifestIndex | None, decision_no: int) -> m.TransferReported:
        part_here = row.manifest in self.admission.opened
        granted, opening = not self.credit.waits(row.manifest), self._opening(row.manifest)
        words = waits_for(row, part_here=part_here, granted=granted, opening=opening)
        return report(row, index, self.here, decision_no, words)

    def _ask_soon(self, rows: list[tuple[int, ManifestId]]) -> None:
        for partition, key in rows:
            self.fall_due(partition, key)

    def _at(self, partition: int, key: RowKey, at_ms: int) -> None:
        owned = self.owned.get(partition)
        if owned is None or owned.at.get(key, at_ms + 1) <= at_ms:
            return
        owned.at[key] = at_ms
        heapq.heappush(owned.due, (at_ms, key))
        if owned.awake and (at_ms < self.looks_at_ms or at_ms <= self.now_ms()):
            self.soon.set()
