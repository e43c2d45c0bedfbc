"""The demo's inputs, refusals and exit codes, without a federation."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streams.core.names import Block, Lfn, Site
from streams.demo import files
from streams.errors import NotFound, Temporary
from tests.cli.conftest import Run

A, B = Site("T1_A"), Site("T2_B")


def lot(code: int, whole: int, whole_files: int = 2) -> files.Lot:
    expected = [(Lfn(f"/f{n}"), 1, "00000001") for n in range(whole_files)]
    made = files.Lot(Block("/P/P/T#b"), [], "/store/x", expected=expected)
    made.outcome, made.whole = SimpleNamespace(exit_code=code), whole  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("lots", "wrong", "audit", "code"),
    [
        ([lot(0, 2), lot(0, 2)], (), 0, 0),
        ([lot(0, 2), lot(0, 2)], (), 1, 1),
        ([lot(0, 2), lot(8, 1)], (), 0, 8),
        ([lot(0, 2), lot(0, 1)], ("f differs",), 0, 8),
        ([lot(6, 0), lot(6, 0)], (), 0, 6),
        ([lot(7, 0), lot(7, 0)], (), 0, 7),
        ([lot(0, 2), lot(5, 0)], (), 0, 5),
    ],
)
def test_exit_codes(lots: list[files.Lot], wrong: tuple[str, ...], audit: int, code: int) -> None:
    report: Any = SimpleNamespace(exit_code=audit)
    assert files.DemoReport(A, B, tuple(lots), 1.0, wrong, report).exit_code == code


def test_the_samples_are_real_root_files_with_their_origin() -> None:
    found = files.samples()
    assert len(found) == 3
    origin = (Path(found[0]).parent / "ORIGIN.md").read_text()
    for path in found:
        assert Path(path).read_bytes()[:4] == b"root"
        assert Path(path).name in origin


def test_inputs_are_small_files_and_a_big_one_in_two_blocks(tmp_path: Path) -> None:
    told: list[str] = []
    events, small = files.inputs(tmp_path, [], small=True, tell=told.append)
    assert events.block.dataset == small.block.dataset
    made = [p for p in Path(small.paths[0]).rglob("*") if p.is_file()]
    assert len(made) == files.SMALL_FILES
    assert {p.stat().st_size for p in made} >= {0, 1, 100, 4096}
    assert Path(events.paths[-1]).stat().st_size == files.SMALL_BIG_BYTES
    assert told == ["making 500 small files and one of 0.02 GB"]


def test_a_path_that_is_not_there_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="no such file"):
        files.check_room(tmp_path / "state", [str(tmp_path / "nowhere")], small=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000_000))
    with pytest.raises(Temporary, match=r"1\.0 GB free"):
        files.check_room(tmp_path / "state", [], small=False)
    files.check_room(tmp_path / "state", [], small=True)


def test_refused_before_anything_starts(run: Run, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert run("up", "--sites", "99").exit_code == 2
    assert run("up", "--sites", "A,A").exit_code == 2
    assert run("up", "--sites", "A B").exit_code == 2
    assert run("demo", tmp_path / "nowhere").exit_code == 3
    assert not state.exists()
    state.mkdir()
    (state / "sites.toml").write_text('[sites.T1_A]\nbootstrap = "127.0.0.1:26990"\n')
    own = run("demo")
    assert (own.exit_code, "use another --state" in own.stderr) == (7, True)
    assert run("status").exit_code == 0


def test_rebuild_shows_then_does(run: Run, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    sites = state / "sites.toml"
    text = '# ours\npartitions = 8\ntable_version = 4\n[sites.T1_A]\nbootstrap = "127.0.0.1:26990"\n'
    sites.write_text(text)
    assert "4 → 5" in run("rebuild").stdout
    assert sites.read_text() == text
    done = run("rebuild", "--execute")
    assert (done.exit_code, "stop every worker" in done.stderr) == (0, True)
    assert sites.read_text() == text.replace("= 4", "= 5")
    sites.write_text(text.replace("table_version = 4\n", ""))
    assert run("rebuild", "--execute").exit_code == 0
    assert "table_version = 2\n" in sites.read_text()
