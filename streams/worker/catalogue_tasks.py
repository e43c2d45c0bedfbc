"""Commands that need the catalogue: decisions and manifests. One thread; one catch-up serves all that wait for it.

A view lags its journals. Deciding or listing on it as it is could miss what was registered a moment ago, and a listing
that says `last` is a fact. So the view first reaches the ends of its journals as they are now; when it cannot, nothing
is done and the commands stay owed.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Protocol

import structlog

from streams.core import records as m
from streams.core.names import IntentId, Site
from streams.core.policy import Policy
from streams.core.routing import Holders, decide

log = structlog.get_logger(__name__)

CATCH_UP_S = 5.0
SAID_S = 30.0
"""A decision is on its way to this site's log for as long as the publisher keeps trying, and is not said again."""
UNDECIDED_MAX = 10_000
"""Intents whose first asking is remembered: that of one cancelled while undecided is never asked for again."""

Publish = Callable[[m.Message, Callable[[Exception | None], None]], None]
"""Hands a record to the publisher, which says when it is in the log or given up."""


class Views(Protocol):
    """What spans partitions."""

    def catch_up(self, timeout_s: float) -> bool: ...

    def found(self, body: m.TransferIntent) -> Holders: ...

    def sites(self) -> tuple[Site, ...]: ...

    def decision(self, intent: IntentId) -> m.IntentDecided | None: ...

    def alive(self) -> tuple[Site, ...]: ...


class CatalogueTasks:
    """Runs what needs a view that has caught up, in a thread of its own; a failure is logged and stays owed."""

    def __init__(self, views: Views, policy: Policy, publish: Publish) -> None:
        self.views, self.policy, self.publish = views, policy, publish
        self._waiting: SimpleQueue[tuple[object, Callable[[], object]] | None] = SimpleQueue()
        self._asked: set[object] = set()
        self._first_asked: OrderedDict[IntentId, float] = OrderedDict()
        self._said: OrderedDict[tuple[IntentId, int], float] = OrderedDict()
        """Decisions, by number, that were published and may not be heard yet: since when."""
        self._thread = threading.Thread(target=self._run, name="catalogue-tasks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def decide(self, body: m.TransferIntent) -> None:
        """Publishes the first decision on an intent, once the catalogue allows one."""
        self.then(("decide", body.intent), lambda: self._decide(body))

    def release(self, intent: IntentId, decision_no: int) -> None:
        """Publishes the decision that an intent claims nothing any more, once its last one is heard in the view."""
        self.then(("release", intent), lambda: self._release(intent, decision_no))

    def then(self, key: object, act: Callable[[], object]) -> None:
        """Runs `act` once the view has caught up; what waits already under this key is not asked twice."""
        if key not in self._asked:
            self._asked.add(key)
            self._waiting.put((key, act))

    def stop(self) -> None:
        self._waiting.put(None)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            asked = [first]
            try:
                while (more := self._waiting.get_nowait()) is not None:
                    asked.append(more)
            except Empty:
                pass
            else:
                return
            caught_up = self._caught_up()
            if not caught_up:
                log.warning("the view has not caught up; what waits for it stays owed", commands=len(asked))
            for key, act in asked:
                self._asked.discard(key)
                if caught_up:
                    self._try(act)

    def _caught_up(self) -> bool:
        try:
            return self.views.catch_up(CATCH_UP_S)
        except Exception:
            log.exception("how far the view is cannot be told")
            return False

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception:
            log.exception("not done, owed again")

    def _decide(self, body: m.TransferIntent) -> None:
        now = time.monotonic()
        if self._is_on_its_way(body.intent, 1, now):
            return
        asked = self._first_asked.setdefault(body.intent, now)
        while len(self._first_asked) > UNDECIDED_MAX:
            # The oldest was most likely cancelled; one that is still undecided waits anew.
            self._first_asked.popitem(last=False)
        waited = now - asked >= self.policy.undecided_s
        views = self.views
        decision = decide(body, views.found(body), views.sites(), views.alive(), waited=waited)
        if decision is not None:
            self._say(decision, now)
            self._first_asked.pop(body.intent, None)

    def _release(self, intent: IntentId, decision_no: int) -> None:
        last = self.views.decision(intent)
        now = time.monotonic()
        if last is None or last.decision_no != decision_no - 1 or self._is_on_its_way(intent, decision_no, now):
            return  # the view of intents lags, or it is on its way: owed again
        self._say(replace(last, decision_no=decision_no, verdict=m.Verdict.RELEASED, reason=None), now)

    def _is_on_its_way(self, intent: IntentId, decision_no: int, now: float) -> bool:
        return now - self._said.get((intent, decision_no), -SAID_S) < SAID_S

    def _say(self, decision: m.IntentDecided, now: float) -> None:
        said = decision.intent, decision.decision_no

        def acknowledged(error: Exception | None) -> None:
            if error is not None:
                self._said.pop(said, None)

        self._said[said] = now
        self._said.move_to_end(said)
        while len(self._said) > UNDECIDED_MAX:
            self._said.popitem(last=False)
        try:
            self.publish(decision, acknowledged)
        except Exception:
            self._said.pop(said, None)
            raise
