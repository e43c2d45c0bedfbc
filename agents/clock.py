"""When rows are asked what they owe, and what keeps a command from being carried out twice at once. Decides nothing.

After each turn its row is asked; what is due goes to effects, the rest to a heap of due times. What was carried out and
not yet heard back is not carried out again for `settle_s`. After an assignment a partition is asleep: its facts are
folded, nothing is asked, until it has caught up with the offsets noted at the assignment; then `wake` asks every open
row once.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from agents.holding import Holding
from streams.core import commands as c
from streams.core import messages as m
from streams.core.intent import IntentRow
from streams.core.manifest import Manifest
from streams.core.names import ManifestId, Site
from streams.core.owed import owed_intent, owed_transfer, report, waits_for
from streams.core.policy import LEASES_MAX, Policy
from streams.core.schedule import Lane, lane, schedule
from streams.core.topics import partition_of
from streams.core.transfer import State, TransferRow

_Wanted = dict[tuple[object, ...], tuple[int, c.RequestChunks, Manifest | None]]
"""Id of a request → (partition of its row, request, manifest)."""

RETRY_MS = 200
"""What effects could not take (a full buffer) is offered again after this."""
IDLE_MS = 5_000
"""An open transfer is asked at least this often, whatever it waits for."""
SENT_REMEMBERED = 20_000


class Doing(Protocol):
    """Carries a command out without waiting; False when it cannot be taken now."""

    def __call__(self, command: c.Command, manifest: Manifest | None) -> bool: ...


@dataclass
class _Partition:
    """What a worker remembers of a partition it owns; all of it can be read off the rows again."""

    awake: bool = False
    due: list[tuple[int, str]] = field(default_factory=list)
    at: dict[str, int] = field(default_factory=dict)
    """Key of a row → its entry in `due` that counts."""


class Clock:
    """Due times, settling, credit and reports of the partitions a worker owns."""

    def __init__(self, here: Site, policy: Policy, partitions: int, do: Doing, now_ms: Callable[[], int]) -> None:
        self.here, self.policy, self.partitions = here, policy, partitions
        self.do, self.now_ms = do, now_ms
        self.owned: dict[int, _Partition] = {}
        self.holding = Holding()
        self.outstanding: dict[Lane, dict[ManifestId, int]] = {}
        self.soon = asyncio.Event()
        """Set when something fell due at once."""
        self.asked: dict[ManifestId, int] = {}
        """Since when the oldest open request of a transfer waits."""
        self._moved: dict[Lane, int] = {}
        """When payload was last verified in a lane: what else was asked of it is on its way, behind that."""
        self._sent: dict[tuple[object, ...], int] = {}
        self._unheard: dict[ManifestId, dict[Site, c.RequestChunks]] = {}
        """Requests sent and perhaps not folded yet: they use credit already."""
        self._queues: dict[Lane, dict[ManifestId, int]] = {}
        """Transfers that wait for room in a lane, and since which ticket; nobody passes them by coming alone."""
        self._ticket = 0
        self._reported: dict[ManifestId, tuple[int, m.TransferReported]] = {}

    def own(self, partition: int) -> None:
        """A partition was assigned: asleep until `wake`."""
        self.owned[partition] = _Partition()

    def drop(self, partition: int) -> None:
        """A partition went to another worker: forget what was remembered of it."""
        self.owned.pop(partition, None)
        # Not only what has a due time: a partition lost while asleep has noted credit and asked nothing.
        for key in [key for key in {*self.outstanding, *self._queues} if key[1] == partition]:
            self.outstanding.pop(key, None)
            self._queues.pop(key, None)
        for manifest in self.holding.those(lambda manifest: self.partition(manifest) == partition):
            self._ask_soon(self.holding.ended(manifest))
        for known in (self._reported, self._unheard, self.asked):
            for manifest in [manifest for manifest in known if self.partition(manifest) == partition]:
                del known[manifest]

    def wake(self, partition: int) -> None:
        self.owned[partition].awake = True

    def is_awake(self, partition: int) -> bool:
        return partition in self.owned and self.owned[partition].awake

    def plane_restarted(self) -> None:
        """Every open row is due at once: its part is open nowhere."""
        self.holding.clear()
        self._sent = {k: at for k, at in self._sent.items() if k[0] not in ("open", "stop", "write", "serve")}
        for number, partition in self.owned.items():
            for key in list(partition.at):
                self._at(number, key, self.now_ms())

    def due(self) -> list[tuple[int, str]]:
        """(partition, row key) of rows that fell due; each is to be asked again."""
        now, found = self.now_ms(), []
        self.soon.clear()
        for number, partition in self.owned.items():
            while partition.due and partition.due[0][0] <= now:
                at, key = heapq.heappop(partition.due)
                if partition.at.get(key) == at:
                    del partition.at[key]
                    found.append((number, key))
        return found

    def next_due_ms(self) -> int | None:
        return min((p.due[0][0] for p in self.owned.values() if p.due), default=None)

    def ask_intent(self, partition: int, row: IntentRow, *, replan: bool = False) -> None:
        """Carries out what the intent owes now; the rest is asked for when due."""
        if self.is_awake(partition):
            self._carry_out(partition, row.intent, owed_intent(row, self.here, self.policy, replan=replan), None)

    def ask_transfers(self, asked: Iterable[tuple[int, TransferRow, Manifest | None]]) -> None:
        """Carries out what these transfers owe now; their requests compete for credit with each other."""
        wanted: _Wanted = {}
        present: set[ManifestId] = set()
        for partition, row, manifest in asked:
            self._note_credit(row, manifest)
            if not self.is_awake(partition):
                continue
            present.add(row.manifest)
            owed = owed_transfer(row, manifest, self.here, self.policy, part_here=row.manifest in self.holding.opened)
            others = [
                o
                for o in owed
                if not isinstance(o.command, c.RequestChunks)
                and not (
                    isinstance(o.command, c.OpenPart) and not self.holding.may_hold(row.manifest, row.items, partition)
                )
            ]
            self._carry_out(partition, row.manifest, others, manifest)
            for o in owed:
                if not isinstance(o.command, c.RequestChunks) or o.command.id in wanted:
                    continue
                if o.due_ms > self.now_ms():
                    self._at(partition, row.manifest, o.due_ms)
                elif self._settled(partition, row.manifest, o.command):
                    wanted[o.command.id] = (partition, o.command, manifest)
            self._report_changes(partition, row, manifest)
            if row.state is not State.CLOSED:
                self._at(partition, row.manifest, self.now_ms() + IDLE_MS)
        self._request(wanted, present)

    def answer(self, row: TransferRow, manifest: Manifest | None, decision_no: int) -> None:
        """Says the transfer's state, or its last word, at once: a plan or decision was heard, perhaps again."""
        if row.completion is not None:
            self.do(c.RepeatCompletion(row.completion), manifest)
            return
        said = self._state_of(row, manifest, decision_no)
        if self.do(c.ReportTransfer(said), manifest):
            self._reported[row.manifest] = (self.now_ms(), said)

    def closed(self, manifest: ManifestId) -> None:
        self._forget(manifest)

    def part_gone(self, manifest: ManifestId) -> None:
        """The plane holds the part no more: there is room for others."""
        self._ask_soon(self.holding.gone(manifest))

    def _ask_soon(self, rows: list[tuple[int, ManifestId]]) -> None:
        for partition, key in rows:
            self._at(partition, key, self.now_ms())

    def _settled(self, partition: int, key: str, command: c.Command) -> bool:
        sent = self._sent.get(command.id)
        settle_ms = self._settle_ms(command)
        if sent is None or sent + settle_ms <= self.now_ms():
            return True
        self._at(partition, key, sent + settle_ms)
        return False

    def _settle_ms(self, command: c.Command) -> int:
        looks = isinstance(command, c.WriteManifests) and command.looks
        return int((self.policy.renew_s if looks else self.policy.settle_s) * 1000)

    def _carry_out(self, partition: int, key: str, owed: list[c.Owed], manifest: Manifest | None) -> None:
        now = self.now_ms()
        for o in owed:
            due_ms = self._lease_end(o.command, o.due_ms) if isinstance(o.command, c.ExpireLease) else o.due_ms
            if due_ms > now:
                self._at(partition, key, due_ms)
            elif self._settled(partition, key, o.command):
                self._do(partition, key, o.command, manifest)

    def _lease_end(self, lease: c.ExpireLease, until_ms: int) -> int:
        """Asking again while a slow link still brings what was asked before would only make its queue longer."""
        lease_ms = int(self.policy.lease_s * 1000)
        moved = self._moved.get(lane(lease.source, lease.manifest, self.partitions), 0)
        return max(until_ms, min(moved + lease_ms, until_ms + (LEASES_MAX - 1) * lease_ms))

    def _do(self, partition: int, key: str, command: c.Command, manifest: Manifest | None) -> bool:
        now = self.now_ms()
        if self.do(command, manifest):
            self._sent[command.id] = now
            self._at(partition, key, now + self._settle_ms(command))
            if len(self._sent) > SENT_REMEMBERED:
                old = now - int(self.policy.settle_s * 1000)
                self._sent = {k: at for k, at in self._sent.items() if at > old}
            return True
        self._at(partition, key, now + RETRY_MS)
        return False

    def _request(self, wanted: _Wanted, present: set[ManifestId]) -> None:
        """Sends those requests that have credit; the others queue until their lane gets room. `present` were asked.

        Where others queue, nobody is served alone: a row asked after its own turn would take the room it just made
        before those who wait for it are asked. It queues, and all are asked together at the next tick.
        """
        contended = {key for key, queue in self._queues.items() if queue.keys() - present}
        due = [request for _, request, _ in wanted.values() if self._lane(request) not in contended]
        for request in schedule(due, self.outstanding, self._queues, self.policy.credit_bytes, self.partitions):
            partition, _, manifest = wanted.pop(request.id)
            if self._do(partition, request.manifest, request, manifest):
                rows = self.outstanding.setdefault(self._lane(request), {})
                rows[request.manifest] = rows.get(request.manifest, 0) + request.bytes
                self._unheard.setdefault(request.manifest, {})[request.source] = request
        queued = {(self._lane(request), request.manifest): partition for partition, request, _ in wanted.values()}
        for key, queue in self._queues.items():
            for manifest in [manifest for manifest in queue if manifest in present and (key, manifest) not in queued]:
                del queue[manifest]
        for (key, manifest), partition in queued.items():
            self._at(partition, manifest, self.now_ms() + IDLE_MS)
            self._queue(key, manifest, call=key in contended)

    def _queue(self, key: Lane, manifest: ManifestId, *, call: bool) -> None:
        queue = self._queues.setdefault(key, {})
        if manifest in queue:
            return
        self._ticket += 1
        queue[manifest] = self._ticket
        if call and sum(self.outstanding.get(key, {}).values()) < self.policy.credit_bytes:
            self._call(key)

    def _lane(self, request: c.RequestChunks) -> Lane:
        return lane(request.source, request.manifest, self.partitions)

    def partition(self, manifest: ManifestId) -> int:
        return partition_of(manifest, self.partitions)

    def _call(self, key: Lane) -> None:
        """All who queue for a lane are asked together, at once."""
        for waiting in self._queues.get(key, ()):
            self._at(key[1], waiting, self.now_ms())

    def _note_credit(self, row: TransferRow, manifest: Manifest | None) -> None:
        unit = manifest.unit_bytes if manifest is not None else 1
        held = {
            s.source: unit
            * sum(((o.to_come(manifest) if manifest else o.ranges) - row.verified).size for o in s.outstanding)
            for s in row.sources
        }
        until = [o.until_ms for s in row.sources for o in s.outstanding]
        if until:
            self.asked[row.manifest] = min(until) - int(self.policy.lease_s * 1000)
        else:
            self.asked.pop(row.manifest, None)
        unheard = self._unheard.get(row.manifest, {})
        for source, request in list(unheard.items()):
            held.setdefault(source, 0)
            settled = self._sent.get(request.id, 0) + int(self.policy.settle_s * 1000) <= self.now_ms()
            if settled or request.request_no <= row.source_row(source).requested:
                del unheard[source]
            else:
                held[source] += request.bytes
        for source, size in held.items():
            self._outstanding(lane(source, row.manifest, self.partitions), row.manifest, size)

    def _outstanding(self, key: Lane, manifest: ManifestId, size: int) -> None:
        """Notes what a row has outstanding in a lane; where the lane got room, who waits for it is asked."""
        rows = self.outstanding.setdefault(key, {})
        before = rows.pop(manifest, 0)
        if size:
            rows[manifest] = size
        if size < before:
            self._moved[key] = self.now_ms()
            self._call(key)

    def _report_changes(self, partition: int, row: TransferRow, manifest: Manifest | None) -> None:
        known = self._reported.get(row.manifest)
        if row.state in (State.NEW, State.COMPLETE, State.CLOSING, State.CLOSED):
            return
        said = self._state_of(row, manifest, row.decision_no)
        if known is not None and known[1] == said:
            return
        now, every_ms = self.now_ms(), int(self.policy.report_s * 1000)
        if known is not None and known[0] + every_ms > now:
            self._at(partition, row.manifest, known[0] + every_ms)
            return
        if self.do(c.ReportTransfer(said), manifest):
            self._reported[row.manifest] = (now, said)

    def _state_of(self, row: TransferRow, manifest: Manifest | None, decision_no: int) -> m.TransferReported:
        blocked = any(row.manifest in queue for queue in self._queues.values())
        words = waits_for(row, part_here=row.manifest in self.holding.opened, granted=not blocked)
        return report(row, manifest, self.here, decision_no, words)

    def _at(self, partition: int, key: str, at_ms: int) -> None:
        owned = self.owned.get(partition)
        if owned is None or owned.at.get(key, at_ms + 1) <= at_ms:
            return
        owned.at[key] = at_ms
        heapq.heappush(owned.due, (at_ms, key))
        if at_ms <= self.now_ms():
            self.soon.set()

    def _forget(self, manifest: ManifestId) -> None:
        self._ask_soon(self.holding.ended(manifest))
        self.asked.pop(manifest, None)
        self._reported.pop(manifest, None)
        self._unheard.pop(manifest, None)
        for queue in self._queues.values():
            queue.pop(manifest, None)
        for key in [key for key, rows in self.outstanding.items() if manifest in rows]:
            self._outstanding(key, manifest, 0)


def is_manifest(key: str) -> bool:
    """Whether a row's key is a manifest's rather than an intent's."""
    return key.count(".") == 3
