"""The source half over a real directory: how requests are cut, shared out and refused."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streams.core.policy import SEGMENTS_MAX
from streams.core.ranges import Ranges
from streams.core.records import FailureClass, ManifestWritten, Scope
from streams.errors import StorageError, Temporary, WireError
from streams.planes.source.byte_reader import TURN_BYTES, FileBytes
from streams.storage import open_endpoint
from streams.storage.checksums import crc32c
from tests.planes.feed import Record, Sender, listed
from tests.planes.stage import request_of

NOISE = random.Random(11)
PAYLOAD = 64 * 1024


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    one = Sender(tmp_path / "a", PAYLOAD)
    yield one
    one.close()


def line_of(body: ManifestWritten, files: dict[str, bytes]) -> bytes:
    return b"".join(files[item.lfn] for item in body.items)


def whole(records: list[Record], line: bytes) -> None:
    """These records carry exactly what stands on the line, each once, with the right checksums."""
    have = Ranges()
    for header, payload in records:
        assert payload == line[header.start : header.stop]
        assert not have & Ranges([(header.start, header.stop)])
        have |= Ranges([(header.start, header.stop)])
        at = 0
        for segment in header.segments:
            assert crc32c(payload[at : at + segment.size]) == segment.crc32c
            at += segment.size


def test_a_request_is_cut_into_payloads(sender: Sender, tmp_path: Path) -> None:
    files = {"/store/x": NOISE.randbytes(3 * PAYLOAD + 5), "/store/y": NOISE.randbytes(10)}
    body = listed(tmp_path / "a", files)
    asked = Ranges([(10, 2 * PAYLOAD), (3 * PAYLOAD, 3 * PAYLOAD + 15)])
    records = sender.serve(request_of(body, 3, asked))
    assert [(header.start, header.stop) for header, _ in records] == [
        (10, PAYLOAD + 10),
        (PAYLOAD + 10, 2 * PAYLOAD),
        (3 * PAYLOAD, 3 * PAYLOAD + 15),
    ]
    assert [header.last for header, _ in records] == [False, False, True]
    whole(records, line_of(body, files))
    (served,) = sender.served()
    assert (served.ranges, served.bytes, served.request_no) == (asked, asked.size, 3)


def test_tiny_files_share_a_payload_up_to_the_limit_of_segments(sender: Sender, tmp_path: Path) -> None:
    files = {f"/store/t/{n:03}": NOISE.randbytes(n % 7) for n in range(700)}
    body = listed(tmp_path / "a", files)
    records = sender.serve(request_of(body))
    assert max(len(header.segments) for header, _ in records) == SEGMENTS_MAX
    assert len(records) == 3
    whole(records, line_of(body, files))


def test_a_number_is_served_once_and_an_ended_lease_never(sender: Sender, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/x": b"x" * 100})
    request = request_of(body)
    assert len(sender.serve(request)) == 1
    sender.source.serve(request)
    sender.source.serve(request_of(body, 2, lease_s=-1.0))
    sender.source.serve(replace(request, source=request.destination, request_no=9))
    assert len(sender.serve(replace(request, request_no=3))) == 1
    assert [one.request_no for one in sender.served()] == [1, 3]


def test_a_number_that_two_threads_bring_is_served_once(sender: Sender, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/x": b"x" * 100})
    start = threading.Barrier(4)

    def bring() -> None:
        start.wait(10)
        for number in range(1, 200):
            sender.source.serve(request_of(body, number))

    threads = [threading.Thread(target=bring) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sender.serve(request_of(body, 1000))
    numbers = [one.request_no for one in sender.served()]
    assert len(numbers) == len(set(numbers))


def test_requests_of_different_manifests_take_turns(tmp_path: Path) -> None:
    sender = Sender(tmp_path / "a", PAYLOAD)
    per_turn = TURN_BYTES // PAYLOAD
    bodies = [listed(tmp_path / "a", {f"/store/turn{n}": NOISE.randbytes(2 * TURN_BYTES)}) for n in range(3)]
    sender._done.acquire()  # nothing ends before all are asked for
    first = request_of(bodies[0])
    sender.source._wake.acquire()
    for body in bodies:
        sender.source.serve(request_of(body))
    sender.source._wake.release()
    sender._done.release()
    assert first.manifest == bodies[0].manifest
    with sender._done:
        assert sender._done.wait_for(lambda: len(sender.told) == 3, 10)
    order = [header.manifest for header, _ in sender.records]
    assert order == [body.manifest for body in bodies for _ in range(per_turn)] * 2
    sender.close()


def test_a_single_file_waits_for_one_record_of_many_tiny_ones(tmp_path: Path) -> None:
    """Opening a small file takes its time: a turn ends by segments as well as by bytes."""
    sender = Sender(tmp_path / "a", PAYLOAD)
    tiny = listed(tmp_path / "a", {f"/store/tiny{n}": b"x" for n in range(1000)})
    one = listed(tmp_path / "a", {"/store/one": b"y"})
    with sender.source._wake:
        sender.source.serve(request_of(tiny))
        sender.source.serve(request_of(one))
    with sender._done:
        assert sender._done.wait_for(lambda: len(sender.told) == 2, 10)
    order = [header.manifest for header, _ in sender.records]
    assert order == [tiny.manifest, one.manifest, *[tiny.manifest] * (len(order) - 2)]
    assert len(order) > 3
    sender.close()


def test_a_source_with_too_many_requests_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the destination waits out its lease."""
    monkeypatch.setattr("streams.planes.source.server.ITEMS_MAX", 2)
    sender = Sender(tmp_path / "a", PAYLOAD)
    bodies = [listed(tmp_path / "a", {f"/store/busy{n}/{k}": b"x" for k in range(2)}) for n in range(3)]
    with sender.source._wake:
        for body in bodies:
            sender.source.serve(request_of(body))
    with sender._done:
        assert sender._done.wait_for(lambda: len(sender.told) == 2, 10)
    said = {header.manifest: [segment.reason for segment in header.segments] for header, _ in sender.records}
    assert said[bodies[0].manifest] == [None, None]
    (why, _) = said[bodies[1].manifest]
    assert why is not None
    assert (why.failure_class, why.text) == (FailureClass.TRANSIENT, "the source has too many requests waiting")
    assert bodies[2].manifest not in said, "beyond twice as many nothing is remembered"
    assert len(sender.serve(request_of(bodies[2]))) == 1
    sender.close()


def test_a_number_whose_sending_failed_may_be_told_again(sender: Sender, tmp_path: Path) -> None:
    request, real, failed = request_of(listed(tmp_path / "a", {"/store/x": b"x"})), sender.source._send_chunk, []

    def fails_once(*args: object, **more: object) -> None:
        if not failed:
            failed.append(args)
            raise WireError("over the cap")
        real(*args, **more)  # type: ignore[arg-type]

    sender.source._send_chunk = fails_once  # type: ignore[assignment]
    sender.source.serve(request)
    deadline = time.monotonic() + 10
    while not failed or sender.source.busy:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(sender.serve(request)) == 1


def test_a_descriptor_that_failed_is_opened_anew(tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/x": b"x" * 100})
    request = request_of(body)
    with open_endpoint(f"file://{tmp_path / 'a'}") as endpoint:
        supply = FileBytes(endpoint)
        assert supply.take(request, request.items[0], 0, 10, 100).payload == b"x" * 10
        (reader,) = supply._readers.values()
        os.dup2(
            os.open(tmp_path, os.O_RDONLY), reader.descriptor
        )  # as after a server that came back with other handles
        with pytest.raises(StorageError):
            supply.take(request, request.items[0], 10, 10, 100)
        assert supply.take(request, request.items[0], 10, 10, 100).payload == b"x" * 10
        supply.close()


def test_what_is_asked_again_is_not_served_twice(tmp_path: Path) -> None:
    """The destination gave up waiting for the first request; of the second one nothing was asked before."""
    sender = Sender(tmp_path / "a", PAYLOAD)
    body = listed(tmp_path / "a", {"/store/again": NOISE.randbytes(8 * PAYLOAD)})
    first, second = Ranges([(0, 4 * PAYLOAD)]), Ranges([(4 * PAYLOAD, 8 * PAYLOAD)])
    with sender.source._wake:
        for number, ranges in ((1, first), (2, second), (3, first)):
            sender.source.serve(request_of(body, number, ranges))
    with sender._done:
        assert sender._done.wait_for(lambda: len(sender.told) == 2, 10)
    assert [one.request_no for one in sender.served()] == [2, 3]
    assert sum(len(payload) for _, payload in sender.records) == 8 * PAYLOAD
    sender.close()


@pytest.mark.parametrize(
    ("spoil", "words", "failure_class"),
    [
        (lambda path: path.unlink(), "no such file", FailureClass.PERMANENT),
        (lambda path: path.write_bytes(b"z" * 1000), "changed", FailureClass.DATA_BAD),
        (lambda path: path.write_bytes(b"z" * 10), "shrank", FailureClass.DATA_BAD),
        (lambda path: path.write_bytes(b"z" * 2000), "grew", FailureClass.DATA_BAD),
    ],
    ids=["missing", "changed", "short", "grown"],
)
def test_a_source_file_that_is_not_what_was_listed_is_said_in_its_place(
    sender: Sender,
    tmp_path: Path,
    spoil,
    words: str,
    failure_class: FailureClass,  # type: ignore[no-untyped-def]
) -> None:
    files = {"/store/before": NOISE.randbytes(300), "/store/bad": b"x" * 1000, "/store/after": NOISE.randbytes(300)}
    body = listed(tmp_path / "a", files)
    time.sleep(0.01)  # a tick of the filesystem's clock
    spoil(tmp_path / "a/store/bad")
    ((header, payload),) = sender.serve(request_of(body))
    good, bad, after = header.segments
    assert payload == files["/store/before"] + files["/store/after"]
    assert bad.reason is not None
    assert (bad.size, bad.length, bad.crc32c) == (0, 1000, None)
    assert (bad.reason.scope, bad.reason.failure_class) == (Scope.SOURCE, failure_class)
    assert words in bad.reason.text
    assert good.reason is None
    assert after.reason is None
    assert sender.served()[0].bytes == 600


def test_a_replica_of_another_size_is_refused_when_no_version_binds_it(sender: Sender, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/bad": b"x" * 1000})
    request = request_of(body)
    request = replace(request, items=(replace(request.items[0], length=900, version=""),), ranges=Ranges([(0, 900)]))
    ((header, _),) = sender.serve(request)
    assert header.segments[0].reason is not None
    assert "900 were registered" in header.segments[0].reason.text


def test_many_reasons_still_fit_the_header(sender: Sender, tmp_path: Path) -> None:
    files = {f"/store/{'deep' * 50}/{n}": b"x" for n in range(300)}
    body = listed(tmp_path / "a", files)
    for path in (tmp_path / "a/store").rglob("*"):
        if path.is_file():
            path.unlink()
    records = sender.serve(request_of(body))  # the sender encodes each header: one too large would raise
    assert sum(len(header.segments) for header, _ in records) == 300
    assert len({header.start for header, _ in records}) == len(records) > 3


def test_a_full_buffer_makes_the_source_wait_and_lose_nothing(tmp_path: Path) -> None:
    sender = Sender(tmp_path / "a", PAYLOAD)
    refusals = iter([True, True, False] * 100)
    keep = sender._keep

    def moody(header, payload, *, wait_s=0.0):  # type: ignore[no-untyped-def]
        if next(refusals):
            raise Temporary("too many records wait for the broker's acknowledgement")
        keep(header, payload)

    sender.source._send_chunk = moody
    files = {"/store/x": NOISE.randbytes(5 * PAYLOAD)}
    body = listed(tmp_path / "a", files)
    whole(sender.serve(request_of(body)), files["/store/x"])
    assert len(sender.records) == 5
    sender.close()
