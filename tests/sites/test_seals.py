"""Seals of a real site, by a follower that is killed while files move, and goes on; a forged seal is named."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from streams import wire
from streams.auditing.origins import number_of
from streams.auditing.replaying import audit
from streams.core import records as m
from streams.core import topics
from streams.core.ledger.findings import Finding, Invariant
from streams.core.sealing import digest_of, signed_bytes
from streams.keys import files
from streams.settings import Settings, load_settings
from streams.settings.public_keys import public_key_text
from tests.sites.rig import A, B, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]

PASSPHRASE = "correct horse"
SHARED = (topics.INTENTS, topics.DECISIONS, topics.MANIFESTS, topics.REPLICAS)
FOLLOW = "from streams.cli import main; main()"


@contextmanager
def following(settings: Settings, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`transfer2go audit follow` as an operator runs it, its output in a file; told to stop at the end."""
    command = [sys.executable, "-c", FOLLOW, "--site", A, "--state", str(settings.state), "audit", "follow"]
    env = {**os.environ, "T2G_SITES": str(settings.sites_path), "T2G_KEYS": str(settings.keys)}
    with out.open("wb") as file, subprocess.Popen([*command, "--every", "1"], stdout=file, env=env) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def pinned(rig: Rig, tmp_path: Path) -> Settings:
    """The federation's settings, with a root key of A that only this test pins."""
    root = files.make_root(tmp_path / "root.json", A, PASSPHRASE)
    files.issue(root, tmp_path / "keys", m.SEALER, 0, 2**45)
    line = f'\\1root_key = "{public_key_text(root.public)}"\n'
    text = re.sub(rf"(\[sites\.{A}\]\n)", line, (rig.state / "sites.toml").read_text())
    (tmp_path / "sites.toml").write_text(text)
    found = load_settings(
        environ={},
        files=[],
        state=str(rig.state),
        site=A,
        sites=str(tmp_path / "sites.toml"),
        keys=str(tmp_path / "keys"),
    )
    assert found.entry(A).root_key == root.public
    return found


def of_seals(settings: Settings, *sites: str) -> tuple[int, list[Finding]]:
    """(what the audit checked, what it found broken) of seals."""
    judged = audit(settings, sites=sites).judgement  # type: ignore[arg-type]
    return judged.checked[Invariant.SEAL], [f for f in judged.broken if f.invariant is Invariant.SEAL]


def sizes_of(rig: Rig) -> dict[tuple[str, int], int]:
    """Records of each journal of A, each number once. What an earlier test wrote without one of A's is in no tree."""
    numbers: dict[tuple[str, int], set[object]] = {}
    for record in rig.records(A, *SHARED):
        if (number := number_of(record.headers or ())) is not None and number[0] == A:
            numbers.setdefault((record.topic, record.partition), set()).add(number)
    return {place: len(found) for place, found in numbers.items()}


def is_sealed(rig: Rig, wanted: Mapping[tuple[str, int], int]) -> bool:
    """Whether seals that are at B, signed, have all of these journals of A."""
    sizes = {
        (one.topic, one.partition): one.size
        for seal in rig.facts(B, topics.remote(A, topics.SEALS))
        if seal.site == A and seal.certificate is not None
        for one in seal.journals
        if one.site == A
    }
    return all(sizes.get(place, 0) >= size for place, size in wanted.items())


def test_a_site_seals_and_a_forged_seal_is_named(rig: Rig, spot: Spot, tmp_path: Path) -> None:
    settings = pinned(rig, tmp_path)
    copy = topics.remote(A, topics.SEALS)
    for turn in ("one", "two"):
        with following(settings, tmp_path / turn) as process:
            rig.register({spot.lfn(turn): noise(300_000, turn)}, spot.block(turn))
            rig.wait_done(rig.publish([spot.block(turn)]))
            wanted = sizes_of(rig)
            until(
                lambda wanted=wanted, process=process: process.poll() is not None or is_sealed(rig, wanted),
                "what was written is sealed, and B has the seals",
            )
            assert process.poll() is None
            if turn == "one":
                process.kill()
                process.wait(30)
        assert process.returncode == (-signal.SIGKILL if turn == "one" else 0)
        told = [json.loads(line) for line in (tmp_path / turn).read_text().splitlines()]
        notes = {(str(one.invariant), one.words) for one in audit(settings, sites=[A]).judgement.notes}
        assert {(one["invariant"], one["words"]) for one in told} <= notes, "of what earlier tests wrote"
    before, broken = of_seals(settings)
    assert broken == []
    assert before > 12, "two seals at least, and their journals"
    assert of_seals(settings, B)[1] == [], "by who reads B alone"

    last = max((seal for seal in rig.facts(A, topics.SEALS)), key=lambda seal: seal.no)
    intruder = files.issue(
        files.make_root(tmp_path / "other.json", A, PASSPHRASE), tmp_path / "other", m.SEALER, 0, 2**45
    )
    body = replace(last, no=last.no + 1, prev_sha256=digest_of(last), certificate=intruder.certificate, signature=b"")
    forged = replace(body, signature=intruder.sign(signed_bytes(body)))
    first, second = (m.Origin(A, "intruder", f"forged-{spot.name}", seq, forged.sealed_ms) for seq in range(2))
    with rig.ear(A, topics.DEAD_LETTERS) as at_a, rig.ear(B, topics.DEAD_LETTERS) as at_b:
        place = rig.produce(A, topics.SEALS, A.encode(), wire.encode(forged), wire.headers(forged, first))
        rig.produce(A, topics.SEALS, A.encode(), b"garbage", wire.headers(forged, second))
        for ear, topic in ((at_a, topics.SEALS), (at_b, copy)):
            until(
                lambda ear=ear, topic=topic: [one for one in ear.messages(m.DeadLetter) if one.topic == topic],
                f"what is no seal is a dead letter at {ear.site}",
            )
    _, (found,) = of_seals(settings)
    assert f"seal {forged.no} of {A}: its key {intruder.certificate.kid} is not certified" in found.words
    assert [tuple(at) for at in found.records] == [(A, topics.SEALS, *place)]
    _, (mirrored,) = of_seals(settings, B)
    assert [(at.site, at.topic) for at in mirrored.records] == [(B, copy)]
    rig.audit()
