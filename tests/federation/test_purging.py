"""`down --purge`: whatever stands below a state directory goes, and one bad name never ends the walk."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from streams.errors import Temporary
from streams.federation import local, plan, purging

NOBODY = 65534


def deep(top: Path, levels: int = 2100) -> None:
    """A directory whose path is longer than any call takes."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def littered(top: Path, outside: Path) -> None:
    (top / "storage" / "store").mkdir(parents=True)
    deep(top / "storage")
    (top / "circle").symlink_to("circle")
    (top / "storage" / "out").symlink_to(outside)
    (top / "storage" / ".t2g-0123456789abcdef-1.part").write_bytes(b"x")
    os.makedirs(os.fsencode(top) + b"/\xff\xfe/\xe4")
    Path(os.fsdecode(os.fsencode(top) + b"/\xff\xfe/line\nbreak")).write_bytes(b"x")
    (top / ("n" * 255)).mkdir()
    os.mkfifo(top / "storage" / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(top)  # a socket's path is short
        bound.bind("socket")
        os.chdir(here)


def test_everything_goes_and_nothing_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    top = tmp_path / "state"
    top.mkdir()
    littered(top, outside)
    (top / "federation.json").write_text("{}")
    assert purging.remove_within(str(top), ("federation.json",)) == []
    assert os.listdir(top) == ["federation.json"]
    assert (outside / "kept").read_bytes() == b"kept"


def test_what_cannot_be_removed_is_named_and_the_rest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "state" / name / "sub").mkdir(parents=True)
        (tmp_path / "state" / name / "sub" / "file").write_bytes(b"x")
    unlink, inode = os.unlink, (tmp_path / "state" / "b" / "sub").stat().st_ino

    def stubborn(name: str, *, dir_fd: int) -> None:
        if os.fstat(dir_fd).st_ino == inode:
            raise PermissionError(1, "Operation not permitted", name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", stubborn)
    faults = purging.remove_within(str(tmp_path / "state"))
    assert (str(tmp_path / "state" / "b" / "sub" / "file"), "operation not permitted") in faults
    assert len(os.listdir(tmp_path / "state")) <= 2, "only what holds the stubborn file"


def test_a_directory_without_rights_goes_for_its_owner(tmp_path: Path) -> None:
    """In a process of its own, without the rights of root."""
    top = tmp_path / "state"
    (top / "closed" / "in").mkdir(parents=True)
    (top / "closed" / "in" / "file").write_bytes(b"x")
    if os.getuid() == 0:
        for path in (tmp_path, *tmp_path.parents[:2]):
            os.chmod(path, 0o755)
        for path in (top, top / "closed", top / "closed" / "in", top / "closed" / "in" / "file"):
            os.chown(path, NOBODY, NOBODY)
    os.chmod(top / "closed" / "in", 0o000)
    os.chmod(top / "closed", 0o500)
    fd = os.open(top, os.O_RDONLY)
    child = os.fork()
    if not child:
        try:
            os.fchdir(fd)
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os._exit(len(purging.remove_within(".")))
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 0
    assert os.listdir(top) == []


def test_a_purge_that_could_not_end_can_be_said_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    (state / "T1_A" / "storage").mkdir(parents=True)
    record = plan.planned(["T1_A"], None, workers=1, credit_bytes=1 << 20, home=str(state))
    local._write_files(state, record)
    with monkeypatch.context() as patch:
        patch.setattr(purging, "remove_within", lambda *_: [("/some/\nfile", "permission denied")])
        with pytest.raises(Temporary, match=r"not all could be removed: .*permission denied"):
            local.down(state, purge=True)
    local.down(state, purge=True)
    assert not state.exists()


@pytest.mark.parametrize("room_after", [0, 3, 10**9])
def test_a_full_disk_is_emptied_where_directories_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_after: int
) -> None:
    """No room to move a directory up, until so many files are gone."""
    top = tmp_path / "state"
    for number in range(3):
        below = top / f"a{number}" / "b" / "c" / "d"
        below.mkdir(parents=True)
        for path in (below, *below.parents[:3]):
            (path / "file").write_bytes(b"x")
    gone = 0
    rename, unlink = os.rename, os.unlink

    def no_room(*args: Any, **more: Any) -> None:
        if gone < room_after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(*args, **more)

    def counted(*args: Any, **more: Any) -> None:
        nonlocal gone
        unlink(*args, **more)
        gone += 1

    monkeypatch.setattr(os, "rename", no_room)
    monkeypatch.setattr(os, "unlink", counted)
    assert purging.remove_within(str(top)) == []
    assert os.listdir(top) == []
    assert gone == 12
