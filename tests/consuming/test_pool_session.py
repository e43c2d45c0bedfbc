"""A pool's worker on a cluster in this process whose broker loses what it is told: all is told again, once counted."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from streams.consuming import session as line
from streams.consuming.session import ReaderSession
from streams.core import records as m
from streams.core.names import Text
from streams.core.ranges import Ranges
from streams.core.readers.ranges import meant, output_of
from streams.core.readers.shared import SharedReader
from streams.errors import Temporary
from streams.kafka.publish import wall_ms
from streams.pools.group_slots import slots_of
from streams.pools.outputs import booking
from streams.settings import Settings
from streams.storage.endpoint import PlacedFile
from tests.consuming.conftest import INTENT, ZPEAK, B, Forgetful, SourceSite

GONE = m.Reason(m.Scope.AGENT, m.FailureClass.PERMANENT, "work", Text("no such bin"))


@pytest.mark.parametrize("kind", [m.TransferProgress, m.FilesHeld, m.CompletionRecord])
@pytest.mark.parametrize("how", ["refused", "lost", "unheard"])
def test_what_a_broker_loses_is_told_again(cluster: Settings, forgetful: type[Forgetful], kind: type, how: str) -> None:
    forgetful.kinds, forgetful.losses = (kind,), [how, how]
    with SourceSite(cluster, [64, 128, 64]) as source, closing(ReaderSession(cluster, B, INTENT)) as found:
        source.publish()
        found.recall()
        pool = SharedReader(found.known, found.named("zpeak"), slots_of(cluster))
        found.begin(pool)
        with found.news:
            pool.assigned(range(pool.slots))
            (row,) = pool.open.values()
        _work(found, pool)
        assert not forgetful.losses
        said = source.completions()
        assert {repr(word) for word in said} == {repr(row.completion)}
        assert (said[0].sealed, said[0].failed) == (Ranges.of(0, 1), (m.FailedItems(Ranges.of(2), GONE),))
        heard = [one.files[0].lfn for _, one in source.said("replicas") if isinstance(one, m.FilesHeld)]
        assert len(set(heard)) == 3


def _work(found: ReaderSession, pool: SharedReader) -> None:
    """As the worker of the product: booked, then confirmed, each in the log before the next; item 2 fails."""
    deadline = time.monotonic() + 30
    while not pool.over:
        assert time.monotonic() < deadline
        found.check()
        with found.news:
            pool.fill(wall_ms())
            ready = next((hand for hand in pool.hands if hand.gather()), None)
            urgent = pool.urgent
        if urgent:
            found.commit()
        if ready is None:
            time.sleep(0.01)
            continue
        if ready.part.item == 2:
            with found.news:
                lost = pool.settle(ready, GONE)
            found.publish(lost)
            continue
        of = meant(ready.row.manifest, ready.part)
        lfn = output_of(ready.row.id, ZPEAK, of, "out")
        found.publish(booking(B, ready, of, PlacedFile(lfn, 1, "00000001", "v", "copy")))
        with found.news:
            done = pool.settle(ready)
        found.publish(done)
    found.commit()


def test_a_booking_that_is_never_taken_is_said(
    cluster: Settings, forgetful: type[Forgetful], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "ACK_S", 0.5)
    forgetful.kinds, forgetful.losses = (m.FilesHeld,), ["lost"] * 1000
    with SourceSite(cluster, [64]) as source, closing(ReaderSession(cluster, B, INTENT)) as found:
        source.publish()
        found.recall()
        pool = SharedReader(found.known, found.named("zpeak"), slots_of(cluster))
        found.begin(pool)
        with found.news:
            pool.assigned(range(pool.slots))
        with pytest.raises(Temporary, match="did not acknowledge: given up after 30 s"):
            _work(found, pool)
