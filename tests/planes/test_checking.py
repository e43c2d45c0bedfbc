"""Files read back for who answers an ask: what is there, whole; what is not, in words."""

from __future__ import annotations

import threading

from streams.core.names import Dataset, Lfn, Site
from streams.core.records import Message, ReplicasChecked
from streams.errors import StorageError
from streams.planes.orders import Check
from streams.planes.source.checking import ORDERS_MAX, ReplicaChecker
from tests.storage.contract import adler_of, land, noise
from tests.storage.memory import MemoryEndpoint

A, B = Site("T1_A"), Site("T2_B")
DATASET = Dataset("/Checked/Here/RAW")


def order(*lfns: str, noted_no: int = 7) -> Check:
    return Check(DATASET, A, 3, "ab" * 32, noted_no, tuple(map(Lfn, lfns)))


def test_each_file_is_read_or_said_to_be_missing() -> None:
    endpoint = MemoryEndpoint()
    land(endpoint, "/store/one", noise(3000), item=1)
    land(endpoint, "/store/empty", b"", item=2)
    said = ReplicaChecker(B, endpoint, lambda message: None).checked(order("/store/one", "/store/gone", "/store/empty"))
    assert (said.site, said.dataset, said.asker, said.ask_no, said.ask_sha256) == (B, DATASET, A, 3, "ab" * 32)
    assert said.noted_no == 7
    assert [(file.lfn, file.bytes, file.adler32) for file in said.found] == [
        ("/store/one", 3000, adler_of(noise(3000))),
        ("/store/empty", 0, adler_of(b"")),
    ]
    assert said.found[0].version == endpoint.stat("/store/one").version
    assert [(file.lfn, file.reason) for file in said.missing] == [("/store/gone", "no such file")]


def test_a_file_that_changes_while_it_is_read_is_none_that_could_be_promised() -> None:
    endpoint = MemoryEndpoint()
    land(endpoint, "/store/one", noise(3000))
    stat = endpoint.stat

    def changing(lfn: str) -> object:
        found = stat(lfn)
        endpoint.files[lfn].touch()
        return found

    endpoint.stat = changing  # type: ignore[method-assign, assignment]
    said = ReplicaChecker(B, endpoint, lambda message: None).checked(order("/store/one"))
    assert said.found == ()
    assert "was changed" in said.missing[0].reason


def test_a_thread_reads_one_order_after_the_other_and_outlives_a_fault() -> None:
    endpoint = MemoryEndpoint()
    land(endpoint, "/store/one", noise(10))
    said: list[Message] = []
    three = threading.Event()

    def publish(message: Message) -> None:
        said.append(message)
        if len(said) == 1:
            raise RuntimeError("a bug")
        if len(said) == 3:
            three.set()

    checker = ReplicaChecker(B, endpoint, publish)
    for number in range(3):
        checker.check(order("/store/one", noted_no=number))
        checker.check(order("/store/one", noted_no=number))
    thread = threading.Thread(target=checker.run)
    thread.start()
    assert three.wait(5)
    checker.close()
    thread.join(5)
    assert not thread.is_alive()
    assert [message.noted_no for message in said if isinstance(message, ReplicasChecked)] == [0, 1, 2], "each once"
    checker.check(order("/store/one"))
    assert checker._orders.qsize() == 1, "what was read is read again where it is asked for again"


def test_no_more_orders_wait_than_it_has_room_for() -> None:
    checker = ReplicaChecker(B, MemoryEndpoint(), lambda message: None)
    for number in range(2 * ORDERS_MAX):
        checker.check(order("/store/one", noted_no=number))
    assert checker._orders.qsize() == ORDERS_MAX
    checker.close()
    assert checker._orders.qsize() == ORDERS_MAX


def test_a_storage_that_fails_is_a_reason() -> None:
    endpoint = MemoryEndpoint()

    def broken(lfn: str) -> object:
        raise StorageError("the disk reports an input/output error", "/secret/place")

    endpoint.stat = broken  # type: ignore[method-assign, assignment]
    said = ReplicaChecker(B, endpoint, lambda message: None).checked(order("/store/one"))
    assert [file.reason for file in said.missing] == ["the disk reports an input/output error"]
