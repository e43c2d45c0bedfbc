"""Who may ask next: credit, queues and leases of the channels by which payload comes. Pure; times are arguments.

Credit bounds the bytes asked for and not verified on a channel (channel.py): a payload partition keeps only five times
that. Requests that find no room wait in their channel's queue, in memory, and are granted from it in its order whenever
room is made, whoever made it: who is asked together with whom plays no part.

Where a lease ended and nothing has come since, the bytes are lost, or stand behind a mirror that stands still: nobody
can say. Asking for them again would send them a second time behind the first, and once more each lease. So until
something comes, one small request a lease is made there, a probe. It asks for the last of the bytes that are missing:
a partition keeps its order, so whatever was sent before has arrived when they have.

Beside bytes, the items asked of a source are bounded: a small file takes a millisecond at the source and another where
it lands, whatever its size, and what is asked later waits for all that was asked before. A request of few items of an
intent that has none outstanding at the source goes all the same.

The order: the higher priority first; among equals the intent with the fewest items outstanding at the source, so that
a single file need not wait for a million; then the transfer with the least outstanding; among these the one that waits
longest: without the last, two transfers that answer quickly would keep a third waiting to their end. A request that
finds no room in its channel stays first there: else small requests would keep a large one waiting to their end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from streams.core.channel import DOOR, LOG, TOOL, Channel, carrier_of, channel_of
from streams.core.commands import ExpireLease, RequestChunks
from streams.core.names import IntentId, ManifestId, Site
from streams.core.policy import LEASES_MAX

ITEMS_MAX = 2_500
"""Asked of a source and not verified, by one worker: two full manifests and the next, some seconds of tiny files."""
FEW_ITEMS = 64
PROBE_BYTES = 256 * 1024


@dataclass(slots=True)
class _Waiting:
    request: RequestChunks
    intent: IntentId
    place: int
    """In the queue: kept while the transfer's request changes, given up when it is granted."""


@dataclass(slots=True)
class _Items:
    """What is asked of a source, in items."""

    outstanding: dict[tuple[ManifestId, str], int] = field(default_factory=dict)
    """By transfer and carrier."""
    by_intent: dict[IntentId, int] = field(default_factory=dict)
    used: int = 0
    full: bool = False
    """Somebody waits until there are fewer."""

    def note(self, manifest: ManifestId, carrier: str, count: int) -> None:
        more = count - self.outstanding.pop((manifest, carrier), 0)
        if count:
            self.outstanding[manifest, carrier] = count
        self.used += more
        intent = manifest.intent
        of_intent = self.by_intent.pop(intent, 0) + more
        if of_intent:
            self.by_intent[intent] = of_intent


@dataclass(slots=True)
class _Use:
    """What is known of a channel."""

    outstanding: dict[ManifestId, int] = field(default_factory=dict)
    """Bytes, of transfers that have some."""
    used: int = 0
    queue: dict[ManifestId, _Waiting] = field(default_factory=dict)
    moved_ms: int = 0
    """When payload was last verified: what else was asked of the channel is on its way, behind that."""
    moved_of: dict[ManifestId, int] = field(default_factory=dict)
    """The same, of each transfer that has something outstanding."""
    waits_of: dict[ManifestId, int] = field(default_factory=dict)
    """When it was last heard that a transfer's source waits itself."""
    stalled: bool = False
    """A lease ended, and all that was asked since has not come."""


def _cut(request: RequestChunks, bytes_max: int) -> RequestChunks:
    """The same request, for its first bytes alone: one unit at least."""
    units = request.ranges.size
    few = max(1, bytes_max * units // max(1, request.bytes))
    if few >= units:
        return request
    return replace(request, ranges=request.ranges.first(few), bytes=max(1, request.bytes * few // units))


def _probe(request: RequestChunks) -> RequestChunks:
    """The same request, for its last bytes alone."""
    units = request.ranges.size
    few = max(1, PROBE_BYTES * units // max(1, request.bytes))
    if few >= units:
        return request
    return replace(
        request, ranges=request.ranges - request.ranges.first(units - few), bytes=request.bytes * few // units
    )


class Credit:
    """The channels of the partitions a worker owns. One request a transfer and channel waits at a time."""

    def __init__(
        self,
        credit_bytes: Mapping[str, int],
        lease_ms: int,
        partitions: int,
        rates: Mapping[Site, int] | None = None,
    ) -> None:
        """`credit_bytes`: of a channel, by its carrier. `rates`: bytes a second from a site's doors, where bounded."""
        self.credit_bytes, self.lease_ms, self.partitions, self.rates = credit_bytes, lease_ms, partitions, rates or {}
        self._uses: dict[Channel, _Use] = {}
        self._items: dict[Site, _Items] = {}
        self._of: dict[ManifestId, set[Channel]] = {}
        """Channels in which a transfer has something outstanding or waits."""
        self._lapses: dict[ManifestId, int] = {}
        """How many requests of a transfer nobody answered, so far."""
        self._places = 0

    def channel(self, source: Site, carrier: str, manifest: ManifestId) -> Channel:
        return channel_of(source, carrier, manifest, self.partitions)

    def outstanding(self, channel: Channel) -> int:
        """Bytes asked for and not verified."""
        use = self._uses.get(channel)
        return 0 if use is None else use.used

    def waits(self, manifest: ManifestId) -> bool:
        """Whether a request of the transfer waits for room."""
        return any(manifest in self._uses[channel].queue for channel in self._of.get(manifest, ()))

    def waiting(self, channel: Channel) -> list[ManifestId]:
        """Whoever waits for room in a channel, in no particular order."""
        use = self._uses.get(channel)
        return [] if use is None else list(use.queue)

    def lapsed(self, manifest: ManifestId, lapses: int) -> bool:
        """Whether leases of a transfer ended since this was asked last, of `lapses` in all."""
        known = self._lapses.get(manifest, lapses)
        self._lapses[manifest] = lapses
        return lapses > known

    def note(
        self, channel: Channel, manifest: ManifestId, size: int, items: int, now_ms: int, *, lapsed: bool = False
    ) -> list[Channel]:
        """Takes in what a transfer has outstanding on a channel: bytes and items. `lapsed`: a lease of it ended.

        The channels in which somebody waits for the room that this made, whose turn is next first.
        """
        source = channel.source
        use = self._uses.get(channel)
        if use is None:
            if not size:
                return []
            use = self._uses[channel] = _Use()
        before = use.outstanding.pop(manifest, 0)
        use.used += size - before
        if size:
            use.outstanding[manifest] = size
            self._of.setdefault(manifest, set()).add(channel)
        else:
            self._let_go(manifest, channel, use)
        of_source = self._items.setdefault(source, _Items())
        items_before = of_source.used
        of_source.note(manifest, channel.carrier, items if size else 0)
        if size < before and lapsed:
            use.stalled = channel.carrier == LOG
        elif size < before:
            use.moved_ms = use.moved_of[manifest] = now_ms
            use.stalled &= use.used > 0
        if not size:
            use.moved_of.pop(manifest, None)
            use.waits_of.pop(manifest, None)
        if of_source.full and of_source.used < items_before:
            of_source.full = False
            return self._with_queues(source)
        return [channel] if size < before and use.queue else []

    def _with_queues(self, source: Site) -> list[Channel]:
        """Channels of a source in which somebody waits, whose turn is next first."""
        waiting = {c: self._first(c, use) for c, use in self._uses.items() if c.source == source and use.queue}
        return sorted(waiting, key=lambda channel: self._order(channel, waiting[channel]))

    def channels(self, manifest: ManifestId) -> list[Channel]:
        """Where a transfer has something outstanding, or waits."""
        return list(self._of.get(manifest, ()))

    def want(self, manifest: ManifestId, requests: Iterable[RequestChunks]) -> list[Channel]:
        """Takes in what a transfer would ask for now, in place of what it would have before; channels to grant from."""
        wanted = {self.channel(request.source, request.plane, manifest): request for request in requests}
        for channel in [c for c in self._of.get(manifest, ()) if c not in wanted]:
            use = self._uses[channel]
            use.queue.pop(manifest, None)
            self._let_go(manifest, channel, use)
        for channel, request in wanted.items():
            use = self._uses.setdefault(channel, _Use())
            known = use.queue.get(manifest)
            if known is None:
                self._places += 1
                use.queue[manifest] = _Waiting(request, manifest.intent, self._places)
                self._of.setdefault(manifest, set()).add(channel)
            else:
                known.request = request
        return list(wanted)

    def next(self, channel: Channel) -> RequestChunks | None:
        """The request that may be sent now, if there is one; `grant` it before the next.

        One larger than the whole credit may when nothing is outstanding.
        """
        use = self._uses.get(channel)
        if use is None or not use.queue:
            return None
        first = self._first(channel, use).request
        if use.stalled:
            return None if use.used else _probe(first)
        credit = self._credit(channel)
        if credit < self.credit_bytes[carrier_of(channel.carrier)]:
            first = _cut(first, credit // 2)  # two at once, so that one is on its way while the next is asked for
        if use.used and use.used + first.bytes > credit:
            return None
        return first if self._has_items(first) else None

    def _credit(self, channel: Channel) -> int:
        """Bytes. Of a bounded link what half a lease brings, in all partitions: more would lapse waiting."""
        credit, rate = self.credit_bytes[carrier_of(channel.carrier)], self.rates.get(channel.source, 0)
        if channel.carrier != DOOR or not rate:
            return credit
        return max(1, min(credit, rate * self.lease_ms // 2000 // self.partitions))

    def _first(self, channel: Channel, use: _Use) -> _Waiting:
        return min(use.queue.values(), key=lambda one: self._order(channel, one))

    def _order(self, channel: Channel, one: _Waiting) -> tuple[int, int, int, int]:
        manifest, of_source = one.request.manifest, self._items.get(channel.source)
        of_intent = 0 if of_source is None else of_source.by_intent.get(one.intent, 0)
        return -one.request.priority, of_intent, self._uses[channel].outstanding.get(manifest, 0), one.place

    def _has_items(self, request: RequestChunks) -> bool:
        """Whether its source may be asked for so many more."""
        of_source = self._items.get(request.source)
        if of_source is None or not of_source.used or of_source.used + request.items <= ITEMS_MAX:
            return True
        if request.items <= FEW_ITEMS and request.manifest.intent not in of_source.by_intent:
            return True
        of_source.full = True
        return False

    def grant(self, request: RequestChunks) -> None:
        """The request was sent: it waits no more, and uses credit."""
        channel = self.channel(request.source, request.plane, request.manifest)
        use = self._uses[channel]
        use.queue.pop(request.manifest, None)
        use.outstanding[request.manifest] = use.outstanding.get(request.manifest, 0) + request.bytes
        use.used += request.bytes
        of_source = self._items.setdefault(request.source, _Items())
        known = of_source.outstanding.get((request.manifest, request.plane), 0)
        of_source.note(request.manifest, request.plane, known + request.items)

    def forget(self, manifest: ManifestId, now_ms: int) -> list[Channel]:
        """The transfer is over: channels that got room where others wait."""
        made: list[Channel] = []
        for channel in list(self._of.get(manifest, ())):
            self._uses[channel].queue.pop(manifest, None)
            made += self.note(channel, manifest, 0, 0, now_ms)
        self._of.pop(manifest, None)
        self._lapses.pop(manifest, None)
        return made

    def drop(self, partition: int) -> None:
        """The partition went to another worker."""
        for channel in [channel for channel in self._uses if channel.key == partition]:
            use = self._uses.pop(channel)
            for manifest in use.outstanding:
                if (of_source := self._items.get(channel.source)) is not None:
                    of_source.note(manifest, channel.carrier, 0)
            for manifest in {*use.outstanding, *use.queue}:
                channels = self._of.get(manifest, set())
                channels.discard(channel)
                if not channels:
                    self._of.pop(manifest, None)
        # Also of transfers that have nothing outstanding now.
        kept = {m: n for m, n in self._lapses.items() if self.channel(m.intent.home, LOG, m).key != partition}
        self._lapses = kept

    def lease_end(self, lease: ExpireLease, until_ms: int) -> int:
        """When a request is asked again.

        Asking while a slow link still brings what was asked before would only make its queue longer.
        """
        use = self._uses.get(self.channel(lease.source, lease.plane, lease.manifest))
        if use is None:
            return until_ms
        if lease.plane != LOG:
            # Nothing stands before its bytes: it lasts while they come, however slowly, and no longer.
            moved_ms, said_ms = use.moved_of.get(lease.manifest, 0), use.waits_of.get(lease.manifest, 0)
            if carrier_of(lease.plane) != TOOL:  # a tool ends at its own time, and its plane says so
                said_ms = min(said_ms, until_ms + (LEASES_MAX - 2) * self.lease_ms)
            return max(until_ms, moved_ms + self.lease_ms, said_ms + self.lease_ms if said_ms else 0)
        moved_ms = use.moved_ms
        return max(until_ms, min(moved_ms + self.lease_ms, until_ms + (LEASES_MAX - 1) * self.lease_ms))

    def note_waiting(self, channel: Channel, manifest: ManifestId, now_ms: int) -> None:
        """Who was asked has nothing yet, and says so: its lease goes on, of a door for as many leases as by log."""
        use = self._uses.get(channel)
        if use is not None and manifest in use.outstanding:
            use.waits_of[manifest] = now_ms

    def _let_go(self, manifest: ManifestId, channel: Channel, use: _Use) -> None:
        if manifest in use.outstanding or manifest in use.queue:
            return
        channels = self._of.get(manifest)
        if channels is not None:
            channels.discard(channel)
            if not channels:
                del self._of[manifest]
