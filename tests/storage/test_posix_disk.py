"""Full, failing, read-only and power-cut disks: real ones, small, mounted for the test (needs the right to mount)."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from streams.core.ranges import Ranges
from streams.errors import StorageError
from streams.storage.endpoint import PartFileLost, SealedFile, Wanted
from streams.storage.posix import PosixEndpoint
from tests.storage.contract import LFN, adler_of, land, noise, tag
from tests.storage.disks import CUTS_MAX, as_nobody, ext4_image, mounted, power_cut, tmpfs
from tests.system_tools import tool

MB = 1_000_000


# full


def test_a_full_disk_is_quota_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    content = noise(900_000)
    with tmpfs(tmp_path / "disk", "size=1m") as disk, PosixEndpoint(str(disk)) as endpoint:
        (disk / "ballast").write_bytes(bytes(600_000))
        with endpoint.open_part(LFN, tag(), bytes=len(content), adler32=adler_of(content)) as part:
            part.write(0, content[:200_000])
            with pytest.raises(StorageError, match="the disk is full") as caught:
                part.write(200_000, content[200_000:])
            assert caught.value.failure_class == "quota"
            assert not isinstance(caught.value, PartFileLost)
            assert part.sync() == Ranges([(0, 200_000)])
            (disk / "ballast").unlink()
            part.write(200_000, content[200_000:])
            part.seal()
        assert (disk / LFN[1:]).read_bytes() == content


def test_a_full_disk_spoils_only_what_does_not_fit(tmp_path: Path) -> None:
    content = noise(100_000)
    with tmpfs(tmp_path / "disk", "size=1m") as disk, PosixEndpoint(str(disk)) as endpoint:
        parts, refused = [], []
        for n in range(20):
            parts.append(endpoint.open_part(f"/f{n}", tag(n), bytes=len(content), adler32=adler_of(content)))
            try:
                parts[-1].write(0, content)
            except StorageError as error:
                refused.append(error.failure_class)
        assert set(refused) == {"quota"}
        answers = endpoint.seal_group(parts)
        assert sum(isinstance(answer, SealedFile) for answer in answers) == 20 - len(refused)
        assert 8 <= 20 - len(refused) <= 10
        for n, answer in enumerate(answers):
            assert (disk / f"f{n}").exists() == isinstance(answer, SealedFile)


def test_reserving_finds_out_early(tmp_path: Path) -> None:
    with (
        tmpfs(tmp_path / "disk", "size=1m") as disk,
        PosixEndpoint(str(disk)) as endpoint,
        pytest.raises(StorageError, match="the disk is full") as caught,
    ):
        endpoint.open_part(LFN, tag(), bytes=5_000_000, adler32=None, preallocate=True)
    assert caught.value.failure_class == "quota"


def test_no_more_inodes_is_quota(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=1m,nr_inodes=8") as disk, PosixEndpoint(str(disk)) as endpoint:
        with suppress(OSError):
            for n in range(100):
                (disk / f"f{n}").touch()
        with pytest.raises(StorageError, match="the disk is full") as caught:
            endpoint.open_part("/one-more", tag(), bytes=1, adler32=None)
        assert caught.value.failure_class == "quota"
        with pytest.raises(StorageError, match="the disk is full"):
            endpoint.open_part("/new/directory/f", tag(), bytes=1, adler32=None)


def test_placing_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(noise(3_000_000))
    with tmpfs(tmp_path / "disk", "size=1m") as disk, PosixEndpoint(str(disk)) as endpoint:
        with pytest.raises(StorageError, match="the disk is full") as caught:
            endpoint.place(LFN, str(mine))
        assert caught.value.failure_class == "quota"
        assert [path for path in disk.rglob("*") if path.is_file()] == []
        assert os.statvfs(disk).f_bfree > 200


def test_placing_across_filesystems_copies(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(noise(300_000))
    with tmpfs(tmp_path / "disk", "size=1m") as disk, PosixEndpoint(str(disk)) as endpoint:
        assert endpoint.place(LFN, str(mine)).how == "copy"
        assert (disk / LFN[1:]).read_bytes() == noise(300_000)


# failing


@pytest.mark.parametrize("count", [1, 20])
def test_a_failed_sync_loses_the_parts(tmp_path: Path, count: int) -> None:
    """The disk behind an ext4 takes 1 MB and then fails: writes succeed into the page cache, and syncs tell."""
    with ExitStack() as stack:
        thin = stack.enter_context(tmpfs(tmp_path / "thin", "size=6m"))
        image = ext4_image(thin / "image", 40)
        disk = stack.enter_context(mounted(tmp_path / "disk", "-o", "loop,errors=continue", str(image)))
        endpoint = stack.enter_context(PosixEndpoint(str(disk)))
        land(endpoint, "/before", b"good")
        content = noise(12 * MB // count)
        parts = [
            endpoint.open_part(f"/f{n}", tag(n), bytes=len(content), adler32=adler_of(content)) for n in range(count)
        ]
        for part in parts:
            part.write(0, content)
        answers = endpoint.sync_group(parts)
        assert all(isinstance(answer, PartFileLost) for answer in answers), answers
        assert isinstance(answers[0], PartFileLost)
        assert "cannot sync" in str(answers[0])
        for part in parts:
            with pytest.raises(PartFileLost):
                part.write(0, b"x")
            with pytest.raises(PartFileLost):
                part.seal()
        assert not (disk / "f0").exists()


def test_a_sync_error_told_to_one_caller_is_known_to_all(tmp_path: Path) -> None:
    """The kernel reports a lost page once per descriptor; a part of another group must not take silence for success."""
    with ExitStack() as stack:
        thin = stack.enter_context(tmpfs(tmp_path / "thin", "size=6m"))
        image = ext4_image(thin / "image", 40)
        disk = stack.enter_context(mounted(tmp_path / "disk", "-o", "loop,errors=continue", str(image)))
        endpoint = stack.enter_context(PosixEndpoint(str(disk), open_parts_max=4))
        content = noise(600_000)
        parts = [endpoint.open_part(f"/f{n}", tag(n), bytes=600_000, adler32=None) for n in range(20)]
        for part in parts:
            part.write(0, content)
        assert all(isinstance(answer, PartFileLost) for answer in endpoint.sync_group(parts[:10]))
        assert all(isinstance(answer, PartFileLost) for answer in endpoint.sync_group(parts[10:]))


# read-only, forbidden


def test_a_read_only_disk_is_permanent(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=1m") as disk, PosixEndpoint(str(disk)) as endpoint:
        land(endpoint, "/there", b"abcdef")
        part = endpoint.open_part("/new", tag(1), bytes=6, adler32=None)
        part.write(0, b"abcdef")
        part.close()
        subprocess.run([tool("mount"), "-o", "remount,ro", str(disk)], check=True)
        for attempt in (
            lambda: part.seal(),
            lambda: endpoint.open_part(LFN, tag(), bytes=6, adler32=None),
            lambda: endpoint.place(LFN, __file__),
        ):
            with pytest.raises(StorageError, match="mounted read-only") as caught:
                attempt()
            assert caught.value.failure_class == "permanent"
        assert endpoint.checksum("/there") == adler_of(b"abcdef")
        assert endpoint.present("/there", 6, adler_of(b"abcdef"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_what_the_user_may_not_do_is_auth(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "secret").chmod(0o600)
    with PosixEndpoint(str(tmp_path)) as endpoint, as_nobody():
        for attempt in (
            lambda: endpoint.open_part(LFN, tag(), bytes=6, adler32=None),
            lambda: endpoint.open_part("/top", tag(), bytes=6, adler32=None),
            lambda: endpoint.open_reader("/secret"),
        ):
            with pytest.raises(StorageError, match="permission denied") as caught:
                attempt()
            assert caught.value.failure_class == "auth"


# power


def test_what_was_reported_outlives_a_power_cut(tmp_path: Path) -> None:
    image = ext4_image(tmp_path / "image", 60)
    content = noise(3 * MB)
    small = {f"/store/new{n % 4}/deep/f{n}": noise(5_000, seed=n) for n in range(30)}
    with (
        mounted(tmp_path / "disk", "-o", "loop", str(image)) as disk,
        PosixEndpoint(str(disk), open_parts_max=8) as endpoint,
    ):
        for n in range(CUTS_MAX):
            lfn = f"/store/data/Run{n}/file.root"
            part = endpoint.open_part(lfn, tag(), bytes=len(content), adler32=adler_of(content))
            part.write(MB, content[MB : 2 * MB])
            with power_cut(image, tmp_path, f"unsynced{n}") as after:
                if not (after / lfn[1:]).parent.exists():
                    break
            part.close()
        else:
            pytest.fail("power cuts lose nothing here: the rest of this test would prove nothing")
        verified = part.sync()
        part.write(0, content[:MB])
        with power_cut(image, tmp_path, "synced") as after, PosixEndpoint(str(after)) as restarted:
            resumed = restarted.open_part(lfn, tag(), bytes=len(content), adler32=adler_of(content), verified=verified)
            resumed.write(0, content[:MB])
            resumed.write(2 * MB, content[2 * MB :])
            assert not resumed.seal().already
        part.write(2 * MB, content[2 * MB :])
        part.seal()
        with power_cut(image, tmp_path, "sealed") as after:
            assert (after / lfn[1:]).read_bytes() == content

        parts = []
        for n, (name, each) in enumerate(small.items()):
            parts.append(endpoint.open_part(name, tag(n), bytes=len(each), adler32=adler_of(each)))
            parts[-1].write(0, each)
        assert all(isinstance(answer, SealedFile) for answer in endpoint.seal_group(parts))
        with power_cut(image, tmp_path, "group") as after:
            assert {name: (after / name[1:]).read_bytes() for name in small} == small

        (disk / "foreign").mkdir()
        for n, each in enumerate(small.values()):
            (disk / "foreign" / f"f{n}").write_bytes(each)
        wanted = [Wanted(f"/foreign/f{n}", len(each), adler_of(each)) for n, each in enumerate(small.values())]
        assert endpoint.present_group(wanted[:1]) == [True]
        with power_cut(image, tmp_path, "one") as after:
            assert (after / "foreign/f0").read_bytes() == small["/store/new0/deep/f0"]
        assert endpoint.present_group(wanted) == [True] * 30
        with power_cut(image, tmp_path, "many") as after:
            assert [(after / f"foreign/f{n}").read_bytes() for n in range(30)] == list(small.values())

        mine = tmp_path / "mine"
        mine.write_bytes(content)
        endpoint.place("/placed/file", str(mine))
        with power_cut(image, tmp_path, "placed") as after:
            assert (after / "placed/file").read_bytes() == content
