"""The POSIX backend against the contract, with and without the kernel's newer calls, and what only POSIX has."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.core.path_rules import PathRules
from streams.errors import NeverWorks, StorageError
from streams.storage import open_endpoint, syscalls
from streams.storage.endpoint import PartFileLost, SealedFile, part_tag
from streams.storage.posix import PosixEndpoint
from tests.storage.contract import LFN, Backdoor, EndpointContract, adler_of, land, noise, tag


class PosixBackdoor(Backdoor):
    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, lfn: str) -> Path:
        return self.root / lfn.lstrip("/")

    def put(self, lfn: str, content: bytes) -> None:
        path = self.path(lfn)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name("administrator")
        temporary.write_bytes(content)
        temporary.replace(path)

    def get(self, lfn: str) -> bytes | None:
        return self.path(lfn).read_bytes() if self.path(lfn).exists() else None

    def overwrite(self, lfn: str, offset: int, content: bytes) -> None:
        with self.path(lfn).open("r+b") as file:
            file.seek(offset)
            file.write(content)

    def truncate(self, lfn: str, length: int) -> None:
        os.truncate(self.path(lfn), length)

    def remove(self, lfn: str) -> None:
        self.path(lfn).unlink()

    def _parts(self) -> list[Path]:
        return sorted(self.root.rglob(".t2g-*.part"))

    def parts(self) -> list[str]:
        return [path.name for path in self._parts()]

    def remove_parts(self) -> None:
        for path in self._parts():
            path.unlink()

    def corrupt_parts(self) -> None:
        for path in self._parts():
            stat = path.stat()
            with path.open("r+b") as file:
                first = file.read(1)
                file.seek(0)
                file.write(bytes([first[0] ^ 1]))
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def not_known(*_: object) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.fixture(params=["modern", "no-openat2", "no-renameat2", "no-syncfs"])
def endpoint(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PosixEndpoint]:
    missing = {"no-openat2": "open_beneath", "no-renameat2": "rename_noreplace", "no-syncfs": "syncfs"}
    if request.param in missing:
        monkeypatch.setattr(syscalls, missing[request.param], not_known)
    root = tmp_path / "root"
    root.mkdir()
    with PosixEndpoint(str(root)) as endpoint:
        yield endpoint


@pytest.fixture
def backdoor(endpoint: PosixEndpoint) -> PosixBackdoor:
    return PosixBackdoor(Path(endpoint.root))


class TestPosixKeepsTheContract(EndpointContract):
    pass


class RuledBackdoor(PosixBackdoor):
    def path(self, lfn: str) -> Path:
        below = lfn.removeprefix("/store/")
        return self.root / (f"recorded/{below}" if below != lfn else f"rest{lfn}")


class TestPosixWithPathRulesKeepsTheContract(EndpointContract):
    @pytest.fixture
    def endpoint(self, tmp_path: Path) -> Iterator[PosixEndpoint]:
        root = tmp_path / "root"
        root.mkdir()
        rules = [{"lfn": "/+store/(.*)", "pfn": f"{root}/recorded/$1"}, {"prefix": f"{root}/rest"}]
        with PosixEndpoint(str(root), rules=PathRules.configured(rules)) as endpoint:
            yield endpoint

    @pytest.fixture
    def backdoor(self, endpoint: PosixEndpoint) -> RuledBackdoor:
        return RuledBackdoor(Path(endpoint.root))


def open_fds(root: Path) -> int:
    """Descriptors of what lies there. Of a test before this one a client may still open and close its own."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            found += os.readlink(f"/proc/self/fd/{fd}").startswith(str(root))
    return found


# symbolic links


def test_links_out_of_the_root_are_not_followed(
    endpoint: PosixEndpoint, backdoor: PosixBackdoor, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (backdoor.root / "out").symlink_to(outside)
    (backdoor.root / "up").symlink_to("../outside")
    (backdoor.root / "file").symlink_to(outside / "secret")
    mine = tmp_path / "mine"
    mine.write_bytes(b"x")
    for directory in ("out", "up"):
        for attempt in (
            lambda d=directory: endpoint.open_part(f"/{d}/new", tag(), bytes=1, adler32=None),
            lambda d=directory: endpoint.open_part(f"/{d}/deeper/new", tag(), bytes=1, adler32=None),
            lambda d=directory: endpoint.place(f"/{d}/new", str(mine)),
            lambda d=directory: endpoint.open_reader(f"/{d}/secret"),
            lambda d=directory: endpoint.stat(f"/{d}/secret"),
        ):
            with pytest.raises(StorageError, match="a symbolic link leads out of the storage root") as caught:
                attempt()
            assert caught.value.failure_class == "permanent"
    for attempt in (lambda: endpoint.open_reader("/file"), lambda: land(endpoint, "/file", b"new")):
        with pytest.raises(StorageError, match="a symbolic link leads out of the storage root"):
            attempt()
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("absolute", [True, False])
def test_links_inside_the_root_are_followed(endpoint: PosixEndpoint, backdoor: PosixBackdoor, absolute: bool) -> None:
    (backdoor.root / "disk7").mkdir()
    (backdoor.root / "store").symlink_to(backdoor.root / "disk7" if absolute else "disk7")
    land(endpoint, "/store/new/file", b"abcdef")
    assert backdoor.get("/disk7/new/file") == b"abcdef"
    assert endpoint.checksum("/store/new/file") == adler_of(b"abcdef")


def test_a_dangling_link_at_the_target_is_not_written_through(
    endpoint: PosixEndpoint, backdoor: PosixBackdoor, tmp_path: Path
) -> None:
    (backdoor.root / "file").symlink_to("nowhere")
    with pytest.raises(StorageError, match="not a readable file") as caught:
        land(endpoint, "/file", b"abcdef")
    assert caught.value.failure_class == "permanent"
    assert sorted(path.name for path in backdoor.root.iterdir()) == ["file"]


def test_a_link_under_the_parts_name_is_not_written_through(
    endpoint: PosixEndpoint, backdoor: PosixBackdoor, tmp_path: Path
) -> None:
    victim = backdoor.root / "victim"
    victim.write_bytes(b"precious")
    (backdoor.root / f".t2g-{tag()}.part").symlink_to("victim")
    with pytest.raises(StorageError):
        land(endpoint, "/file", b"abcdef")
    (backdoor.root / f".t2g-{tag()}.part").unlink()
    os.link(victim, backdoor.root / f".t2g-{tag()}.part")
    with pytest.raises(PartFileLost, match="another name"):
        land(endpoint, "/file", b"abcdef")
    assert victim.read_bytes() == b"precious"


def test_a_pipe_or_directory_at_the_target_is_a_different_file(
    endpoint: PosixEndpoint, backdoor: PosixBackdoor
) -> None:
    os.mkfifo(backdoor.root / "pipe")
    (backdoor.root / "directory").mkdir()
    for lfn in ("/pipe", "/directory"):
        with pytest.raises(StorageError, match="not a regular file") as caught:
            land(endpoint, lfn, b"abcdef")
        assert caught.value.failure_class == "permanent"


def test_a_file_where_a_directory_is_needed(endpoint: PosixEndpoint, backdoor: PosixBackdoor) -> None:
    backdoor.put("/store/data", b"a file")
    with pytest.raises(StorageError, match="not a directory") as caught:
        land(endpoint, LFN, b"abcdef")
    assert caught.value.failure_class == "permanent"


# names of parts, descriptors


def test_the_part_lies_beside_the_target(endpoint: PosixEndpoint, backdoor: PosixBackdoor) -> None:
    with endpoint.open_part(LFN, "0123456789abcdef-12", bytes=1, adler32=None):
        assert (backdoor.path(LFN).parent / ".t2g-0123456789abcdef-12.part").exists()


def test_tags_differ_by_manifest_item_and_attempt() -> None:
    tags = {part_tag(manifest, item, attempt) for manifest in "ab" for item in range(3) for attempt in range(3)}
    assert len(tags) == 18


def test_open_descriptors_are_bounded(tmp_path: Path) -> None:
    before = open_fds(tmp_path)
    with PosixEndpoint(str(tmp_path), open_parts_max=5) as endpoint:
        parts = [endpoint.open_part(f"/f{n}", tag(n), bytes=2, adler32=None) for n in range(50)]
        for part in parts:
            part.write(0, b"xy")
        assert open_fds(tmp_path) <= before + 5 + 2  # the root and the disk
        assert all(isinstance(answer, SealedFile) for answer in endpoint.seal_group(parts))
        assert open_fds(tmp_path) <= before + 2
    assert open_fds(tmp_path) == before


def test_errors_leave_no_descriptor_open(endpoint: PosixEndpoint, backdoor: PosixBackdoor) -> None:
    backdoor.put(LFN, b"theirs")
    before = open_fds(backdoor.root)
    for _ in range(3):
        with pytest.raises(StorageError):
            land(endpoint, LFN, b"mine!!")
        with pytest.raises(StorageError):
            endpoint.open_reader(LFN, "1:2:3")
        with pytest.raises(PartFileLost):
            endpoint.open_part(LFN, tag(), bytes=6, adler32=None, verified=[(0, 6)])
    assert open_fds(backdoor.root) - before <= 1  # the disk's own, opened at the first part


def test_short_writes_are_finished(
    endpoint: PosixEndpoint, backdoor: PosixBackdoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, view, offset: whole(fd, view[: max(1, len(view) // 3)], offset))
    content = noise(10_000)
    land(endpoint, LFN, content)
    assert backdoor.get(LFN) == content


def test_parts_written_here_are_never_read_back(
    endpoint: PosixEndpoint, backdoor: PosixBackdoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[int, int]] = []
    pread = os.pread
    monkeypatch.setattr(
        os, "pread", lambda fd, length, offset: reads.append((offset, length)) or pread(fd, length, offset)
    )
    content = noise(9_000)
    first = endpoint.open_part(LFN, tag(), bytes=9_000, adler32=adler_of(content))
    first.write(0, content[:3_000])
    verified = first.sync()
    first.close()
    with endpoint.open_part(LFN, tag(), bytes=9_000, adler32=adler_of(content), verified=verified) as part:
        part.write(3_000, content[3_000:])
        part.seal()
    assert reads == [(0, 3_000)]


def test_eight_threads_seal_the_same_target(endpoint: PosixEndpoint, backdoor: PosixBackdoor) -> None:
    content = noise(300_000)
    answers: list[SealedFile] = []
    gate = threading.Barrier(8)

    def write(item: int) -> None:
        with endpoint.open_part(LFN, tag(item), bytes=len(content), adler32=adler_of(content)) as part:
            part.write(0, content)
            gate.wait()
            answers.append(part.seal())

    threads = [threading.Thread(target=write, args=(item,)) for item in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.already for answer in answers) == [False] + [True] * 7
    assert backdoor.get(LFN) == content
    assert backdoor.parts() == []


def test_a_part_replaced_by_another_file_is_lost(endpoint: PosixEndpoint, backdoor: PosixBackdoor) -> None:
    content = noise(6)
    for item, use in enumerate((lambda part: part.write(3, content[3:]), lambda part: part.seal())):
        part = endpoint.open_part(LFN, tag(item), bytes=6, adler32=adler_of(content))
        part.write(0, content[:3] if item == 0 else content)
        stranger = backdoor.path(LFN).with_name(f".t2g-{tag(item)}.part")
        stranger.unlink()
        stranger.write_bytes(content)
        with pytest.raises(PartFileLost, match="another file took the part's name"):
            use(part)
        assert stranger.read_bytes() == content, "what is not ours is neither written nor deleted"
        assert backdoor.get(LFN) is None


def test_new_directories_are_made_durable_up_to_the_root_once(
    endpoint: PosixEndpoint, backdoor: PosixBackdoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    land(endpoint, "/a/b/c/one", b"1", item=1)
    root = endpoint.root
    assert set(synced) == {root, f"{root}/a", f"{root}/a/b", f"{root}/a/b/c"}
    synced.clear()
    land(endpoint, "/a/b/c/two", b"2", item=2)
    assert set(synced) == {f"{root}/a/b/c"}
    synced.clear()
    backdoor.path("/a/b").rename(backdoor.root / "moved")
    land(endpoint, "/a/b/c/three", b"3", item=3)
    assert f"{root}/a" in synced, "a new directory under an old name is new"


def test_a_name_that_may_not_last_is_no_success(
    endpoint: PosixEndpoint, backdoor: PosixBackdoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    part = endpoint.open_part("/a/synced", tag(1), bytes=6, adler32=None)
    sealed = endpoint.open_part("/a/sealed", tag(2), bytes=6, adler32=None)
    part.write(0, b"abcdef")
    sealed.write(0, b"abcdef")
    sealed.sync()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(PartFileLost, match="cannot sync: the disk reports an input/output error"):
            part.sync()
        for attempt in (sealed.seal, lambda: endpoint.present("/a/sealed", 6, adler_of(b"abcdef"))):
            with pytest.raises(StorageError, match=r"cannot make the name durable|input/output error") as caught:
                attempt()
            assert caught.value.failure_class == "transient"
            assert not isinstance(caught.value, PartFileLost)
    assert endpoint.present("/a/sealed", 6, adler_of(b"abcdef"))


def test_an_error_told_at_close_loses_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network filesystems report a failed write there, and nowhere else."""
    closing = os.close

    def failing(fd: int) -> None:
        closing(fd)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with PosixEndpoint(str(tmp_path), open_parts_max=1) as endpoint:
        first = endpoint.open_part("/first", tag(1), bytes=2, adler32=None)
        first.write(0, b"x")
        with monkeypatch.context() as patch:
            patch.setattr(os, "close", failing)
            second = endpoint.open_part("/second", tag(2), bytes=2, adler32=None)
        with pytest.raises(PartFileLost, match="quota") as caught:
            first.sync()
        assert caught.value.failure_class == "quota"
        second.write(0, b"xy")
        assert not second.seal().already


def test_a_dirty_part_whose_descriptor_was_closed_is_synced_with_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor opened anew may not hear of an error that somebody else was told: only the disk's own does."""
    calls: list[str] = []
    syncfs, fdatasync = syscalls.syncfs, os.fdatasync
    monkeypatch.setattr(syscalls, "syncfs", lambda fd: calls.append("syncfs") or syncfs(fd))
    monkeypatch.setattr(os, "fdatasync", lambda fd: calls.append("fdatasync") or fdatasync(fd))
    with PosixEndpoint(str(tmp_path), open_parts_max=1) as endpoint:
        first = endpoint.open_part("/first", tag(1), bytes=2, adler32=None)
        second = endpoint.open_part("/second", tag(2), bytes=2, adler32=None)
        first.write(0, b"x")
        first.sync()
        second.write(0, b"x")
        assert calls == ["fdatasync"]
        calls.clear()
        first.write(1, b"y")
        second.sync()
        assert calls == ["syncfs"]
        first.sync()
        assert calls == ["syncfs", "fdatasync"], "the one still open hears for itself"


# placing


@pytest.mark.parametrize("link", [True, False])
def test_a_placed_file_is_synced_before_it_is_named(
    endpoint: PosixEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    calls: list[str] = []
    for name in ("fsync", "fdatasync", "link"):
        original = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda *args, name=name, original=original, **more: calls.append(name) or original(*args, **more),
        )
    (tmp_path / "mine").write_bytes(b"abcdef")
    endpoint.place("/file", str(tmp_path / "mine"), link=link)
    assert calls == ["fsync" if link else "fdatasync", "link", "fsync"]


def test_placing_links_on_one_filesystem(endpoint: PosixEndpoint, backdoor: PosixBackdoor, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"abcdef")
    assert endpoint.place(LFN, str(mine)).how == "link"
    assert mine.samefile(backdoor.path(LFN))


def test_placing_a_link_brings_the_file(endpoint: PosixEndpoint, backdoor: PosixBackdoor, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"abcdef")
    (tmp_path / "alias").symlink_to("mine")
    endpoint.place(LFN, str(tmp_path / "alias"))
    assert not backdoor.path(LFN).is_symlink()
    assert backdoor.get(LFN) == b"abcdef"


def test_placing_without_nameless_files(
    endpoint: PosixEndpoint, backdoor: PosixBackdoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = os.open

    def no_nameless(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no nameless files here")
        return opening(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", no_nameless)
    mine = tmp_path / "mine"
    mine.write_bytes(noise(2_500_000))
    assert endpoint.place(LFN, str(mine), link=False).how == "copy"
    assert backdoor.get(LFN) == noise(2_500_000)
    mine.write_bytes(b"another")
    with pytest.raises(StorageError, match="a different file"):
        endpoint.place(LFN, str(mine), link=False)
    assert backdoor.parts() == []


# opening


def test_open_endpoint(tmp_path: Path) -> None:
    root = tmp_path / "with space"
    root.mkdir()
    with open_endpoint(f"file://{tmp_path}/with%20space", name="disk") as endpoint:
        assert (endpoint.name, endpoint.root, endpoint.pfn("/a/b")) == ("disk", str(root), f"{root}/a/b")


@pytest.mark.parametrize("url", ["", "/data", "root://host//store", "file://host/data", "file:data", "file:///a?b=c"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(NeverWorks):
        open_endpoint(url)


def test_a_root_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="create the directory, or mount the disk"):
        open_endpoint(f"file://{tmp_path}/absent")
    assert list(tmp_path.iterdir()) == []


def test_rules_cannot_lead_out_of_the_root(tmp_path: Path) -> None:
    with PosixEndpoint(str(tmp_path), rules=PathRules.prefix(f"{tmp_path}/deep")) as endpoint:
        assert endpoint.pfn("/store/x") == f"{tmp_path}/deep/store/x"
    for prefix in ("/etc", f"{tmp_path}x", f"{tmp_path}/..", f"{tmp_path}/a/../../b", "relative"):
        with (
            PosixEndpoint(str(tmp_path), rules=PathRules.prefix(prefix)) as endpoint,
            pytest.raises(StorageError, match="does not lead to a file under the storage root"),
        ):
            endpoint.pfn("/store/x")


def test_a_file_that_was_only_touched_is_told_so(endpoint: PosixEndpoint, backdoor: Backdoor) -> None:
    backdoor.put(LFN, b"same")
    listed = endpoint.stat(LFN).version
    os.utime(endpoint.pfn(LFN), ns=(1, 1))
    with pytest.raises(StorageError, match=r"since it was listed \(same size, other time\).*register it again"):
        endpoint.open_reader(LFN, listed)


# Removing.


def test_who_removes_waits_for_who_holds_the_name(tmp_path: Path) -> None:
    endpoint = PosixEndpoint(str(tmp_path))
    land(endpoint, LFN, b"whole")
    looked, removed = threading.Event(), threading.Event()

    def slow(lfn: str, version: str) -> str | None:
        looked.set()
        assert not removed.wait(0.2), "the lock is held while it is asked"
        return None

    def second() -> None:
        looked.wait(5)
        other = PosixEndpoint(str(tmp_path))
        assert other.remove_group([LFN], lambda lfn, version: pytest.fail("it is gone by then")) == [None]
        other.close()
        removed.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert endpoint.remove_group([LFN], slow) == [None]
    thread.join(5)
    assert removed.is_set()
    endpoint.close()


def test_a_repair_waits_for_who_removes_and_finds_the_name_free(tmp_path: Path) -> None:
    """Between look and deletion it would else put the whole file under the remover."""
    endpoint = PosixEndpoint(str(tmp_path))
    PosixBackdoor(tmp_path).put(LFN, b"abXdef")
    sealed = threading.Event()

    def repair() -> None:
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"), replaces=True) as part:
            part.write(0, b"abcdef")
            opened.set()
            looked.wait(5)
            part.seal()
        sealed.set()

    opened, looked = threading.Event(), threading.Event()
    thread = threading.Thread(target=repair)
    thread.start()
    assert opened.wait(5)

    def why_not(lfn: str, version: str) -> str | None:
        looked.set()
        assert not sealed.wait(0.2), "the damaged file changes places behind the lock"
        return None

    assert endpoint.remove_group([LFN], why_not) == [None]
    thread.join(5)
    assert PosixBackdoor(tmp_path).get(LFN) == b"abcdef"
    assert PosixBackdoor(tmp_path).parts() == []
    endpoint.close()


def test_each_directory_is_synced_once_and_a_failed_sync_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = PosixEndpoint(str(tmp_path))
    lfns = [f"/store/d{n % 2}/f{n}" for n in range(6)]
    for n, lfn in enumerate(lfns):
        land(endpoint, lfn, noise(10 + n), item=n)
    synced: list[str] = []
    sync, broken = os.fsync, [False]

    def watched(fd: int) -> None:
        name = os.readlink(f"/proc/self/fd/{fd}")
        synced.append(name)
        if broken[0] and name.endswith("d1"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    assert endpoint.remove_group(lfns[:4], lambda lfn, version: None) == [None] * 4
    assert sorted(name.rpartition("/")[2] for name in synced if "/d" in name) == ["d0", "d1"]
    broken[0] = True
    answers = endpoint.remove_group(lfns[4:], lambda lfn, version: None)
    assert answers[0] is None
    assert isinstance(answers[1], StorageError), "it may be there again after a crash"
    broken[0] = False
    assert endpoint.remove_group(lfns[4:], lambda lfn, version: None) == [None, None], "found gone, and synced"
    endpoint.close()


def test_what_is_no_regular_file_is_not_removed_and_locks_are_in_no_walk(tmp_path: Path) -> None:
    endpoint = PosixEndpoint(str(tmp_path))
    land(endpoint, LFN, b"whole")
    link = tmp_path / "store" / "link"
    link.symlink_to(tmp_path / LFN[1:])
    (tmp_path / "store" / "directory").mkdir()
    for lfn in ("/store/link", "/store/directory"):
        (answer,) = endpoint.remove_group([lfn], lambda lfn, version: None)
        assert isinstance(answer, StorageError)
    assert (link.is_symlink(), endpoint.stat(LFN).bytes) == (True, 5)
    assert (tmp_path / ".t2g-locks").is_dir()
    assert sorted(one.path for one in endpoint.walk(lambda path, why: None)) == [LFN[1:], "store/link"]
    endpoint.close()
