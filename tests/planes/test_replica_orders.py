"""One thread carries out orders about files here, each once, and outlives a fault."""

from __future__ import annotations

import threading

from streams.core.names import Dataset, Lfn, Site
from streams.planes.orders import Check
from streams.planes.replica_orders import ORDERS_MAX, ReplicaOrders


def order(noted_no: int) -> Check:
    return Check(Dataset("/Checked/Here/RAW"), Site("T1_A"), 3, "ab" * 32, noted_no, (Lfn("/store/one"),))


def test_orders_are_carried_out_in_turn_whatever_fails() -> None:
    done: list[int] = []
    three = threading.Event()

    def carry_out(one: Check) -> None:
        done.append(one.noted_no)
        if len(done) == 1:
            raise RuntimeError("a bug")
        if len(done) == 3:
            three.set()

    orders = ReplicaOrders("read back", carry_out)
    for number in range(3):
        orders.put(order(number))
        orders.put(order(number))
    thread = threading.Thread(target=orders.run)
    thread.start()
    assert three.wait(5)
    orders.close()
    thread.join(5)
    assert not thread.is_alive()
    assert done == [0, 1, 2], "each once"
    orders.put(order(0))
    assert orders._orders.qsize() == 1, "what was done is done again where it is asked for again"


def test_no_more_orders_wait_than_it_has_room_for() -> None:
    orders = ReplicaOrders("read back", lambda one: None)
    for number in range(2 * ORDERS_MAX):
        orders.put(order(number))
    assert orders._orders.qsize() == ORDERS_MAX
    orders.close()
    assert orders._orders.qsize() == ORDERS_MAX
