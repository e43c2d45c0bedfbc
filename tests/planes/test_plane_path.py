"""Both planes as processes over a mock cluster: bytes go from A's storage to B's."""

from __future__ import annotations

import random

from streams.core.messages import ChunksServed, PartOpened, TransferProgress
from streams.core.ranges import Ranges
from streams.planes.orders import Serve
from tests.planes.conftest import Stage
from tests.planes.stage import manifest_of, open_order, put, request_of


def test_one_file_crosses(stage: Stage) -> None:
    files = {"/store/one/file.root": random.Random(1).randbytes(1_000_000)}
    put(stage.root_a, files)
    body = manifest_of(stage.root_a, files)
    stage.b.tell(open_order(body))
    opened = stage.listener.wait(PartOpened, lambda m: m.manifest == body.manifest)
    assert not opened.present
    assert not opened.failed
    stage.a.tell(Serve(request_of(body)))
    sealed = stage.listener.wait(TransferProgress, lambda m: m.manifest == body.manifest and bool(m.sealed))
    assert sealed.sealed == Ranges([(0, 1)])
    served = stage.listener.wait(ChunksServed, lambda m: m.manifest == body.manifest)
    assert served.bytes == 1_000_000
    assert (stage.root_b / "store/one/file.root").read_bytes() == files["/store/one/file.root"]
