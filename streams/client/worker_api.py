"""What a site's live workers answer over HTTP: who they are by the log, one question to the first that answers.

Read-only, and never the only way: who gets None reads the log itself.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from streams import waits, wire
from streams.client.announcements import Announcements
from streams.client.intent_snapshot import Snapshot
from streams.client.snapshot_json import from_plain
from streams.core import records as m
from streams.core import topics
from streams.core.names import IntentId, Site
from streams.errors import NotFound, Temporary, Transfer2goError, UsageError, WireError
from streams.kafka.reader import Record
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.wire.release import release_of

SINCE_S = 600
"""Announcements are kept for ever; who said nothing for so long is not alive."""
ANSWER_S = 10.0
REMEMBERED_S = 30.0
"""Addresses are asked of the log again after so long."""
ANSWER_BYTES_MAX = 64 << 20
PAGE = 1000
"""Asked for at once; a worker may give less."""


def announcements(settings: Settings, site: Site, *, at: Site | None = None) -> Announcements:
    """What writers of `site` announced lately, the latest word of each.

    Read from its own cluster, or from the copies that the cluster of `at` has. Raises Temporary, NotFound.
    """
    at = site if at is None else at
    name = topics.ANNOUNCEMENTS if at == site else topics.remote(site, topics.ANNOUNCEMENTS)
    partition = topics.partition_of(site, settings.registry.partitions)
    start = int((time.time() - SINCE_S) * 1000)
    return announced_in(replay(settings, at, [name], partitions=[partition], start=start), at)


def announced_in(records: Iterable[Record], at: Site) -> Announcements:
    known = Announcements()
    for record in records:
        try:
            heard = wire.decode(record.topic, record.key, record.value, record.headers, at)
        except WireError:
            continue  # the site's workers file it as a dead letter
        if isinstance(heard.message, m.SiteAnnounced):
            known.take(heard.message, heard.origin, record.timestamp_ms, release_of(record.headers))
    return known


def apis(settings: Settings, site: Site) -> list[str]:
    """Addresses of the live workers' APIs at `site`, the latest heard first."""
    now_ms = time.time_ns() // 1_000_000
    return [said.api for said in announcements(settings, site).alive(site, now_ms) if said.api]


SITE_HEADER = "t2g-site"
"""Whose worker answers: an address of the log may be another machine's here."""


def ask(api: str, site: Site, path: str, query: Mapping[str, str] | None = None, timeout_s: float = ANSWER_S) -> Any:
    """The JSON a worker of `site` answers to GET `path`. UsageError, NotFound as it says; else Temporary."""
    url = f"{api.rstrip('/')}{path}" + (f"?{urlencode(query)}" if query else "")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            _check_site(answer, site, url)
            return json.loads(answer.read(ANSWER_BYTES_MAX))
    except urllib.error.HTTPError as error:
        with error:
            _check_site(error, site, url)
            raise _as_said(error, url) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise Temporary(
            f"the worker's API does not answer: {why}", where=url, next="see `transfer2go status`"
        ) from error


def _check_site(answer: Any, site: Site, url: str) -> None:
    said = answer.headers.get(SITE_HEADER)
    if said != site:
        raise Temporary(f"no worker of {site} answers there, but {said or 'something else'}", where=url)


def _as_said(error: urllib.error.HTTPError, url: str) -> Transfer2goError:
    try:
        why = str(json.loads(error.read(1 << 20))["error"])
    except (OSError, ValueError, LookupError, TypeError):
        return Temporary(f"the worker's API answers {error.code}", where=url)  # somebody else's port
    kinds: dict[int, type[Transfer2goError]] = {400: UsageError, 404: NotFound}
    return kinds.get(error.code, Temporary)(why, where=url)


class WorkerApi:
    """The live workers of one site, their addresses remembered for a while. Thread-safe."""

    def __init__(self, settings: Settings, site: Site) -> None:
        self._settings, self._site = settings, site
        self._lock = threading.Lock()
        self._apis: list[str] = []
        self._read_s: float | None = None

    def ask(self, path: str, query: Mapping[str, str] | None = None, timeout_s: float = ANSWER_S) -> Any | None:
        """The first worker's answer, None when none answers. Raises UsageError and NotFound as it says."""
        for api in self._addresses():
            try:
                with waits.on(f"the worker of {self._site} at {api} to answer"):
                    return ask(api, self._site, path, query, timeout_s)
            except Temporary:  # the next worker, or the log itself; this one may hang at every question
                with self._lock:
                    self._apis = [other for other in self._apis if other != api]
        return None

    def intent(
        self, intent: IntentId, query: Mapping[str, str] | None = None, timeout_s: float = ANSWER_S
    ) -> Snapshot | None:
        """An intent as a worker's view has it; None when none can say. NotFound: the view does not know it."""
        answer = self.ask(f"/api/intents/{quote(intent)}", query, timeout_s)
        return None if answer is None else _read(answer)

    def intents(self, most: int, query: Mapping[str, str]) -> list[Snapshot] | None:
        """Up to `most` intents that fit, newest first; None when no worker can say."""
        try:
            plain = self.pages("/api/intents", "intents", query, most)
            return [one for one in map(_read, plain) if one is not None]
        except Temporary:
            return None

    def pages(self, path: str, what: str, query: Mapping[str, str], most: int = sys.maxsize) -> Iterator[Any]:
        """What stands under `what` in pages of an answer, up to `most`. Temporary when no worker answers any longer."""
        cursor: str | None = ""
        while cursor is not None and most > 0:
            answer = self.ask(path, {**query, "cursor": cursor, "limit": str(min(PAGE, most))})
            if not isinstance(answer, dict) or not isinstance(answer.get(what), list):
                raise Temporary(f"no worker of {self._site} answers")
            yield from answer[what]
            cursor, most = answer.get("cursor"), most - len(answer[what])

    def _addresses(self) -> list[str]:
        with self._lock:
            now_s = time.monotonic()
            if self._read_s is None or now_s - self._read_s > REMEMBERED_S:
                self._apis = apis(self._settings, self._site)
                self._read_s = now_s
            return list(self._apis)


def _read(plain: Any) -> Snapshot | None:
    """None for what another release means by an intent."""
    try:
        return from_plain(plain)
    except (LookupError, TypeError, ValueError, Transfer2goError):
        return None
