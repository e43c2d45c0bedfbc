"""Lies that contradict no number: forged names, buried records, one name with two contents, replicas of nothing."""

from __future__ import annotations

from dataclasses import replace

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import Invariant, Judgement, Severity
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, ManifestId, Site, Text
from streams.core.ranges import EMPTY
from streams.wire.release import HEADER
from tests.audit.history import BLOCK, DATASET, LATER_MS, WHY, A, B, C, Federation, Rec, Writer, healthy

I2, I4, I6 = Invariant.NO_LIE, Invariant.ONE_EFFECT, Invariant.NOT_SILENT


def broken(judgement: Judgement) -> list[tuple[Invariant, str]]:
    return [(f.invariant, f.words) for f in judgement.broken]


def held(
    dataset: Dataset,
    site: Site,
    *,
    size: int = 5,
    adler: str = "0000000a",
    lfn: str = "/store/x",
    manifest: ManifestId | None = None,
) -> m.FilesHeld:
    file = m.HeldFile(Lfn(lfn), Block(f"{dataset}#b"), size, Adler32(adler), "")
    return m.FilesHeld(dataset, site, (file,), manifest)


def registrar(world: Federation, site: Site) -> Writer:
    return world.writer(site, "register", "cli")


def announced(release: int) -> Federation:
    """A healthy federation whose workers announce that release again, with their last numbers."""
    world = healthy()
    for key, log in world.logs.items():
        if topics.split(key[1])[1] == topics.ANNOUNCEMENTS:
            world.logs[key] = [(o, replace(r, headers=(*r.headers, (HEADER, b"%d" % release)))) for o, r in log]
    return world


def test_a_good_completion_buried_by_a_letter_is_found_with_both_records() -> None:
    world = healthy()
    place = world.where(A, f"{B}.{topics.COMPLETIONS}")[0]
    rec = world.at(place)
    letter = m.DeadLetter(
        Text("refused"), place.topic, place.partition, place.offset, rec.key or b"", rec.value or b"", B
    )
    where = world.workers[A].say(letter)
    world.workers[A].announce(closing=True)
    world.mirror()
    (finding,) = world.judge().broken
    assert finding.invariant is I6
    assert finding.words.startswith("a dead letter refuses a CompletionRecord that the gate accepts")
    assert finding.records == (where, place)


def test_what_was_buried_and_said_again_is_fine() -> None:
    world = healthy()
    place = world.where(B, topics.COMPLETIONS)[0]
    rec = world.at(place)
    said = world.decoded(place, rec).message
    letter = m.DeadLetter(
        Text("refused"), place.topic, place.partition, place.offset, rec.key or b"", rec.value or b"", B
    )
    world.workers[B].say(letter)
    assert [i for i, _ in broken(world.judge())] == [I6]
    world.workers[B].say(said)
    world.workers[B].announce(closing=True)
    world.mirror()
    assert broken(world.judge()) == []


def test_what_an_older_release_buried_is_a_note_that_says_how_to_requeue_it() -> None:
    world = announced(2)
    place = world.where(B, topics.COMPLETIONS)[0]
    rec = world.at(place)
    letter = m.DeadLetter(
        Text("refused"), place.topic, place.partition, place.offset, rec.key or b"", rec.value or b"", B
    )
    where = world.workers[B].say(letter)
    old = world.judge(release=3)
    assert broken(old) == []
    (note,) = [f for f in old.findings if f.severity is Severity.NOTE]
    assert f"dlq requeue {where.partition}:{where.offset}" in note.words
    assert [i for i, _ in broken(world.judge(release=2))] == [I6]


def test_a_second_body_that_a_letter_answers_for_is_no_buried_record() -> None:
    world = healthy()
    place = world.where(A, topics.INTENTS)[0]
    body = world.decoded(place, world.at(place)).message
    assert isinstance(body, m.TransferIntent)
    second = world.cli.say(replace(body, priority=9))
    rec = world.at(second)
    world.workers[A].say(m.DeadLetter(Text("refused"), *second[1:], rec.key or b"", rec.value or b"", A))
    world.cli.announce(closing=True)
    world.mirror()
    committed = {second[:3]: second.offset + 1}
    assert broken(world.judge(committed=committed)) == []


def test_a_buried_fact_of_a_manifest_that_nobody_wrote_is_a_note() -> None:
    """It loses nobody anything, as when a forger's facts would make a row too large."""
    nobody = ManifestId.of(IntentId(f"{A}.00000000-0000-0000-0000-000000000077"), 0, 0)
    world = healthy()
    place = world.planes[B].say(m.TransferProgress(nobody, B, 1, "disk", EMPTY, EMPTY))
    rec = world.at(place)
    letter = m.DeadLetter(Text("a row too large"), *place[1:], rec.key or b"", rec.value or b"", B)
    where = world.workers[B].say(letter)
    world.planes[B].announce(closing=True)
    world.mirror()
    judgement = world.judge()
    assert broken(judgement) == []
    (note,) = judgement.findings
    assert note.words.endswith(f"it is about {nobody}, which nobody wrote")
    assert note.records == (where, place)


def forge(world: Federation, writer: Writer, message: m.Message, number: int = 900) -> None:
    """A record that `writer` puts into its own site's journal, whoever's word it is; with its own letters."""
    key = m.key_of(message)
    raw = key if isinstance(key, bytes) else key.encode()
    topic, partition = m.topic_of(message), topics.partition_of(raw, 4)
    origin = m.Origin(writer.site, writer.name, f"intruder-{number}", 0, world.now_ms())
    rec = Rec(raw, wire.encode(message), tuple(wire.headers(message, origin)), origin.at_ms)
    place = world.append(writer.site, topic, partition, rec)
    world.workers[writer.site].say(m.DeadLetter(Text("refused"), *place[1:], raw, rec.value or b"", writer.site))


def test_who_speaks_for_another_site_is_noted_though_a_letter_answers() -> None:
    world = healthy(A, B, C)
    forge(world, world.workers[C], held(DATASET, A))
    (note,) = [f for f in world.judge().findings if "speaks for" in f.words]
    assert note.severity is Severity.NOTE
    assert note.words == f"{C} speaks for {A}: FilesHeld is the word of {A}, not of {C}"
    assert note.records[0][:2] == (C, topics.REPLICAS)


def test_a_record_whose_header_names_another_site_is_noted() -> None:
    world = healthy()
    message = held(DATASET, A)
    raw = str(m.key_of(message)).encode()
    origin = m.Origin(A, "worker-0", "x", 0, world.now_ms())
    rec = Rec(raw, wire.encode(message), tuple(wire.headers(message, origin)), origin.at_ms)
    place = world.append(B, topics.REPLICAS, topics.partition_of(raw, 4), rec)
    notes = [f for f in world.judge(committed={place[:3]: place.offset}).findings if "speaks for" in f.words]
    assert [(n.records, n.words.split(":")[0]) for n in notes] == [((place,), f"{B} speaks for {A}")]


OTHER = Dataset("/P/R/OTHER")


def test_one_name_with_two_contents_names_both_records() -> None:
    for lie in (held(DATASET, B, size=6), held(OTHER, A, adler="0000000b"), held(OTHER, B, size=9)):
        world = healthy()
        first = registrar(world, A).say(held(DATASET, A))
        registrar(world, B).say(held(DATASET, B, lfn="/store/y"))
        other = registrar(world, lie.site).say(lie)
        world.mirror()
        (finding,) = world.judge().broken
        assert finding.invariant is I4
        assert finding.words.startswith("/store/x has two contents: ")
        assert sorted(finding.records) == sorted((first, other))


def test_the_last_word_of_each_site_counts() -> None:
    world = healthy()
    registrar(world, A).say(held(DATASET, A, size=4))
    registrar(world, A).say(held(DATASET, A))  # registered anew
    registrar(world, B).say(held(DATASET, B, size=7))
    registrar(world, B).say(m.FilesLost(DATASET, B, (Lfn("/store/x"),), WHY))
    world.mirror()
    assert broken(world.judge()) == []
    registrar(world, B).say(held(DATASET, B, size=7))
    world.mirror()
    assert [i for i, _ in broken(world.judge())] == [I4]


def test_a_replica_of_nothing() -> None:
    nobody = ManifestId.of(IntentId(f"{A}.00000000-0000-0000-0000-000000000077"), 0, 0)
    world = healthy()
    place = world.workers[B].say(held(DATASET, B, manifest=nobody))
    world.mirror()
    (finding,) = world.judge().broken
    assert (finding.invariant, finding.records) == (I2, (place,))
    assert finding.words == f"{B} says it holds files of {DATASET} by {nobody}, which nobody wrote"

    world = healthy(A, B, C)
    body = world.ask(2, B)
    world.decide(body)
    (manifest,) = world.write(body, (replace(_item(), lfn=Lfn("/store/x")),))
    world.transfer(manifest, B)
    world.workers[C].say(held(DATASET, C, lfn=manifest.items[0].target, manifest=manifest.manifest))
    world.mirror()
    assert any(i is I2 and "which was never planned there" in words for i, words in broken(world.judge()))


def test_what_was_written_while_the_audit_read_is_no_finding() -> None:
    """The manifest, or what gave up the other content, may stand behind the ends that were noted."""
    nobody = ManifestId.of(IntentId(f"{A}.00000000-0000-0000-0000-000000000077"), 0, 0)
    world = healthy()
    registrar(world, A).say(held(DATASET, A))
    began_ms = world.clock_ms
    world.workers[B].say(held(DATASET, B, size=9, manifest=nobody))
    world.mirror()
    judgement = world.judge(now_ms=began_ms)
    assert broken(judgement) == []
    assert {r.invariant for r in judgement.waiting if "while the audit was reading" in r.words} == {I2, I4}
    assert {i for i, _ in broken(world.judge())} == {I2, I4}


def test_a_completion_without_decision_is_found_though_dated_next_year() -> None:
    world = Federation()
    body = world.ask(1, B)
    (manifest,) = world.write(body, (_item(),))
    world.transfer(manifest, B)
    world.close()
    world.mirror()
    last_year = world.clock_ms - 365 * 24 * 3_600_000
    found = dict(broken(world.judge(now_ms=last_year)))
    assert "without any decision of T1_A" in found[I4]
    assert "said " in found[Invariant.CLOCK]


def _item() -> m.Item:
    lfn = Lfn("/store/x")
    return m.Item(lfn, DATASET, BLOCK, lfn, "", 5, 5, Adler32("0000000a"), "v1", A)


def test_a_clock_ahead_of_its_broker_is_a_note() -> None:
    world = healthy()
    key, log = next((k, v) for k, v in world.logs.items() if k[:2] == (B, topics.COMPLETIONS))
    world.logs[key] = [(o, replace(r, at_ms=r.at_ms - 3_600_000)) for o, r in log]
    (note,) = world.judge(now_ms=LATER_MS).findings
    assert (note.invariant, note.severity) == (Invariant.CLOCK, Severity.NOTE)
    assert note.words == f"the clock of worker-0 at {B} was 3,600 s ahead of its broker's"
    assert note.records[0].topic == topics.COMPLETIONS
