"""The carrier `tool`: real programs that copy, and misbehave in each way; real files, no Kafka."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streams.core.channel import LOG, Giver, tool_plane
from streams.core.manifest import Manifest
from streams.core.names import Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import FailureClass, Message, PartLost, Reason, Scope, SourceFailed, TransferProgress
from streams.planes.carriers.tool import bringing
from streams.planes.carriers.tool.bringing import ToolDestination
from streams.planes.destination.coordinator import DestinationPlane
from streams.planes.orders import Bring, Stop
from streams.settings import Registry, Settings, SiteEntry
from streams.settings.tools import LinkTool, Tool
from streams.storage.posix import PosixEndpoint
from tests.planes import odd_tool
from tests.planes.stage import PARTITIONS, A, B, manifest_of, open_order, put
from tests.process_ends import has_ended
from tests.storage.disks import tmpfs

PLANE = tool_plane("odd")
MIB = 1 << 20


class Bringing:
    """A destination on whose link from A a tool is put, which finds A's files on the same disk."""

    def __init__(self, root: Path, how: str, *sizes: int, **more: object) -> None:
        self.files = {f"/data/f{n:04}": os.urandom(size) for n, size in enumerate(sizes)}
        self.root_a, self.root_b, self.pids = root / "a", root / "b", root / "pids"
        put(self.root_a, self.files)
        self.root_b.mkdir(exist_ok=True)
        self.body = manifest_of(self.root_a, self.files)
        self.key = self.body.manifest.encode()
        self.whole = Ranges([(0, Manifest(self.body).line.total)])
        command = (sys.executable, odd_tool.__file__, how, "{source}", "{target}")
        self.tool = replace(Tool("odd", command, 20.0, environment=("PIDS",)), **more)  # type: ignore[arg-type]
        self.link = LinkTool(self.tool, f"{self.root_a}{{lfn}}")
        registry = Registry(sites=tuple(SiteEntry(site, "127.0.0.1:1") for site in (A, B)))
        self.settings = Settings(registry, B, root, root, root, root, link_tools={A: self.link})
        self.endpoint = PosixEndpoint(str(self.root_b))
        self.told = list[Message]()
        self.number = 0
        self.begin()

    def begin(self, verified: Ranges = EMPTY) -> None:
        self.destination = DestinationPlane(B, PARTITIONS, self.endpoint, self.told.append)
        self.side = ToolDestination(self.settings, self.destination, self.told.append)
        for side in (self.destination, self.side):
            for name, work in side.threads():
                threading.Thread(target=work, name=name, daemon=True).start()
        self.open(verified=verified)

    def open(self, attempt: int = 1, verified: Ranges = EMPTY) -> None:
        for _ in self.destination.begin(open_order(self.body, attempt, verified=verified)) or ():
            pass

    def order(self, ranges: Ranges | None = None, *, plane: str = PLANE, source: Site = A, attempt: int = 1) -> Bring:
        self.number += 1
        return Bring(self.body.manifest, source, self.number, attempt, plane, self.whole if ranges is None else ranges)

    def bring(self, ranges: Ranges | None = None) -> Bring:
        order = self.order(ranges)
        self.destination.bring(order)
        return order

    def sealed(self) -> Ranges:
        return Ranges(span for one in self.told if isinstance(one, TransferProgress) for span in one.sealed)

    def failed(self) -> list[SourceFailed]:
        return [one for one in self.told if isinstance(one, SourceFailed)]

    def reason(self) -> Reason:
        """Of the one failure, which is of the request and of no item."""
        self.wait(self.failed)
        (failed,) = self.failed()
        assert (failed.source, failed.request_no, failed.plane, failed.items) == (A, self.number, PLANE, EMPTY)
        assert "://" not in failed.reason.text
        assert str(self.root_b) not in failed.reason.text
        return failed.reason

    def wait(self, what: Callable[[], object], wait_s: float = 20) -> None:
        until = time.monotonic() + wait_s
        while not what():
            assert time.monotonic() < until, self.told
            time.sleep(0.01)

    def wait_whole(self) -> None:
        self.wait(lambda: self.sealed().covers(0, len(self.files)))
        for lfn, content in self.files.items():
            assert (self.root_b / lfn[1:]).read_bytes() == content
        self.wait(lambda: not self.left())

    def left(self) -> list[Path]:
        """Beside the files, at the destination."""
        return list(self.root_b.rglob(".t2g-*"))

    def rooms(self) -> list[Path]:
        return list(self.root_b.rglob(".t2g-*.tool"))

    def all_gone(self) -> bool:
        """Whether no process of the tools is left."""
        pids = [int(line) for line in self.pids.read_text().split()]
        return all(has_ended(pid) for pid in pids)

    def close(self) -> None:
        for part in (self.side, self.destination, self.endpoint):
            part.close()


@pytest.fixture
def bringing_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bringing]]:
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    with contextlib.ExitStack() as stack:

        def made(how: str, *sizes: int, **more: object) -> Bringing:
            one = Bringing(tmp_path, how, *sizes, **more)
            stack.callback(one.close)
            return one

        yield made


def test_whole_files_are_brought_and_nothing_is_left_beside_them(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("copy", 9 * MIB + 3, 0, 5_000, 1)
    ends.bring()
    ends.wait_whole()
    assert ends.failed() == []


def test_cp_and_rsync_are_tools(bringing_of: Callable[..., Bringing]) -> None:
    command = ("cp", "{source}", "{target}")
    ends = bringing_of("", 3 * MIB, 70_000, command=command)
    ends.bring(Ranges([(0, 3 * MIB)]))
    ends.wait(lambda: 0 in ends.sealed())
    if shutil.which("rsync"):
        ends.side._links = {A: replace(ends.link, tool=replace(ends.tool, command=("rsync", *command[1:])))}
    ends.bring(Ranges([(3 * MIB, ends.whole.size)]))
    ends.wait_whole()


def test_only_what_was_asked_for_is_taken(bringing_of: Callable[..., Bringing]) -> None:
    """The rest of a file is on its way from elsewhere, and its bytes count as asked there."""
    ends = bringing_of("copy", 2 * MIB, 1_000)
    asked = Ranges([(MIB, 2 * MIB)])
    ends.bring(asked)
    ends.wait(lambda: any(isinstance(one, TransferProgress) for one in ends.told))
    assert [one.verified for one in ends.told if isinstance(one, TransferProgress)][-1] == asked
    content = memoryview(ends.files["/data/f0000"])
    assert ends.destination.take_line(ends.key, Giver(A, LOG, 9), 0, content[:MIB], last=True)
    ends.wait(lambda: 0 in ends.sealed())
    assert (ends.root_b / "data/f0000").read_bytes() == content


def test_told_again_while_it_works_it_runs_once(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("slow0.5", 1_000)
    order = ends.bring()
    for _ in range(5):
        ends.destination.bring(order)
        time.sleep(0.05)
    ends.wait_whole()
    assert len(ends.pids.read_text().split()) == 1
    before = len(ends.told)
    ends.destination.bring(order)  # its progress was not heard
    ends.wait(lambda: len(ends.told) > before)
    assert len(ends.pids.read_text().split()) == 1


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("short", "data-bad", "ended well, but its file has 2999 bytes instead of 3000"),
        ("long", "data-bad", "ended well, but its file has 3001 bytes instead of 3000"),
        ("wrong", "data-bad", "ended well, but its file has adler32"),
        ("nothing", "transient", "ended well, but it has written no file"),
        ("link", "permanent", "ended well, but it has made a symbolic link in place of a file"),
        ("directory", "permanent", "ended well, but not a regular file"),
        ("killed", "transient", "was ended by SIGKILL"),
        ("exit3", "transient", "ended with exit code 3: cannot open the source for the target; see a URL"),
        ("exit54", "permanent", "ended with exit code 54"),
        ("exit50", "auth", "ended with exit code 50"),
        ("endless", "data-bad", "wrote more than the 3000 bytes that /data/f0000 has"),
    ],
)
def test_a_tool_that_brings_no_whole_file_has_failed_and_nothing_has_its_name(
    bringing_of: Callable[..., Bringing], how: str, kind: str, words: str
) -> None:
    ends = bringing_of(how, 3_000, exits={54: "permanent", 50: "auth"})
    order = ends.bring()
    reason = ends.reason()
    assert (reason.scope, reason.failure_class) == (Scope.NETWORK, kind)
    assert f"tool odd {words}" in reason.text
    assert "/data/f0000" in reason.text
    assert not (ends.root_b / "data/f0000").exists()
    assert not ends.rooms()
    runs = len(ends.pids.read_text().split())
    ends.destination.bring(order)  # its word was not heard: it is said again, and nothing is run
    ends.wait(lambda: len(ends.failed()) == 2)
    assert len(ends.pids.read_text().split()) == runs
    content = memoryview(ends.files["/data/f0000"])
    assert ends.destination.take_line(ends.key, Giver(A, LOG, 9), 0, content, last=True), "the log takes over"
    ends.wait_whole()


def test_a_tool_that_hangs_is_killed_with_what_it_started(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("hangs", 3_000, timeout_s=1.0)
    ends.bring()
    reason = ends.reason()
    assert (reason.failure_class, reason.text) == ("transient", "tool odd took longer than 1 s: /data/f0000")
    assert len(ends.pids.read_text().split()) == 2
    ends.wait(ends.all_gone)
    assert not ends.rooms()


def test_what_a_tool_leaves_running_dies_with_it(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("forks", 3_000)
    ends.bring()
    ends.wait_whole()
    assert len(ends.pids.read_text().split()) == 2
    ends.wait(ends.all_gone)


def test_what_a_tool_says_without_end_is_read_away(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("flood", 3_000)
    ends.bring()
    ends.wait_whole()


def test_whatever_a_tool_writes_besides_is_deleted(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("litters", 3_000)
    ends.bring()
    ends.wait_whole()
    assert [path.name for path in (ends.root_b / "data").iterdir()] == ["f0000"]


def test_one_bad_file_does_not_keep_the_others(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("copy", 1_000, 1_000, 1_000)
    (ends.root_a / "data/f0001").write_bytes(b"other")
    ends.bring()
    assert "5 bytes instead of 1000" in ends.reason().text
    ends.wait(lambda: ends.sealed() == Ranges.of(0, 2))


def test_where_the_way_is_at_fault_the_other_files_are_not_tried(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("exit3", *[1_000] * 60)
    ends.bring()
    ends.reason()
    assert len(ends.pids.read_text().split()) <= 2 * bringing.AT_ONCE


def test_a_tool_that_is_not_installed_is_named(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("", 1_000, command=("no-such-program", "{source}", "{target}"))
    ends.bring()
    reason = ends.reason()
    assert (reason.scope, reason.failure_class) == (Scope.DESTINATION, FailureClass.PERMANENT)
    assert reason.text == "the program no-such-program of tool odd is not installed at T2_B"


def test_a_tool_that_is_not_on_the_link_is_named(bringing_of: Callable[..., Bringing]) -> None:
    """An intent insists on it, or it was taken from the settings meanwhile."""
    ends = bringing_of("copy", 1_000)
    ends.destination.bring(ends.order(plane=tool_plane("other")))
    ends.wait(ends.failed)
    (failed,) = ends.failed()
    assert failed.plane == "tool-other"
    assert failed.reason.text == "T2_B has no tool other on its link from T1_A"


def test_a_full_disk_ends_the_request_and_nothing_is_left_there(
    bringing_of: Callable[..., Bringing], tmp_path: Path
) -> None:
    """Of a tool it is its own word that the disk is full; what it left makes no room less."""
    (tmp_path / "b").mkdir()
    with tmpfs(tmp_path / "b", "size=4m"):
        ends = bringing_of("copy", MIB, 6 * MIB)
        ends.bring(Ranges([(MIB, 7 * MIB)]))
        assert "No space left on device" in ends.reason().text
        assert not ends.rooms()
        ends.bring(Ranges([(0, MIB)]))
        ends.wait(lambda: 0 in ends.sealed())


def test_only_named_variables_reach_a_tool(
    bringing_of: Callable[..., Bringing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T2G_KAFKA_SASL_PASSWORD", "secret")
    monkeypatch.setenv("X509_USER_PROXY", "/tmp/proxy")
    names = ",".join(sorted(name for name in (*bringing.PASSED_ON, "PIDS", "X509_USER_PROXY") if name in os.environ))
    ends = bringing_of("environment", len(names), environment=("PIDS", "X509_USER_PROXY", "NOT_SET"))
    put(ends.root_a, {"/data/f0000": names.encode()})
    ends.destination.stop(Stop(ends.body.manifest, 1, Reason(Scope.POLICY, FailureClass.PERMANENT, "stop", Text("x"))))
    ends.files = {"/data/f0000": names.encode()}
    ends.body = manifest_of(ends.root_a, ends.files)
    ends.open()
    ends.bring()
    ends.wait_whole()


def test_a_cancelled_transfer_ends_its_tool(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("hangs", 3_000)
    ends.bring()
    ends.wait(lambda: ends.pids.exists() and len(ends.pids.read_text().split()) == 2)
    ends.destination.stop(Stop(ends.body.manifest, 1, Reason(Scope.POLICY, FailureClass.PERMANENT, "stop", Text("x"))))
    ends.wait(ends.all_gone)
    ends.wait(lambda: not ends.left())
    assert ends.failed() == []
    assert any(isinstance(one, PartLost) for one in ends.told)
    ends.wait(lambda: not ends.side._requests)


def test_while_it_works_it_is_told_that_it_does(
    bringing_of: Callable[..., Bringing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringing, "SAID_S", 0.05)
    ends = bringing_of("slow0.5", 1_000)
    ends.bring()
    ends.wait_whole()
    progress = [one for one in ends.told if isinstance(one, TransferProgress)]
    assert len([one for one in progress if not one.verified and not one.sealed]) >= 3


def test_another_plane_begins_anew_in_an_empty_room(bringing_of: Callable[..., Bringing]) -> None:
    """What a killed plane left there, and a stopped one writes still, is nobody's."""
    ends = bringing_of("hangs", 3_000)
    ends.bring()
    ends.wait(lambda: ends.rooms() and len(list(ends.rooms()[0].iterdir())) == 1)
    zombie, (room,) = ends.side, ends.rooms()
    (room / "left").write_bytes(b"x")
    ends.side._links = {}
    command = (sys.executable, odd_tool.__file__, "copy", "{source}", "{target}")
    ends.settings = replace(ends.settings, link_tools={A: replace(ends.link, tool=replace(ends.tool, command=command))})
    ends.begin()
    ends.bring()
    ends.wait_whole()
    zombie.close()
    ends.wait(ends.all_gone)
    assert (ends.root_b / "data/f0000").read_bytes() == ends.files["/data/f0000"]


def test_what_was_written_of_a_file_before_a_crash_is_kept(bringing_of: Callable[..., Bringing]) -> None:
    """The tool brings the whole file again, of which the rest is taken."""
    ends = bringing_of("copy", 3 * MIB)
    content = memoryview(ends.files["/data/f0000"])
    assert ends.destination.take_line(ends.key, Giver(A, PLANE, 1), 0, content[:MIB], last=True)
    ends.wait(lambda: any(isinstance(one, TransferProgress) for one in ends.told))
    ends.destination.close()
    ends.side.close()
    ends.begin(Ranges([(0, MIB)]))
    ends.bring(Ranges([(MIB, 3 * MIB)]))
    ends.wait_whole()
    assert len(ends.pids.read_text().split()) == 1


def test_a_newer_attempt_ends_the_tool_of_the_one_before(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("hangs", 3_000)
    ends.bring()
    ends.wait(lambda: ends.pids.exists() and len(ends.pids.read_text().split()) == 2)
    command = (sys.executable, odd_tool.__file__, "copy", "{source}", "{target}")
    ends.side._links = {A: replace(ends.link, tool=replace(ends.tool, command=command))}
    ends.open(2)
    ends.destination.bring(ends.order(attempt=2))
    ends.wait_whole()
    ends.wait(ends.all_gone)
    assert ends.failed() == []


def test_what_is_asked_for_again_under_another_number_is_run_once_more_and_the_older_one_ends(
    bringing_of: Callable[..., Bringing],
) -> None:
    ends = bringing_of("hangs", 3_000)
    ends.bring()
    ends.wait(lambda: ends.pids.exists() and len(ends.pids.read_text().split()) == 2)
    command = (sys.executable, odd_tool.__file__, "copy", "{source}", "{target}")
    ends.side._links = {A: replace(ends.link, tool=replace(ends.tool, command=command))}
    ends.bring()
    ends.wait_whole()
    ends.wait(ends.all_gone)
    ends.wait(lambda: not ends.side._requests)
    assert ends.failed() == []


def test_a_request_of_another_attempt_is_passed_by(bringing_of: Callable[..., Bringing]) -> None:
    ends = bringing_of("copy", 1_000)
    ends.destination.bring(ends.order(attempt=2))
    time.sleep(0.2)
    assert not ends.pids.exists()
    ends.bring()
    ends.wait_whole()
