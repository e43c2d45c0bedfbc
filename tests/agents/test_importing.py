"""`faust -A agents …` beside a running worker: importing the app opens nothing, and a second worker says one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.views import rows

ROOT = Path(__file__).parents[2]
NOBODY = "127.0.0.1:9"
"""No broker is there: what asks one fails."""
_LOOK = """
import os, threading, agents
agents.app.finalize()
links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
opened = [os.readlink(link) for link in links if os.path.lexists(link)]
print([name for name in opened if "T1_A" in name or name.startswith("socket")])
print(sorted(t.name for t in threading.enumerate() if t.name != "MainThread"))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sites.toml").write_text(
        f'partitions = 4\n[sites.T1_A]\nbootstrap = "{NOBODY}"\n[sites.T2_B]\nbootstrap = "{NOBODY}"\n'
    )
    (tmp_path / "site.toml").write_text(f'site = "T1_A"\n[endpoint]\nurl = "file://{tmp_path}/T1_A/storage"\n')
    own = {name: value for name, value in os.environ.items() if not name.startswith("T2G_")}
    return {
        **own,
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "T2G_STATE": str(tmp_path),
        "T2G_SITES": str(tmp_path / "sites.toml"),
        "T2G_SITE_CONFIG": str(tmp_path / "site.toml"),
        "T2G_DATADIR": str(tmp_path / "T1_A" / "worker-0"),
    }


def run(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def held(environment: dict[str, str]) -> Iterator[None]:
    """A worker's view is open, here."""
    directory = Path(environment["T2G_DATADIR"])
    directory.mkdir(parents=True)
    db: Any = rows.open_primary(str(directory / "view"))
    yield
    db.close()


def test_importing_opens_no_file_no_client_and_makes_no_directory(environment: dict[str, str]) -> None:
    done = run(environment, "-c", _LOOK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[]"]
    assert not Path(environment["T2G_DATADIR"]).exists()


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize(
    ("command", "word"),
    [("agents", "intents"), ("tables", "transfers"), ("models", ""), ("model @ReqRepRequest", "reply_to")],
)
def test_commands_that_only_look_work_beside_a_worker_and_without_a_broker(
    environment: dict[str, str], command: str, word: str
) -> None:
    done = run(environment, "-m", "faust", "-A", "agents", *command.split())
    assert (done.returncode, "Traceback" in done.stdout + done.stderr) == (0, False), done.stderr
    assert word in done.stdout


@pytest.mark.usefixtures("held")
def test_a_second_worker_on_one_data_directory_says_one_line_and_exits_7(environment: dict[str, str]) -> None:
    done = run(environment, "-m", "faust", "-A", "agents", "worker", "--without-web", "-l", "warn")
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 7, said
    assert "Traceback" not in done.stderr + done.stdout
    (line,) = said
    assert "another process has this view open" in line
    assert "give each worker a datadir of its own (T2G_DATADIR)" in line


def test_a_worker_without_a_broker_asks_to_be_started_again(environment: dict[str, str]) -> None:
    done = run(environment, "-m", "faust", "-A", "agents", "worker", "--without-web", "-l", "error")
    assert done.returncode == 75
    assert "Traceback" not in done.stderr + done.stdout
    assert "is the broker up?" in done.stderr


def test_settings_that_are_wrong_are_one_line(environment: dict[str, str]) -> None:
    Path(environment["T2G_SITES"]).write_text("partitions = 0\n")
    done = run(environment, "-m", "faust", "-A", "agents", "agents")
    assert done.returncode not in (0, 1)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
