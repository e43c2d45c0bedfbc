"""`transfer2go audit` over clusters in which files were removed: clean, a lie, and gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable

from click.testing import CliRunner, Result

from streams.auditing.replaying import EXIT_BROKEN
from streams.cli.audit import audit as verb
from streams.core.names import Site
from tests.audit.conftest import Stage
from tests.audit.history import DATASET, A, B, World
from tests.audit.keeping import Keepers, lfn

Build = Callable[..., Stage]


def run(at: Stage, *words: str) -> Result:
    return CliRunner().invoke(verb, list(words), obj=at.settings)


def play_on(at: Stage, world: Keepers, played: dict[tuple[Site, str, int], int]) -> None:
    """Bring what is new in the world since it was `played`."""
    world.mirror()
    new = World(*world.sites)
    new.logs = {key: log[played.get(key, 0) :] for key, log in world.logs.items()}
    at.play(new)
    played.update({key: len(log) for key, log in world.logs.items()})


def test_removals_are_judged_by_an_audit_that_goes_on(stage: Build) -> None:
    at, world, played = stage(A, B), Keepers(A, B), dict[tuple[Site, str, int], int]()
    world.removed(A, 1)
    play_on(at, world, played)
    clean = run(at)
    assert clean.exit_code == 0, clean.output
    for promise in ("I13 decisions leave enough copies", "I14 what landed", "I18 removals stand on asks and promises"):
        assert promise in clean.output
    ask = world.asked(A, 2)
    world.step(removal := world.removing(ask, 2))
    world.give_up(A, 2, removal=removal)
    play_on(at, world, played)
    for _ in range(2):
        told = json.loads(run(at, "--json").stdout)
        assert told["exit_code"] == EXIT_BROKEN
        assert [one["words"] for one in told["findings"]] == [
            f"RemovalDecided 4 of {A} about {DATASET} removes {lfn(2)} and relies on 0 other copies, 1 are asked for"
        ]
        assert told["invariants"]["I18"]["findings"] == 1
        assert told["invariants"]["I13"]["checked"] == 2
    assert told["records_before"] == sum(played.values())
