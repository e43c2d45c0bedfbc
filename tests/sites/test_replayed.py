"""Every record of every journal of both sites since the test began, written into the live topics twice more."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from streams.auditing.replaying import worker_group
from streams.core import topics
from streams.core.names import ManifestId, Site
from streams.core.topics import Retention, wanted
from streams.kafka.reader import Record, committed_offsets
from tests.sites.rig import A, B, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]

TIMES = 2
OF_INTENTS = topics.OF_INTENTS
OF_VIEWS = (topics.REPLICAS, topics.KEEPING, topics.ANNOUNCEMENTS, topics.SEALS)


def _own(site: Site, other: Site) -> list[str]:
    """The journals that this site writes, dead letters excepted: those are nobody's input."""
    found = [t.name for t in wanted(site, [other]) if t.retention is Retention.JOURNAL and "." not in t.name]
    return [name for name in found if name != topics.DEAD_LETTERS]


def _disk(root: Path) -> dict[str, tuple[int, int, int]]:
    return {str(p): (s.st_ino, s.st_size, s.st_mtime_ns) for p in root.rglob("*") if p.is_file() for s in [p.stat()]}


def _rows(rig: Rig, intents: list[str]) -> dict[str, Any]:
    """Every row of these intents, at both sites, as the changelogs say it last."""
    found: dict[str, Any] = {}
    for site in (A, B):
        for table in ("intents", "transfers", "waiting", "manifests"):
            for record in rig.records(site, f"{worker_group(rig.settings(site), site)}-{table}-changelog"):
                key = (record.key or b"").decode()
                if key.startswith(tuple(intents)):
                    found[f"{site} {table} {key}"] = record.value
    return found


def _until_heard(rig: Rig, site: Site, written: dict[tuple[str, int], int], what: str) -> None:
    """Waits until the site's agents have committed past these offsets; says what they have not, when they do not."""
    settings = rig.settings(site)
    wanted_ = {place: offset for place, offset in written.items() if not place[0].endswith(OF_VIEWS)}
    behind: dict[tuple[str, int], tuple[int, int]] = {}

    def heard() -> bool:
        nonlocal behind
        committed = committed_offsets(settings, site, worker_group(settings, site))
        behind = {p: (committed.get(p, 0), end) for p, end in wanted_.items() if committed.get(p, 0) <= end}
        return not behind

    try:
        until(heard, f"the agents of {site} have heard {what}")
    except AssertionError as error:
        raise AssertionError(f"{error}; committed and wanted: {behind}; {rig.ask(site, '/api/health')}") from None


def _copies(rig: Rig, site: Site, intents: list[str]) -> Counter[tuple[str, bytes | None]]:
    """How often each record of these intents stands at a site, mirrored ones included."""
    other = B if site == A else A
    names = [t.name for t in wanted(site, [other]) if t.retention is Retention.JOURNAL]
    return Counter(
        (r.topic, r.value) for r in rig.records(site, *names) if (r.key or b"").decode().startswith(tuple(intents))
    )


def test_replaying_every_journal_twice_changes_nothing(rig: Rig, spot: Spot) -> None:
    """Rows, disks and payload stay as they are, of an intent that is done and of one that is partly done.

    All that is written in answer is a closed transfer's last word, byte-equal, to its plan heard again.
    """
    began_ms = int(time.time() * 1000)
    files = {spot.lfn(f"{n}.dat"): noise(100_000, (spot, n)) for n in range(4)} | {spot.lfn("empty.dat"): b""}
    rig.register(files, spot.block("whole"))
    partly = {spot.lfn("partly/one.dat"): noise(500, spot), spot.lfn("partly/gone.dat"): b"gone"}
    rig.register(partly, spot.block("partly"))
    rig.path(A, spot.lfn("partly/gone.dat")).unlink()
    handles = [rig.publish([spot.block(name)]) for name in ("whole", "partly")]
    assert rig.wait(handles[0]).exit_code == 0
    assert rig.wait(handles[1]).exit_code == 8
    intents = [str(handle.id) for handle in handles]
    manifests = [str(ManifestId.of(handle.id, 0, 0)) for handle in handles]
    until(lambda: all(f"{B} manifests {key}" in _rows(rig, intents) for key in manifests), "rows are in the changelogs")
    until(
        lambda: all(_rows(rig, intents)[f"{B} manifests {key}"] is None for key in manifests),
        "closed transfers keep no manifest",
    )
    before = _rows(rig, intents), {site: _disk(rig.storage(site)) for site in (A, B)}, _payload(rig, manifests)
    counts = {site: _copies(rig, site, intents) for site in (A, B)}
    snapshots = [handle.snapshot() for handle in handles]
    shown = {site: [rig.ask(site, f"/api/intents/{intent}") for intent in intents] for site in (A, B)}

    replayed: set[str] = set()
    for site, other in ((A, B), (B, A)):
        journal = [r for r in rig.records(site, *_own(site, other)) if r.timestamp_ms >= began_ms]
        replayed |= {r.topic for r in journal}
        for _ in range(TIMES):
            written = {(r.topic, r.partition): _again(rig, site, r) for r in journal}
        _until_heard(rig, site, written, "all again")
    for site in (A, B):
        expected = {what: (1 + TIMES) * count for what, count in counts[site].items()}
        until(lambda: _copies(rig, site, intents) >= Counter(expected), f"all was mirrored to {site}")  # noqa: B023
        other = B if site == A else A
        ends = {
            (r.topic, r.partition): r.offset
            for r in rig.records(
                site, *(topics.remote(other, n) for n in topics.mirrored(site) if "chunks-to" not in n)
            )
        }
        _until_heard(rig, site, ends, "the copies")

    assert replayed >= {*OF_INTENTS, topics.TRANSFERS, topics.CHUNK_EVENTS, topics.REPLICAS, topics.requests_to(A)}
    for site in (A, B):
        added = _copies(rig, site, intents) - Counter({w: (1 + TIMES) * n for w, n in counts[site].items()})
        assert added.keys() <= counts[site].keys(), "a new record was written"
        assert {topics.split(topic)[1] for topic, _ in added} <= {topics.COMPLETIONS}
    assert (
        _rows(rig, intents),
        {site: _disk(rig.storage(site)) for site in (A, B)},
        _payload(rig, manifests),
    ) == before
    assert [handle.snapshot() for handle in handles] == snapshots
    assert {site: [rig.ask(site, f"/api/intents/{intent}") for intent in intents] for site in (A, B)} == shown
    rig.write({spot.lfn("partly/gone.dat"): b"gone"})
    rig.audit()


def _payload(rig: Rig, manifests: list[str]) -> int:
    """Payload records of these transfers. A request that its plane has served is not served again."""
    return sum(1 for manifest in manifests for _ in rig.records(A, topics.chunks_to(B), key=manifest))


def _again(rig: Rig, site: Site, record: Record) -> int:
    """Writes the record once more where it stands; its new offset."""
    return rig.produce(site, record.topic, record.key, record.value, record.headers or (), record.partition)[1]
