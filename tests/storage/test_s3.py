"""Keys of a store against a real S3 implementation: listed, registered as files are, read in ranges, and what fails."""

from __future__ import annotations

import random
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from streams.core.store_names import Store
from streams.errors import StorageError, UsageError
from streams.storage import open_endpoint
from streams.storage.endpoint import Endpoint, FileMissing, FileUrl, Wanted
from streams.storage.routed import RoutedEndpoint
from streams.storage.s3 import BLOCK_BYTES, FIRST_BYTES, KEPT_BYTES, S3Files
from streams.storage.s3_signing import Keys, presigned, signed
from tests.storage.contract import Backdoor, ReadContract
from tests.storage.s3_server import Server

BASE = "/store/s3/cern"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def files(server: Server) -> Iterator[S3Files]:
    made = S3Files(server.store())
    yield made
    made.close()


def endpoint_over(tmp_path: Path, *stores: Store) -> Endpoint:
    (tmp_path / "storage").mkdir(exist_ok=True)
    return open_endpoint(f"file://{tmp_path}/storage", stores=stores)


def refuse_none(where: str, why: str) -> None:
    pytest.fail(f"{where}: {why}")


def found(files: S3Files, asked: str) -> dict[str, int]:
    return {str(lfn): stat.bytes for lfn, stat in files.find_keys(asked, refuse_none)}


def failure(error: pytest.ExceptionInfo[StorageError]) -> str:
    assert "127.0.0.1" not in str(error.value)
    assert "\n" not in str(error.value)
    return error.value.failure_class


def test_the_signature_is_that_of_the_published_example() -> None:
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    headers = {"host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9"}
    at = datetime(2013, 5, 24, tzinfo=UTC)
    answer = signed(keys, "us-east-1", "GET", "/test.txt", "", headers, at)["authorization"]
    assert answer.endswith("Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
    query = presigned(keys, "us-east-1", "/test.txt", {"host": headers["host"]}, at, 86400)
    assert query.endswith("&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


def got(url: str, etag: str) -> tuple[int, bytes]:
    """What whoever has the URL gets, by another client than ours."""
    asked = urllib.request.Request(url, headers={"If-Match": f'"{etag}"', "Range": "bytes=1-3"})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_a_url_of_a_version_opens_that_version_and_no_other(server: Server) -> None:
    server.put({"a b+ü/x+y=.root": b"12345", "a b+ü/other": b"67890"})
    with closing(S3Files(replace(server.store(prefix="a b+ü/"), direct=True))) as files:
        lfn = f"{BASE}/x+y=.root"
        version = files.stat(lfn).version
        given = files.url_of(lfn, version, 60)
        assert given is not None
        assert (given.bytes, given.etag) == (5, version.removeprefix("5:"))
        assert got(given.url, given.etag) == (206, b"234")
        assert got(given.url, "another")[0] == 403, "the condition is signed"
        assert got(given.url.replace("Expires=60", "Expires=600"), given.etag)[0] == 403
        assert got(given.url.replace("/a%20b%2B%C3%BC/x%2By%3D.root", "/a%20b%2B%C3%BC/other"), given.etag)[0] == 403
        server.put({"a b+ü/x+y=.root": b"54321"})
        assert got(given.url, given.etag)[0] == 412
        late = files.url_of(lfn, version, 0)
        assert late is not None
        time.sleep(1.1)
        assert got(late.url, given.etag)[0] == 403
        with pytest.raises(StorageError, match="registered as something else") as error:
            files.url_of(lfn, "no version", 60)
        assert failure(error) == "data-bad"
        assert files.url_of(lfn, '5:W/"weak"', 60) is None


def test_no_url_where_it_is_not_allowed(server: Server, files: S3Files, tmp_path: Path) -> None:
    assert files.url_of(f"{BASE}/x", "5:e", 60) is None
    with endpoint_over(tmp_path, replace(server.store(), direct=True)) as endpoint:
        assert endpoint.url_of("/store/x", "5:e", 60) is None, "on the site's own disk"
        assert endpoint.url_of(f"{BASE}/x", "5:e", 60) is not None


def test_a_store_without_keys_has_plain_urls() -> None:
    store = Store("open", "https://s3.example.org/base", "raw", "a b/", direct=True)
    with closing(S3Files(store)) as files:
        given = files.url_of("/store/s3/open/a", "5:e-2", 60)
        assert given == FileUrl("https://s3.example.org/base/raw/a%20b/a", 5, "e-2")


def test_keys_are_found_by_prefix_and_glob(server: Server, files: S3Files) -> None:
    names = ["glob/run1/a.root", "glob/run1/b.root", "glob/run1/b.txt", "glob/run10/a.root", "glob/run2/deep/a.root"]
    server.put({name: name.encode() for name in names})
    assert set(found(files, "s3://cern/glob/run1/*.root")) == {f"{BASE}/{name}" for name in names[:2]}
    assert set(found(files, "s3://cern/glob/run1*")) == {f"{BASE}/{name}" for name in names[:4]}
    assert set(found(files, "s3://cern/glob/run?/a.root,glob/*/deep/*")) == {f"{BASE}/{names[0]}", f"{BASE}/{names[4]}"}
    assert set(found(files, "s3://cern/glob/")) == {f"{BASE}/{name}" for name in names}
    assert found(files, "s3://cern/glob/run2/deep/a.root") == {f"{BASE}/{names[4]}": len(names[4])}
    with pytest.raises(UsageError, match=r"no key.*nearest: glob/run1/a\.root"):
        found(files, "s3://cern/glob/run1/a.rot")
    with Below(server, "glob/run1") as below:
        assert set(found(below, "s3://cern/*.root")) == {f"{BASE}/a.root", f"{BASE}/b.root"}
        assert below.open_reader(f"{BASE}/a.root").pread(0, 9) == b"glob/run1"


class S3Backdoor(Backdoor):
    def __init__(self, server: Server, store: Store) -> None:
        self._server, self._store = server, store
        self._held: dict[str, bytes] = {}

    def put(self, lfn: str, content: bytes) -> None:
        self._held[lfn] = content
        self._server.put({self._store.key(lfn): content})

    def get(self, lfn: str) -> bytes | None:
        return self._held.get(lfn)

    def overwrite(self, lfn: str, offset: int, content: bytes) -> None:
        held = self._held[lfn]
        self.put(lfn, held[:offset] + content + held[offset + len(content) :])

    def truncate(self, lfn: str, length: int) -> None:
        self.put(lfn, self._held[lfn][:length].ljust(length, b"\0"))

    def remove(self, lfn: str) -> None:
        del self._held[lfn]
        self._server.delete(self._store.key(lfn))

    def parts(self) -> list[str]:
        return []

    def remove_parts(self) -> None:
        pass

    def corrupt_parts(self) -> None:
        pass


class TestS3KeepsTheReadContract(ReadContract):
    SCALE = 3 * FIRST_BYTES // 1000
    NOTICED_WHEN_READ = True

    @pytest.fixture
    def endpoint(self, server: Server) -> Iterator[S3Files]:
        with S3Files(replace(server.store(), lfn="/store")) as made:
            yield made

    @pytest.fixture
    def backdoor(self, server: Server, endpoint: S3Files) -> Iterator[S3Backdoor]:
        made = S3Backdoor(server, endpoint.store)
        yield made
        for lfn in list(made._held):
            made.remove(lfn)


class Below:
    """The store seen from a prefix."""

    def __init__(self, server: Server, prefix: str) -> None:
        self._files = S3Files(server.store(prefix=prefix + "/"))

    def __enter__(self) -> S3Files:
        return self._files

    def __exit__(self, *_: object) -> None:
        self._files.close()


def test_more_keys_than_a_page_holds(server: Server, files: S3Files) -> None:
    server.put({f"many/{n:04}": b"%d" % n for n in range(2345)})
    assert list(found(files, "s3://cern/many/*")) == [f"{BASE}/many/{n:04}" for n in range(2345)]


def test_keys_that_no_file_can_have_are_refused_one_by_one(server: Server, files: S3Files) -> None:
    odd = ["odd/a b.dat", "odd/../out.dat", "odd//twice.dat", "odd/ümlaut.dat", "odd/.hidden", "odd/tab\t", "odd/full/"]
    odd += ["odd/" + "x" * 1100, "odd/%2e%2e/x", "odd/co:lon", "odd/dot/./x", 'odd/quo"<te>&']
    server.put({**dict.fromkeys(odd, b"content"), "odd/good.dat": b"good", "odd/a+b=c": b"good", "odd/directory/": b""})
    refused: dict[str, str] = {}
    good = dict(files.find_keys("s3://cern/odd/*", lambda where, why: refused.update({where: why})))
    assert list(good) == [f"{BASE}/odd/a+b=c", f"{BASE}/odd/good.dat"]
    assert set(refused) == {f"s3://cern/{name}" for name in odd}
    assert all("no LFN" in why for why in refused.values())


def test_ranges_are_the_bytes_of_the_key(server: Server, files: S3Files) -> None:
    content = random.Random(1).randbytes(3 * BLOCK_BYTES + 12345)
    server.put({"ranges/big": content, "ranges/empty": b"", "ranges/one": b"1"})
    lfn = f"{BASE}/ranges/big"
    version = files.stat(lfn).version
    with files.open_reader(lfn, version) as reader:
        assert reader.stat.bytes == len(content)
        chance = random.Random(2)
        for _ in range(40):
            start = chance.randrange(len(content))
            stop = min(len(content), start + chance.choice((1, 1000, 256 << 10, 5 << 20)))
            assert reader.pread(start, stop - start) == content[start:stop]
            assert reader.kept_bytes <= 2 * BLOCK_BYTES
        for start in range(0, len(content), 256 << 10):
            assert reader.pread(start, min(256 << 10, len(content) - start)) == content[start : start + (256 << 10)]
        with pytest.raises(StorageError, match="were asked of a file of") as error:
            reader.pread(len(content) - 1, 2)
        assert failure(error) == "permanent"
    assert files.checksum(lfn, version) == f"{zlib.adler32(content):08x}"
    assert files.checksum(f"{BASE}/ranges/empty") == "00000001"
    assert files.open_reader(f"{BASE}/ranges/one").pread(0, 1) == b"1"


def test_many_readers_together_keep_a_bounded_memory(server: Server, files: S3Files) -> None:
    content = random.Random(3).randbytes(2 * BLOCK_BYTES)
    server.put({f"memory/{n}": content for n in range(3)})
    readers = [
        files.open_reader(f"{BASE}/memory/{n % 3}", files.stat(f"{BASE}/memory/{n % 3}").version) for n in range(12)
    ]
    for at in (0, 1 << 20, 5 << 20):
        for reader in readers:
            assert reader.pread(at, 1000) == content[at : at + 1000]
            assert sum(one.kept_bytes for one in readers) <= KEPT_BYTES
    for reader in readers:
        reader.close()
    assert sum(one.kept_bytes for one in readers) == 0


def test_a_key_that_changes_or_goes_between_two_reads(server: Server, files: S3Files) -> None:
    content = random.Random(4).randbytes(3 * BLOCK_BYTES)
    lfn = f"{BASE}/changing"
    for then, what, kind in (
        ({"changing": content[::-1]}, "has changed", "data-bad"),
        ({"changing": b"short"}, "has changed", "data-bad"),
        (None, "no such key", "permanent"),
    ):
        server.put({"changing": content})
        with files.open_reader(lfn, files.stat(lfn).version) as reader:
            assert reader.pread(0, 1000) == content[:1000]
            server.put(then) if then else server.delete("changing")
            with pytest.raises(StorageError, match=what) as error:
                reader.pread(2 * BLOCK_BYTES, 1000)
            assert failure(error) == kind
    with pytest.raises(FileMissing):
        files.stat(lfn)
    with pytest.raises(FileMissing):
        files.checksum(lfn, "5:0123456789abcdef")
    with pytest.raises(StorageError, match="registered as something else") as error:
        files.open_reader(lfn, "17:1700000000:99 ")
    assert failure(error) == "data-bad"


def test_what_is_forbidden_and_what_is_not_there_at_all(server: Server) -> None:
    server.put({"secret": b"content"})
    right = server.store()
    for store, kind in (
        (server.store(user=1), "auth"),
        (replace(right, secret_access_key="wrong"), "auth"),
        (replace(right, access_key_id="AKIANOBODY"), "auth"),
        (replace(right, bucket="nowhere"), "permanent"),
    ):
        files = S3Files(store)
        for ask in (
            lambda files=files: found(files, "s3://cern/*"),
            lambda files=files: files.open_reader(f"{BASE}/secret", "7:abc").pread(0, 1),
        ):
            with pytest.raises(StorageError, match=r"the store cern (refuses us|has no such bucket)") as error:
                ask()
            assert failure(error) == kind
            assert store.secret_access_key not in f"{error.value} {store!r}"
        files.close()


def test_a_store_that_goes_away_and_comes_back(server: Server, files: S3Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.storage.s3_client.AWAY_S", 0.5)
    content = random.Random(5).randbytes(2 * BLOCK_BYTES)
    server.put({"away": content})
    with files.open_reader(f"{BASE}/away", files.stat(f"{BASE}/away").version) as reader:
        assert reader.pread(0, 1000) == content[:1000]
        server.go_away()
        for _ in range(2):
            with pytest.raises(StorageError, match="the store cern cannot be reached: no connection") as error:
                reader.pread(BLOCK_BYTES + 5, 1000)
            assert failure(error) == "transient"
        with pytest.raises(StorageError, match="cannot be reached"):
            found(files, "s3://cern/*")
        server.come_back()
        time.sleep(0.6)
        assert reader.pread(BLOCK_BYTES + 5, 1000) == content[BLOCK_BYTES + 5 : BLOCK_BYTES + 1005]


def test_credentials_from_a_file_are_read_again_when_it_changes(server: Server, tmp_path: Path) -> None:
    server.put({"mine": b"1"})
    right, path = server.store(), tmp_path / "credentials"
    store = replace(right, access_key_id="", secret_access_key="", credentials_file=str(path), profile="site")
    files = S3Files(store)
    with pytest.raises(StorageError, match="credentials that cannot be read: FileNotFoundError") as error:
        files.stat(f"{BASE}/mine")
    assert failure(error) == "auth"
    for secret in ("hush%hush", right.secret_access_key):
        path.write_text(f"[site]\naws_access_key_id = {right.access_key_id}\naws_secret_access_key = {secret}\n")
        if secret != right.secret_access_key:
            with pytest.raises(StorageError, match="refuses us") as error:
                files.stat(f"{BASE}/mine")
            assert "hush" not in str(error.value)
    assert files.stat(f"{BASE}/mine").bytes == 1
    files.close()


def test_names_of_a_store_are_read_only_and_others_are_the_storages(server: Server, tmp_path: Path) -> None:
    server.put({"both": b"key"})
    with endpoint_over(tmp_path, server.store()) as endpoint:
        assert isinstance(endpoint, RoutedEndpoint)
        (tmp_path / "storage/store").mkdir()
        (tmp_path / "storage/store/x").write_bytes(b"file")
        assert endpoint.open_reader("/store/x").pread(0, 4) == b"file"
        assert endpoint.open_reader(f"{BASE}/both").pread(0, 3) == b"key"
        key, gone = Wanted(f"{BASE}/both", 3, f"{zlib.adler32(b'key'):08x}"), Wanted(f"{BASE}/gone", 3, "00000001")
        other, file = replace(key, adler32="00000001"), Wanted("/store/x", 4, f"{zlib.adler32(b'file'):08x}")
        answers = endpoint.present_group([file, key, gone, other, Wanted("/store/y", 1, "00000001")])
        assert answers[:3] == [True, True, False]
        assert answers[4] is False
        assert isinstance(answers[3], StorageError)
        assert answers[3].failure_class == "permanent"
        for write in (
            lambda: endpoint.open_part(f"{BASE}/new", "0123456789abcdef-0", bytes=1, adler32=None),
            lambda: endpoint.open_beside(f"{BASE}/new", "0123456789abcdef-0"),
            lambda: endpoint.place(f"{BASE}/new", str(tmp_path / "storage/store/x")),
            lambda: endpoint.local_path(f"{BASE}/both"),
        ):
            with pytest.raises(StorageError, match="store cern") as error:
                write()
            assert failure(error) == "permanent"
        assert endpoint.local_path("/store/x") == f"{tmp_path}/storage/store/x"
        assert endpoint.discard(f"{BASE}/new", "0123456789abcdef-0") is False
        with endpoint.open_part("/store/new", "0123456789abcdef-0", bytes=1, adler32=None) as part:
            part.write(0, b"1")
            part.seal()
        assert (tmp_path / "storage/store/new").read_bytes() == b"1"
        with pytest.raises(UsageError, match="known stores: cern"):
            list(endpoint.find_keys("s3://elsewhere/*", refuse_none))
        for text in ("s3://", "s3:///x", "s3://CERN/x", "s3://cern/\x07"):
            with pytest.raises(UsageError):
                list(endpoint.find_keys(text, refuse_none))
    assert not (tmp_path / "storage/store/s3").exists()


def test_what_was_begun_is_fetched_while_others_are_read(server: Server, files: S3Files) -> None:
    contents = {f"begun/{n}": random.Random(n).randbytes(1000 * n) for n in range(30)}
    server.put(contents)
    listed = list(files.find_keys("s3://cern/begun/*", refuse_none))
    readers = [files.open_reader(lfn, stat.version) for lfn, stat in listed]
    for reader in readers:
        reader.begin()
    for reader in readers:
        content = contents["begun/" + reader.lfn.rpartition("/")[2]]
        assert reader.pread(len(content) // 2, len(content) - len(content) // 2) == content[len(content) // 2 :]
        reader.close()
