"""The reader of payload topics beside a broker that keeps a fetch waiting, as the broker in memory does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Thread
from typing import Any, cast

import pytest

from streams.core.names import Site
from streams.kafka import admin
from streams.planes.carriers.log import FETCH_WAIT_MS, PayloadReader
from streams.settings import Settings

pytestmark = pytest.mark.sites
A = Site("T1_A")


@pytest.fixture
def reader(real: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[PayloadReader]:
    """It reads nothing yet, and waits for news as long as in use; other tests have that shorter."""
    monkeypatch.setattr("streams.planes.carriers.log.FETCH_WAIT_MS", FETCH_WAIT_MS)
    admin.provision(real, [A])
    found = PayloadReader(real, cast(Any, None), lambda _: None)
    thread = Thread(target=found.run)
    thread.start()
    yield found
    found.close()
    thread.join()


def test_where_payload_begins_is_known_at_once_while_a_fetch_waits(reader: PayloadReader) -> None:
    """Of partitions one after the other: each question would stand behind the fetch of those before it."""
    reader.assign({0: None})
    time.sleep(0.5)
    began_s = time.monotonic()
    for more in range(1, 6):
        reader.assign(dict.fromkeys(range(more + 1)))
        time.sleep(0.1)
    assert time.monotonic() - began_s < 5 * FETCH_WAIT_MS / 1000
    assert {partition for _, partition in reader._next} == set(range(6))
