"""This site's own journal of manifests, read again for open intents whose chains are to be gone on with."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress

from streams.core.names import IntentId
from streams.core.records import ManifestWritten
from streams.core.topics import MANIFESTS, partition_of
from streams.errors import WireError
from streams.kafka.replay import replay
from streams.settings import Settings
from streams.wire import decode


def manifests_of(settings: Settings, intents: Collection[IntentId]) -> Iterator[ManifestWritten]:
    """What stands there of some intents, in order; what the gate refuses is left out. Raises Temporary."""
    here, keys = settings.here, {intent.encode() for intent in intents}
    partitions = {partition_of(key, settings.registry.partitions) for key in keys}
    for record in replay(settings, here, [MANIFESTS], partitions=partitions, committed=False):
        if record.key in keys:
            with suppress(WireError):
                heard = decode(record.topic, record.key, record.value, record.headers, here)
                if isinstance(heard.message, ManifestWritten):
                    yield heard.message
