"""Everything that can be refused without a broker: one clear line on stderr, the right exit code, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.cli import command, root
from tests.cli.conftest import Run

NO_UUID = "T1_A.00000000-0000-0000-0000-000000000000"
SITES = '[sites.T1_A]\nbootstrap = "127.0.0.1:26999"\n[sites.T2_B]\nbootstrap = "127.0.0.1:26998"\n'


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    (state / "T1_A" / "storage").mkdir(parents=True)
    (state / "sites.toml").write_text(SITES)
    (state / "T1_A" / "site.toml").write_text(f'site = "T1_A"\n[endpoint]\nurl = "file://{state}/T1_A/storage"\n')
    return state


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["frobnicate"], 2, "no command 'frobnicate'"),
        (["intnt", "list"], 2, "did you mean intent?"),
        (["intent", "lst"], 2, "No such command"),
        (["intent", "add"], 2, "Missing argument"),
        (["intent", "add", "/store/f", "--to", "T2_B", "--priority", "77"], 2, "77 is not in the range"),
        (["intent", "list"], 3, "no federation here"),
        (["schema", "show", "Orign"], 3, "did you mean Origin?"),
        (["schema", "show", "0x1"], 3, "no schema '0x1'"),
        (["intent", "list", "--site", "T 9"], 7, "not a legal site name"),
    ],
)
def test_without_a_federation(run: Run, args: list[str], code: int, words: str) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["intent", "show", "x"], 2, "not a legal intent id"),
        (["intent", "show", NO_UUID.replace("T1_A", "T9_Z")], 3, "no site T9_Z"),
        (["intent", "add", "/store/f", "--to", "T2_C"], 3, "did you mean T2_B?"),
        (["intent", "add", "/store/f", "--to", "T2_B", "--source", "T5_X"], 3, "no site T5_X"),
        (["intent", "add", "/store/../f", "--to", "T2_B"], 2, "not a legal LFN"),
        (["intent", "add", "-c", "--to", "T2_B"], 2, "No such option"),
        (["intent", "add", "/store/f", "--to", "T2_B", "--plane", "dor"], 2, "no plane dor; did you mean door?"),
        (["intent", "add", "/store/f", "--to", "T2_B", "--plane", "a b"], 2, "no plane a b: log, door and tool-NAME"),
        (["intent", "add", "/store/f", "--to", "T2_B", "--plane", "cp", "--objects", "h"], 2, "not by tool cp"),
        (["intent", "add", "/store/f", "--to", "T2_B", "--deadline", "soon"], 2, "deadline 'soon' is no time"),
        (["intent", "add", "/store/f", "--to", "T2_B", "--deadline", "2001-01-01"], 2, "has passed"),
        (["intent", "add", "/store/f", "--to", "T2_B", "--deadline", "1h\x1b[31m"], 2, "\\x1b[31m"),
        (
            ["intent", "add", "/store/f", "--to", "T2_B", "--until", "soon"],
            2,
            "a period as 2h, a number of files, or close",
        ),
        (
            ["intent", "add", "/store/f", "--to", "T2_B", "--until", "0"],
            2,
            "want a time, a number of files from 1, or close",
        ),
        (
            ["intent", "add", "/store/f", "--to", "T2_B", "--until", "2001-01-01"],
            2,
            "until 2001-01-01T00:00:00+00:00 has",
        ),
        (["intent", "close", "x"], 2, "not a legal intent id"),
        (["file", "register", "nowhere.root", "--block", "/P/P"], 2, "not a legal block"),
        (["file", "where", "relative"], 2, "not a legal LFN"),
        (["event", "work", NO_UUID], 2, "Missing argument"),
        (["event", "work", "x", "--", "cp", "{in}", "{out}"], 2, "not a legal intent id"),
        (["event", "work", NO_UUID, "--", "no-such-command", "{out}"], 3, "no command no-such-command"),
        (["event", "work", NO_UUID, "--out-suffix", "../x", "--", "cp", "{in}", "{out}"], 2, "--out-suffix '../x'"),
        (["event", "work", NO_UUID, "--site", "T2_B", "--", "cp", "{in}", "{out}"], 2, "no storage of T2_B"),
        (["topic", "tail", "transfer-intent"], 3, "did you mean transfer-intents?"),
        (["topic", "tail", "transfers", "-n", "-1"], 2, "-1"),
        (["dlq", "show", "seven"], 2, "names no dead letter"),
        (["intent", "list", "--site", "T9_Z"], 3, "known sites: T1_A, T2_B"),
    ],
)
def test_with_sites_named(run: Run, sites: Path, args: list[str], code: int, words: str) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_broker_that_is_away_is_temporary(run: Run, sites: Path) -> None:
    result = run("intent", "add", "/store/f", "--to", "T2_B")
    assert (result.exit_code, result.stdout) == (5, "")
    assert "127.0.0.1:26999" in result.stderr
    assert "try again" in result.stderr


def test_every_fault_of_the_configuration_in_one_line(run: Run, sites: Path) -> None:
    (sites / "sites.toml").write_text(SITES + "partitons = 3\n[sites.T3_C]\nbootstrap = 'nowhere'\n")
    result = run("intent", "list")
    assert result.exit_code == 7
    assert "2 faults" in result.stderr


def test_config_shows_where_values_come_from(run: Run, sites: Path) -> None:
    (sites / "T1_A" / "site.toml").write_text('site = "T1_A"\n[kafka.sasl]\npassword = "hunter2"\n')
    result = run("config", "show", "--origin", "--site", "T1_A")
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    line = next(line for line in result.stdout.splitlines() if "sasl.password" in line)
    assert "***" in line
    assert str(sites / "T1_A" / "site.toml") in line
    assert "flag --site" in result.stdout


def test_an_unexpected_error_is_one_line(run: Run, sites: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load_settings", lambda **_: 1 / 0)
    result = run("intent", "list")
    assert result.exit_code == 1
    assert "internal error: ZeroDivisionError" in result.stderr
    assert "T2G_DEBUG=1" in result.stderr


def test_interrupt_is_quiet(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "load_settings", interrupted)
    result = run("intent", "list")
    assert (result.exit_code, result.output.strip()) == (130, "")


def test_schemas_are_listed_and_shown(run: Run) -> None:
    listed = run("schema", "list", "--json")
    assert listed.exit_code == 0
    assert '"name": "TransferIntent"' in listed.stdout
    assert '"name": "Origin"' in run("schema", "show", "Origin").stdout


@pytest.mark.parametrize("noun", list(root.list_commands(None)))  # type: ignore[arg-type]
def test_help_needs_nothing(run: Run, noun: str) -> None:
    result = run(noun, "--help")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Usage: transfer2go {noun}")
