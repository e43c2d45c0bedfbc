"""Registering files over an in-process broker and a real directory."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from streams.core.names import Adler32, Block, Lfn, Site
from streams.core.path_rules import PathRules
from streams.core.records import HeldFile
from streams.core.selectors import Selector, parse
from streams.errors import StorageError, Temporary, UsageError
from streams.kafka.publish import Publisher
from streams.registration.discovery import Renaming
from streams.registration.registering import Registration, _without_duplicates, register, verify
from streams.registration.replica_writer import ReplicaWriter
from streams.settings import Settings
from streams.storage import open_endpoint
from streams.storage.endpoint import Endpoint
from streams.views.catalogue import Catalogue
from streams.views.view import View
from tests.views.journal import DATASET, A, B, Journal, held, holds, settings_for

BLOCK = Block(f"{DATASET}#b1")


def adler(content: bytes) -> str:
    return f"{zlib.adler32(content):08x}"


@pytest.fixture
def publisher(settings: Settings) -> Iterator[Publisher]:
    with Publisher(settings, A, "test", "cli") as made:
        yield made


@pytest.fixture
def view(settings: Settings) -> Iterator[View]:
    made = View(settings, settings.datadir, lambda letter: pytest.fail(letter.reason))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Endpoint]:
    (tmp_path / "storage").mkdir()
    with open_endpoint(f"file://{tmp_path}/storage") as made:
        yield made


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def seen(view: View) -> Catalogue:
    assert view.catch_up(20)
    return view.catalogue


def told(result: Registration) -> list[str]:
    return sorted(str(fault) for fault in result.faults)


def test_a_directory_elsewhere_is_placed_and_seen(
    settings: Settings, publisher: Publisher, view: View, store: Endpoint, tmp_path: Path
) -> None:
    contents = {"a.root": b"", "sub/b.root": b"x" * 100, "sub/deep/c.root": b"y" * 4096}
    for tail, content in contents.items():
        write(tmp_path / "mine" / tail, content)
    result = register(settings, publisher, [tmp_path / "mine"], BLOCK, lfn_prefix="/store/user/", endpoint=store)
    assert (result.files, result.bytes, result.faults, sum(result.placed.values())) == (3, 4196, [], 3)
    files, _ = seen(view).listing(_selectors(DATASET))
    assert [(f.lfn, f.replicas[0].bytes, f.replicas[0].adler32, f.block) for f in files] == [
        (f"/store/user/{tail}", len(content), adler(content), BLOCK) for tail, content in sorted(contents.items())
    ]
    for file in files:
        assert Path(store.pfn(file.lfn)).read_bytes() == contents[file.lfn.removeprefix("/store/user/")]
        assert store.stat(file.lfn).version == file.replicas[0].version


def test_a_file_under_the_root_keeps_its_place(
    settings: Settings, publisher: Publisher, view: View, store: Endpoint, tmp_path: Path
) -> None:
    path = write(tmp_path / "storage/store/data/x.root", b"12345")
    write(tmp_path / "storage/store/data/.t2g-0123456789abcdef-0.part", b"half")
    write(tmp_path / "storage/.t2g-locks/07", b"")
    inode = path.stat().st_ino
    result = register(settings, publisher, [tmp_path / "storage"], BLOCK, endpoint=store)
    assert (result.files, result.placed, result.faults) == (1, {"in place": 1}, [])
    (replica,) = seen(view).where(Lfn("/store/data/x.root"))
    assert (replica.bytes, replica.adler32, path.stat().st_ino) == (5, adler(b"12345"), inode)


def test_a_file_under_the_root_has_the_name_that_the_path_rules_give_it(
    settings: Settings, publisher: Publisher, view: View, store: Endpoint, tmp_path: Path
) -> None:
    root = tmp_path / "storage"
    rules = PathRules.configured([{"lfn": "/+store/mc/(.*)", "pfn": f"{root}/sim/$1"}])
    mine = write(root / "sim/x.root", b"12345")
    write(root / "store/mc/y.root", b"no rule leads here")
    ruled = replace(settings, endpoint_url=root.as_uri(), path_rules=rules)
    result = register(ruled, publisher, [root], BLOCK)
    assert (result.files, result.placed) == (1, {"in place": 1})
    assert told(result) == [f"{root}/store/mc/y.root: not under the storage root; say which LFN it gets, with a prefix"]
    (replica,) = seen(view).where(Lfn("/store/mc/x.root"))
    assert replica.adler32 == adler(mine.read_bytes())
    (checked,) = verify(ruled, [(Lfn("/store/mc/x.root"), 5, replica.adler32)])
    assert checked.why == ""


def test_a_changed_file_registered_again_gets_its_new_checksum(
    settings: Settings, publisher: Publisher, view: View, store: Endpoint, tmp_path: Path
) -> None:
    path = write(tmp_path / "storage/store/x.root", b"old")
    register(settings, publisher, [path], BLOCK, endpoint=store)
    assert seen(view).where(Lfn("/store/x.root"))[0].adler32 == adler(b"old")
    path.write_bytes(b"newer")
    register(settings, publisher, [path], BLOCK, endpoint=store)
    (replica,) = seen(view).where(Lfn("/store/x.root"))
    assert (replica.bytes, replica.adler32) == (5, adler(b"newer"))


def test_what_cannot_be_registered_is_one_line_each_and_the_rest_goes_on(
    settings: Settings, publisher: Publisher, view: View, store: Endpoint, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    for tail in ("good.root", "-option", ".hidden", "with space", "new\nline", "other/good.root"):
        write(mine / tail, tail.encode())
    write(tmp_path / "storage/store/taken.root", b"already here")
    write(mine / "taken.root", b"something else")
    os.mkfifo(mine / "pipe")
    (mine / "dangling").symlink_to("nowhere")
    (mine / "loop").symlink_to(mine, target_is_directory=True)
    os.symlink(b"x", os.fsencode(mine) + b"/caf\xe9")
    given = [mine, tmp_path / "none"]
    result = register(settings, publisher, given, BLOCK, lfn_prefix="/store", endpoint=store)
    assert result.files == 2
    assert result.faults_count == len(result.faults) == 10
    lines = told(result)
    assert all("\n" not in line for line in lines)
    "".join(lines).encode()
    assert sum("not a legal LFN" in line for line in lines) == 4
    assert sum("is not followed" in line for line in lines) == 3
    assert any("different file" in line for line in lines)
    assert any("not a regular file" in line for line in lines)
    assert any("no such file or directory" in line for line in lines)
    assert (tmp_path / "storage/store/taken.root").read_bytes() == b"already here"
    assert {r.lfn for r in seen(view).listing(_selectors(DATASET))[0]} == {"/store/good.root", "/store/other/good.root"}


def test_a_file_that_changes_while_it_is_read_is_refused(
    settings: Settings, publisher: Publisher, store: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "storage/store/x.root", b"a" * 5_000_000)
    from streams.storage import endpoint as contract

    real = contract.adler32

    def growing(buffer: bytes, start: int = 1) -> int:
        with path.open("ab") as file:
            file.write(b"more")
        return real(buffer, start)

    monkeypatch.setattr(contract, "adler32", growing)
    result = register(settings, publisher, [path], BLOCK, endpoint=store)
    assert result.files == 0
    (line,) = told(result)
    assert "grew from 5000000" in line


def test_an_unreadable_file_is_refused(
    settings: Settings, publisher: Publisher, store: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "storage/store/x.root", b"a")
    write(tmp_path / "storage/store/y.root", b"b")

    def checksum(lfn: str, version: str | None = None) -> str:
        if lfn.endswith("x.root"):
            raise StorageError("cannot read: permission denied", store.pfn(lfn), failure_class="auth")
        return adler(b"b")

    monkeypatch.setattr(store, "checksum", checksum)  # the tests may run as root, who can read everything
    result = register(settings, publisher, [tmp_path / "storage"], BLOCK, endpoint=store)
    assert result.files == 1
    assert "permission denied" in told(result)[0]


def test_two_files_for_one_name(settings: Settings, publisher: Publisher, store: Endpoint, tmp_path: Path) -> None:
    same = [write(tmp_path / "1/x.root", b"same"), write(tmp_path / "2/x.root", b"same")]
    result = register(settings, publisher, same, BLOCK, lfn_prefix="/store/s", endpoint=store, threads=1)
    assert (result.files, result.repeated, result.faults) == (1, 1, [])
    different = [write(tmp_path / "1/y.root", b"one"), write(tmp_path / "2/y.root", b"two!")]
    result = register(settings, publisher, different, BLOCK, lfn_prefix="/store/s", endpoint=store, threads=1)
    assert result.files == 1
    assert "2/y.root: a different file" in told(result)[0]


def test_a_name_that_comes_again_is_said_once() -> None:
    def read(size: int) -> tuple[str, HeldFile]:
        return "mine/x", HeldFile(Lfn("/store/x"), BLOCK, size, Adler32("00000001"), "")

    result = Registration()
    assert list(_without_duplicates(iter([read(1), read(1), read(2)]), result)) == [read(1)[1]]
    assert result.repeated == 1
    assert "another size, checksum or block" in told(result)[0]


def test_a_name_with_other_content_at_another_site_is_refused(
    journal: Journal, settings: Settings, publisher: Publisher, view: View, store: Endpoint, tmp_path: Path
) -> None:
    journal.say(holds(B, held("/store/x.root", size=3, adler=adler(b"abc")), held("/store/y.root", size=99)), site=B)
    journal.flush()
    catalogue = seen(view)

    def replicas_of(lfns: Sequence[Lfn]) -> Iterator[tuple[Lfn, Site, int, str, str]]:
        for file in catalogue.files(lfns):
            yield from ((file.lfn, r.site, r.bytes, r.adler32, r.block) for r in file.replicas)

    for tail in ("x.root", "y.root"):
        write(tmp_path / "mine" / tail, b"abc")
    result = register(
        settings, publisher, [tmp_path / "mine"], BLOCK, lfn_prefix="/store", endpoint=store, replicas_of=replicas_of
    )
    assert result.files == 1
    assert "T1_B holds other content as /store/y.root (99 bytes" in told(result)[0]
    assert not Path(store.pfn("/store/y.root")).exists(), "a refusal leaves nothing behind"
    again = register(
        settings,
        publisher,
        [tmp_path / "mine" / "x.root"],
        Block(f"{DATASET}#another"),
        lfn_prefix="/store",
        endpoint=store,
        replicas_of=lambda lfns: [(lfn, publisher.site, 3, adler(b"abc"), BLOCK) for lfn in lfns],
    )
    assert f"/store/x.root is registered here in {BLOCK}, and a file is in one block" in told(again)[0]


def test_a_user_who_writes_on_changes_no_replica(
    settings: Settings, publisher: Publisher, store: Endpoint, tmp_path: Path
) -> None:
    mine = write(tmp_path / "mine" / "log.txt", b"line 1")
    result = register(settings, publisher, [mine], BLOCK, lfn_prefix="/store/m", endpoint=store)
    assert set(result.placed) <= {"clone", "copy"}
    with mine.open("ab") as file:
        file.write(b"line 2")
    assert Path(store.pfn("/store/m/log.txt")).read_bytes() == b"line 1"


def test_a_tree_with_odd_names_is_renamed(
    settings: Settings, publisher: Publisher, store: Endpoint, tmp_path: Path
) -> None:
    for tail in ("ä b/1 2.root", ".bidsignore", "k=v/_SUCCESS"):
        write(tmp_path / "mine" / tail, tail.encode())
    renamings = [Renaming.parse(text) for text in ("s/ä/ae/", "s, ,_,", r"s#(^|/)\.#\1dot-#")]
    given = [tmp_path / "mine"]
    result = register(settings, publisher, given, BLOCK, lfn_prefix="/store/m", renamings=renamings, endpoint=store)
    assert (result.files, result.faults) == (3, [])
    assert Path(store.pfn("/store/m/ae_b/1_2.root")).read_bytes() == "ä b/1 2.root".encode()
    assert Path(store.pfn("/store/m/dot-bidsignore")).exists()


def test_two_files_renamed_to_one_name_are_told(
    settings: Settings, publisher: Publisher, store: Endpoint, tmp_path: Path
) -> None:
    for tail in ("a b", "a_b"):
        write(tmp_path / "mine" / tail, b"same")
    renamings = [Renaming.parse("s/ /_/")]
    given = [tmp_path / "mine"]
    result = register(settings, publisher, given, BLOCK, lfn_prefix="/store/m", renamings=renamings, endpoint=store)
    first, second = sorted(told(result))
    assert "mine/a b: /store/m/a_b would be " in first
    assert "mine/a_b too: rename them apart" in first
    assert "mine/a_b: /store/m/a_b would be " in second
    assert "mine/a b too: rename them apart" in second
    assert (result.files, list(Path(store.root).rglob("a_b"))) == (0, []), "neither is placed"


def test_one_file_by_two_spellings_of_its_path_is_one(
    settings: Settings, publisher: Publisher, store: Endpoint, tmp_path: Path
) -> None:
    write(tmp_path / "mine" / "a b", b"same")
    (tmp_path / "here").symlink_to("mine")
    renamings = [Renaming.parse("s/ /_/")]
    given = [tmp_path / "mine", tmp_path / "here" / "a b", f"{tmp_path}/mine/../mine/a b"]
    result = register(settings, publisher, given, BLOCK, lfn_prefix="/store/m", renamings=renamings, endpoint=store)
    assert told(result) == []
    assert result.files == 1


def test_an_odd_name_under_the_root_is_placed_under_its_new_one(
    settings: Settings, publisher: Publisher, store: Endpoint
) -> None:
    odd = Path(store.root) / "store" / "tree" / "country:DE"
    write(odd / "x", b"odd")
    (refused,) = told(register(settings, publisher, [odd.parent], BLOCK, lfn_prefix="/store/m", endpoint=store))
    assert "not a legal LFN" in refused
    renamings = [Renaming.parse("s/:/=/")]
    again = register(
        settings, publisher, [odd.parent], BLOCK, lfn_prefix="/store/m", renamings=renamings, endpoint=store
    )
    assert (again.files, again.faults) == (1, [])
    assert Path(store.pfn("/store/m/country=DE/x")).read_bytes() == b"odd"
    assert (odd / "x").exists()


@pytest.mark.parametrize("text", ["", "s", "s/", "s/a/b", "s/(/x/", r"s/a/\2/", "s//x/", "s/a/b/g"])
def test_what_is_no_renaming_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a renaming"):
        Renaming.parse(text)


def test_no_name_ends_the_walk(settings: Settings, publisher: Publisher, store: Endpoint, tmp_path: Path) -> None:
    top = tmp_path / "mine"
    for tail in ("a.root", "sub/b.root", "z/é.root", "z/ok.root"):
        write(top / tail, b"x")
    (top / "circle").symlink_to("circle")
    (top / "sub" / "nothing").symlink_to("no such")
    (top / "sub" / "other").symlink_to(top)
    os.mkfifo(top / "pipe")
    os.makedirs(os.fsencode(top / "z") + b"/\xe4")
    (Path(os.fsdecode(os.fsencode(top / "z") + b"/\xe4")) / "x.root").write_bytes(b"x")
    result = register(settings, publisher, [top, tmp_path / "absent"], BLOCK, lfn_prefix="/store/n", endpoint=store)
    assert result.files == 3
    assert len(told(result)) == 7
    assert all("\n" not in line and line.isprintable() for line in told(result))


def test_without_a_prefix_a_file_elsewhere_is_refused(
    settings: Settings, publisher: Publisher, store: Endpoint, tmp_path: Path
) -> None:
    result = register(settings, publisher, [write(tmp_path / "x", b"")], BLOCK, endpoint=store)
    assert "not under the storage root" in told(result)[0]
    with pytest.raises(UsageError):
        register(settings, publisher, [], BLOCK, lfn_prefix="store", endpoint=store)
    with pytest.raises(UsageError, match="no storage is configured"):
        register(settings, publisher, [], BLOCK)


def replicas(count: int, name: str = "/store/{:05}") -> Iterator[HeldFile]:
    for n in range(count):
        yield HeldFile(Lfn(name.format(n)), Block(f"{DATASET}#b{n // 700}"), n, Adler32(f"{n:08x}"), "")


def test_replicas_are_said_in_full_records(publisher: Publisher, view: View) -> None:
    progress: list[tuple[int, int]] = []
    writer = ReplicaWriter(publisher, A, on_acknowledged=lambda files, size: progress.append((files, size)))
    for file in replicas(5000):
        writer.add(file)
    writer.finish()
    assert progress[-1] == (writer.acknowledged, writer.acknowledged_bytes) == (5000, sum(range(5000)))
    catalogue = seen(view)
    assert view.progress.applied <= 8
    (dataset,) = catalogue.datasets()
    assert dataset.per_site == {A: (5000, sum(range(5000)))}


def test_long_names_stay_under_the_cap_of_a_record(publisher: Publisher, view: View) -> None:
    writer = ReplicaWriter(publisher, A)
    for file in replicas(1500, "/" + "/".join(["d" * 100] * 9) + "/{:04}"):
        writer.add(file)
    writer.finish()
    assert writer.acknowledged == 1500
    assert next(seen(view).datasets()).known.files == 1500


def test_a_cluster_that_is_away_is_said_and_nothing_is_claimed(tmp_path: Path) -> None:
    with Publisher(settings_for("127.0.0.1:1", tmp_path), A, "test", "cli") as publisher:
        writer = ReplicaWriter(publisher, A, timeout_s=0.5)
        writer.add(next(replicas(1)))
        with pytest.raises(Temporary, match="0 files are registered"):
            writer.finish()
        assert writer.acknowledged == 0
        publisher.close(timeout_s=0.1)


def test_verify_reads_back_from_disk(settings: Settings, store: Endpoint, tmp_path: Path) -> None:
    expected = []
    for name, content in (("good", b"1234"), ("flipped", b"1234"), ("short", b"1234"), ("gone", b"1234")):
        write(tmp_path / "storage/store" / name, content)
        expected.append((Lfn(f"/store/{name}"), len(content), adler(content)))
    (tmp_path / "storage/store/flipped").write_bytes(b"1235")
    (tmp_path / "storage/store/short").write_bytes(b"123")
    (tmp_path / "storage/store/gone").unlink()
    found = list(verify(settings, expected, endpoint=store))
    assert [c.lfn for c in found] == [lfn for lfn, _, _ in expected]
    assert found[0].why == ""
    assert "has adler32" in found[1].why
    assert "has 3 bytes, not 4" in found[2].why
    assert "no such file" in found[3].why


def _selectors(*names: str) -> list[Selector]:
    return [parse(name) for name in names]
