"""Keys on disk: what is signed is good for who is pinned, and every bad file is one line and its exit code."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streams.core import records as m
from streams.core.names import Site
from streams.core.sealing import certified_bytes
from streams.errors import NeverWorks, NotAllowed, NotFound, Transfer2goError, UsageError
from streams.keys import files
from streams.keys.ed25519 import is_signed
from streams.settings.public_keys import public_key_of, public_key_text, revoked_keys_of

A, B = Site("T1_A"), Site("T2_B")
PASSPHRASE = "correct horse"
BEGIN_MS, END_MS = 1_000_000, 2_000_000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, files.RootKey]:
    path = tmp_path_factory.mktemp("offline") / "root.json"
    return path, files.make_root(path, A, PASSPHRASE)


def test_a_root_key_opens_with_its_passphrase_only(root: tuple[Path, files.RootKey]) -> None:
    path, made = root
    assert path.stat().st_mode & 0o777 == 0o600
    assert files.unlock_root(path, PASSPHRASE).public == made.public
    assert files.public_of_root(path) == (A, made.public)
    for wrong in ("correct horsf", "", "x" * 2000):
        with pytest.raises(NotAllowed, match="the passphrase does not open the key"):
            files.unlock_root(path, wrong)
    with pytest.raises(NotAllowed, match="never overwritten"):
        files.make_root(path, A, PASSPHRASE)
    with pytest.raises(UsageError, match="at least 8"):
        files.make_root(path.with_name("other"), A, "short")
    assert "PRIVATE KEY" in path.read_text()
    assert made.private.private_bytes_raw().hex() not in path.read_text()


def test_a_working_key_signs_and_its_certificate_says_for_whom(
    root: tuple[Path, files.RootKey], tmp_path: Path
) -> None:
    key = files.issue(root[1], tmp_path / "keys", m.SEALER, BEGIN_MS, END_MS)
    assert key.path.stat().st_mode & 0o777 == 0o600
    again = files.load_working(key.path)
    assert again.certificate == key.certificate
    assert is_signed(key.certificate.public_key, b"said", again.sign(b"said"))
    assert not is_signed(key.certificate.public_key, b"sayd", again.sign(b"said"))
    assert not is_signed(b"", b"said", again.sign(b"said"))
    assert not is_signed(key.certificate.public_key, b"said", b"")
    assert is_signed(root[1].public, certified_bytes(key.certificate), key.certificate.signature)
    for change in (
        {"site": B},
        {"kid": "0" * 16},
        {"public_key": bytes(32)},
        {"kind": "x"},
        {"not_before_ms": 0},
        {"not_after_ms": 0},
    ):
        lie: Any = replace(key.certificate, **change)
        assert not is_signed(root[1].public, certified_bytes(lie), key.certificate.signature), change


@pytest.mark.parametrize(
    ("site", "pinned", "revoked", "kind", "now_ms", "why"),
    [
        (A, True, False, m.SEALER, BEGIN_MS, ""),
        (A, True, False, m.SEALER, END_MS, ""),
        (A, True, False, m.SEALER, END_MS + 1, "its time is over"),
        (A, True, False, m.SEALER, BEGIN_MS - 1, "its time has not begun"),
        (A, True, True, m.SEALER, END_MS, "it is revoked"),
        (A, True, True, m.SEALER, BEGIN_MS, ""),
        (A, True, False, "writer", BEGIN_MS, "it is a sealer's key, not a writer's"),
        (B, True, False, m.SEALER, BEGIN_MS, "it is a key of T1_A"),
        (A, False, False, m.SEALER, BEGIN_MS, "sites.toml pins no root_key of T1_A"),
    ],
)
def test_who_may_sign(
    root: tuple[Path, files.RootKey],
    tmp_path: Path,
    site: Site,
    pinned: bool,
    revoked: bool,
    kind: str,
    now_ms: int,
    why: str,
) -> None:
    key = files.issue(root[1], tmp_path, m.SEALER, BEGIN_MS, END_MS)
    since = {key.certificate.kid: BEGIN_MS + 1} if revoked else {}
    public = root[1].public if pinned else b""
    assert why in files.fault_of(key.certificate, site, public, since, kind, now_ms)
    if why:
        with pytest.raises(NotAllowed, match=f"no key of {site} may sign"):
            files.key_for(tmp_path, kind, site, public, since, now_ms)
    else:
        assert files.key_for(tmp_path, kind, site, public, since, now_ms).certificate == key.certificate


def test_another_root_key_certifies_nothing(root: tuple[Path, files.RootKey], tmp_path: Path) -> None:
    key = files.issue(root[1], tmp_path, m.SEALER, BEGIN_MS, END_MS)
    other = files.make_root(tmp_path / "root", A, PASSPHRASE)
    why = files.fault_of(key.certificate, A, other.public, {}, m.SEALER, BEGIN_MS)
    assert why == "the root key of T1_A in sites.toml did not certify it"


def test_of_two_keys_the_one_that_lasts_signs(root: tuple[Path, files.RootKey], tmp_path: Path) -> None:
    last = files.issue(root[1], tmp_path, m.SEALER, BEGIN_MS, END_MS)
    files.issue(root[1], tmp_path, m.SEALER, BEGIN_MS, END_MS - 1)
    files.issue(root[1], tmp_path, m.SEALER, END_MS, END_MS + 5)
    found = files.key_for(tmp_path, m.SEALER, A, root[1].public, {}, BEGIN_MS)
    assert found.certificate == last.certificate
    with pytest.raises(NotFound, match="no sealer key of T1_A"):
        files.key_for(tmp_path / "none", m.SEALER, A, root[1].public, {}, BEGIN_MS)


def _spoil(path: Path, **changes: object) -> None:
    told = json.loads(path.read_text())
    for name, value in changes.items():
        target = told["certificate"] if name in told.get("certificate", {}) else told
        target[name] = value
    path.write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda p: p.chmod(0o640), NotAllowed, "others may read this file"),
        (lambda p: p.unlink(), NotFound, "no such file"),
        (lambda p: p.write_bytes(os.urandom(1000)), NeverWorks, "no text"),
        (lambda p: p.write_text("{"), NeverWorks, "it is no JSON"),
        (lambda p: p.write_text("[]"), NeverWorks, "it does not say so"),
        (lambda p: p.write_text(" " * 100_000), NeverWorks, "a few lines"),
        (lambda p: _spoil(p, private_key=7), NeverWorks, "private half cannot be read"),
        (lambda p: _spoil(p, private_key="-----BEGIN PRIVATE KEY-----"), NeverWorks, "private half cannot be read"),
        (lambda p: _spoil(p, public_key="00" * 32), NeverWorks, "its halves differ"),
        (lambda p: _spoil(p, public_key="zz"), NeverWorks, "certificate:"),
        (lambda p: _spoil(p, site="a b"), NeverWorks, "certificate:"),
        (lambda p: _spoil(p, kid="0"), NeverWorks, "kid: not that of the public key"),
        (lambda p: _spoil(p, signature="00"), NeverWorks, "signature: 1 bytes, must be 64"),
        (lambda p: _spoil(p, certificate=[]), NeverWorks, "certificate:"),
    ],
)
def test_a_bad_file_is_one_line(
    root: tuple[Path, files.RootKey], tmp_path: Path, spoil: Any, error: type[Transfer2goError], words: str
) -> None:
    path = files.issue(root[1], tmp_path, m.SEALER, BEGIN_MS, END_MS).path
    spoil(path)
    with pytest.raises(error, match=words) as told:
        files.load_working(path)
    assert len(str(told.value).splitlines()) == 1


def test_a_root_key_whose_public_half_is_another_s(tmp_path: Path) -> None:
    files.make_root(tmp_path / "root", A, PASSPHRASE)
    _spoil(tmp_path / "root", public_key="00" * 32)
    with pytest.raises(NeverWorks, match="its halves are of two keys"):
        files.unlock_root(tmp_path / "root", PASSPHRASE)
    with pytest.raises(NeverWorks, match="not a working key"):
        files.load_working(tmp_path / "root")


def test_public_keys_as_text() -> None:
    key = bytes(range(32))
    assert public_key_of(public_key_text(key)) == key
    for text in ("", "ed25519:", "ed25519:AAAA", "rsa:" + public_key_text(key), public_key_text(key) + "!", 7, None):
        with pytest.raises(ValueError, match="want"):
            public_key_of(text)
    for table in (7, {"x": 1}, {"0" * 16: "yesterday"}):
        with pytest.raises(ValueError):
            revoked_keys_of(table)
