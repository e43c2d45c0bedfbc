"""The destination's side: each item of a request is fetched by the tool on the link from its source, one run an item.

A thread runs one tool at a time. What it wrote is read back in the room beside the target, compared by size and adler32
with the manifest, and only then handed over as bytes of the line, which the landing writes, syncs and seals as any.
While a tool works, or waits for a thread, it is said that the transfer waits: its lease goes on, and ends soon after
this plane does. What is wrong with one file ends its run; what is wrong with the way ends the request.
"""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Condition

from streams.core.channel import Giver, plane_in_words, tool_plane
from streams.core.names import Text, shown
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import FailureClass, Item, Message, Reason, Scope
from streams.errors import StorageError, data_bad, without_part_names
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.orders import Bring
from streams.planes.reasons import reason_of
from streams.running.command import CommandEnd, RunningCommand, is_installed
from streams.settings import Settings
from streams.settings.tools import PASSED_ON, LinkTool
from streams.storage.endpoint import READ_BYTES, Reader, Workroom

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Tools at work, of all links."""
SAID_S = 5.0
"""So often it is said that somebody waits for a tool: a few times a lease."""
LOOK_S = 0.1
LOOKS_S = (0.005, 0.01, 0.02, 0.05)
"""Before the first looks whether a tool has ended: that for a small file ends soon."""
MORE_BYTES_MAX = 16 * 1024 * 1024
"""That a tool may write beside the file, for a while."""
FAILED_MAX = 1024
"""Requests whose failure is remembered: it is said again to who has not heard it, and nothing is run again."""
_URL = re.compile(r"\S*://\S*")

_Key = tuple[str, str, int, int]


class _Gone(Exception):
    """Nobody wants the file any more."""


@dataclass(eq=False)
class _Request:
    order: Bring
    key: bytes
    items: deque[int]
    """Whose turn comes."""
    working: int = 0
    reason: Reason | None = None
    """The first failure."""
    gone: bool = False

    @property
    def name(self) -> _Key:
        return _name_of(self.order)

    @property
    def giver(self) -> Giver:
        return Giver(self.order.source, self.order.plane, self.order.request_no)


@dataclass(frozen=True, slots=True)
class _Failure:
    """`ends`: whether the request has no sense any more; else only this file."""

    reason: Reason
    ends: bool = field(default=True)


class ToolDestination:
    def __init__(self, settings: Settings, destination: DestinationPlane, publish: Callable[[Message], None]) -> None:
        self._here, self._links, self._destination = settings.here, settings.link_tools, destination
        self._wake = Condition()
        self._requests: OrderedDict[_Key, _Request] = OrderedDict()
        self._failed: OrderedDict[_Key, Reason] = OrderedDict()
        self._orders: dict[_Key, Bring] = {}
        """Told, and not looked at yet."""
        self._running = True
        destination.take_brings(self.bring)

    def threads(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield from ((f"tool-{number}", self.run) for number in range(AT_ONCE))
        yield "tools-told", self.run_telling

    def assign(self, partitions: Mapping[int, int | None]) -> None:
        """Nothing is read from the log."""

    def opened(self, key: bytes) -> None:
        """What is to be brought is told when parts are open, not before."""

    def close(self) -> None:
        with self._wake:
            self._running = False
            self._wake.notify_all()

    # orders

    def bring(self, order: Bring) -> None:
        """Take a request; told again it changes nothing. Waits for nothing: another thread looks at it."""
        with self._wake:
            if _name_of(order) not in self._requests:
                self._orders[_name_of(order)] = order
                self._wake.notify_all()

    # a working thread

    def run(self) -> None:
        """Until `close`. Nothing that a tool does can end it."""
        while (taken := self._next()) is not None:
            request, item = taken
            failure: _Failure | None = None
            try:
                failure = self._bring(request, item)
            except _Gone:
                request.gone = True
            except Exception as error:
                log.exception("%s item %d is not brought", request.order.manifest_id, item)
                text = Text(shown(f"the plane failed: {type(error).__name__}: {error}", 390))
                failure = _Failure(Reason(Scope.AGENT, FailureClass.TRANSIENT, "read", text))
            try:
                self._ended(request, failure)
            except Exception:
                log.exception("%s: that its tool failed is not told", request.order.manifest_id)

    def _next(self) -> tuple[_Request, int] | None:
        """Whose turn it is, the request that came first; waits. None at the end."""
        with self._wake:
            while self._running:
                for request in self._requests.values():
                    if request.items:
                        request.working += 1
                        return request, request.items.popleft()
                self._wake.wait()
        return None

    def _ended(self, request: _Request, failure: _Failure | None) -> None:
        with self._wake:
            request.working -= 1
            if failure is not None:
                request.reason = request.reason or failure.reason
            if request.gone or (failure is not None and failure.ends):
                request.items.clear()
            if request.items or request.working or not self._running:
                return
            del self._requests[request.name]
            reason = None if request.gone else request.reason
            if reason is not None:
                self._failed[request.name] = reason
                if len(self._failed) > FAILED_MAX:
                    self._failed.popitem(last=False)
        if reason is not None:
            self._say_failed(request, reason)

    def _say_failed(self, request: _Request, reason: Reason) -> None:
        order = request.order
        self._destination.source_failed(order.plane, request.key, order.source, order.request_no, EMPTY, reason)

    def _bring(self, request: _Request, number: int) -> _Failure | None:
        order = request.order
        item = self._destination.item(request.key, number, order.attempt)
        if item is None:
            raise _Gone
        link = self._links.get(order.source)
        if link is None or tool_plane(link.tool.name) != order.plane:
            there = plane_in_words(order.plane)
            return _Failure(self._fault(f"{self._here} has no {there} on its link from {order.source}"))
        if not is_installed(link.tool.command[0]):
            program = f"the program {link.tool.command[0]} of tool {link.tool.name} is not installed at {self._here}"
            return _Failure(self._fault(program))
        try:
            room = self._destination.workroom(request.key, number, order.attempt)
            if room is None:
                raise _Gone
            try:
                return self._run_in(room, request, number, item, link)
            finally:
                self._leave(room)
        except StorageError as error:
            error.where = item.lfn  # where this site keeps it is nobody else's business
            return _Failure(reason_of(error, "read"), ends=error.failure_class in ("transient", "auth", "quota"))

    def _leave(self, room: Workroom) -> None:
        try:
            room.close()
        except StorageError as error:
            log.warning("what a tool left stays behind: %s", error)

    def _fault(self, what: str) -> Reason:
        return Reason(Scope.DESTINATION, FailureClass.PERMANENT, "read", Text(shown(what, 390)))

    def _run_in(self, room: Workroom, request: _Request, number: int, item: Item, link: LinkTool) -> _Failure | None:
        tool, source = link.tool, link.source_of(item.lfn)
        words = {
            "source": source,
            "target": room.path,
            "bytes": str(item.bytes),
            "adler32": str(item.adler32),
            "lfn": str(item.lfn),
        }
        variables = (*PASSED_ON, *tool.environment)
        in_words = partial(_without_places, source=source, target=room.path)
        running = RunningCommand(tool.words(words), {}, timeout_s=tool.timeout_s, inherits=variables, in_words=in_words)
        try:
            end = self._until_ended(running, room, request, item)
        finally:
            running.stop()
        if end is None:
            what = f"tool {tool.name} wrote more than the {item.bytes} bytes that {item.lfn} has"
            return self._failure(FailureClass.DATA_BAD, what)
        if not end.ok:
            what = f"tool {tool.name} {end.words}"
            kind = FailureClass.TRANSIENT if end.timed_out else tool.exits.get(end.code, FailureClass.TRANSIENT)
            return self._failure(FailureClass(kind), f"{what}: {item.lfn}")
        try:
            with room.open_reader() as reader:
                self._compare(reader, item)
                self._hand_over(reader, request, number)
        except StorageError as error:
            if error.failure_class in ("quota", "auth"):
                raise
            what = f"tool {tool.name} ended well, but {error.what}: {item.lfn}"
            return self._failure(FailureClass(error.failure_class), what)
        return None

    def _failure(self, kind: FailureClass, what: str) -> _Failure:
        """Of one run. Another file may come all the same where this one is at fault."""
        reason = Reason(Scope.NETWORK, kind, "read", Text(shown(what, 390)))
        return _Failure(reason, ends=kind not in (FailureClass.PERMANENT, FailureClass.DATA_BAD))

    def _until_ended(self, running: RunningCommand, room: Workroom, request: _Request, item: Item) -> CommandEnd | None:
        """How it ended; None where it writes too much. Raises _Gone when nobody wants the file any more."""
        looks = iter(LOOKS_S)
        while (end := running.ended()) is None:
            attempt = request.order.attempt
            if request.gone or not self._running or self._destination.layout(request.key, attempt) is None:
                raise _Gone
            if room.used() > item.bytes + MORE_BYTES_MAX:
                return None
            time.sleep(next(looks, LOOK_S))
        return end

    def _compare(self, reader: Reader, item: Item) -> None:
        if reader.stat.bytes != item.bytes:
            raise data_bad(f"its file has {reader.stat.bytes} bytes instead of {item.bytes}")
        adler = reader.adler32()
        if adler != item.adler32:
            raise data_bad(f"its file has adler32 {adler} instead of {item.adler32}")

    def _hand_over(self, reader: Reader, request: _Request, number: int) -> None:
        """What was asked for of the item and is not here yet, as bytes of the line."""
        layout = self._destination.layout(request.key, request.order.attempt)
        if layout is None:
            raise _Gone
        first, stop = layout.span(number)
        asked = request.order.ranges & Ranges([(first, stop)])
        buffer = memoryview(bytearray(min(READ_BYTES, stop - first)))
        take = partial(self._destination.take_line, request.key, request.giver)
        wanted = self._destination.wanted(request.key, asked)
        end = wanted.spans[-1][1] if wanted else first
        for start, until in wanted:
            for at in range(start, until, len(buffer)):
                view = buffer[: min(len(buffer), until - at)]
                reader.readinto(at - first, view)
                last = at + len(view) == end and not request.items and request.working == 1
                if not take(at, view, last=last):
                    raise _Gone

    # the telling thread

    def run_telling(self) -> None:
        """Until `close`: takes orders in, and says every SAID_S of each transfer that waits for a tool that it does."""
        due_s = 0.0
        while self._running:
            keys = set[bytes]()
            with self._wake:
                told, self._orders = self._orders, {}
                if not told and (left_s := due_s - time.monotonic()) > 0:
                    self._wake.wait(left_s)
                    continue
                if time.monotonic() >= due_s:
                    keys, due_s = {request.key for request in self._requests.values()}, time.monotonic() + SAID_S
            try:
                for key in keys:
                    self._destination.waits(key)
                for order in told.values():
                    self._take_in(order)
            except Exception:
                log.exception("what waits for tools is not told")

    def _take_in(self, order: Bring) -> None:
        """What an older request is at of the same files, whose lease has ended, is given up."""
        request = _Request(order, order.manifest_id.encode(), deque())
        with self._wake:
            failed = self._failed.get(request.name)
        if failed is not None:
            self._say_failed(request, failed)  # that was not heard
            return
        layout = self._destination.layout(request.key, order.attempt)
        if layout is None:
            return  # the worker hears of that, or tells it again
        request.items += layout.items_in(self._destination.wanted(request.key, order.ranges))
        with self._wake:
            if not request.items or request.name in self._requests:
                return
            for older in list(self._requests.values()):
                if older.key == request.key and older.order.ranges & order.ranges:
                    older.gone = True
                    older.items.clear()
                    if not older.working:
                        del self._requests[older.name]
            self._requests[request.name] = request
            self._wake.notify_all()


def _name_of(order: Bring) -> _Key:
    return order.manifest_id, order.source, order.request_no, order.attempt


def _without_places(text: str, source: str, target: str) -> str:
    """What a tool said, without where this site or another keeps files: facts go everywhere, and hold no URL."""
    text = text.replace(source, "the source").replace(target, "the target")
    return without_part_names(_URL.sub("a URL", text))
