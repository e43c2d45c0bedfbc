"""One bad name never ends a reading-back: circles, rights, lost mounts, long names, what is no file, what vanishes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.core.names import Lfn
from streams.core.path_rules import PathRules
from streams.errors import NeverWorks, StorageError, without_part_names
from streams.registration.registering import verify
from streams.settings import Registry, Settings
from streams.storage import oserrors
from streams.storage.checksums import adler32, adler32_hex
from streams.storage.endpoint import Endpoint, OnDisk, item_tag, part_tag
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


# what is on a disk, known or not


def on_disk(root: Path) -> tuple[dict[str, OnDisk], list[tuple[str, str]]]:
    refused: list[tuple[str, str]] = []
    with PosixEndpoint(str(root)) as endpoint:
        return {one.path: one for one in endpoint.walk(lambda path, why: refused.append((path, why)))}, refused


def test_a_walk_names_everything_that_is_no_directory(tmp_path: Path) -> None:
    tag = part_tag("m", 0, 12)
    bad = os.fsdecode(b"\xff")
    names = ("store/a", "store/b/c.root", f"store/.t2g-{tag}.part", f"store/.t2g-{tag}.final.part", ".t2g-x.part", bad)
    for name in (*names, "two words", "pipe", "circle"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fifo(path) if name == "pipe" else circle(path) if name == "circle" else path.write_bytes(b"")
    (tmp_path / "store" / "to-itself").symlink_to("..")
    found, refused = on_disk(tmp_path)
    assert refused == []
    assert found.keys() == {*names, "two words", "pipe", "circle"}
    assert {path for path, one in found.items() if one.lfn is None} == {*names[2:], "two words"}
    assert found["store/b/c.root"].lfn == "/store/b/c.root"
    assert [found[name].item for name in names] == ["", "", item_tag("m", 0), item_tag("m", 0), "", ""]


def test_a_walk_of_a_deep_tree_ends(tmp_path: Path) -> None:
    """Deeper than any LFN: said once, and what is beside it is found."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (tmp_path / "beside").write_bytes(b"")
    found, [(_, why)] = on_disk(tmp_path)
    assert list(found) == ["beside"]
    assert why == "deeper than any name of a file"


def test_when_a_name_changed(tmp_path: Path) -> None:
    """Not when somebody says its content did; what is gone has no date; a link has its own, and its file's version."""
    (tmp_path / "a").write_bytes(b"good")
    (tmp_path / "link").symlink_to("a")
    os.utime(tmp_path / "a", (1, 1))
    with PosixEndpoint(str(tmp_path)) as endpoint:
        of_file, of_link = endpoint.dated("a"), endpoint.dated("link")
        assert of_file is not None
        assert of_link is not None
        assert of_file.version == of_link.version == endpoint.stat("/a").version
        assert of_file.changed_ns == (tmp_path / "a").stat().st_ctime_ns
        assert of_link.changed_ns == (tmp_path / "link").lstat().st_ctime_ns
        assert endpoint.dated("gone") is None
        assert endpoint.dated("a/below") is None


def test_a_disk_with_path_rules_is_walked_back_to_names(tmp_path: Path) -> None:
    rules = PathRules.configured(
        [{"lfn": "/+store/mc/(.*)", "pfn": f"{tmp_path}/sim/$1"}, {"prefix": f"{tmp_path}/rest"}]
    )
    tag = part_tag("m", 0, 1)
    for name in ("sim/a", "rest/b", "rest/store/mc/c", "elsewhere", f"sim/.t2g-{tag}.part", "sim/two words"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with PosixEndpoint(str(tmp_path), rules=rules) as endpoint:
        found = {one.path: one for one in endpoint.walk(lambda path, why: pytest.fail(f"{path}: {why}"))}
        assert {path: one.lfn for path, one in found.items()} == {
            "sim/a": "/store/mc/a",
            "rest/b": "/b",
            "rest/store/mc/c": None,
            "elsewhere": None,
            f"sim/.t2g-{tag}.part": None,
            "sim/two words": None,
        }
        assert found[f"sim/.t2g-{tag}.part"].item == item_tag("m", 0)
        assert all(endpoint.path_of(one.lfn) == path for path, one in found.items() if one.lfn is not None)


def test_rules_that_cannot_be_read_back_are_refused(tmp_path: Path) -> None:
    lost = PathRules.from_protocols([{"protocol": "p", "rules": [{"lfn": "/(.*)/(.*)", "pfn": "/$2"}]}], "p")
    with pytest.raises(NeverWorks, match=r"cannot be read back.*its group 1 is not in its pfn"):
        PosixEndpoint(str(tmp_path), rules=lost)
