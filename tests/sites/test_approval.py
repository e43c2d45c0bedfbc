"""What is asked of a site whose people let things in waits for them: copies, moves, removals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from streams.settings.user import user_name
from tests.sites.rig import A, B, Rig, Run, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def asking(federation: Rig) -> Iterator[None]:
    """At B whoever runs these tests must approve; its worker is started again to know it, and to forget it."""
    path = federation.state / B / "site.toml"
    before = path.read_text()
    path.write_text(before + f'\n[policy]\napprovers = "{user_name()}"\n')
    federation.start_again(B)
    yield
    path.write_text(before)
    federation.start_again(B)


def board(run: Run) -> dict[str, dict[str, Any]]:
    shown = run("--site", B, "intent", "board", "--json")
    assert shown.exit_code == 0, shown.output
    return {row["intent"]: row for row in map(json.loads, shown.stdout.splitlines())}


def waiting(run: Run, intent: str) -> dict[str, Any]:
    until(lambda: intent in board(run), f"{intent} waits at {B}")
    return board(run)[intent]


def test_a_copy_waits_until_somebody_lets_it_in(
    run: Run, rig: Rig, spot: Spot, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {spot.lfn("1.dat"): noise(30_000, spot.name)}
    rig.register(files, spot.block())
    asked = run("--site", A, "intent", "add", spot.dataset, "--to", B).stdout.strip()
    assert waiting(run, asked)["answers"][0]["answer"] == "pending"
    until(lambda: "1" in run("--site", B, "intent", "board").stdout, "its manifest is known")
    assert f"{B} waits for approval by {user_name()}" in run("--site", A, "intent", "explain", asked).stdout
    assert not rig.path(B, spot.lfn("1.dat")).exists()

    monkeypatch.setenv("T2G_POLICY_APPROVERS", "zoe")
    refused = run("--site", B, "intent", "approve", asked)
    assert (refused.exit_code, "may not approve" in refused.output) == (4, True), refused.output
    monkeypatch.delenv("T2G_POLICY_APPROVERS")
    elsewhere = run("--site", A, "intent", "approve", asked)
    assert (elsewhere.exit_code, f"does not wait for approval at {A}" in elsewhere.output) == (7, True)

    assert run("--site", B, "intent", "approve", asked).exit_code == 0
    done = run("--site", A, "intent", "watch", asked, "--timeout", 90)
    assert done.exit_code == 0, done.output
    rig.assert_arrived(files, B)
    again = run("--site", B, "intent", "approve", asked)
    assert (again.exit_code, "it is done" in again.output) == (7, True), again.output
    assert board(run) == {}
    rig.audit()


def test_what_is_denied_ends_and_says_by_whom_and_why(run: Run, rig: Rig, spot: Spot) -> None:
    rig.register({spot.lfn("1.dat"): noise(3_000, spot.name)}, spot.block())
    asked = run("--site", A, "intent", "add", spot.dataset, "--to", B).stdout.strip()
    waiting(run, asked)
    rig.until_back(rig.kill(f"{B}-worker-0"))
    assert run("--site", B, "intent", "deny", asked, "--reason", "no room before May").exit_code == 0
    done = run("--site", A, "intent", "watch", asked, "--timeout", 90, "--json")
    assert done.exit_code == 4, done.output
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["state"], last["reason"]) == ("refused", f"denied at {B} by {user_name()}: no room before May")
    late = run("--site", B, "intent", "approve", asked)
    assert (late.exit_code, "it is refused" in late.output) == (7, True), late.output
    rig.audit()


def test_a_removal_waits_and_ends_when_it_is_cancelled(run: Run, rig: Rig, spot: Spot) -> None:
    files = {spot.lfn("1.dat"): noise(3_000, spot.name)}
    for site in (A, B):
        rig.register(files, spot.block(), site)
    remove = ("file", "remove", spot.dataset, "--at", B, "--reason", "full", "--execute")
    first = run("--site", A, *remove).stdout.strip()
    waiting(run, first)
    assert run("--site", A, "intent", "cancel", first).exit_code == 0
    until(lambda: first not in board(run), "it waits no more")
    late = run("--site", B, "intent", "approve", first)
    assert (late.exit_code, "it is cancelled" in late.output) == (7, True), late.output
    assert rig.path(B, spot.lfn("1.dat")).exists()
    second = run("--site", A, *remove).stdout.strip()
    waiting(run, second)
    assert run("--site", B, "intent", "approve", second).exit_code == 0
    done = run("--site", A, "intent", "watch", second, "--timeout", 90)
    assert done.exit_code == 0, done.output
    assert not rig.path(B, spot.lfn("1.dat")).exists()
    rig.audit()


@pytest.mark.parametrize(
    ("args", "exit_code", "words"),
    [
        (("approve", f"{A}.00000000-0000-4000-8000-000000000001"), 3, "no intent"),
        (("approve", "nonsense"), 2, "not a legal intent id"),
        (("deny", f"{A}.00000000-0000-4000-8000-000000000001", "--reason", " "), 3, "no intent"),
    ],
)
def test_what_cannot_be_answered_is_one_line(run: Run, args: tuple[str, ...], exit_code: int, words: str) -> None:
    refused = run("--site", B, "intent", *args)
    assert refused.exit_code == exit_code, refused.output
    assert words in refused.output
