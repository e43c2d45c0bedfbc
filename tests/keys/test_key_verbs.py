"""`transfer2go key`: a site's keys from the first to the sealer's, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streams.cli import root
from streams.settings import load_settings

SITES = 'partitions = 4\n[sites.T1_A]\nbootstrap = "127.0.0.1:1"\n{a}[sites.T2_B]\nbootstrap = "127.0.0.1:2"\n'


class Desk:
    """A state directory with a sites.toml, and a passphrase in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.secret = path / "secret"
        self.secret.write_text("correct horse\n")
        self.secret.chmod(0o600)
        self.pin("")

    def pin(self, lines: str) -> None:
        (self.path / "sites.toml").write_text(SITES.format(a=lines))

    def run(self, *words: str, site: str = "T1_A") -> Result:
        return CliRunner().invoke(root, ["--site", site, "--state", str(self.path), "key", *words])

    def locked(self, *words: str, site: str = "T1_A") -> Result:
        return self.run(*words, "--passphrase-file", str(self.secret), site=site)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_from_a_root_key_to_one_that_signs(desk: Desk) -> None:
    offline = str(desk.path / "root.json")
    made = desk.locked("init", offline)
    assert made.exit_code == 0, made.output
    assert made.stdout == desk.run("show", offline).stdout
    header, line = made.stdout.splitlines()
    assert header == "[sites.T1_A]"
    early = desk.locked("issue", offline, "--days", "1")
    assert "sites.toml pins no root_key of T1_A" in early.stdout
    desk.pin(line + "\n")
    assert load_settings(state=str(desk.path)).entry("T1_A").root_key
    issued = json.loads(desk.locked("issue", offline, "--json").stdout)
    assert issued["may_sign"]
    assert issued["not_after_ms"] - issued["not_before_ms"] > 365 * 86_400_000
    listed = [json.loads(one) for one in desk.run("list", "--json").stdout.splitlines()]
    assert {one["kid"] for one in listed} == {
        path.stem.partition("-")[2] for path in (desk.path / "T1_A/keys").iterdir()
    }
    assert all(one["may_sign"] for one in listed)
    desk.pin(f'{line}\nrevoked_keys = {{ "{issued["kid"]}" = 2020-01-01T00:00:00Z }}\n')
    again = {one["kid"]: one["fault"] for one in map(json.loads, desk.run("list", "--json").stdout.splitlines())}
    assert again[issued["kid"]] == "it is revoked in sites.toml"
    assert sorted(again.values())[0] == ""


def test_a_passphrase_is_asked_for_twice_and_never_shown(desk: Desk) -> None:
    words = ["--site", "T1_A", "--state", str(desk.path), "key", "init", str(desk.path / "root.json")]
    typed = CliRunner().invoke(root, words, input="a long secret\na long secret\n")
    assert typed.exit_code == 0, typed.output
    assert "a long secret" not in typed.output


@pytest.mark.parametrize(
    ("words", "site", "code", "why"),
    [
        (["issue", "ROOT"], "T2_B", 7, "this is the root key of T1_A, not of T2_B"),
        (["issue", "OTHER"], "T1_A", 7, "sites.toml pins another root_key of T1_A"),
        (["issue", "none"], "T1_A", 3, "no such file"),
        (["issue", "secret"], "T1_A", 7, "not a root key of transfer2go: it is no JSON"),
        (["issue", "ROOT", "--days", "0"], "T1_A", 2, "--days"),
        (["issue", "ROOT", "--kind", "king"], "T1_A", 2, "'king'"),
        (["init", "ROOT"], "T1_A", 4, "a key is never overwritten"),
        (["init", "new"], "T9_NONE", 3, "T9_NONE"),
    ],
)
def test_refused_in_one_line(desk: Desk, words: list[str], site: str, code: int, why: str) -> None:
    names = {name: str(desk.path / name) for name in ("ROOT", "OTHER", "none", "new")}
    line = desk.locked("init", names["ROOT"]).stdout.splitlines()[1]
    assert desk.locked("init", names["OTHER"]).exit_code == 0
    desk.pin(line + "\n")
    given = [str(desk.secret) if word == "secret" else names.get(word, word) for word in words]
    told = desk.locked(*given, site=site)
    assert told.exit_code == code, told.output
    assert why in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_a_wrong_passphrase_and_a_key_that_others_may_read(desk: Desk) -> None:
    offline = desk.path / "root.json"
    desk.locked("init", str(offline))
    desk.secret.write_text("another horse\n")
    told = desk.locked("issue", str(offline))
    assert (told.exit_code, "the passphrase does not open the key" in told.stderr) == (4, True)
    desk.secret.chmod(0o644)
    told = desk.locked("issue", str(offline))
    assert (told.exit_code, "others may read this file" in told.stderr) == (4, True)
    desk.secret.chmod(0o600)
    offline.chmod(0o604)
    assert desk.locked("issue", str(offline)).exit_code == 4
    assert not (desk.path / "T1_A/keys").exists()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ('root_key = "ed25519:AAAA"\n', "sites.T1_A.root_key: want"),
        ("root_key = 7\n", "sites.T1_A.root_key: want"),
        ("revoked_keys = 7\n", "sites.T1_A.revoked_keys: want a table"),
        ('revoked_keys = { "x" = 2020-01-01T00:00:00Z }\n', "is no key's name"),
        ('revoked_keys = { "0123456789abcdef" = 2020-01-01T00:00:00 }\n', "with its zone"),
    ],
)
def test_what_sites_toml_may_not_say(desk: Desk, lines: str, why: str) -> None:
    desk.pin(lines)
    told = desk.run("list")
    assert told.exit_code == 7
    assert why in told.stderr
