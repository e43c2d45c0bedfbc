"""Entries of real files cross two sites: they land as files of their own, and are read while they come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from streams import Checkpoint, EventStream
from streams.core import records as m
from streams.core import topics
from streams.core.names import Block, Lfn, Site
from streams.errors import NeverWorks, PartlyDone, TransferFailed
from streams.events.provenance import provenance_of
from tests.sites.rig import A, B, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]

SAMPLES = Path(str(files("streams") / "samples"))
ZMUMU, HZZ, NANO = (
    SAMPLES / name for name in ("uproot-Zmumu.root", "uproot-HZZ.root", "nanoAOD_2015_CMS_Open_Data_ttbar.root")
)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of 1,200,000 entries, 44 MB of columns, in many clusters."""
    path = tmp_path_factory.mktemp("large") / "large.root"
    chance = np.random.default_rng(1)
    with uproot.recreate(path, compression=uproot.LZ4(1)) as out:
        tree = out.mktree("t", {"n": np.int64, "x": np.float64, "y": np.float32, "z": np.float64})
        for start in range(0, 1_200_000, 100_000):
            numbers = np.arange(start, start + 100_000)
            tree.extend(
                {
                    "n": numbers,
                    "x": chance.normal(size=numbers.size),
                    "y": chance.normal(size=numbers.size).astype(np.float32),
                    "z": numbers * 0.5,
                }
            )
    return path


def _registered(rig: Rig, spot: Spot, *paths: Path) -> Block:
    rig.register({spot.lfn(path.name): path.read_bytes() for path in paths}, spot.block())
    return spot.block()


def _landed(rig: Rig, handle: Any) -> dict[str, tuple[m.Item, Path]]:
    """Source LFN → (item, file at B) of what an intent brought there."""
    found = {}
    for manifest in rig.facts(A, topics.MANIFESTS, key=handle.id):
        for item in manifest.items:
            found[str(item.lfn)] = (item, rig.path(B, item.target))
    return found


def _same(landed: Any, source: Any) -> None:
    """The same values to the last bit, whatever the nesting."""
    assert len(landed) == len(source)
    assert landed.to_list() == source.to_list() or repr(landed.to_list()) == repr(source.to_list())


def test_columns_of_two_trees_land_as_parquet_with_a_replica_that_says_what_it_is(rig: Rig, spot: Spot) -> None:
    import awkward as ak

    block = _registered(rig, spot, ZMUMU, HZZ)
    handle = rig.publish([block], entries="events[100:2000]{*p*,M*,E*}")
    outcome = rig.wait_done(handle)
    for path in (ZMUMU, HZZ):
        item, target = _landed(rig, handle)[spot.lfn(path.name)]
        assert (item.length, item.block) == (1900, Block(f"{spot.dataset}-PART#one"))
        table = pq.read_table(target)
        with uproot.open(path) as opened:
            tree = opened["events"]
            names = [str(name) for name in table.column_names]
            assert set(names) < set(tree.keys())
            source = tree.arrays(names, entry_start=100, entry_stop=2000)
        for name in names:
            _same(ak.from_arrow(table[name].combine_chunks()), source[name])
        assert list(pd.read_parquet(target).columns) == names
        told = provenance_of(str(target))
        assert (told.lfn, told.start, told.stop) == (item.lfn, 100, 2000)
        (held,) = [
            file
            for record in rig.facts(B, topics.REPLICAS)
            if isinstance(record, m.FilesHeld)
            for file in record.files
            if file.lfn == item.target
        ]
        assert (held.part_of, held.selection) == (item.lfn, item.selection)
        assert held.bytes == target.stat().st_size
    assert outcome.destinations[0].arrived_bytes == sum(t.stat().st_size for _, t in _landed(rig, handle).values())
    rig.audit()


@pytest.mark.parametrize("form", ["arrow", "root"])
def test_entries_land_in_the_form_that_was_asked_for(rig: Rig, spot: Spot, form: str) -> None:
    block = _registered(rig, spot, HZZ)
    handle = rig.publish([block], entries="events{NMuon,Muon_Px,MET_px}", format=form)
    rig.wait_done(handle)
    _, target = _landed(rig, handle)[spot.lfn(HZZ.name)]
    with uproot.open(HZZ) as opened:
        source = opened["events"].arrays(["NMuon", "Muon_Px", "MET_px"])
    if form == "root":
        with uproot.open(target) as opened:
            found = opened["events"].arrays(["NMuon", "Muon_Px", "MET_px"])
    else:
        import awkward as ak

        with pa.ipc.open_file(target) as opened:
            found = ak.from_arrow(opened.read_all())
    for name in ("NMuon", "Muon_Px", "MET_px"):
        _same(found[name], source[name])
    rig.audit()


def test_what_cannot_be_read_fails_with_its_reason_and_the_rest_arrives(rig: Rig, spot: Spot, tmp_path: Path) -> None:
    broken = tmp_path / "broken.root"
    broken.write_bytes(ZMUMU.read_bytes()[:5000])
    other = tmp_path / "other.root"
    other.write_bytes(noise(10_000, spot))
    short = tmp_path / "short.root"
    with uproot.recreate(short) as out:
        out["events"] = {"M": np.arange(10.0)}
    nothing = tmp_path / "nothing.root"
    with uproot.recreate(nothing) as out:
        out["trees"] = {"M": np.arange(10.0)}
    typo = tmp_path / "typo.root"
    with uproot.recreate(typo) as out:
        out["events"] = {"N": np.arange(3000.0)}
    block = _registered(rig, spot, ZMUMU, broken, other, short, nothing, typo)
    handle = rig.publish([block], entries="events[0:2000]{M}")
    outcome = rig.wait(handle)
    assert outcome.exit_code == PartlyDone.exit_code
    why = {one.lfn.rsplit("/", 1)[1]: one.reason for one in outcome.unfinished}
    assert why.keys() == {"broken.root", "other.root", "short.root", "nothing.root", "typo.root"}
    assert "events" in why["nothing.root"].text
    assert "there are trees" in why["nothing.root"].text
    assert all(str(rig.state) not in reason.text for reason in why.values()), "no path of a site's disk travels"
    assert "'M'" in why["typo.root"].text
    assert "has 10" in why["short.root"].text
    assert why["other.root"].failure_class is m.FailureClass.DATA_BAD
    assert why["broken.root"].failure_class is m.FailureClass.DATA_BAD
    assert why["short.root"].failure_class is m.FailureClass.PERMANENT
    assert pq.read_metadata(_landed(rig, handle)[spot.lfn(ZMUMU.name)][1]).num_rows == 2000
    rig.audit()


def test_the_same_part_again_is_found_there(rig: Rig, spot: Spot) -> None:
    block = _registered(rig, spot, ZMUMU)
    first = rig.publish([block], entries="events{M}")
    rig.wait_done(first)
    _, target = _landed(rig, first)[spot.lfn(ZMUMU.name)]
    before = target.stat()
    again = rig.publish([block], entries="events{M}")
    rig.wait_done(again)
    after = target.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    manifest = next(iter(rig.facts(A, topics.MANIFESTS, key=again.id)))
    assert not list(rig.records(B, topics.requests_to(A), key=manifest.manifest)), "nothing was asked for"
    rig.audit()


@pytest.mark.parametrize(("site", "whom"), [(B, "plane"), (A, "plane"), (B, "worker")])
def test_entries_land_whole_though_what_moves_them_is_killed(
    rig: Rig, spot: Spot, large: Path, site: Site, whom: str
) -> None:
    block = _registered(rig, spot, large)
    with rig.ear(B, topics.CHUNK_EVENTS) as ear:
        handle = rig.publish([block], entries="t")
        ear.until(
            lambda word: (
                isinstance(word, m.TransferProgress)
                and word.manifest.intent == handle.id
                and 0 < word.verified.size < 1_000_000
            ),
            "some entries are durable, not all",
        )
    if whom == "plane":
        os.kill(rig.plane_pid(f"{site}-worker-0"), signal.SIGKILL)
    else:
        rig.until_back(rig.kill(f"{site}-worker-0"))
    rig.wait_done(handle)
    _, target = _landed(rig, handle)[spot.lfn(large.name)]
    table = pq.read_table(target)
    with uproot.open(large) as opened:
        source = opened["t"].arrays(library="np")
    for name in ("n", "x", "y", "z"):
        assert np.array_equal(table[name].to_numpy(), source[name], equal_nan=True), name
    assert not list(target.parent.glob(".t2g-*")), "parts stay behind"
    rig.audit()


# reading while they come


def test_a_stream_reads_what_another_destination_lands(rig: Rig, spot: Spot, large: Path) -> None:
    """One intent, a site and a consumer at it: both get every entry."""
    block = _registered(rig, spot, large)
    handle = rig.publish([block], [B, f"{B}/reader"], entries="t{n,y}")  # type: ignore[list-item]
    seen = []
    with EventStream(handle.id, settings=rig.settings(B), timeout_s=60) as stream:
        for batch in stream:
            assert batch.columns == ("n", "y")
            numbers = batch.to_numpy()["n"]
            assert (numbers[0], numbers[-1] + 1) == (batch.start, batch.stop)
            seen.append(numbers)
    assert np.array_equal(np.concatenate(seen), np.arange(1_200_000))
    outcome = rig.wait_done(handle)
    assert {str(d.destination): d.arrived for d in outcome.destinations} == {B: 1, f"{B}/reader": 1}
    rig.audit()


CLI = "from streams.cli import main; main()"
READER = """
import sys, time, pathlib
from streams import Checkpoint, EventStream
from streams.settings import load_settings
state, intent, out, how = sys.argv[1:]
checkpoint = Checkpoint(out)
position, content = checkpoint.read() if how == "checkpoint" else (None, b"")
lines = open(out + ".lines", "a")
settings = load_settings(environ={}, files=[], state=state, site="T2_B")
with EventStream(intent, "reader", settings=settings, position=position, timeout_s=60) as stream:
    for batch in stream:
        content += b"%d %d\\n" % (batch.start, batch.stop)
        if how == "checkpoint":
            checkpoint.write(batch.position, content)
        lines.write(f"{batch.start} {batch.stop}\\n")
        lines.flush()
        time.sleep(0.03)
print("end", flush=True)
"""


@pytest.fixture
def reader(rig: Rig, tmp_path: Path) -> Iterator[Any]:
    """Starts a reader of an intent in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(intent: str, how: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", READER, str(rig.state), intent, str(tmp_path / "out"), how]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _lines(path: Path) -> list[tuple[int, int]]:
    text = path.read_text() if path.exists() else ""
    return [(int(a), int(b)) for a, b in (line.split() for line in text.splitlines() if line.count(" ") == 1)]


@pytest.mark.parametrize("how", ["log", "checkpoint"])
def test_a_killed_reader_goes_on_where_it_was(
    rig: Rig, spot: Spot, large: Path, reader: Any, tmp_path: Path, how: str
) -> None:
    """From the log: nothing is left out, the last second may come twice. From a checkpoint: each entry once."""
    block = _registered(rig, spot, large)
    handle = rig.publish([block], [f"{B}/reader"], entries="t{n,x,z}")  # type: ignore[list-item]
    out = tmp_path / "out.lines"
    process = reader(handle.id, how)
    for already in (60, 120):
        until(lambda n=already, p=process: len(_lines(out)) >= n or p.poll() is not None, "the reader reads")
        assert process.poll() is None, process.communicate()[1][-2000:]
        process.kill()
        process.wait()
        process = reader(handle.id, how)
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, "end\n"), errors[-2000:]
    rig.wait_done(handle)
    seen = _lines(out)
    if how == "checkpoint":
        _, content = Checkpoint(str(tmp_path / "out")).read()
        kept = [tuple(map(int, line.split())) for line in content.decode().splitlines()]
        assert kept[0][0] == 0
        assert kept[-1][1] == 1_200_000
        assert all(before[1] == after[0] for before, after in pairwise(kept)), "each entry once"
    else:
        starts = [n for n, (before, after) in enumerate(pairwise(seen)) if after[0] != before[1]]
        assert len(starts) <= 2, "two kills, two places where it went back"
        assert all(seen[n + 1][0] < seen[n][1] for n in starts), "nothing is left out"
        assert {s for s, _ in seen} >= {0}
        assert seen[-1][1] == 1_200_000
        assert sum(stop - start for start, stop in seen) < 1_200_000 * 1.9, "it did not begin anew"
    rig.audit()


def test_of_two_processes_under_one_name_the_later_goes_on(rig: Rig, spot: Spot, large: Path, reader: Any) -> None:
    """The earlier one is stopped meanwhile, with batches in hand: it hands out nothing that could be committed."""
    block = _registered(rig, spot, large)
    handle = rig.publish([block], [f"{B}/reader"], entries="t{n,x,z}")  # type: ignore[list-item]
    with rig.ear(B, topics.CHUNK_EVENTS) as ear:
        first = reader(handle.id, "log")
        _, said = ear.until(lambda word: _of(word, handle.id, 1) and word.verified.size > 100_000, "it reads")  # type: ignore[union-attr]
        first.send_signal(signal.SIGSTOP)
        with EventStream(handle.id, settings=rig.settings(B), timeout_s=60) as stream:
            spans = [(batch.start, batch.stop) for _, batch in zip(range(40), stream, strict=False)]
            ear.until(lambda word: _of(word, handle.id, 2), "the later one has said its place")
            first.send_signal(signal.SIGCONT)
            said_last, errors = first.communicate(timeout=60)
            assert (first.returncode, said_last) == (1, "")
            assert f"reads {B}/reader now, and took over its place" in errors
            spans += [(batch.start, batch.stop) for batch in stream]
    assert spans[0][0] >= said.verified.size, "it began where the log said"
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert spans[-1][1] == 1_200_000
    rig.wait_done(handle)
    rig.audit()


def _of(word: m.Message, intent: str, attempt: int) -> bool:
    return isinstance(word, m.TransferProgress) and word.manifest.intent == intent and word.attempt == attempt


@pytest.mark.skipif(os.environ.get("T2G_TEST_BROKERS") == "containers", reason="a container is no process of ours")
def test_a_broker_that_stands_still_or_dies_ends_no_stream(rig: Rig, spot: Spot, large: Path) -> None:
    """Still for longer than a record is tried: what is given up is owed, and told when the broker goes on. Killed and
    started again: it knows no topic for a moment, and who read there goes on behind the last record."""
    block = _registered(rig, spot, large)
    handle = rig.publish([block], [f"{B}/reader"], entries="t{n}")  # type: ignore[list-item]
    settings = rig.settings(B)
    sites = tuple(replace(entry, kafka={"delivery.timeout.ms": "1500"}) for entry in settings.registry.sites)
    settings = replace(settings, registry=replace(settings.registry, sites=sites))
    broker, seen = rig.part(f"{B}-broker").pid, []
    goes_on = threading.Timer(5.0, os.kill, (broker, signal.SIGCONT))
    with EventStream(handle.id, settings=settings, timeout_s=120, ahead_bytes=1 << 20) as stream:
        seen += [next(stream).to_numpy()["n"] for _ in range(5)]
        stream.commit()
        seen.append(next(stream).to_numpy()["n"])
        os.kill(broker, signal.SIGSTOP)
        try:
            goes_on.start()
            stream.commit()
        finally:
            goes_on.join()
        seen += [next(stream).to_numpy()["n"] for _ in range(5)]
        before = rig.kill(f"{B}-broker")
        seen += [batch.to_numpy()["n"] for batch in stream]
        rig.until_back(before)
    assert np.array_equal(np.concatenate(seen), np.arange(1_200_000))
    rig.wait_done(handle)
    rig.audit()


def test_a_slow_reader_slows_only_itself(rig: Rig, spot: Spot, large: Path) -> None:
    """What it has not worked on is not asked for; a file beside it crosses meanwhile."""
    block = _registered(rig, spot, large)
    handle = rig.publish([block], [f"{B}/slow"], entries="t")  # type: ignore[list-item]
    ahead = 2 << 20
    with EventStream(handle.id, settings=rig.settings(B), timeout_s=60, ahead_bytes=ahead) as stream:
        first = next(stream)
        time.sleep(1.5)
        (manifest,) = rig.facts(A, topics.MANIFESTS, key=handle.id)
        asked = list(rig.facts(B, topics.requests_to(A), key=manifest.manifest))
        entry_bytes = manifest.items[0].bytes / manifest.items[0].length
        assert sum(request.ranges.size for request in asked) * entry_bytes <= 1.3 * ahead
        beside = {spot.lfn("beside.dat"): noise(3_000_000, spot)}
        rig.register(beside, spot.block("beside"))
        rig.wait_done(rig.publish([spot.block("beside")]))
        rig.assert_arrived(beside)
        count = len(first) + sum(len(batch) for batch in stream)
    assert count == 1_200_000
    rig.wait_done(handle)
    rig.audit()


def test_files_whose_columns_differ_fail_for_the_reader_and_the_rest_is_read(
    rig: Rig, spot: Spot, tmp_path: Path
) -> None:
    for name, kind in (("a", np.float64), ("b", np.float32), ("c", np.float64)):
        with uproot.recreate(tmp_path / f"{name}.root") as out:
            out["t"] = {"x": np.arange(100, dtype=kind)}
    block = _registered(rig, spot, *(tmp_path / f"{name}.root" for name in "abc"))
    handle = rig.publish([block], [f"{B}/reader"], entries="t")  # type: ignore[list-item]
    seen: list[str] = []
    with EventStream(handle.id, settings=rig.settings(B), timeout_s=60) as stream:
        with pytest.raises(PartlyDone, match=r"b\.root.*columns are not those of"):
            seen.extend(batch.lfn.rsplit("/", 1)[1] for batch in stream)
        ((lfn, reason),) = stream.failed
    assert seen == ["a.root", "c.root"]
    assert (lfn, reason.failure_class) == (Lfn(spot.lfn("b.root")), m.FailureClass.DATA_BAD)
    assert rig.wait(handle).exit_code == PartlyDone.exit_code
    both = rig.publish([block], [f"{B}/reader"], entries="t")  # type: ignore[list-item]
    with EventStream(both.id, settings=rig.settings(B), timeout_s=60, mixed_schemas=True) as stream:
        assert sum(len(batch) for batch in stream) == 300
    rig.wait_done(both)
    rig.audit()


def test_a_cancelled_and_a_refused_intent_end_their_streams(rig: Rig, spot: Spot, large: Path) -> None:
    block = _registered(rig, spot, large)
    handle = rig.publish([block], [f"{B}/reader"], entries="t")  # type: ignore[list-item]
    with EventStream(handle.id, settings=rig.settings(B), timeout_s=60, ahead_bytes=1 << 20) as stream:
        next(stream)
        handle.cancel()
        with pytest.raises(TransferFailed, match="cancelled"):
            deque((time.sleep(0.02) for _ in stream), maxlen=0)
    assert rig.wait(handle).state == "cancelled"
    nothing = rig.publish([spot.block("nothing")], [f"{B}/reader"], entries="t")  # type: ignore[list-item]
    with (
        EventStream(nothing.id, settings=rig.settings(B), timeout_s=60) as stream,
        pytest.raises(NeverWorks, match="refused"),
    ):
        next(stream)
    rig.audit()


def test_tail_prints_entries_as_an_onlooker(rig: Rig, spot: Spot) -> None:
    block = _registered(rig, spot, ZMUMU)
    handle = rig.publish([block], entries="events")
    rig.wait_done(handle)
    words = f"event tail {handle.id} --columns M,Run -n 5 --timeout 30"
    done = subprocess.run(
        [sys.executable, "-c", CLI, "--state", str(rig.state), "--site", B, *words.split()],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    with uproot.open(ZMUMU) as opened:
        masses = opened["events"]["M"].array(library="np")[:5]
    assert [one["M"] for one in printed] == list(masses)
    assert [one["entry"] for one in printed] == [0, 1, 2, 3, 4]
    assert all(one.keys() == {"lfn", "entry", "M", "Run"} for one in printed)
    own = done.stderr.split("intent ")[1].split()[0]
    until(lambda: rig.client(B).intent(own).snapshot().ended, "the onlooker's own intent has ended")
    rig.audit()


def test_twenty_of_947_jagged_columns_land(rig: Rig, spot: Spot) -> None:
    with uproot.open(NANO) as opened:
        branches = opened["Events"].keys()
        names = sorted(name for name in branches if name.startswith("Muon_"))[:20]
        source = opened["Events"].arrays(names)
    block = _registered(rig, spot, NANO)
    handle = rig.publish([block], entries=f"Events{{{','.join(names)}}}")
    rig.wait_done(handle)
    _, target = _landed(rig, handle)[spot.lfn(NANO.name)]
    table = pq.read_table(target)
    assert sorted(table.column_names) == names
    import awkward as ak

    for name in names:
        _same(ak.from_arrow(table[name].combine_chunks()), source[name])
    rig.audit()
