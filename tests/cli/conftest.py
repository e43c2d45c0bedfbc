"""The command line in this process: a state directory of its own, and a home's cluster where one is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from streams.cli import root
from tests.producer.conftest import MOCK_PARTITIONS, A, B, C, Hand

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("intent", "list")` in an empty directory, with nothing of the user's configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "T2G_SITE", "T2G_SITES", "T2G_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("T2G_STATE", str(tmp_path / "state"))

    def invoke(*args: str, **kwargs: Any) -> Result:
        result = CliRunner().invoke(root, [str(arg) for arg in args], **kwargs)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert "Traceback" not in result.output
        return result

    return invoke


@pytest.fixture
def hand(tmp_path: Path, run: Run) -> Iterator[Hand]:
    """The cluster of T1_A, named by a real sites.toml and site.toml in the state directory."""
    state = tmp_path / "state"
    state.mkdir()
    found = Hand(state)
    bootstrap = found.settings.entry(A).bootstrap
    lines = [f"partitions = {MOCK_PARTITIONS}"]
    for site in (A, B, C):
        lines.append(f'[sites.{site}]\nbootstrap = "{bootstrap}"')
    (state / "sites.toml").write_text("\n".join(lines))
    (state / A / "storage").mkdir(parents=True)
    (state / A / "site.toml").write_text(f'site = "{A}"\n[endpoint]\nurl = "file://{state / A / "storage"}"\n')
    yield found
    found.close()


def rows(result: Result) -> list[dict[str, Any]]:
    """The JSON lines of stdout."""
    return [json.loads(line) for line in result.stdout.splitlines()]
