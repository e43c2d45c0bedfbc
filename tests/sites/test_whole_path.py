"""The demo's path: a block of A arrives at B, the completion comes home, and asking again changes nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.names import Text
from streams.errors import NeverWorks
from streams.federation import broker
from tests.sites.rig import A, B, Rig, Spot, adler, completions, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]

PAYLOAD_TO_B = topics.chunks_to(B)


def _files(spot: Spot) -> dict[str, bytes]:
    """Sizes that went wrong before: none, few bytes, a page; less than a payload record, more; a base name twice."""
    sizes = {"empty": 0, "single": 1, "hundred": 100, "page": 4096, "small": 65_536, "five": 5_000_000}
    files = {spot.lfn(f"{name}.dat"): noise(size, name) for name, size in sizes.items()}
    files[spot.lfn("left/same.dat")] = noise(1000, "left")
    files[spot.lfn("right/same.dat")] = noise(1000, "right")
    return files


def test_a_block_arrives_whole_and_the_completion_comes_home(rig: Rig, spot: Spot) -> None:
    """Every size, byte for byte; the completion mirrored to the home; replicas known at both sites; the audit clean."""
    files = _files(spot)
    rig.register(files, spot.block())
    handle = rig.publish([spot.block()], idempotency_key=spot.name)
    outcome = rig.wait_done(handle)
    assert (outcome.destinations[0].arrived, outcome.destinations[0].arrived_bytes) == (
        len(files),
        sum(map(len, files.values())),
    )
    rig.assert_arrived(files)
    [completion] = completions(rig.facts(A, topics.remote(B, topics.COMPLETIONS), key=handle.id), handle.id)
    assert (completion.ended, completion.sealed.size, completion.bytes) == (
        m.Ended.DONE,
        len(files),
        sum(map(len, files.values())),
    )
    for site in (A, B):
        for lfn, content in files.items():
            _held_at_both(rig, site, lfn, content)
    rig.audit()


def _held_at_both(rig: Rig, asked: str, lfn: str, content: bytes) -> None:
    wanted = {(site, len(content), adler(content)) for site in (A, B)}
    until(
        lambda: {(r["site"], r["bytes"], r["adler32"]) for r in rig.ask(asked, f"/api/where?lfn={lfn}")} == wanted,
        f"{asked} knows both replicas of {lfn}",
    )


def test_the_same_key_again_changes_nothing_and_another_body_is_refused(rig: Rig, spot: Spot) -> None:
    """By the API, and by a producer that knows nothing of it: the same bytes again, and another body under the id."""
    files = {spot.lfn("one.dat"): noise(2000, spot), spot.lfn("two.dat"): noise(3000, spot)}
    rig.register(files, spot.block())
    handle = rig.publish([spot.block()], idempotency_key=spot.name)
    rig.wait_done(handle)
    journals = (
        topics.INTENTS,
        topics.MANIFESTS,
        topics.remote(B, topics.REPORTS),
        topics.remote(B, topics.COMPLETIONS),
    )
    before, ends = rig.facts(A, *journals, key=handle.id), rig.ends(A, PAYLOAD_TO_B)

    again = rig.publish([spot.block()], idempotency_key=spot.name)
    assert again.id == handle.id
    assert rig.wait_done(again).done
    with pytest.raises(NeverWorks, match="another body"):
        rig.publish([spot.block()], idempotency_key=spot.name, priority=9)
    assert Counter(rig.facts(A, *journals, key=handle.id)) == Counter(before)

    assert handle.body is not None
    other = m.TransferIntent(handle.id, Text("somebody else"), handle.body.selectors, (B,))
    with rig.ear(A, topics.DEAD_LETTERS) as ear:
        rig.publisher(A).send(handle.body)
        rig.publisher(A).send(other)
        _, letter = ear.until(lambda w: isinstance(w, m.DeadLetter), "the second body is a dead letter")
    assert "another body" in letter.reason
    assert letter.value == wire.encode(other)
    # The dead letter came after the repeated body in one partition: what that owed has been asked as well.
    assert Counter(rig.facts(A, *journals, key=handle.id)) == Counter([*before, handle.body, other])
    assert rig.ends(A, PAYLOAD_TO_B) == ends
    assert rig.client().intent(handle.id).snapshot().body == handle.body
    rig.audit()


def test_files_already_there_complete_without_a_byte(rig: Rig, spot: Spot) -> None:
    """A second intent for what B holds: done, and nothing was written to the payload topics at either site."""
    files = {spot.lfn(f"{n}.dat"): noise(70_000, n) for n in range(3)} | {spot.lfn("empty.dat"): b""}
    rig.register(files, spot.block())
    rig.wait_done(rig.publish([spot.block()]))
    copied = topics.remote(A, PAYLOAD_TO_B)
    before = rig.ends(A, PAYLOAD_TO_B), sorted(r[:3] for r in rig.records(B, copied))
    second = rig.publish([spot.block()])
    assert rig.wait_done(second).last.arrived == len(files)
    assert (rig.ends(A, PAYLOAD_TO_B), sorted(r[:3] for r in rig.records(B, copied))) == before
    assert not list(rig.records(B, topics.requests_to(A), key=f"{second.id}.0.0")), "nothing was asked for"
    rig.audit()


def test_a_stranger_on_our_port_is_not_ours(rig: Rig) -> None:
    """Two federations may plan one port at once: a broker is ready only if it is the one that was formatted here."""
    node = rig.record.sites[0].broker(rig.state)
    assert broker.is_ready(node.bootstrap, cluster_id=node.cluster_id)
    assert not broker.is_ready(node.bootstrap, cluster_id="of-another-federation-")
