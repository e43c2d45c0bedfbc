"""The contracts of `streams/storage/endpoint.py` as tests, which every backend subclasses.

`ReadContract` is of every storage, `DirectoryContract` of those that have directories, `WriteContract` of those that
are written to; `EndpointContract` is all of it. A subclass gives the fixtures `endpoint` and `backdoor` (the storage as
its administrator sees it).
"""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.core.ranges import Ranges
from streams.errors import StorageError, Transfer2goError
from streams.storage.checksums import adler32, adler32_hex
from streams.storage.endpoint import (
    DifferentFile,
    Endpoint,
    FileMissing,
    PartFileLost,
    ReadableStorage,
    SealedFile,
    Wanted,
    part_tag,
)

LFN = "/store/data/Run1/file.root"
ELSEWHERE = [
    "", "/", "store/x", "/store/../../etc/passwd", "/..", "/store/./x", "//store/x", "/store//x", "/store/x/",
    "/store/.hidden", "/.t2g-0000000000000000-0.part", "/store/a\0b", "/store/a\nb", "/" + "x" * 1024,
]  # fmt: skip
"""Names that lead to no file under any root."""


class Backdoor(ABC):
    @abstractmethod
    def put(self, lfn: str, content: bytes) -> None:
        """A whole file by other means, replacing."""

    @abstractmethod
    def get(self, lfn: str) -> bytes | None: ...

    @abstractmethod
    def overwrite(self, lfn: str, offset: int, content: bytes) -> None:
        """Change bytes in place."""

    @abstractmethod
    def truncate(self, lfn: str, length: int) -> None: ...

    @abstractmethod
    def remove(self, lfn: str) -> None: ...

    @abstractmethod
    def parts(self) -> list[str]:
        """Names of all part files there are."""

    @abstractmethod
    def remove_parts(self) -> None: ...

    @abstractmethod
    def corrupt_parts(self) -> None:
        """Change the first byte of each part file, as a bad disk would."""


def noise(length: int, seed: int = 7) -> bytes:
    return random.Random(seed).randbytes(length)


def adler_of(content: bytes) -> str:
    return adler32_hex(adler32(content))


def tag(item: int = 0, attempt: int = 0) -> str:
    return part_tag("T1_A.0f0e1d9e-0000-4000-8000-000000000000.0.0", item, attempt)


def land(endpoint: Endpoint, lfn: str, content: bytes, **changes: int) -> SealedFile:
    with endpoint.open_part(lfn, tag(**changes), bytes=len(content), adler32=adler_of(content)) as part:
        part.write(0, content)
        return part.seal()


def refused(*attempts: Callable[[], object]) -> None:
    """None of these leads out of the root."""
    for attempt in attempts:
        with pytest.raises(StorageError, match="does not lead to a file under the storage root") as caught:
            attempt()
        assert caught.value.failure_class == "permanent"
        assert str(caught.value).isprintable()


class ReadContract:
    SCALE = 1
    """Sizes of files that change while they are read: beyond what a reader keeps of a version that it has begun."""
    NOTICED_WHEN_READ = False
    """A reader of a given version asks nothing before its first read."""

    def begin(self, endpoint: ReadableStorage, lfn: str, version: str) -> None:
        """Open a version, and read it where only that asks for it."""
        with endpoint.open_reader(lfn, version) as reader:
            if self.NOTICED_WHEN_READ:
                reader.pread(0, 1)

    # reading

    def test_stat_and_version_follow_the_content(self, endpoint: ReadableStorage, backdoor: Backdoor) -> None:
        backdoor.put(LFN, b"one")
        before = endpoint.stat(LFN)
        assert before.bytes == 3
        assert endpoint.stat(LFN) == before
        backdoor.put(LFN, b"two")
        assert endpoint.stat(LFN).version != before.version

    @pytest.mark.parametrize("length", [0, 1, 100, 4096, (1 << 20) - 1, (1 << 20) + 1, 3_000_000])
    def test_checksum_is_of_every_byte(self, endpoint: ReadableStorage, backdoor: Backdoor, length: int) -> None:
        content = noise(length)
        backdoor.put(LFN, content)
        assert endpoint.checksum(LFN) == adler_of(content)

    def test_ranges_are_read_exactly(self, endpoint: ReadableStorage, backdoor: Backdoor) -> None:
        content = noise(100_000)
        backdoor.put(LFN, content)
        with endpoint.open_reader(LFN, endpoint.stat(LFN).version) as reader:
            assert reader.pread(99_990, 10) == content[99_990:]
            assert reader.pread(0, 0) == b""
            into = bytearray(70_000)
            reader.readinto(17, memoryview(into))
            assert into == content[17:70_017]

    def test_a_url_is_of_one_version_or_there_is_none(self, endpoint: ReadableStorage, backdoor: Backdoor) -> None:
        backdoor.put(LFN, b"12345")
        given = endpoint.url_of(LFN, endpoint.stat(LFN).version, 60)
        assert given is None or (given.bytes == 5 and given.etag and given.url.startswith(("http://", "https://")))

    def test_a_file_that_is_not_there(self, endpoint: ReadableStorage) -> None:
        for attempt in (endpoint.stat, endpoint.open_reader, endpoint.checksum):
            with pytest.raises(FileMissing, match="no such file") as caught:
                attempt(LFN)
            assert caught.value.failure_class == "permanent"

    def test_another_version_is_refused_in_words(self, endpoint: ReadableStorage, backdoor: Backdoor) -> None:
        backdoor.put(LFN, noise(1000))
        version = endpoint.stat(LFN).version
        backdoor.put(LFN, noise(400))
        with pytest.raises(StorageError, match="shrank from 1000 to 400 bytes since it was listed") as caught:
            self.begin(endpoint, LFN, version)
        assert caught.value.failure_class == "data-bad"

    @pytest.mark.parametrize(("new_length", "what"), [(400, "shrank"), (1600, "grew")])
    def test_shrinking_and_growing_while_read(
        self, endpoint: ReadableStorage, backdoor: Backdoor, new_length: int, what: str
    ) -> None:
        scale = self.SCALE
        words = f"{what} from {1000 * scale} to {new_length * scale}"
        backdoor.put(LFN, noise(1000 * scale))
        with endpoint.open_reader(LFN) as reader:
            reader.pread(0, 300)
            backdoor.truncate(LFN, new_length * scale)
            with pytest.raises(StorageError, match=f"{words} bytes while it was read") as caught:
                reader.pread(300 * scale, 300 * scale)
            assert caught.value.failure_class == "data-bad"
            with pytest.raises(StorageError, match=words):
                reader.readinto(300 * scale, memoryview(bytearray(700 * scale)))

    @pytest.mark.parametrize("version", ["", "x", "6:1:1", "-6::", "9" * 5000])
    def test_a_version_that_never_was(self, endpoint: ReadableStorage, backdoor: Backdoor, version: str) -> None:
        backdoor.put(LFN, b"abcdef")
        with pytest.raises(StorageError, match="since it was listed") as caught:
            self.begin(endpoint, LFN, version)
        assert caught.value.failure_class == "data-bad"

    def test_beyond_the_end_is_an_error_not_short(self, endpoint: ReadableStorage, backdoor: Backdoor) -> None:
        backdoor.put(LFN, noise(10))
        with (
            endpoint.open_reader(LFN) as reader,
            pytest.raises(StorageError, match=r"up to 11 were asked of a file of 10"),
        ):
            reader.pread(5, 6)

    # names

    @pytest.mark.parametrize("lfn", ELSEWHERE)
    def test_names_that_lead_elsewhere(self, endpoint: ReadableStorage, lfn: str) -> None:
        refused(
            lambda: endpoint.pfn(lfn),
            lambda: endpoint.stat(lfn),
            lambda: endpoint.open_reader(lfn),
            lambda: endpoint.checksum(lfn),
        )


class DirectoryContract:
    def test_a_directory_is_not_a_file(self, endpoint: ReadableStorage, backdoor: Backdoor) -> None:
        backdoor.put(LFN, b"x")
        for attempt in (endpoint.stat, endpoint.open_reader):
            with pytest.raises(StorageError, match="not a regular file"):
                attempt("/store/data")


class WriteContract:
    # names

    @pytest.mark.parametrize("lfn", ELSEWHERE)
    def test_names_that_lead_elsewhere_are_not_written(self, endpoint: Endpoint, tmp_path: Path, lfn: str) -> None:
        mine = tmp_path / "mine"
        mine.write_bytes(b"x")
        refused(
            lambda: endpoint.present(lfn, 1, "00000001"),
            lambda: endpoint.open_part(lfn, tag(), bytes=1, adler32=None),
            lambda: endpoint.discard(lfn, tag()),
            lambda: endpoint.place(lfn, str(mine)),
        )

    @pytest.mark.parametrize("bad", ["", "x", "../../0000000000000000-0", "0123456789abcdef", "0123456789abcdef-01"])
    def test_tags_that_are_none(self, endpoint: Endpoint, bad: str) -> None:
        with pytest.raises(Transfer2goError, match="not a part's tag"):
            endpoint.open_part(LFN, bad, bytes=1, adler32=None)

    # writing

    @pytest.mark.parametrize("length", [0, 1, 100, 4096, 65_536, 1_000_003])
    def test_a_file_lands(self, endpoint: Endpoint, backdoor: Backdoor, length: int) -> None:
        content = noise(length)
        assert not endpoint.present(LFN, length, adler_of(content))
        assert land(endpoint, LFN, content) == SealedFile(LFN, length, adler_of(content), already=False)
        assert backdoor.get(LFN) == content
        assert backdoor.parts() == []
        assert endpoint.present(LFN, length, adler_of(content))

    def test_nothing_is_under_the_final_name_before_the_seal(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        with endpoint.open_part(LFN, tag(), bytes=4, adler32=None) as part:
            part.write(0, b"abcd")
            part.sync()
            assert backdoor.get(LFN) is None
            assert len(backdoor.parts()) == 1
            part.seal()
        assert backdoor.get(LFN) == b"abcd"

    def test_any_order_and_repeats(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        content = noise(50_000)
        pieces = [(at, content[at : at + 1000 + at % 700]) for at in range(0, 50_000, 900)]
        random.Random(3).shuffle(pieces)
        with endpoint.open_part(LFN, tag(), bytes=50_000, adler32=adler_of(content), preallocate=True) as part:
            for at, piece in pieces + pieces[:10]:
                part.write(at, memoryview(piece))
            assert part.covered == Ranges([(0, 50_000)])
            assert not part.seal().already
        assert backdoor.get(LFN) == content

    def test_a_part_of_one_piece(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        content = noise(70_000)
        with endpoint.write_part(LFN, tag(), memoryview(content), adler32=adler_of(content)) as part:
            assert part.covered == Ranges([(0, 70_000)])
            assert backdoor.get(LFN) is None
            part.write(0, noise(70_000, seed=8))  # what is covered is skipped
            assert part.sync() == part.covered
            assert part.seal() == SealedFile(LFN, 70_000, adler_of(content), already=False)
        assert backdoor.get(LFN) == content
        assert backdoor.parts() == []

    def test_a_part_of_one_piece_over_what_a_process_left_that_died(
        self, endpoint: Endpoint, backdoor: Backdoor
    ) -> None:
        content = noise(70_000)
        with endpoint.open_part(LFN, tag(), bytes=len(content), adler32=adler_of(content)) as left:
            left.write(0, noise(100, seed=8))
        with endpoint.write_part(LFN, tag(), content, adler32=adler_of(content)) as part:
            part.seal()
        assert backdoor.get(LFN) == content

    def test_a_part_of_one_piece_that_is_not_the_file(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        with endpoint.write_part(LFN, tag(), b"other", adler32=adler_of(b"right")) as part:
            with pytest.raises(PartFileLost, match="differs") as caught:
                part.seal()
            assert caught.value.failure_class == "data-bad"
            part.discard()
        assert backdoor.get(LFN) is None
        assert backdoor.parts() == []

    def test_a_byte_is_taken_once(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        """Else the checksum kept in memory would not be that of the disk."""
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef")) as part:
            part.write(2, b"cd")
            part.write(0, b"abXXef")
            part.seal()
        assert backdoor.get(LFN) == b"abcdef"

    def test_sync_says_what_is_durable(self, endpoint: Endpoint) -> None:
        with endpoint.open_part(LFN, tag(), bytes=100, adler32=None) as part:
            assert part.sync() == Ranges()
            part.write(10, bytes(20))
            part.write(50, bytes(50))
            assert part.sync() == Ranges([(10, 30), (50, 100)])

    def test_a_seal_with_holes_is_refused_and_can_be_finished(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef")) as part:
            part.write(0, b"abc")
            with pytest.raises(StorageError, match=r"3 bytes are not written yet, the first \[3, 6\)") as caught:
                part.seal()
            assert caught.value.failure_class == "transient"
            part.write(3, b"def")
            part.seal()
        assert backdoor.get(LFN) == b"abcdef"

    @pytest.mark.parametrize(("offset", "segment"), [(-1, b"x"), (5, b"xy"), (6, b"x")])
    def test_a_segment_outside_the_file(self, endpoint: Endpoint, offset: int, segment: bytes) -> None:
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=None) as part:
            with pytest.raises(StorageError, match="lies outside the file of 6 bytes") as caught:
                part.write(offset, segment)
            assert caught.value.failure_class == "data-bad"
            part.write(0, b"abcdef")
            part.seal()

    def test_bad_data_is_never_named(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef")) as part:
            part.write(0, b"abcdeX")
            with pytest.raises(PartFileLost, match="checksum differs: expected") as caught:
                part.seal()
            assert caught.value.failure_class == "data-bad"
            with pytest.raises(PartFileLost):
                part.write(0, b"a")
            assert backdoor.get(LFN) is None
            part.discard()
        assert backdoor.parts() == []

    # what was not the file, and mostly right

    def test_a_seed_gives_what_is_right_of_it_and_counts_for_nothing_else(
        self, endpoint: Endpoint, backdoor: Backdoor
    ) -> None:
        with endpoint.open_part(LFN, tag(attempt=1), bytes=6, adler32=adler_of(b"abcdef")) as part:
            part.write(0, b"abXdef")
            with pytest.raises(PartFileLost):
                part.seal()
            assert part.leave_seed()
        assert endpoint.take_seed(LFN, tag(attempt=1), tag(attempt=2))
        assert not endpoint.take_seed(LFN, tag(attempt=1), tag(attempt=2)), "it is taken"
        with endpoint.open_part(LFN, tag(attempt=2), bytes=6, adler32=adler_of(b"abcdef")) as part:
            assert part.covered == Ranges()
            assert part.adopt(0, 2, lambda block: bytes(block) == b"ab")
            assert not part.adopt(2, 4, lambda block: bytes(block) == b"cd")
            assert part.adopt(4, 6, lambda block: bytes(block) == b"ef")
            assert part.covered == Ranges([(0, 2), (4, 6)])
            assert part.sync() == Ranges([(0, 2), (4, 6)])
            part.write(0, b"ZZcdZZ")
            assert part.adopt(0, 6, lambda block: False), "all of it is there"
            assert part.seal() == SealedFile(LFN, 6, adler_of(b"abcdef"), already=False)
        assert backdoor.get(LFN) == b"abcdef"
        assert backdoor.parts() == []

    def test_of_a_seed_that_is_shorter_nothing_is_adopted_behind_its_end(self, endpoint: Endpoint) -> None:
        with endpoint.open_part(LFN, tag(attempt=1), bytes=6, adler32=None) as part:
            part.write(0, b"abc")
            assert part.leave_seed()
            with pytest.raises(PartFileLost, match="seed"):
                part.write(3, b"def")
        assert endpoint.take_seed(LFN, tag(attempt=1), tag(attempt=2))
        with endpoint.open_part(LFN, tag(attempt=2), bytes=6, adler32=None) as part:
            assert not part.adopt(2, 6, lambda _: True)
            assert part.adopt(0, 3, lambda _: True)
            assert part.covered == Ranges([(0, 3)])

    def test_where_none_was_left_there_is_no_seed_and_one_is_deleted_with_its_tag(
        self, endpoint: Endpoint, backdoor: Backdoor
    ) -> None:
        assert not endpoint.take_seed(LFN, tag(attempt=1), tag(attempt=2))
        with endpoint.open_part(LFN, tag(attempt=1), bytes=6, adler32=None) as part:
            part.write(0, b"abc")
            backdoor.remove_parts()
            assert not part.leave_seed()
        with endpoint.open_part(LFN, tag(attempt=1), bytes=6, adler32=None) as part:
            part.write(0, b"abc")
            assert part.leave_seed()
        assert len(backdoor.parts()) == 1
        assert endpoint.discard(LFN, tag(attempt=1))
        assert backdoor.parts() == []

    def test_without_an_expected_checksum_the_seal_tells_it(self, endpoint: Endpoint) -> None:
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=None) as part:
            part.write(0, b"abcdef")
            assert part.seal().adler32 == adler_of(b"abcdef")

    # taking the place of a damaged file

    def test_a_damaged_file_gives_what_is_right_of_it_and_then_its_place(
        self, endpoint: Endpoint, backdoor: Backdoor
    ) -> None:
        backdoor.put(LFN, b"abXdefgh")
        with endpoint.open_reader(LFN) as reading:
            with endpoint.open_part(LFN, tag(), bytes=8, adler32=adler_of(b"abcdefgh"), replaces=True) as part:
                assert part.adopt(0, 2, lambda block: bytes(block) == b"ab")
                assert not part.adopt(2, 4, lambda block: bytes(block) == b"cd")
                part.write(2, b"cd")
                verified = part.sync()
            assert backdoor.get(LFN) == b"abXdefgh", "the name keeps its file until the part is whole"
            with endpoint.open_part(
                LFN, tag(), bytes=8, adler32=adler_of(b"abcdefgh"), verified=verified, replaces=True
            ) as part:
                assert part.adopt(4, 8, lambda block: bytes(block) == b"efgh")
                assert part.seal() == SealedFile(LFN, 8, adler_of(b"abcdefgh"), already=False)
            assert reading.stat.bytes == 8
        assert backdoor.get(LFN) == b"abcdefgh"
        assert backdoor.parts() == []

    def test_what_took_the_place_of_a_damaged_file_meanwhile_stays(
        self, endpoint: Endpoint, backdoor: Backdoor
    ) -> None:
        backdoor.put(LFN, b"abXdef")
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"), replaces=True) as part:
            part.write(0, b"abcdef")
            backdoor.remove(LFN)
            backdoor.put(LFN, b"other!")
            with pytest.raises(DifferentFile):
                part.seal()
        assert backdoor.get(LFN) == b"other!"
        assert backdoor.parts() == []

    def test_where_the_damaged_file_went_away_a_part_gets_the_name(
        self, endpoint: Endpoint, backdoor: Backdoor
    ) -> None:
        backdoor.put(LFN, b"abXdef")
        with endpoint.open_part(LFN, tag(1), bytes=6, adler32=adler_of(b"abcdef"), replaces=True) as part:
            part.write(0, b"abcdef")
            backdoor.remove(LFN)
            part.seal()
        assert backdoor.get(LFN) == b"abcdef"
        with endpoint.open_part("/store/new", tag(2), bytes=6, adler32=adler_of(b"abcdef"), replaces=True) as part:
            part.write(0, b"abcdef")
            part.seal()
        assert backdoor.get("/store/new") == b"abcdef"

    def test_bad_data_leaves_a_damaged_file_where_it_is(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        backdoor.put(LFN, b"abXdef")
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"), replaces=True) as part:
            part.write(0, b"abcdeX")
            with pytest.raises(PartFileLost, match="checksum differs"):
                part.seal()
            part.discard()
        assert backdoor.get(LFN) == b"abXdef"
        assert backdoor.parts() == []

    # never replacing

    def test_the_same_file_already_there(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        backdoor.put(LFN, b"abcdef")
        version = endpoint.stat(LFN).version
        assert land(endpoint, LFN, b"abcdef").already
        assert endpoint.stat(LFN).version == version
        assert backdoor.parts() == []

    @pytest.mark.parametrize("other", [b"abcdeX", b"abc", b""])
    def test_a_different_file_already_there(self, endpoint: Endpoint, backdoor: Backdoor, other: bytes) -> None:
        backdoor.put(LFN, other)
        for attempt in (
            lambda: endpoint.present(LFN, 6, adler_of(b"abcdef")),
            lambda: land(endpoint, LFN, b"abcdef"),
        ):
            with pytest.raises(StorageError, match="a different file is already at the destination") as caught:
                attempt()
            assert caught.value.failure_class == "permanent"
            assert not isinstance(caught.value, PartFileLost)
        assert backdoor.get(LFN) == other
        assert backdoor.parts() == []

    def test_present_without_a_checksum_cannot_tell(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        backdoor.put(LFN, b"abcdef")
        assert not endpoint.present(LFN, 6, None)
        with pytest.raises(StorageError, match="6 bytes instead of 7"):
            endpoint.present(LFN, 7, None)
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=None) as part:
            part.write(0, b"abcdef")
            assert part.seal().already

    def test_two_writers_of_one_target(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        with (
            endpoint.open_part(LFN, tag(1), bytes=6, adler32=None) as first,
            endpoint.open_part(LFN, tag(2), bytes=6, adler32=None) as same,
            endpoint.open_part(LFN, tag(3), bytes=6, adler32=None) as other,
        ):
            first.write(0, b"abcdef")
            same.write(0, b"abcdef")
            other.write(0, b"ABCDEF")
            assert [isinstance(answer, SealedFile) for answer in endpoint.seal_group([first, same, other])] == [
                True, True, False,
            ]  # fmt: skip
        assert backdoor.get(LFN) == b"abcdef"
        assert backdoor.parts() == []

    # resuming

    def test_a_successor_resumes_what_was_verified(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        content = noise(10_000)
        part = endpoint.open_part(LFN, tag(), bytes=10_000, adler32=adler_of(content))
        part.write(2_000, content[2_000:7_000])
        verified = part.sync()
        part.write(9_000, content[9_000:])  # never reported: the successor asks for it again
        part.close()
        with endpoint.open_part(LFN, tag(), bytes=10_000, adler32=adler_of(content), verified=verified) as part:
            assert part.covered == Ranges([(2_000, 7_000)])
            part.write(0, content[:5_000])
            part.write(5_000, content[5_000:])
            part.seal()
        assert backdoor.get(LFN) == content

    def test_all_verified_needs_only_the_seal(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        part = endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"))
        part.write(0, b"abcdef")
        verified = part.sync()
        part.close()
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"), verified=verified) as part:
            assert part.seal() == SealedFile(LFN, 6, adler_of(b"abcdef"), already=False)

    def test_what_rotted_between_two_processes_is_found(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        part = endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"))
        part.write(0, b"abcdef")
        verified = part.sync()
        part.close()
        backdoor.corrupt_parts()
        with (
            endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"), verified=verified) as part,
            pytest.raises(PartFileLost, match="checksum differs"),
        ):
            part.seal()
        assert backdoor.get(LFN) is None

    def test_a_part_is_read_while_it_grows_and_once_it_is_the_file(self, endpoint: Endpoint) -> None:
        content = noise(9_000_000, seed=4)
        part = endpoint.open_part(LFN, tag(), bytes=len(content), adler32=adler_of(content), preallocate=True)
        part.write(1_000, content[1_000:2_000_000])
        with part.open_reader() as reader:
            assert reader.stat.bytes == len(content)
            assert reader.pread(1_000, 5_000) == content[1_000:6_000]
            part.write(0, content[:1_000])
            part.write(2_000_000, content[2_000_000:])
            reader.check()
            assert reader.pread(0, 3_000_000) == content[:3_000_000]
            part.seal()
            reader.check()
            assert reader.pread(8_000_000, 1_000_000) == content[8_000_000:]
            with pytest.raises(StorageError, match="gone, or was sealed") as raised:
                part.open_reader()
            assert raised.value.failure_class == "transient"

    def test_a_part_that_somebody_else_has_the_name_of_is_not_read(
        self, endpoint: Endpoint, backdoor: Backdoor
    ) -> None:
        part = endpoint.open_part(LFN, tag(), bytes=6, adler32=None)
        part.write(0, b"abcdef")
        backdoor.remove_parts()
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=None) as other:
            other.write(0, b"ABCDEF")
            with pytest.raises(StorageError):
                part.open_reader()
        part.close()

    def test_a_part_that_is_gone_is_lost(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        with pytest.raises(PartFileLost, match="gone"):
            endpoint.open_part(LFN, tag(), bytes=6, adler32=None, verified=[(0, 3)])
        part = endpoint.open_part(LFN, tag(), bytes=6, adler32=None)
        part.write(0, b"abc")
        backdoor.remove_parts()
        with pytest.raises(PartFileLost, match="gone"):
            part.write(3, b"def")
        part.close()

    def test_a_part_shorter_than_its_verified_ranges_is_lost(self, endpoint: Endpoint) -> None:
        endpoint.open_part(LFN, tag(), bytes=6, adler32=None).close()
        with pytest.raises(PartFileLost, match="shorter"):
            endpoint.open_part(LFN, tag(), bytes=6, adler32=None, verified=[(0, 3)])

    def test_sealed_by_another_meanwhile(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        """A worker paused past its session: its successor had the same part, and sealed it."""
        paused = endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"))
        paused.write(0, b"abc")
        verified = paused.sync()
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"), verified=verified) as successor:
            successor.write(3, b"def")
            successor.seal()
        with pytest.raises(PartFileLost):
            paused.write(3, b"XYZ")
        assert backdoor.get(LFN) == b"abcdef"
        paused.close()

    def test_a_seal_finds_its_part_sealed_by_another(self, endpoint: Endpoint) -> None:
        paused = endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"))
        paused.write(0, b"abcdef")
        verified = paused.sync()
        with endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"), verified=verified) as successor:
            successor.seal()
        assert paused.seal() == SealedFile(LFN, 6, adler_of(b"abcdef"), already=True)

    def test_bytes_of_a_woken_worker_are_noticed(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        woken = endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"))
        successor = endpoint.open_part(LFN, tag(), bytes=6, adler32=adler_of(b"abcdef"))
        successor.write(0, b"abcdef")
        woken.write(0, b"abcdeX")
        with pytest.raises(PartFileLost, match="checksum differs"):
            successor.seal()
        assert backdoor.get(LFN) is None
        woken.close()

    def test_discard_deletes_one_own_part(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        backdoor.put(LFN, b"whole")
        old = endpoint.open_part(LFN, tag(attempt=0), bytes=6, adler32=None)
        new = endpoint.open_part(LFN, tag(attempt=1), bytes=6, adler32=None)
        old.close()
        assert endpoint.discard(LFN, tag(attempt=0))
        assert not endpoint.discard(LFN, tag(attempt=0))
        assert len(backdoor.parts()) == 1
        new.discard()
        assert backdoor.parts() == []
        assert backdoor.get(LFN) == b"whole"

    # groups

    def test_a_group_where_every_item_ends_its_own_way(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        contents = [noise(5000 + n, seed=n) for n in range(40)]
        lfns = [f"/store/d{n % 3}/f{n}" for n in range(40)]
        parts = []
        for n, (lfn, content) in enumerate(zip(lfns, contents, strict=True)):
            part = endpoint.open_part(lfn, tag(n), bytes=len(content), adler32=adler_of(content))
            part.write(0, content if n != 5 else content[:-1] + b"!" + b"")
            parts.append(part)
        backdoor.put(lfns[7], b"somebody else's")
        backdoor.put(lfns[8], contents[8])
        hole = endpoint.open_part("/store/d0/hole", tag(99), bytes=9, adler32=None)
        answers = endpoint.seal_group([*parts, hole])
        assert isinstance(answers[5], PartFileLost)
        assert isinstance(answers[7], StorageError)
        assert answers[7].failure_class == "permanent"
        assert answers[8] == SealedFile(lfns[8], len(contents[8]), adler_of(contents[8]), already=True)
        assert isinstance(answers[40], StorageError)
        for n in set(range(40)) - {5, 7}:
            assert isinstance(answers[n], SealedFile), answers[n]
            assert backdoor.get(lfns[n]) == contents[n]
        assert backdoor.get(lfns[5]) is None
        parts[5].discard()
        assert len(backdoor.parts()) == 1
        wanted = [Wanted(lfn, len(content), adler_of(content)) for lfn, content in zip(lfns, contents, strict=True)]
        there = endpoint.present_group(wanted)
        assert [answer is True for answer in there] == [n not in (5, 7) for n in range(40)]
        hole.discard()

    def test_more_parts_than_open_files(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        """Twice as many parts as the backend keeps open, written in turns."""
        count = 300
        parts = [endpoint.open_part(f"/many/f{n}", tag(n), bytes=20, adler32=None) for n in range(count)]
        for half in (0, 10):
            for n, part in enumerate(parts):
                part.write(half, b"%010d" % n)
        assert set(endpoint.sync_group(parts)) == {Ranges([(0, 20)])}
        assert all(isinstance(answer, SealedFile) for answer in endpoint.seal_group(parts))
        assert backdoor.get("/many/f217") == b"%010d" % 217 * 2

    def test_empty_groups(self, endpoint: Endpoint) -> None:
        assert endpoint.sync_group([]) == []
        assert endpoint.seal_group([]) == []
        assert endpoint.present_group([]) == []
        assert endpoint.remove_group([], lambda lfn, version: None) == []

    # removing

    def test_what_may_go_is_gone_and_the_rest_stays(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        lfns = [f"/store/d{n % 2}/f{n}" for n in range(4)]
        for n, lfn in enumerate(lfns):
            land(endpoint, lfn, noise(100 + n), item=n)
        asked: list[tuple[str, str]] = []
        versions = {lfn: endpoint.stat(lfn).version for lfn in lfns}
        backdoor.put(lfns[1], b"landed since")

        def why_not(lfn: str, version: str) -> str | None:
            asked.append((lfn, version))
            if lfn == lfns[2]:
                return "claimed"
            return None if version == versions.get(lfn) else "another version"

        never = "/store/never/was"
        assert endpoint.remove_group([*lfns, never], why_not) == [None, "another version", "claimed", None, None]
        assert [lfn for lfn, _ in asked] == lfns, "of what is not there nobody is asked"
        assert [backdoor.get(lfn) is None for lfn in lfns] == [True, False, False, True]
        assert backdoor.get(lfns[1]) == b"landed since"
        assert endpoint.remove_group([lfns[0]], why_not) == [None], "said once more"
        land(endpoint, lfns[0], noise(7), item=9)
        assert backdoor.get(lfns[0]) == noise(7), "the name is free again"

    @pytest.mark.parametrize("lfn", ELSEWHERE)
    def test_names_that_lead_elsewhere_are_not_removed(self, endpoint: Endpoint, lfn: str) -> None:
        (answer,) = endpoint.remove_group([lfn], lambda lfn, version: None)
        assert isinstance(answer, StorageError)
        assert "does not lead to a file" in str(answer)

    # its own room

    def test_what_is_set_aside_is_in_no_walk_and_comes_back(self, endpoint: Endpoint, backdoor: Backdoor) -> None:
        lfns = [f"/store/d{n % 2}/f{n}" for n in range(4)]
        for n, lfn in enumerate(lfns):
            land(endpoint, lfn, noise(100 + n), item=n)
        paths = [endpoint.path_of(lfn) for lfn in lfns]
        versions = [dated.version for path in paths if (dated := endpoint.dated(path)) is not None]
        backdoor.put(lfns[2], b"landed since")
        backdoor.remove(lfns[3])
        answers = endpoint.set_aside(list(zip(paths, versions, strict=True)), "a-day")
        assert answers == [None, None, "it has changed since it was looked at", "it is gone"]
        assert [one.path for one in endpoint.walk(lambda *_: None)] == [paths[2]]
        assert [backdoor.get(lfn) for lfn in lfns] == [None, None, b"landed since", None]
        assert [endpoint.lies_aside(path) for path in paths] == [("a-day", 100), ("a-day", 101), None, None]
        land(endpoint, lfns[1], noise(7), item=9)
        back, taken = endpoint.bring_back(paths[:2], "a-day")
        assert (back, backdoor.get(lfns[0])) == (None, noise(100))
        assert isinstance(taken, StorageError)
        assert "another file has the name" in str(taken)
        assert backdoor.get(lfns[1]) == noise(7), "nothing is replaced"
        assert [endpoint.lies_aside(path) for path in paths[:2]] == [None, ("a-day", 101)]

    def test_what_it_keeps_for_itself_is_whole_and_no_file_of_it(self, endpoint: Endpoint) -> None:
        assert endpoint.read_own("note") is None
        endpoint.write_own("note", b"one", once=True)
        endpoint.write_own("note", b"two", once=True)
        assert endpoint.read_own("note") == b"one"
        endpoint.write_own("note", b"three")
        endpoint.write_own("other", b"")
        assert (endpoint.read_own("note"), endpoint.read_own("other")) == (b"three", b"")
        assert list(endpoint.walk(lambda *_: None)) == []

    # placing

    @pytest.mark.parametrize("link", [True, False])
    @pytest.mark.parametrize("length", [0, 1, 2_500_000])
    def test_a_users_file_is_placed(
        self, endpoint: Endpoint, backdoor: Backdoor, tmp_path: Path, length: int, link: bool
    ) -> None:
        mine = tmp_path / "my file.dat"
        content = noise(length)
        mine.write_bytes(content)
        placed = endpoint.place(LFN, str(mine), link=link)
        assert (placed.bytes, placed.adler32, placed.version) == (length, adler_of(content), endpoint.stat(LFN).version)
        assert backdoor.get(LFN) == content
        assert mine.read_bytes() == content
        assert backdoor.parts() == []
        assert endpoint.place(LFN, str(mine), link=link).how == "already"

    def test_an_own_copy_outlives_changes_of_the_original(
        self, endpoint: Endpoint, backdoor: Backdoor, tmp_path: Path
    ) -> None:
        mine = tmp_path / "mine"
        mine.write_bytes(b"abcdef")
        assert endpoint.place(LFN, str(mine), link=False).how in ("copy", "clone")
        with mine.open("r+b") as file:
            file.write(b"X")
        assert backdoor.get(LFN) == b"abcdef"

    def test_placing_never_replaces(self, endpoint: Endpoint, backdoor: Backdoor, tmp_path: Path) -> None:
        backdoor.put(LFN, b"theirs")
        mine = tmp_path / "mine"
        mine.write_bytes(b"mine!!")
        for link in (True, False):
            with pytest.raises(StorageError, match="a different file is already"):
                endpoint.place(LFN, str(mine), link=link)
        assert backdoor.get(LFN) == b"theirs"
        assert backdoor.parts() == []

    def test_placing_what_is_no_file(self, endpoint: Endpoint, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for source, words in (
            (tmp_path, "not a regular"),
            (tmp_path / "pipe", "not a regular"),
            (tmp_path / "no", "no such"),
        ):
            with pytest.raises(StorageError, match=words):
                endpoint.place(LFN, str(source))


class EndpointContract(ReadContract, DirectoryContract, WriteContract):
    pass
