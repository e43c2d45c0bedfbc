"""The demo's second act: events cross while they are worked on, and what was made of them comes back as an object.

The mass of each muon pair of the Zmumu sample is computed at the destination from energies and momenta, batch by batch
as they arrive, and held against uproot alone on the source's file. The filled histogram then travels the other way.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streams.client.producer import Outcome, TransferClient
from streams.consuming.stream import EventStream
from streams.core import records as m
from streams.core.names import Block, Lfn
from streams.core.topics import MANIFESTS
from streams.demo.files import Lot, Tell
from streams.errors import TransferFailed
from streams.kafka.publish import Publisher
from streams.kafka.replay import replay
from streams.registration.registering import register
from streams.settings import Settings
from streams.wire import decode

if TYPE_CHECKING:
    from streams.demo.histogram import Histogram

SAMPLE = "uproot-Zmumu.root"
COLUMNS = tuple(f"{what}{muon}" for muon in (1, 2) for what in ("E", "px", "py", "pz"))
CONSUMER = "zpeak"
_BINS, _LOW_GEV, _HIGH_GEV = 60, 60.0, 120.0
_AHEAD_BYTES = 32 * 1024
"""Little, so that even a small file comes in several batches."""
_TIMEOUT_S = 120.0
_PACKAGES = ("pyarrow", "uproot", "awkward", "numpy")


@dataclass(slots=True)
class Peak:
    """What came of it. `first_s`: from the intent to the first batch; `wrong`: what is not as it must be, in words."""

    histogram: Histogram | None = None
    first_s: float = 0.0
    seconds: float = 0.0
    batches: int = 0
    object_bytes: int = 0
    png: str = ""
    wrong: list[str] = field(default_factory=list)


def missing() -> str:
    """The package without which there are no events, "" if none is missing."""
    return next((name for name in _PACKAGES if find_spec(name) is None), "")


def masses(columns: dict[str, Any]) -> Any:
    """Invariant masses of muon pairs in GeV: sqrt((E1 + E2)² - |p1 + p2|²)."""
    import numpy as np

    def total(what: str) -> Any:
        return columns[f"{what}1"] + columns[f"{what}2"]

    square = total("E") ** 2 - total("px") ** 2 - total("py") ** 2 - total("pz") ** 2
    return np.sqrt(np.maximum(square, 0.0))


def play(here: Settings, there: Settings, lot: Lot, png: Path, tell: Tell) -> Peak:
    """Both acts; `lot` is the block that holds the sample, registered at `here`."""
    peak = Peak()
    lfn = next(name for name, _, _ in lot.expected if name.endswith(SAMPLE))
    selection = f"events{{{','.join(COLUMNS)}}}"
    tell(f"asking for the events of {SAMPLE}: as Parquet at {there.here}, and for {there.here}/{CONSUMER} to read")
    with TransferClient(here) as client:
        started = time.monotonic()
        handle = client.publish([lfn], [there.here, f"{there.here}/{CONSUMER}"], source=here.here, entries=selection)
        _fill(peak, handle.id, there, started)
        outcome = handle.wait(_TIMEOUT_S)
        peak.seconds = time.monotonic() - started
        _hold(peak, outcome, "events")
    _compare(peak, here, there, handle.id, lfn)
    if peak.histogram is not None:
        _send_back(peak, there, here, lot.block, Path(lot.prefix))
        _draw(peak, png)
    return peak


def _fill(peak: Peak, intent: str, there: Settings, started: float) -> None:
    from streams.demo.histogram import Histogram

    peak.histogram = Histogram(_BINS, _LOW_GEV, _HIGH_GEV, "Z → μμ, as it arrived", "GeV")
    with EventStream(intent, settings=there, timeout_s=_TIMEOUT_S, ahead_bytes=_AHEAD_BYTES) as stream:
        for batch in stream:
            peak.first_s = peak.first_s or time.monotonic() - started
            peak.batches += 1
            peak.histogram.fill(masses(batch.to_numpy()))


def _compare(peak: Peak, here: Settings, there: Settings, intent: str, lfn: Lfn) -> None:
    """The histogram against uproot alone on the source's file, and the landed Parquet against the same columns."""
    import numpy as np
    import pyarrow.parquet as pq
    import uproot

    from streams.demo.histogram import Histogram

    with uproot.open(_path(here, lfn)) as file:
        source = file["events"].arrays(list(COLUMNS), library="np")
    alone = Histogram(_BINS, _LOW_GEV, _HIGH_GEV)
    alone.fill(masses(source))
    assert peak.histogram is not None
    if not np.array_equal(alone.counts, peak.histogram.counts):
        peak.wrong.append("the histogram that was filled on the way is not that of the source's file")
    landed = _path(there, _targets(here, intent)[0])
    if not landed.exists():
        peak.wrong.append(f"{landed.name} is not there")
        return
    table = pq.read_table(landed)
    if any(not np.array_equal(table[name].to_numpy(), source[name]) for name in COLUMNS):
        peak.wrong.append(f"{landed.name} has not the source's values")


def _send_back(peak: Peak, there: Settings, here: Settings, block: Block, prefix: Path) -> None:
    """The histogram as an object of a ROOT file, from where it was filled to where its events came from."""
    import numpy as np
    import uproot

    assert peak.histogram is not None
    own = Block(f"{block.dataset}#zpeak")
    path = _path(there, Lfn(f"{prefix}/zpeak.root"))
    path.parent.mkdir(parents=True, exist_ok=True)
    peak.histogram.write_root(str(path), "zpeak")
    with Publisher(there, there.here, "demo-zpeak", "cli") as publisher:
        register(there, publisher, [str(path)], own)
    with TransferClient(there) as client:
        handle = client.publish([own], [here.here], source=there.here, objects="zpeak")
        _hold(peak, handle.wait(_TIMEOUT_S), "the object")
    for target in _targets(there, handle.id):
        landed = _path(here, target)
        peak.object_bytes += landed.stat().st_size
        with uproot.open(landed) as file:
            if not np.array_equal(file["zpeak"].values(), peak.histogram.counts):
                peak.wrong.append("the object that came back is not the histogram that was sent")


def _draw(peak: Peak, png: Path) -> None:
    assert peak.histogram is not None
    if find_spec("matplotlib") is not None:
        peak.histogram.png(str(png))
        peak.png = str(png)


def _hold(peak: Peak, outcome: Outcome, what: str) -> None:
    if not outcome.done:
        reasons = "; ".join(str(one.reason.text) for one in outcome.unfinished[:3])
        raise TransferFailed(f"{what} did not arrive: {outcome.last.outcome} {outcome.reason} {reasons}".rstrip())


def _targets(source: Settings, intent: str) -> list[Lfn]:
    """What an intent's items land as."""
    found = []
    for record in replay(source, source.here, [MANIFESTS]):
        if record.key == intent.encode():
            written = decode(record.topic, record.key, record.value, record.headers, source.here).message
            found += [item.target for item in written.items] if isinstance(written, m.ManifestWritten) else []
    return found


def _path(settings: Settings, lfn: Lfn) -> Path:
    return settings.state / settings.here / "storage" / str(lfn)[1:]
