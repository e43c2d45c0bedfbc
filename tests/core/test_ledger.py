"""The ledger over histories that are healthy, then broken once: a checker that cannot fail is a defect."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.digests import sha256_of
from streams.core.ledger.findings import Invariant, Judgement, LogPosition, Severity
from streams.core.manifest import digest
from streams.core.names import Destination, IntentId, Lfn, ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges
from tests.audit.history import (
    LATER_MS,
    START_MS,
    A,
    B,
    C,
    Federation,
    Rec,
    World,
    body_of,
    completion_of,
    healthy,
    item,
)

I1, I2, I4, I6, I7 = (
    Invariant.CONSERVATION,
    Invariant.NO_LIE,
    Invariant.ONE_EFFECT,
    Invariant.NOT_SILENT,
    Invariant.NO_GAP,
)


def found(judgement: Judgement) -> list[tuple[Invariant, str]]:
    return [(f.invariant, f.words) for f in judgement.broken]


def only(judgement: Judgement, invariant: Invariant, *words: str) -> tuple[LogPosition, ...]:
    """The records of the only finding, which is of this invariant and says these words."""
    assert len(judgement.broken) == 1, found(judgement)
    (finding,) = judgement.broken
    assert finding.invariant is invariant
    for word in words:
        assert word in finding.words
    return finding.records


@pytest.mark.parametrize("sites", [(A, B), (A, B, C)])
def test_a_healthy_history_is_clean(sites: tuple[Site, ...]) -> None:
    world = healthy(*sites)
    judgement = world.judge()
    assert found(judgement) == []
    assert judgement.findings == ()
    destinations = len(sites) - 1
    counts = judgement.counts
    assert (counts.intents, counts.accepted, counts.partly, counts.open) == (1, 1, 1, 0)
    assert (counts.manifests, counts.completions) == (2, 2 * destinations)
    assert (counts.files, counts.bytes) == (4 * destinations, 350 * destinations)
    assert all(judgement.checked[i] > 0 for i in (I1, I2, I4, I6, I7))


def test_every_record_is_counted_once_per_partition() -> None:
    world = healthy()
    judgement = world.judge()
    for count in judgement.partitions:
        assert count.records == len(world.logs[count.site, count.topic, count.partition])
        ended = (count.applied, count.duplicate, count.superseded, count.dead_lettered, count.pending, count.silent)
        assert sum(ended) == count.records
    planned = [c for c in judgement.partitions if c.topic == topics.TRANSFERS and c.site == B]
    assert sum(c.duplicate for c in planned) == 2


def test_a_record_lost_in_the_mirror_is_named() -> None:
    world = healthy()
    lost = world.where(A, f"{B}.{topics.COMPLETIONS}")[0]
    value = world.at(lost).value
    world.drop(lost)
    records = only(world.judge(), I7, f"missing at {A}, present at {B}", "completion-records")
    original = next(p for p, r in world.records(B, topics.COMPLETIONS) if r.value == value)
    assert records[0] == original


def test_a_number_never_written_is_a_gap_everywhere() -> None:
    world = healthy()
    lost = world.where(B, topics.REPORTS)[0]
    value = world.at(lost).value
    world.drop(lost)
    for copy, rec in world.records(A, f"{B}.{topics.REPORTS}"):
        if rec.value == value:
            world.drop(copy)
            break
    only(world.judge(), I7, "nowhere", "transfer-reports")


def test_a_lost_tail_is_seen_through_the_announcement() -> None:
    world = healthy()
    told = world.writer(B, "late", "worker")
    told.announce(sequences=[m.LastSequence(topics.CHUNK_EVENTS, 0, 4)])
    world.mirror()
    only(world.judge(), I7, "numbers 0…4", "nowhere, though announced")


def test_a_young_tail_is_in_flight_and_an_old_one_a_gap() -> None:
    world = healthy()
    body = world.ask(2, B)
    world.decide(body)
    world.mirror(keep=lambda target, topic, rec: topic not in (topics.INTENTS, topics.DECISIONS))
    young = world.judge(now_ms=world.clock_ms + 1000)
    assert found(young) == []
    assert any(r.invariant is I7 and "in flight to T2_B" in r.words and r.count == 2 for r in young.waiting)
    old = world.judge()
    assert [i for i, _ in found(old)] == [I7, I7]
    assert all("the mirror has not come that far" in words for _, words in found(old))


def test_a_hole_followed_by_later_records_is_lost_not_late() -> None:
    world = Federation()
    hurt = world.writer(A, "hurt", "cli")
    one = m.IntentAsked(IntentId(f"{A}.{'0' * 8}-0000-0000-0000-{'0' * 12}"), m.Asked.CANCEL, Text("x"))
    hurt.say(one)
    world.mirror(keep=lambda target, topic, rec: False)
    world.cli.say(one)
    world.mirror()
    judgement = world.judge(now_ms=LATER_MS)
    gaps = [w for i, w in found(judgement) if i is I7 and "hurt" in w]
    assert len(gaps) == 1
    assert "lost in the mirror" in gaps[0]


def test_what_a_closed_incarnation_gave_up_may_be_there_or_not() -> None:
    world = healthy()
    writer = world.writer(B, "failing", "worker")
    name = ManifestId(f"{A}.00000000-0000-0000-0000-000000000001.0.0")
    for no in range(3):
        writer.say(m.LeaseExpired(name, A, no + 1))
    places = world.where(B, topics.TRANSFERS, lambda x: isinstance(x, m.LeaseExpired))
    world.drop(places[1])
    partition = places[0].partition
    assert [i for i, _ in found(world.judge())] == [I7]
    writer.announce(closing=True, sequences=[m.LastSequence(topics.TRANSFERS, partition, 0)])
    world.mirror()
    assert found(world.judge()) == []


def test_a_number_with_two_contents_names_both_records() -> None:
    world = healthy()
    copy = world.where(A, f"{B}.{topics.REPORTS}")[0]
    heard = world.decoded(copy, world.at(copy))
    assert isinstance(heard.message, m.TransferReported)
    world.forge(copy, replace(heard.message, waits_for=Text("a lie")))
    records = only(world.judge(), I7, "stands for two different records")
    assert copy in records
    assert {r.site for r in records} == {A, B}


def test_the_mirror_repeating_itself_is_fine() -> None:
    world = healthy()
    for key in world.partitions():
        if "." in key[1]:
            for _, rec in list(world.logs[key]):
                world.append(*key, rec)
    judgement = world.judge()
    assert found(judgement) == []
    for count in judgement.partitions:
        if "." in count.topic:
            assert count.duplicate >= count.records // 2


def test_two_different_completions_name_both() -> None:
    world = healthy()
    done = next(world.decoded(p, r).message for p, r in world.records(B, topics.COMPLETIONS))
    assert isinstance(done, m.CompletionRecord)
    again = world.writer(B, "again", "worker")
    other = replace(
        done, ended=m.Ended.CANCELLED, sealed=EMPTY, failed=(), cancelled=Ranges([(0, done.items)]), bytes=0
    )
    second = again.say(other)
    world.mirror()
    first = world.where(B, topics.COMPLETIONS, lambda x: x == done)[0]
    assert only(world.judge(), I4, "two different completions", "sealed") == (first, second)


def test_the_same_completion_published_again_is_a_duplicate() -> None:
    world = healthy()
    done = next(world.decoded(p, r).message for p, r in world.records(B, topics.COMPLETIONS))
    world.writer(B, "again", "worker").say(done)
    world.mirror()
    assert found(world.judge()) == []


def completed_with(change: dict[str, object]) -> tuple[Federation, LogPosition]:
    """A history whose only completion was written with some fields changed."""
    world = Federation()
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("a", 100), item("b", 200)))
    done = world.transfer(manifest, B, close=False)
    place = world.where(B, topics.COMPLETIONS)[0]
    world.forge(place, replace(done, **change))  # type: ignore[arg-type]
    world.close()
    world.mirror()
    return world, place


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bytes": 299}, "it says 299 bytes, its sealed items have 300"),
        ({"manifest_sha256": "0" * 64}, "its sha256 is not the manifest's"),
        ({"items": 3, "cancelled": Ranges.of(2), "ended": m.Ended.CANCELLED}, "it counts 3 items, the manifest has 2"),
    ],
)
def test_a_completion_that_does_not_add_up(change: dict[str, object], words: str) -> None:
    world, place = completed_with(change)
    records = only(world.judge(), I1, words)
    assert records[0] == place


def test_sealed_items_that_no_plane_sealed_are_a_lie() -> None:
    world = Federation()
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("a", 100), item("b", 200)))
    world.planes[B].say(m.PartOpened(manifest.manifest, 1, "disk", EMPTY))
    world.bring(manifest, B)
    world.planes[B].say(m.TransferProgress(manifest.manifest, B, 1, "disk", Ranges([(0, 100)]), Ranges.of(0)))
    world.complete(manifest, B, Ranges([(0, 2)]))
    world.close()
    world.mirror()
    only(world.judge(), I2, "items 1 are called sealed, no plane said so")


def test_a_completion_without_any_decision() -> None:
    world = Federation()
    body = world.ask(1, B)
    (manifest,) = world.write(body, (item("a", 100),))
    world.transfer(manifest, B)
    world.close()
    world.mirror()
    only(world.judge(), I4, "without any decision of T1_A")


def test_a_completion_at_a_site_nobody_asked_for() -> None:
    world = Federation(A, B, C)
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("a", 100),))
    world.transfer(manifest, B)
    world.transfer(manifest, C)
    world.close()
    world.mirror()
    only(world.judge(), I4, "at T2_C, which is no destination")


def test_a_manifest_of_a_source_that_was_not_decided() -> None:
    world = Federation()
    body = world.ask(1, B)
    world.workers[A].say(m.IntentDecided(body.intent, 1, m.Verdict.ACCEPTED, body, B, 0, 5))
    (manifest,) = world.write(body, (item("a", 100),))
    world.transfer(manifest, B)
    world.close()
    world.mirror()
    only(world.judge(), I4, "was written by T1_A, the source decided is T2_B")


def test_a_forged_completion_of_a_manifest_nobody_wrote() -> None:
    world = healthy()
    done = next(world.decoded(p, r).message for p, r in world.records(B, topics.COMPLETIONS))
    assert isinstance(done, m.CompletionRecord)
    name = ManifestId(f"{done.intent}.0.7")
    world.writer(B, "forger", "worker").say(replace(done, manifest=name))
    world.mirror()
    judgement = world.judge()
    assert (I1, f"completion of {name} at T2_B: nobody wrote that manifest") in found(judgement)


def test_a_transfer_closed_without_completion() -> None:
    world = Federation()
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("a", 100),))
    done = completion_of(manifest, B, EMPTY, Ranges.of(0))
    world.workers[B].say(m.TransferClosed(manifest.manifest, done))
    world.close()
    world.mirror()
    only(world.judge(), I1, "its completion is nowhere")


def test_a_file_held_that_the_completion_does_not_list() -> None:
    world = Federation()
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("a", 100), item("b", 200)))
    both = Ranges([(0, 2)])
    world.planes[B].say(m.PartOpened(manifest.manifest, 1, "disk", both))
    done = world.complete(manifest, B, Ranges.of(0), Ranges.of(1))
    extra = m.HeldFile(manifest.items[1].target, manifest.items[1].block, 200, manifest.items[1].adler32 or "", "")  # type: ignore[arg-type]
    place = world.workers[B].say(m.FilesHeld(manifest.items[1].dataset, B, (extra,), done.manifest))
    world.close()
    world.mirror()
    assert only(world.judge(), I2, "items 1", "does not list them")[0] == place


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bytes": 101}, "but has 101 bytes, not 100"),
        ({"adler32": "0000dcba"}, "but has adler32 0000dcba, not 0000abcd"),
        ({"lfn": "/store/other"}, "is not in"),
    ],
)
def test_a_file_held_that_differs_from_its_item(change: dict[str, object], words: str) -> None:
    world = Federation()
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("a", 100),))
    world.transfer(manifest, B, close=False)
    (place,) = world.where(B, topics.REPLICAS)
    held = world.decoded(place, world.at(place)).message
    assert isinstance(held, m.FilesHeld)
    world.forge(place, replace(held, files=(replace(held.files[0], **change),)))  # type: ignore[arg-type]
    world.close()
    world.mirror()
    broken = world.judge().broken
    (finding,) = (f for f in broken if f.invariant is I2)
    assert words in finding.words
    assert finding.records[0] == place
    contents = [f for f in broken if f is not finding]  # what A holds under the name is another content
    assert [f.invariant for f in contents] == ([] if "lfn" in change else [I4])


def test_a_missing_manifest_and_a_broken_chain() -> None:
    world = Federation()
    body = world.ask(1, B)
    world.decide(body)
    world.write(body, (item("a", 1),), (item("b", 1),), (item("c", 1),))
    middle = world.where(A, topics.MANIFESTS, lambda x: isinstance(x, m.ManifestWritten) and x.no == 1)[0]
    written = world.decoded(middle, world.at(middle)).message
    assert isinstance(written, m.ManifestWritten)
    world.forge(middle, replace(written, prev_sha256="f" * 64))
    world.close()
    world.mirror()
    # The one after it follows the digest of what was there before.
    assert [i for i, _ in found(world.judge())] == [I1, I1]
    for site, topic in ((A, topics.MANIFESTS), (B, f"{A}.{topics.MANIFESTS}")):
        for place in world.where(site, topic, lambda x: isinstance(x, m.ManifestWritten) and x.no == 1):
            world.drop(place)
    judgement = world.judge()
    assert [i for i, _ in found(judgement)] == [I1, I7]
    assert "number 1 is nowhere" in found(judgement)[0][1]


POISON = Rec(b"k", b"\x00nonsense", (), START_MS + 5)


def letter(place: LogPosition) -> m.DeadLetter:
    return m.DeadLetter(Text("bad"), place.topic, place.partition, place.offset, b"k", b"", "")


def poisoned(world: World) -> tuple[LogPosition, LogPosition]:
    at_home = world.append(A, topics.INTENTS, 0, POISON)
    world.mirror()
    copy = next(p for p, r in world.records(B, f"{A}.{topics.INTENTS}") if r is POISON)
    return at_home, copy


def test_a_poison_record_needs_a_dead_letter_at_every_site() -> None:
    world = healthy()
    at_home, copy = poisoned(world)
    world.workers[A].say(letter(at_home))
    committed = {place[:3]: place.offset + 1 for place in (at_home, copy)}
    assert only(world.judge(committed=committed), I6, "silent: unknown schema id") == (copy,)
    world.workers[B].say(letter(copy))
    judgement = world.judge(committed=committed)
    assert found(judgement) == []
    assert sum(c.dead_lettered for c in judgement.partitions) == 2


def test_a_poison_record_that_no_worker_reached_is_not_silent_yet() -> None:
    world = healthy()
    at_home, copy = poisoned(world)
    judgement = world.judge(committed={at_home[:3]: at_home.offset, copy[:3]: copy.offset})
    assert found(judgement) == []
    assert sum(r.count for r in judgement.waiting if "no worker" in r.words) == 2
    # Nobody committed anything, but a worker of A said much later that it lives.
    world.clock_ms += 600_000
    world.workers[A].announce()
    world.mirror()
    assert only(world.judge(), I6, "silent") == (at_home,)


def test_the_number_of_a_refused_record_is_not_missed() -> None:
    world = healthy()
    broken: list[LogPosition] = []
    for site, topic in ((B, topics.REPORTS), (A, f"{B}.{topics.REPORTS}")):
        place = world.where(site, topic)[0]
        broken.append(place)
        world.put(place, replace(world.at(place), value=b"\x00nonsense"))
    committed = {place[:3]: place.offset + 1 for place in broken}
    judgement = world.judge(committed=committed)
    assert {(f.invariant, f.records) for f in judgement.broken} == {(I6, (p,)) for p in broken}
    for place in broken:
        world.workers[place.site].say(letter(place))
    judgement = world.judge(committed=committed)
    assert found(judgement) == []
    for count in judgement.partitions:
        assert count.applied + count.duplicate + count.superseded + count.dead_lettered == count.records


def test_a_record_in_the_wrong_partition() -> None:
    world = healthy()
    right = world.writer(A, "odd", "cli").say(body_of(IntentId(f"{A}.{UUID(int=5)}"), B))
    rec = world.at(right)
    world.drop(right)
    place = world.append(A, topics.INTENTS, (right.partition + 1) % 4, rec)
    world.mirror()
    assert only(world.judge(), I6, f"belongs in partition {right.partition}") == (place,)


def test_a_dead_letter_that_points_at_nothing() -> None:
    world = healthy()
    place = world.workers[B].say(letter(LogPosition(B, topics.INTENTS, 0, 99)))
    assert only(world.judge(), I6, "never there") == (place,)


def test_a_second_body_under_an_id_needs_a_dead_letter_at_home() -> None:
    world = healthy()
    body = world.decoded(*world.records(A, topics.INTENTS)[0]).message
    assert isinstance(body, m.TransferIntent)
    second = world.cli.say(replace(body, priority=9))
    world.mirror()
    committed = {second[:3]: second.offset + 1}
    assert only(world.judge(committed=committed), I6, "a second body") == (second,)
    world.workers[A].say(letter(second))
    judgement = world.judge(committed=committed)
    assert found(judgement) == []
    (count,) = (c for c in judgement.partitions if (c.site, c.topic, c.partition) == second[:3])
    assert count.dead_lettered == 1
    assert count.applied + count.duplicate + count.superseded + count.dead_lettered == count.records


def test_an_intent_that_was_read_and_never_decided_is_silent() -> None:
    world = healthy()
    body = world.ask(2, B)
    world.mirror()
    place = world.where(A, topics.INTENTS, lambda x: x == body)[0]
    assert found(world.judge(committed={place[:3]: place.offset + 1})) == []
    world.clock_ms += 600_000
    world.workers[A].announce()
    world.mirror()
    committed = {place[:3]: place.offset + 1}
    assert only(world.judge(committed=committed), I6, "neither decided nor refused") == (place,)
    assert found(world.judge(committed={place[:3]: place.offset})) == []


def test_a_site_not_read_makes_things_unknown_not_wrong() -> None:
    world = healthy()
    for here, away in ((A, B), (B, A)):
        judgement = world.judge(read=[here])
        assert found(judgement) == []
        assert any(f"journals of {away}: not read" in r.words for r in judgement.unchecked)
    lost = world.where(A, f"{B}.{topics.COMPLETIONS}")[-1]
    world.drop(lost)
    only(world.judge(read=[A]), I7, "nowhere that was read, though announced")


def test_completions_known_from_copies_only_are_still_judged() -> None:
    world, _ = completed_with({"bytes": 299})
    only(world.judge(read=[A]), I1, "it says 299 bytes")


def test_progress_of_an_older_attempt_is_noted_not_broken() -> None:
    world = healthy()
    progress = world.decoded(*world.records(B, topics.CHUNK_EVENTS)[0]).message
    assert isinstance(progress, m.TransferProgress)
    late = world.writer(B, "late", "plane")
    for attempt in (2, 3):
        late.say(m.PartOpened(progress.manifest, attempt, "disk", EMPTY))
    late.say(replace(progress, attempt=3))
    place = late.say(replace(progress, attempt=2))
    judgement = world.judge()
    assert found(judgement) == []
    (note,) = judgement.findings
    assert (note.invariant, note.severity, note.records) == (Invariant.FENCING, Severity.NOTE, (place,))


def test_attempts_of_a_consumer_fence_nobody_else_at_its_site() -> None:
    world = healthy()
    progress = world.decoded(*world.records(B, topics.CHUNK_EVENTS)[0]).message
    assert isinstance(progress, m.TransferProgress)
    writer = world.writer(B, "late", "consumer")
    writer.say(replace(progress, destination=Destination(f"{B}/zpeak"), attempt=7))
    writer.say(progress)
    assert not [note for note in world.judge().findings if note.invariant is Invariant.FENCING]


def test_payload_numbers_are_not_checkable() -> None:
    world = healthy()
    world.planes[A].announce(sequences=[m.LastSequence(topics.chunks_to(B), 0, 100)])
    world.mirror()
    judgement = world.judge()
    assert found(judgement) == []
    assert any("payload topics" in r.words for r in judgement.unchecked)


def test_chunk_events_must_reach_auditors_only() -> None:
    world = healthy(A, B, auditors=[A])
    assert found(world.judge()) == []
    lost = world.where(A, f"{B}.{topics.CHUNK_EVENTS}")[0]
    world.drop(lost)
    only(world.judge(), I7, f"missing at {A}, present at {B}", topics.CHUNK_EVENTS)


def test_a_forged_header_does_not_cost_memory() -> None:
    world = healthy()
    place = world.where(B, topics.REPORTS)[-1]
    rec = world.at(place)
    origin = wire.decode_value(m.Origin, dict(rec.headers)[wire.ORIGIN] or b"")
    far = replace(origin, incarnation="forged", seq=1 << 60)
    heard = world.decoded(place, rec)
    headers = tuple(wire.headers(heard.message, far))
    world.append(B, topics.REPORTS, place.partition, replace(rec, headers=headers))
    world.mirror()
    only(world.judge(), I7, f"numbers 0…{(1 << 60) - 1}", "nowhere")


def growing(world: Federation, number: int = 7) -> m.TransferIntent:
    world.register(item(f"grown-{name}", 100) for name in "abcdz")
    body = replace(body_of(IntentId(f"{A}.{UUID(int=number)}"), B), open=True)
    world.cli.say(body)
    world.decide(body)
    return body


def manifest_of(
    body: m.TransferIntent, no: int, before: m.ManifestWritten | None, *names: str, last: bool = False
) -> m.ManifestWritten:
    prev = "" if before is None else digest(before)
    items = tuple(item(f"grown-{name}", 100) for name in names)
    return m.ManifestWritten(body.intent, A, 0, no, prev, str(no), m.Unit.BYTES, items, last)


def test_an_open_intent_is_no_finding_and_waits_for_more() -> None:
    world = healthy()
    body = growing(world)
    first = manifest_of(body, 0, None, "a", "b")
    world.planes[A].say(first)
    world.mirror()
    world.transfer(first, B)
    world.close()
    world.mirror()
    judgement = world.judge()
    assert found(judgement) == []
    assert judgement.counts.open == 1
    assert [r.count for r in judgement.waiting if r.words == "intents that take what comes"] == [1]
    last = manifest_of(body, 1, first, "z", last=True)
    world.planes[A].say(last)
    world.mirror()
    assert not any("take what comes" in r.words for r in world.judge().waiting)


def test_of_two_planes_that_wrote_one_chain_the_one_that_was_first_counts() -> None:
    """The other's went on from a manifest that does not count: they follow no completion, and are no finding."""
    world = healthy()
    body = growing(world)
    first, rival = manifest_of(body, 0, None, "a", "b"), manifest_of(body, 0, None, "a", "b", "c")
    theirs, last = manifest_of(body, 1, rival, "d"), manifest_of(body, 1, first, "z", last=True)
    for written in (first, rival, theirs, last):
        world.planes[A].say(written)
    world.mirror()
    for counted in (first, last):
        world.transfer(counted, B)
    world.close()
    world.mirror()
    judgement = world.judge()
    assert found(judgement) == []
    assert (judgement.counts.open, judgement.counts.done) == (0, 1)


def test_a_chain_that_nothing_continues_is_named() -> None:
    world = healthy()
    body = growing(world)
    first, rival = manifest_of(body, 0, None, "a", "b"), manifest_of(body, 0, None, "c")
    world.planes[A].say(first)
    world.planes[A].say(manifest_of(body, 1, rival, "d"))
    world.close()
    world.mirror()
    judgement = world.judge()
    assert any("does not continue the digest" in words for _, words in found(judgement)), found(judgement)


def test_the_ledger_s_own_digest_is_that_of_the_machines() -> None:
    """Computed apart, so that a fault in one shows: over every field that either takes in."""
    whole = healthy()
    place = whole.where(A, topics.MANIFESTS)[1]
    first = whole.decoded(place, whole.at(place)).message
    assert isinstance(first, m.ManifestWritten)
    part = replace(first.items[0], target=Lfn("/store/t"), selection="objects:h*", adler32=None, others=())
    variants = [
        first,
        replace(first, source=B, source_no=3, no=9, prev_sha256="e" * 64, unit=m.Unit.ENTRIES, last=False),
        replace(first, cursor="else", items=(part,)),
        replace(first, items=tuple(replace(one, length=7, bytes=8, version="v/2", holder=B) for one in first.items)),
        replace(first, items=()),
    ]
    assert len({sha256_of(one) for one in variants}) == len(variants)
    assert [sha256_of(one) for one in variants] == [digest(one) for one in variants]
