"""The producer over the mock cluster: what it publishes, what it refuses first, how a wait ends."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest

from streams import AsyncTransferClient, TransferClient, wire
from streams.client.follower import Watched
from streams.client.producer import IntentHandle
from streams.client.producer_async import AsyncIntentHandle
from streams.core import records as m
from streams.core.intent import State
from streams.core.names import IntentId, Text
from streams.core.ranges import Ranges
from streams.errors import NeverWorks, NotAllowed, NotFound, Temporary, Transfer2goError, UsageError
from streams.kafka.replay import replay
from tests.producer.conftest import A, B, C, Hand, completed, written

LFN = "/store/t/0/f0.root"


def intents_in_log(hand: Hand) -> int:
    return sum(1 for _ in replay(hand.settings, A, ["transfer-intents"]))


def test_wait_follows_to_done_with_counts(hand: Hand) -> None:
    with TransferClient(hand.settings) as client:
        handle = client.publish([LFN], to=["T2_B", "T3_C"], source="T2_B", deadline=datetime(2030, 1, 1, tzinfo=UTC))
        assert handle.body is not None
        assert handle.body.deadline_ms == 1893456000000
        body = written(handle.id, [10, 20])

        def world() -> None:
            hand.say(B, body)  # before its decision, as a mirror may bring it
            hand.accept(handle.body)
            hand.say(B, completed(body, B))
            hand.say(C, completed(body, C))

        threading.Thread(target=world).start()
        outcome = handle.wait(20)
    assert (outcome.exit_code, outcome.state, outcome.done) == (0, State.DONE, True)
    assert [(d.destination, d.files, d.arrived, d.bytes, d.arrived_bytes) for d in outcome.destinations] == [
        (B, 2, 2, 30, 30),
        (C, 2, 2, 30, 30),
    ]


def test_partly_done_names_the_files(hand: Hand) -> None:
    with TransferClient(hand.settings) as client:
        handle = client.publish([LFN], to=["T2_B"])
        assert handle.body is not None
        body = written(handle.id, [10, 20, 0])
        hand.say(B, completed(body, B, failed=Ranges.of(1)))
        hand.say(B, body)
        hand.accept(handle.body)
        outcome = handle.wait(20)
    assert (outcome.exit_code, outcome.state) == (8, "partly")
    assert outcome.destinations[0].reasons == (("checksum differs", 1),)
    assert [(u.lfn, u.reason.text) for u in outcome.unfinished] == [("/store/t/0/f1.root", "checksum differs")]
    assert outcome.destinations[0].arrived_bytes == 10


def test_nothing_arrived_is_6(hand: Hand) -> None:
    with TransferClient(hand.settings) as client:
        handle = client.publish([LFN], to=["T2_B"])
        assert handle.body is not None
        body = written(handle.id, [10])
        hand.accept(handle.body)
        hand.say(B, body)
        hand.say(B, completed(body, B, failed=Ranges.of(0)))
        outcome = handle.wait(20)
    assert (outcome.exit_code, outcome.state, outcome.last.state) == (6, "failed", State.DONE)


def test_refusal_is_7_with_the_homes_words(hand: Hand) -> None:
    with TransferClient(hand.settings) as client:
        handle = client.publish([LFN], to=["T2_B"])
        assert handle.body is not None
        hand.refuse(handle.body, "no site holds it")
        outcome = handle.wait(20)
    assert (outcome.exit_code, outcome.reason) == (7, "no site holds it")


def test_time_is_up_is_5_and_says_how_far(hand: Hand) -> None:
    with TransferClient(hand.settings) as client:
        handle = client.publish([LFN], to=["T2_B"])
        assert handle.body is not None
        body = written(handle.id, [10, 20])
        hand.accept(handle.body)
        hand.say(B, body)
        waits = Text("T2_B to answer request 1")
        report = m.TransferReported(handle.id, body.manifest, B, 1, "active", 12, 30, 1, 0, 2, waits)
        hand.say(B, report)
        seen: list[int] = []
        outcome = handle.wait(1.5, lambda s: seen.append(s.arrived_bytes))
    assert (outcome.exit_code, outcome.state) == (5, State.ACTIVE)
    assert (outcome.destinations[0].arrived, outcome.destinations[0].arrived_bytes) == (1, 12)
    assert outcome.destinations[0].open[0].waits_for == waits
    assert seen[-1] == 12


def test_long_chain_heard_backwards(hand: Hand) -> None:
    with TransferClient(hand.settings) as client:
        handle = client.publish([LFN], to=["T2_B"])
        assert handle.body is not None
        chain: list[m.ManifestWritten] = []
        prev = ""
        for no in range(600):
            chain.append(written(handle.id, [1], no=no, prev=prev, last=no == 599))
            prev = completed(chain[-1], B).manifest_sha256
        for body in reversed(chain):
            hand.say(B, body)
        hand.accept(handle.body)
        for snapshot in handle.watch(20):
            if snapshot.planned:
                break
        assert snapshot.files == 600


def test_same_key_publishes_once_and_another_body_is_refused(hand: Hand) -> None:
    with TransferClient(hand.settings, requester="me") as one:
        first = one.publish([LFN], to=["T2_B"], idempotency_key="k")
    with TransferClient(hand.settings, requester="me") as two:
        again = two.publish([LFN], to=["T2_B"], idempotency_key="k")
        assert again.id == first.id
        assert intents_in_log(hand) == 1
        with pytest.raises(NeverWorks, match=r"another body \(differs in priority\)"):
            two.publish([LFN], to=["T2_B"], priority=9, idempotency_key="k")
        assert intents_in_log(hand) == 1
        assert two.publish([LFN], to=["T2_B"], idempotency_key="k", requester="you").id != first.id


def test_lost_race_for_an_id_is_said(hand: Hand) -> None:
    """Another client published another body under the same id in between: the home's decision shows which won."""
    with TransferClient(hand.settings, requester="me") as client:
        handle = client.publish([LFN], to=["T2_B"], idempotency_key="k")
        assert handle.body is not None
        other = m.TransferIntent(handle.id, Text("me"), handle.body.selectors, (C,))
        hand.accept(other)
        with pytest.raises(NeverWorks, match="differs in destinations"):
            handle.wait(20)


def test_dead_letter_of_an_undecided_intent_is_said(hand: Hand) -> None:
    with TransferClient(hand.settings) as client:
        handle = client.publish([LFN], to=["T2_B"])
        letter = m.DeadLetter(Text("too strange"), "transfer-intents", 0, 0, handle.id.encode(), b"", "T1_A")
        hand.say(A, letter)
        with pytest.raises(NeverWorks, match="too strange"):
            handle.wait(20)


def test_cancel_ends_it_and_what_arrived_counts(hand: Hand) -> None:
    with TransferClient(hand.settings) as client:
        handle = client.publish([LFN], to=["T2_B"])
        assert handle.body is not None
        body = written(handle.id, [10, 20])
        hand.accept(handle.body)
        hand.say(B, body)
        handle.set_priority(9)
        handle.cancel()
        assert intents_in_log(hand) == 3, "decisions stand in a topic of their own"
        reason = m.Reason(m.Scope.POLICY, m.FailureClass.PERMANENT, "decide", Text("cancelled by me"))
        hand.say(A, m.IntentDecided(handle.id, 2, m.Verdict.CANCELLED, handle.body, B, 0, 5, reason))
        hand.say(B, completed(body, B, cancelled=Ranges.of(1)))
        outcome = handle.wait(20)
    assert (outcome.exit_code, outcome.reason) == (8, "cancelled by me")
    assert (outcome.destinations[0].arrived, outcome.destinations[0].cancelled) == (1, 1)


def test_what_an_open_intent_says_and_how_it_is_closed(hand: Hand) -> None:
    at = datetime(2126, 1, 1, tzinfo=UTC)
    with TransferClient(hand.settings) as client:
        bodies = [client.publish([LFN], to=["T2_B"], until=until).body for until in (at, 7, "close", None)]  # type: ignore[arg-type]
        said = [(b.open, b.until_ms, b.until_items) for b in bodies if b is not None]
        assert said == [
            (True, int(at.timestamp() * 1000), None),
            (True, None, 7),
            (True, None, None),
            (False, None, None),
        ]
        handle = client.publish([LFN], to=["T2_B"], until="close")
        assert handle.body is not None
        hand.accept(handle.body)
        first = written(handle.id, [10], last=False)
        hand.say(B, first)
        hand.say(B, completed(first, B))
        assert next(s for s in handle.watch(20) if s.idle).arrived == 1
        handle.close_intake()
        assert next(s for s in handle.watch(20) if not s.growing).state is State.ACTIVE
        end = written(handle.id, [], no=1, prev=completed(first, B).manifest_sha256)
        hand.say(B, end)
        hand.say(B, completed(end, B))
        assert handle.wait(20).exit_code == 0
        with pytest.raises(NeverWorks, match="is not open"):
            client.publish([LFN], to=["T2_B"]).close_intake()


def test_an_old_intent_is_looked_up(hand: Hand) -> None:
    with TransferClient(hand.settings) as client:
        published = client.publish([LFN], to=["T2_B"])
        assert published.body is not None
        hand.refuse(published.body, "no")
    with TransferClient(hand.settings) as other:
        assert other.intent(published.id).wait(20).exit_code == 7
        with pytest.raises(NotFound, match="no intent"):
            other.intent("T1_A.00000000-0000-0000-0000-000000000000")
        foreign = IntentHandle(other, Watched(IntentId("T2_B.00000000-0000-0000-0000-000000000000")), None)
        with pytest.raises(NotAllowed, match="use --site T2_B"):
            foreign.cancel()
        with pytest.raises(NotAllowed, match="use --site T2_B"):
            foreign.close_intake()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"selectors": [LFN], "to": ["T2_BB"]}, NotFound, "did you mean T2_B"),
        ({"selectors": [LFN], "to": ["T9_Q"]}, NotFound, "known sites: T1_A, T2_B, T3_C"),
        ({"selectors": [LFN], "to": ["T2_B"], "source": "T0_X"}, NotFound, "no site T0_X"),
        ({"selectors": [], "to": ["T2_B"]}, UsageError, "selectors: none given"),
        ({"selectors": [LFN], "to": []}, UsageError, "destinations: none given"),
        ({"selectors": LFN, "to": ["T2_B"]}, UsageError, "want a list"),
        ({"selectors": ["/store/../etc/passwd"], "to": ["T2_B"]}, UsageError, "not a legal LFN"),
        ({"selectors": ["/store/a\nb"], "to": ["T2_B"]}, UsageError, "not a legal LFN"),
        ({"selectors": [LFN], "to": ["T2_B"], "priority": 10}, UsageError, "not in 0…9"),
        ({"selectors": [LFN], "to": ["T2_B"], "deadline": datetime(2030, 1, 1)}, UsageError, "no time zone"),
        ({"selectors": [LFN], "to": ["T2_B"], "until": datetime(2030, 1, 1)}, UsageError, "until .* no time zone"),
        ({"selectors": [LFN], "to": ["T2_B"], "until": datetime(2001, 1, 1, tzinfo=UTC)}, UsageError, "has passed"),
        ({"selectors": [LFN], "to": ["T2_B"], "until": 0}, UsageError, "until 0: want a time"),
        ({"selectors": [LFN], "to": ["T2_B"], "until": True}, UsageError, "until True"),
        ({"selectors": [LFN], "to": ["T2_B"], "until": "forever"}, UsageError, "until 'forever'"),
        ({"selectors": [LFN], "to": ["T2_B"], "requester": "a\x1bb"}, UsageError, "not a legal text"),
    ],
)
def test_refused_before_publishing(
    hand: Hand, arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    with TransferClient(hand.settings) as client, pytest.raises(error, match=words):
        client.publish(**arguments)  # type: ignore[arg-type]
    assert intents_in_log(hand) == 0


def test_no_broker_is_temporary(hand: Hand) -> None:
    hand.close()
    with TransferClient(hand.settings) as client, pytest.raises(Temporary, match="try again"):
        client.publish([LFN], to=["T2_B"])


def test_an_open_intent_in_async_form(hand: Hand) -> None:
    async def scene() -> m.TransferIntent | None:
        async with AsyncTransferClient(hand.settings) as client:
            handle = await client.publish([LFN], to=["T2_B"], until=3)
            await handle.close_intake()
            return handle.sync.body

    body = asyncio.run(scene())
    assert body is not None
    assert body.until_items == 3
    assert intents_in_log(hand) == 2


def test_async_form(hand: Hand) -> None:
    async def scene() -> int:
        async with AsyncTransferClient(hand.settings) as client:
            handles = await asyncio.gather(*(client.publish([LFN], to=["T2_B"], requester=f"r{n}") for n in range(3)))
            for handle in handles:
                assert handle.sync.body is not None
                hand.refuse(handle.sync.body, "no")
            outcomes = await asyncio.gather(*(handle.wait(20) for handle in handles))
            return sum(outcome.exit_code for outcome in outcomes)

    assert asyncio.run(scene()) == 21


def test_both_forms_say_in_the_same_words_how_it_ended(hand: Hand) -> None:
    async def scene() -> tuple[int, str]:
        async with AsyncTransferClient(hand.settings) as client:
            handle = await client.publish([LFN], to=["T2_B"])
            assert handle.sync.body is not None
            body = written(handle.id, [10])
            hand.accept(handle.sync.body)
            hand.say(B, body)
            hand.say(B, completed(body, B, failed=Ranges.of(0)))
            outcome = await handle.wait(20)
            assert handle.id.encode() not in client.sync._follower._watched, "followed no more"
            return outcome.exit_code, outcome.state

    assert asyncio.run(scene()) == (6, "failed")


def test_a_fault_while_following_is_raised_to_who_waits(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    with TransferClient(hand.settings) as client:
        handle = client.publish([LFN], to=["T2_B"])
        assert handle.body is not None
        next(handle.watch(0.0))

        def faulty(*_: object) -> None:
            raise KeyError("a fault of ours")

        monkeypatch.setattr("streams.client.follower.fact_of", faulty)
        hand.accept(handle.body)
        with pytest.raises(Transfer2goError, match="the following of intents failed: KeyError"):
            handle.wait(20)


def test_what_is_asked_in_one_form_can_be_asked_in_the_other() -> None:
    """But for what only tells how it stands, and has no need of a loop."""
    pairs = ((TransferClient, AsyncTransferClient, set()), (IntentHandle, AsyncIntentHandle, {"away", "outcome"}))
    for sync, in_a_loop, left in pairs:
        names = {name for name in vars(sync) if not name.startswith("_")}
        assert names - left == {name for name in vars(in_a_loop) if not name.startswith("_")}


def test_a_site_is_answered_for_and_a_removal_asked_for_in_async_form(hand: Hand) -> None:
    async def go() -> AsyncIntentHandle:
        async with AsyncTransferClient(hand.settings, site=A, requester="ann@desk") as client:
            handle = await client.remove(["/P/R/T#b"], at=[A], reason="full")
            await handle.approve()
            await handle.deny("no room")
            await handle.release()
            return handle

    intent = asyncio.run(go()).id
    log = replay(hand.settings, A, ["transfer-intents"])
    heard = [wire.decode(one.topic, one.key, one.value, one.headers, A).message for one in log]
    told = [one for one in heard if isinstance(one, m.IntentAsked) and one.intent == intent]
    assert [(one.asked, one.asked_by, one.site, one.reason) for one in told] == [
        (m.Asked.APPROVE, "ann", A, ""),
        (m.Asked.DENY, "ann", A, "no room"),
        (m.Asked.RELEASE, "ann@desk", None, ""),
    ]
