"""One bad name never ends a reading-back: circles, rights, lost mounts, long names, what is no file, what vanishes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.core.names import Lfn
from streams.errors import StorageError, without_part_names
from streams.registration import verify
from streams.settings import Registry, Settings
from streams.storage import oserrors
from streams.storage.checksums import adler32, adler32_hex
from streams.storage.endpoint import Endpoint
from streams.storage.posix import PosixEndpoint

GOOD = adler32_hex(adler32(b"good"))


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def nothing(path: Path) -> None:
    path.symlink_to("no-such")


def outside(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"x")


def below_a_circle(path: Path) -> None:
    path.parent.rmdir()
    path.parent.symlink_to(path.parent.name)


def fifo(path: Path) -> None:
    os.mkfifo(path)


ODD: dict[str, Callable[[Path], object]] = {
    "circle": circle,
    "nothing": nothing,
    "outside": outside,
    "below-a-file": below_a_file,
    "below-a-circle": below_a_circle,
    "fifo": fifo,
    "directory": Path.mkdir,
    "gone": lambda path: None,
}


@pytest.fixture
def store(tmp_path: Path) -> Endpoint:
    (tmp_path / "store").mkdir()
    return PosixEndpoint(str(tmp_path))


def settings(tmp_path: Path) -> Settings:
    return Settings(Registry(partitions=1, sites=()), None, tmp_path, tmp_path, tmp_path / "s", tmp_path / "c")


def checked(tmp_path: Path, store: Endpoint, names: list[str]) -> dict[str, str]:
    expected = [(Lfn(name), 4, GOOD) for name in names]
    return {str(one.lfn): one.why for one in verify(settings(tmp_path), expected, endpoint=store)}


def test_what_stands_in_a_files_place_is_one_fault(tmp_path: Path, store: Endpoint) -> None:
    names = []
    for name, make in ODD.items():
        at = tmp_path / "store" / name / "x"
        at.parent.mkdir()
        make(at)
        names.append(f"/store/{name}/x")
    long = "/store/" + "n" * 300
    (tmp_path / "store" / "good").write_bytes(b"good")
    found = checked(tmp_path, store, [*names, long, "/store/good"])
    assert [name for name, why in found.items() if not why] == ["/store/good"]
    assert len(found) == len(ODD) + 2
    assert all("\n" not in why for why in found.values())


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EMFILE, errno.ENOENT, errno.ENODEV]
)
@pytest.mark.parametrize("call", ["fstat", "preadv"])
def test_a_disk_that_refuses_is_each_files_fault(
    tmp_path: Path, store: Endpoint, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    """A mount that went away, rights that changed, a file that vanishes between two looks: at one file of three."""
    for name in "abc":
        (tmp_path / "store" / name).write_bytes(b"good")
    bad = (tmp_path / "store" / "b").stat().st_ino
    stat, real = os.fstat, getattr(os, call)

    def refuses(fd: int, *given: object) -> object:
        if stat(fd).st_ino == bad:
            raise OSError(number, os.strerror(number))
        return real(fd, *given)

    monkeypatch.setattr(os, call, refuses)
    found = checked(tmp_path, store, ["/store/a", "/store/b", "/store/c"])
    assert [name for name, why in found.items() if why] == ["/store/b"]


@pytest.mark.skipif(os.getuid() != 0, reason="drops the rights of root")
def test_without_rights_the_rest_is_read(tmp_path: Path) -> None:
    """In a process of its own, as nobody."""
    for path in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(path, 0o755)
    for name in ("open", "closed"):
        (tmp_path / "store" / name).mkdir(parents=True)
        (tmp_path / "store" / name / "x").write_bytes(b"good")
    (tmp_path / "store" / "open" / "unreadable").write_bytes(b"good")
    os.chmod(tmp_path / "store" / "open" / "unreadable", 0)
    os.chmod(tmp_path / "store" / "closed", 0)
    store = PosixEndpoint(str(tmp_path))
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            names = ["/store/closed/x", "/store/open/unreadable", "/store/open/x"]
            why = [one.why for one in verify(settings(tmp_path), [(Lfn(n), 4, GOOD) for n in names], endpoint=store)]
            os._exit(0 if ["permission denied" in w for w in why] == [True, True, False] and not why[2] else 1)
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError("[Errno 28] Error writing bytes to file '/proc/self/fd/7/.t2g-0123456789abcdef-1.final.part'"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/.t2g-0123456789abcdef-1.part"),
    ],
)
def test_no_part_name_is_told(error: OSError) -> None:
    for told in (oserrors.reading, oserrors.writing, oserrors.syncing):
        failure = told(error, "/data/x")
        assert isinstance(failure, StorageError)
        assert ".t2g-" not in str(failure)
    assert without_part_names(f"{error}; try again").endswith("try again")
