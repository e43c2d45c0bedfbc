"""The producer API: ask for transfers and wait for them. Needs the broker of one site only; decides nothing.

    with TransferClient(site="T1_A") as client:
        handle = client.publish(["/store/data/f.root"], to=["T1_B"])
        outcome = handle.wait(timeout_s=600)

The client's site is the home of what it publishes. producer_async.py has the same for an event loop.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime

from streams import waits
from streams.client.follower import Follower, Watched, asked_before
from streams.client.intent_snapshot import Arrivals, Snapshot, Unfinished
from streams.client.request import Until, legal_priority, removal_wish, wish
from streams.client.worker_api import WorkerApi
from streams.core import records as m
from streams.core.closing import Closing
from streams.core.intent import State
from streams.core.names import IntentId, Site, Text, shown
from streams.core.selections.entries import EventSelection
from streams.core.selections.objects import ObjectSelection
from streams.core.selectors import Selector
from streams.errors import NeverWorks, NotAllowed, NotFound, Temporary, Transfer2goError, UsageError
from streams.kafka.publish import Publisher, writer_of
from streams.settings import Settings, load_settings
from streams.settings.user import user_name

ACK_S = 35.0
"""A little over the producer's own delivery timeout: by then a record is in the log or given up."""
ASK_S = 5.0
"""What a worker may take to say whether an intent is known, before the log is read instead."""
BEAT_S = 0.5
_CANCEL_SETTLE_S = 2.0
"""Of a cancelled intent more is on its way for so long: the decision, or its transfers' last words."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended, or stood when the wait was over.

    `state`: in the word that `intent list` says: asked, active, done, partly, failed, cancelled, refused.
    `exit_code`: 0 done, 5 still open, 6 nothing arrived, 7 refused, 8 partly.
    `last`: per destination the counts, bytes, reasons and what open transfers wait for.
    """

    intent: IntentId
    state: str
    exit_code: int
    reason: str
    last: Snapshot

    @property
    def destinations(self) -> tuple[Arrivals, ...]:
        return self.last.destinations

    @property
    def unfinished(self) -> tuple[Unfinished, ...]:
        return self.last.unfinished

    @property
    def done(self) -> bool:
        return self.exit_code == 0


class IntentHandle:
    """A published (or looked-up) intent. `body` is what this client asked for, None when it was looked up."""

    def __init__(
        self, client: TransferClient, watched: Watched, body: m.TransferIntent | None, *, recalled: bool = True
    ) -> None:
        self._client, self._watched, self.body = client, watched, body
        self._recalled = recalled
        """Whether what was said before it was watched is known, or there was nothing."""
        self.is_new = False
        """Whether it was published by the call that gave this, and not known before."""

    @property
    def id(self) -> IntentId:
        return self._watched.intent

    @property
    def away(self) -> str:
        """Why no news come at present, "" while they do."""
        return self._watched.away

    def snapshot(self) -> Snapshot:
        """What is known now. Raises NeverWorks when the id turned out to be another intent's."""
        if not self._recalled:
            self._client._follower.recall(self._watched)
            self._recalled = True
        snapshot = self._watched.snapshot()
        if self.body is not None and snapshot.body is not None and snapshot.body != self.body:
            raise _contradiction(self.body, snapshot.body)
        if self.body is not None and snapshot.decision is None and self._watched.refusals:
            why = self._watched.refusals[-1].reason
            raise NeverWorks(f"the home refused the record: {why}", where=self.id, next="see `transfer2go dlq list`")
        return snapshot

    def watch(self, timeout_s: float | None = None, beat_s: float | None = None) -> Iterator[Snapshot]:
        """Snapshots: one now, then one per change (and every `beat_s`), the last when it has ended or time is up."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        beat = BEAT_S if beat_s is None else beat_s
        while True:
            seen = self._watched.no
            snapshot = self.snapshot()
            yield snapshot
            if snapshot.ended and not self._more_to_come(snapshot, seen):
                return
            while True:
                left = beat if deadline is None else min(beat, deadline - time.monotonic())
                if left <= 0:
                    return
                if self._watched.wait(seen, left) or beat_s is not None:
                    break

    def _more_to_come(self, snapshot: Snapshot, seen: int) -> bool:
        # A mirror may bring the completions of a cancelled intent before the decision, and the other way round.
        cancelled = snapshot.state is State.CANCELLED or any(a.cancelled for a in snapshot.destinations)
        return cancelled and self._watched.wait(seen, _CANCEL_SETTLE_S)

    def wait(self, timeout_s: float | None = None, on_progress: Callable[[Snapshot], None] | None = None) -> Outcome:
        """Follow it to its end, for ever without `timeout_s`; `on_progress` gets a snapshot twice a second or more."""
        snapshot = self.snapshot()
        for snapshot in self.watch(timeout_s, None if on_progress is None else BEAT_S):
            if on_progress is not None:
                on_progress(snapshot)
        return self.outcome(snapshot)

    def outcome(self, snapshot: Snapshot) -> Outcome:
        """How it stands by this snapshot. An intent that has ended is followed no more."""
        if snapshot.ended:
            self._client._follower.forget(self.id)
        return Outcome(self.id, snapshot.outcome, snapshot.exit_code, snapshot.reason, snapshot)

    def cancel(self) -> None:
        """Ask the home to cancel it; what has arrived stays. Returns when the broker has the wish."""
        self._client._ask(m.IntentAsked(self.id, m.Asked.CANCEL, self._client.requester))

    def close_intake(self) -> None:
        """Ask that an open intent takes nothing more; what is registered by now still arrives, and then it has ended.

        Raises NeverWorks for an intent that is not open. Asked again, or of one that takes no more, it changes nothing.
        """
        body = self.body or self.snapshot().body
        if body is not None and not body.open:
            raise NeverWorks(f"intent {self.id} is not open: it takes what was there", next="see `intent cancel`")
        self._client._ask(m.IntentAsked(self.id, m.Asked.CLOSE, self._client.requester))

    def release(self) -> None:
        """Ask that nothing is claimed for it any more, once it has ended: what it brought may then be removed."""
        self._client._ask(m.IntentAsked(self.id, m.Asked.RELEASE, self._client.requester))

    def approve(self) -> None:
        """Let the client's site take part in it, where that waits for somebody. Whether you may, its worker decides."""
        site = self._client.site
        self._client._ask(m.IntentAsked(self.id, m.Asked.APPROVE, Text(self._client.person), site=site))

    def deny(self, reason: str) -> None:
        """Have the client's site take no part in it."""
        if not reason.strip():
            raise UsageError("a denial without a reason", next="say why, for who asked")
        why, site = Text(shown(reason, 390)), self._client.site
        self._client._ask(m.IntentAsked(self.id, m.Asked.DENY, Text(self._client.person), site=site, reason=why))

    def set_priority(self, priority: int) -> None:
        """Ask the home for another priority, 0…9, higher first."""
        asked = m.IntentAsked(self.id, m.Asked.PRIORITY, self._client.requester, legal_priority(priority))
        self._client._ask(asked)


class TransferClient(Closing):
    """Publishes intents at one site and follows them. Thread-safe; use as a context manager, or `close` it.

    `settings` default to `load_settings(site=site)`. Nothing is contacted before the first call.
    """

    def __init__(
        self, settings: Settings | None = None, *, site: str | None = None, requester: str | None = None
    ) -> None:
        self.settings = load_settings(site=site) if settings is None else settings
        if site is not None and settings is not None:
            self.settings = replace(settings, site=settings.entry(Site(site)).name)
        self.site = self.settings.here
        self.requester = Text(requester if requester is not None else f"{user_name()}@{socket.gethostname()}"[:400])
        self.person = self.requester.partition("@")[0]
        """Who asks, from whatever machine."""
        self._follower = Follower(self.settings, self.site)
        self._workers = WorkerApi(self.settings, self.site)
        self._publisher: Publisher | None = None
        self._lock = threading.Lock()

    def publish(
        self,
        selectors: Iterable[str | Selector],
        to: Iterable[str],
        *,
        source: str | None = None,
        priority: int = 5,
        deadline: datetime | None = None,
        idempotency_key: str | None = None,
        requester: str | None = None,
        entries: str | EventSelection | None = None,
        objects: str | ObjectSelection | None = None,
        format: str | None = None,
        until: Until | None = None,
        plane: str | None = None,
        repair: bool = False,
        move: bool = False,
        owner: str = "",
    ) -> IntentHandle:
        """Ask for files, blocks or datasets at the sites `to`; returns when the broker has acknowledged.

        With `entries` (`Events[0:1000]{Muon_pt,Jet_*}`, see core/selections/entries.py), for these of each file; they
        land as a file of their own in `format`: parquet (the default), arrow or root. A destination `SITE/NAME` lands
        nothing: it is who reads them there by that name (`EventStream`). With `objects` (`h*,dir/cutflow`), for these
        keys of ROOT files or members of archives, each landing as a file of its own.
        With `until` it stays open: what is registered later is moved too, to a time, until so many items are taken
        (those that fail count), or, for "close", until `close_intake`. With `source` too, nothing need be there yet.
        With `plane` ("log", "door") the bytes come that way and no other: where it cannot be had, the intent waits.
        With `repair` this client's own site, the one destination, replaces what it has under these names, if it is
        another file; what is right of it need not come. Whole files only.
        With `move` the files leave the `source`, each once it is at every destination and another site has promised to
        keep it; what others registered or claim there stays, and so does what did not arrive. Whole files only.
        `owner`: whose the files are to be, a group or a person; "" the requester's.
        With `idempotency_key` the id follows from home, requester and key: publishing the same again changes nothing.
        Raises UsageError, NotFound (an unknown site), NeverWorks (the key stands for another body), Temporary.
        """
        asker = self.requester if requester is None else Text(requester)
        body = wish(
            self.settings,
            asker,
            selectors,
            to,
            source=source,
            priority=priority,
            deadline=deadline,
            key=idempotency_key,
            entries=entries,
            objects=objects,
            format=format,
            until=until,
            plane=plane,
            repair=repair,
            move=move,
            owner=owner,
        )
        return self._published_once(body, idempotency_key)

    def remove(
        self,
        selectors: Iterable[str | Selector],
        at: Iterable[str],
        *,
        reason: str,
        copies: int = 1,
        idempotency_key: str | None = None,
        requester: str | None = None,
    ) -> IntentHandle:
        """Ask that files go from the sites `at`; returns when the broker has acknowledged.

        Each site decides for its own storage. A file goes once `copies` other sites have promised to keep it; the last
        copy, and what somebody claims, stay, and the intent's end says so. Raises as `publish` does.
        """
        asker = self.requester if requester is None else Text(requester)
        body = removal_wish(self.settings, asker, selectors, at, reason=reason, copies=copies, key=idempotency_key)
        return self._published_once(body, idempotency_key)

    def _published_once(self, body: m.TransferIntent, idempotency_key: str | None) -> IntentHandle:
        self._follower.start()
        watched = self._follower.watch(body.intent)
        known = None if idempotency_key is None else self._published(body.intent)
        if known is not None and known != body:
            raise _contradiction(body, known)
        if known is None:
            self._send(body)
        handle = IntentHandle(self, watched, body, recalled=known is None)
        handle.is_new = known is None
        return handle

    def _published(self, intent: IntentId) -> m.TransferIntent | None:
        """The body under which an intent of this client's site was published: a worker's view is asked, else the log.

        A view that has not heard it yet cannot say so wrongly: it answers when it has caught up with the log.
        """
        try:
            found = self._workers.intent(intent, {"fresh": "asked"}, ASK_S)
        except NotFound:
            return None
        if found is not None and found.body is not None:
            return found.body
        return asked_before(self.settings, self.site, intent)

    def intent(self, intent: str) -> IntentHandle:
        """An intent published by anybody, any time; NotFound when this site has heard nothing of it."""
        name = IntentId(intent)
        self._follower.start()
        watched = self._follower.watch(name)
        self._follower.recall(watched)
        if not watched.heard:
            self._follower.forget(name)
            raise NotFound(f"no intent {name}", where=f"as {self.site} knows", next="see `transfer2go intent list`")
        return IntentHandle(self, watched, None)

    def close(self) -> None:
        """Say the last sequence numbers, stop following. Handles are of no use afterwards."""
        self._follower.close()
        with self._lock:
            publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close()

    def _ask(self, asked: m.IntentAsked) -> None:
        if asked.site is None and asked.intent.home != self.site:
            raise NotAllowed(
                f"only its home {asked.intent.home} may change intent {asked.intent}",
                where=f"this client is at {self.site}",
                next=f"use --site {asked.intent.home}",
            )
        self._send(asked)

    def _send(self, message: m.Message) -> None:
        """Publish and wait for the acknowledgement. Temporary when the broker does not give it."""
        answer: list[Exception | None] = []
        acknowledged = threading.Event()

        def on_ack(error: Exception | None) -> None:
            answer.append(error)
            acknowledged.set()

        self._open().send(message, on_ack)
        with waits.on(f"the broker of {self.site} to take the record"):
            taken = acknowledged.wait(ACK_S)
        if not taken:
            raise Temporary(
                f"the broker of {self.site} did not acknowledge within {ACK_S:.0f} s",
                where=self.settings.entry(self.site).bootstrap,
                next="is it up? see `transfer2go status`; publishing again with an idempotency key is safe",
            )
        if (error := answer[0]) is not None:
            raise error if isinstance(error, Transfer2goError) else Temporary(f"publishing failed: {error}")

    def _open(self) -> Publisher:
        with self._lock:
            if self._publisher is None:
                self._publisher = Publisher(self.settings, self.site, writer_of(user_name()), "producer")
            return self._publisher


def _contradiction(asked: m.TransferIntent, known: m.TransferIntent) -> NeverWorks:
    differs = [f.name for f in fields(asked) if getattr(asked, f.name) != getattr(known, f.name)]
    return NeverWorks(
        f"intent {asked.intent} already exists with another body (differs in {', '.join(differs)})",
        next="use another idempotency key for another wish",
    )
