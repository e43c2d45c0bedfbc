"""Objects of files cross two sites: keys of ROOT files and members of archives, each an item with its own checksum."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import uproot

from streams.core import records as m
from streams.core import topics
from streams.errors import PartlyDone, UsageError
from tests.sites.rig import A, B, Rig, Spot, adler, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]


def _all_items(rig: Rig, handle: Any) -> list[m.Item]:
    return [item for manifest in rig.facts(A, topics.MANIFESTS, key=handle.id) for item in manifest.items]


def _items(rig: Rig, handle: Any) -> dict[str, m.Item]:
    """Object's name → item."""
    return {item.selection.removeprefix("objects:"): item for item in _all_items(rig, handle)}


def test_histograms_and_trees_of_a_root_file(rig: Rig, spot: Spot, tmp_path: Path) -> None:
    path = tmp_path / "hists.root"
    with uproot.recreate(path) as out:
        for name in ("hpt", "heta", "cutflow"):
            out[name] = np.histogram(np.random.default_rng(1).normal(size=1000), bins=20)
        out["deep/hphi"] = np.histogram(np.arange(10.0), bins=5)
        out.mktree("events", {"x": np.float64, "n": np.int64}).extend({"x": np.arange(5000.0), "n": np.arange(5000)})
    rig.register({spot.lfn("hists.root"): path.read_bytes()}, spot.block())
    handle = rig.publish([spot.block()], objects="h*,deep/*,events")
    rig.wait_done(handle)
    items = _items(rig, handle)
    assert set(items) == {"hpt", "heta", "deep/hphi", "events"}
    with uproot.open(path) as source:
        for name, item in items.items():
            landed = rig.path(B, item.target)
            assert (landed.stat().st_size, adler(landed.read_bytes())) == (item.bytes, item.adler32)
            with uproot.open(landed) as found:
                if name == "events":
                    columns = found[name].arrays(library="np")
                    assert all(np.array_equal(columns[c], source[name][c].array(library="np")) for c in ("x", "n"))
                else:
                    assert np.array_equal(found[name].values(), source[name].values())
    (held,) = [
        file
        for record in rig.facts(B, topics.REPLICAS)
        if isinstance(record, m.FilesHeld)
        for file in record.files
        if file.lfn == items["hpt"].target
    ]
    assert (held.part_of, held.selection) == (spot.lfn("hists.root"), "objects:hpt")
    rig.audit()


def test_members_of_archives_and_what_may_not_leave_them(rig: Rig, spot: Spot) -> None:
    """Links and bombs are refused one by one; everything else arrives, whatever its name: none names a path.

    With it legal archives of odd kinds: hard links, sparse members, bzip2 in a zip, a tar of zstd frames.
    """
    contents = {f"data/{n}.dat": noise(10_000 * n, (spot, n)) for n in range(1, 5)}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("data/link.dat")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        hard = tarfile.TarInfo("data/hard.dat")
        hard.type, hard.linkname = tarfile.LNKTYPE, "data/1.dat"
        archive.addfile(hard)
        out = tarfile.TarInfo("data/../../out.dat")
        out.size = 3
        archive.addfile(out, io.BytesIO(b"out"))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive_zip:
        archive_zip.writestr("data/words.txt", b"words " * 100)
        archive_zip.writestr("data/bzip2.txt", b"bzip2 " * 100, zipfile.ZIP_BZIP2)
        archive_zip.writestr("data/bomb.dat", bytes(64 << 20))
    cases = Path(__file__).parents[1] / "objects" / "cases"
    files = {
        spot.lfn("a.tar.gz"): packed.getvalue(),
        spot.lfn("b.zip"): zipped.getvalue(),
        spot.lfn("sparse.tar.zst"): pa.compress((cases / "sparse-gnu.tar").read_bytes(), "zstd", asbytes=True),
        spot.lfn("hard.tar"): (cases / "hardlink-dup.tar").read_bytes(),
    }
    rig.register(files, spot.block())
    handle = rig.publish([spot.block()], objects="*")
    outcome = rig.wait(handle)
    assert outcome.exit_code == PartlyDone.exit_code
    items = _items(rig, handle)
    odd = {"data/hard.dat": contents["data/1.dat"], "data/../../out.dat": b"out", "data/bzip2.txt": b"bzip2 " * 100}
    for name, content in {**contents, **odd, "data/words.txt": b"words " * 100}.items():
        assert rig.path(B, items[name].target).read_bytes() == content, name
    assert rig.path(B, items["s.bin"].target).stat().st_size == 10 << 20
    assert rig.path(B, items["z.txt"].target).stat().st_size == 5
    assert {item.bytes for item in _all_items(rig, handle) if item.selection == "objects:a.txt"} == {6, 400}
    assert not list(rig.path(B, "/").rglob("out.dat"))
    reasons = sorted(one.reason.text for one in outcome.unfinished)
    assert len(reasons) == 2
    assert any("link.dat" in text and "it is a link" in text for text in reasons)
    assert any("bomb.dat" in text for text in reasons)
    assert {one.reason.failure_class for one in outcome.unfinished} == {m.FailureClass.PERMANENT}
    rig.audit()


def test_members_have_names_of_any_kind(rig: Rig, spot: Spot) -> None:
    """A name is data and travels whatever it is made of; what cannot travel fails alone, and no gate refuses any."""
    odd = ("Übersicht/ä é.txt", "数据.csv", "a\tb", "{x},*?.txt", "http://x/y", "/etc/x", "../x", "a\\b")
    contents = {name: name.encode() for name in ("ok.txt", *odd)}
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for name in (*contents, "n" * 1100):
            archive.writestr(name, name.encode())
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        for name in (*contents, b"undecodable-\xe4".decode("utf-8", "surrogateescape")):
            info = tarfile.TarInfo(name)
            info.size = len(raw := name.encode("utf-8", "surrogateescape"))
            tar.addfile(info, io.BytesIO(raw))
    letters = {site: len(list(rig.records(site, topics.DEAD_LETTERS))) for site in (A, B)}
    rig.register({spot.lfn("odd.zip"): zipped.getvalue(), spot.lfn("odd.tar"): tarred.getvalue()}, spot.block())
    outcome = rig.wait(rig.publish([spot.block()], objects="*"))
    assert outcome.exit_code == PartlyDone.exit_code
    (one,) = outcome.unfinished
    assert "1,024 at most" in one.reason.text
    landed = [path.read_bytes() for path in rig.path(B, spot.lfn("x")).parent.iterdir()]
    wanted = [*contents.values(), *contents.values(), b"undecodable-\xe4"]
    assert sorted(landed) == sorted(wanted)
    some = rig.wait_done(rig.publish([spot.block()], objects="Übersicht/*,数据.csv"))
    assert some.destinations[0].arrived == 4
    assert {site: len(list(rig.records(site, topics.DEAD_LETTERS))) for site in (A, B)} == letters
    rig.audit()


def test_thousands_of_members_are_several_manifests(rig: Rig, spot: Spot) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for n in range(1300):
            archive.writestr(f"m/{n:04}.dat", b"%d" % n)
    rig.register({spot.lfn("many.zip"): zipped.getvalue()}, spot.block())
    handle = rig.publish([spot.block()], objects="m/*")
    outcome = rig.wait_done(handle)
    assert outcome.destinations[0].arrived == 1300
    assert len(list(rig.facts(A, topics.MANIFESTS, key=handle.id))) == 3
    items = _items(rig, handle)
    assert all(rig.path(B, items[f"m/{n:04}.dat"].target).read_bytes() == b"%d" % n for n in range(0, 1300, 97))
    rig.audit()


def test_a_name_that_is_not_there_names_the_nearest(rig: Rig, spot: Spot) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("cutflow.csv", b"1")
    rig.register({spot.lfn("one.zip"): zipped.getvalue(), spot.lfn("no.zip"): b"nothing"}, spot.block())
    handle = rig.publish([spot.block()], objects="cutflw.csv")
    why = {one.lfn.rsplit("/", 1)[1]: one.reason for one in rig.wait(handle).unfinished}
    assert "nearest: cutflow.csv" in why["one.zip"].text
    assert why["no.zip"].failure_class is m.FailureClass.DATA_BAD
    with pytest.raises(UsageError, match="together"):
        rig.publish([spot.block()], objects="*", entries="[:]")
    rig.audit()


def test_objects_of_a_growing_dataset(rig: Rig, spot: Spot) -> None:
    def archive(*names: str) -> bytes:
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as made:
            for name in names:
                made.writestr(name, name)
        return zipped.getvalue()

    rig.register({spot.lfn("b.zip"): archive("h/one", "h/two", "no")}, spot.block())
    handle = rig.publish([spot.block()], objects="h/*", source=A, until="close")
    until(lambda: handle.snapshot().arrived == 2, "what was there has arrived")
    rig.register({spot.lfn("a.zip"): archive("h/three")}, spot.block())
    until(lambda: handle.snapshot().arrived == 3, "what came later has arrived")
    handle.close_intake()
    assert rig.wait_done(handle).destinations[0].arrived == 3
    items = _items(rig, handle)
    assert {name: rig.path(B, item.target).read_bytes() for name, item in items.items()} == {
        name: name.encode() for name in ("h/one", "h/two", "h/three")
    }
    rig.audit()
