"""A source's plane as a process: it lists the entries of its files and puts them into the log."""

from __future__ import annotations

import subprocess
import sys
import time
from uuid import uuid4

from confluent_kafka import Consumer

from streams import wire
from streams.core.commands import WriteManifests
from streams.core.names import Adler32, IntentId, Lfn, Text
from streams.core.ranges import Ranges
from streams.core.records import ChunksServed, FilesHeld, HeldFile, ManifestWritten, TransferIntent, Unit
from streams.core.selectors import parse
from streams.core.topics import chunks_to
from streams.planes.orders import Serve, Write
from streams.storage import open_endpoint
from streams.views import rows
from streams.views.folding import Changes
from tests.events.event_files import HZZ, ZMUMU, assert_same, reference
from tests.planes.conftest import Stage
from tests.planes.entry_feed import put_sample, rows_of, unpacked
from tests.planes.feed import Record
from tests.planes.stage import BLOCK, DATASET, PARTITIONS, A, B, Clusters, _reader, request_of


def records_of(consumer: Consumer, body: ManifestWritten, units: int) -> list[Record]:
    found: list[Record] = []
    until = time.monotonic() + 20
    while sum(header.stop - header.start for header, _ in found) < units:
        assert time.monotonic() < until, found
        one = consumer.poll(0.1)
        if one is None or one.error() is not None:
            continue
        heard = wire.decode_chunk(one.topic(), one.key(), one.value(), one.headers(), A)
        if heard.header.manifest == body.manifest:
            found.append((heard.header, one.value()))
    return found


def test_entries_are_listed_and_served_by_a_plane(stage: Stage, clusters: Clusters) -> None:
    lfns = [put_sample(stage.root_a, HZZ), put_sample(stage.root_a, ZMUMU)]
    view = rows.open_primary(str(stage.settings_a.datadir / "view"))
    with open_endpoint(f"file://{stage.root_a}") as endpoint:
        held = tuple(HeldFile(Lfn(n), BLOCK, 1, Adler32("00000001"), endpoint.stat(n).version) for n in lfns)
    changes = Changes(view)
    changes.hold(FilesHeld(DATASET, A, held), "w")
    changes.write()
    intent = IntentId(f"T1_A.{uuid4()}")
    body = TransferIntent(intent, Text("me"), (parse(lfns[1]),), (B,), selection="entries:events[100:]")
    stage.a.tell(Write(WriteManifests(body, 0, 0, "", "")))
    told = stage.listener.wait(ManifestWritten, lambda m: m.intent == intent)
    (item,) = told.items
    assert (told.unit, item.length, item.selection) == (Unit.ENTRIES, 2204, "entries:events[100:2304]")
    consumer = _reader(clusters[A], [chunks_to(B)], PARTITIONS)
    stage.a.tell(Serve(request_of(told)))
    pieces = unpacked(records_of(consumer, told, item.length))[0]
    consumer.close()
    assert_same(rows_of(pieces, 0), reference(ZMUMU, "events"), 100)
    served = stage.listener.wait(ChunksServed, lambda m: m.manifest == told.manifest)
    assert served.ranges == Ranges([(0, 2204)])
    view.close()


def test_a_plane_that_moves_only_files_loads_no_library_of_entries() -> None:
    told = "import sys, streams.planes.host.child; print({'pyarrow', 'uproot', 'awkward', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
