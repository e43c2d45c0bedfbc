"""Who is alive at a site, by its announcements, and what a worker's API answers. Read-only."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from streams import wire
from streams.core import messages as m
from streams.core import topics
from streams.core.names import Site
from streams.errors import Temporary, WireError
from streams.kafka.replay import replay
from streams.settings import Settings

SINCE_S = 600
"""Announcements are kept for ever; who said nothing for so long is not alive."""
_MISSED = 3
_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Writer:
    """The last announcement of one writer, and when it was made."""

    said: m.SiteAnnounced
    at_ms: int

    def alive(self, now_ms: int) -> bool:
        return not self.said.closing and now_ms - self.at_ms < _MISSED * self.said.every_s * 1000


def writers(settings: Settings, site: Site, *, since_s: float = SINCE_S) -> list[Writer]:
    """Writers of `site` that announced themselves lately, the latest word of each, read from its own cluster."""
    partition = topics.partition_of(site, settings.registry.partitions)
    start = int((time.time() - since_s) * 1000)
    last: dict[tuple[str, str], Writer] = {}
    for record in replay(settings, site, [topics.ANNOUNCEMENTS], partitions=[partition], start=start, committed=False):
        try:
            heard = wire.decode(record.topic, record.key, record.value, record.headers, site)
        except WireError:
            continue  # the site's workers file it as a dead letter
        if isinstance(heard.message, m.SiteAnnounced):
            last[heard.message.writer, heard.message.incarnation] = Writer(heard.message, heard.origin.at_ms)
    return sorted(last.values(), key=lambda w: (w.said.role, w.said.writer, w.at_ms))


def apis(settings: Settings, site: Site) -> list[str]:
    """Addresses of the live workers' APIs at `site`, the latest heard first."""
    now_ms = time.time_ns() // 1_000_000
    alive = [w for w in writers(settings, site) if w.said.api and w.alive(now_ms)]
    return [w.said.api for w in sorted(alive, key=lambda w: -w.at_ms)]


def ask(api: str, path: str, **query: str) -> Any:
    """The JSON a worker answers to GET `path`. Temporary when it does not answer with JSON."""
    url = f"{api.rstrip('/')}{path}" + (f"?{urlencode(query)}" if query else "")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_ANSWER_S) as answer:
            return json.loads(answer.read())
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise Temporary(
            f"the worker's API does not answer: {why}", where=url, next="see `transfer2go status`"
        ) from error


def ask_any(settings: Settings, site: Site, path: str, **query: str) -> Any | None:
    """The first live worker's answer; None when no worker of `site` answers."""
    for api in apis(settings, site):
        try:
            return ask(api, path, **query)
        except Temporary:
            continue  # the next worker, or the log itself
    return None
