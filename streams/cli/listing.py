"""Intents that fit what is asked, as a worker's view has them, else as the log says."""

from __future__ import annotations

from collections.abc import Mapping

from streams.client.follower import topics_of_intents
from streams.client.intent_snapshot import Snapshot
from streams.client.worker_api import WorkerApi
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.views import scratch


def listed(settings: Settings, most: int, asked: Mapping[str, str]) -> list[Snapshot]:
    """The newest that fit, as a worker's view has them, else as the log says."""
    given = {name: value for name, value in asked.items() if value}
    found = WorkerApi(settings, settings.here).intents(most, given)
    if found is not None:
        return found
    records = replay(settings, settings.here, topics_of_intents(settings, settings.here))
    with scratch.intents(records, settings.here) as known:
        found, cursor = [], ""
        while len(found) < most:
            page = known.page(**given, cursor=cursor, limit=most - len(found))
            found += page.intents
            if page.cursor is None:
                break
            cursor = page.cursor
        return found
