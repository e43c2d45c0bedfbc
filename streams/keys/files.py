"""Keys on disk: a root key under a passphrase, working keys with their certificates. All are files of 0600.

A root key certifies, and is needed for nothing else: it belongs on a medium that no machine of the site has. A working
key lies bare, since a process that nobody attends signs with it; it is replaced when its time is over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from streams.core import records as m
from streams.core.names import Site, shown
from streams.core.records.seals import kid_of
from streams.core.sealing import certified_bytes
from streams.errors import InvalidName, NeverWorks, NotAllowed, NotFound, Temporary, UsageError
from streams.keys.ed25519 import is_signed

PASSPHRASE_CHARS_MIN = 8
_ROOT, _WORKING = "root key", "working key"
_FILE_BYTES_MAX = 64 * 1024
_PEM, _PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8


@dataclass(frozen=True, slots=True)
class RootKey:
    """A site's root key, unlocked."""

    site: Site
    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        return _public(self.private)


@dataclass(frozen=True, slots=True)
class WorkingKey:
    """A key that signs, and the word of its site's root key for it."""

    path: Path
    certificate: m.Certificate
    private: Ed25519PrivateKey

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message)


def _public(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def make_root(path: Path, site: Site, passphrase: str) -> RootKey:
    """A new root key in a new file. UsageError for a short passphrase, NotAllowed where the file exists."""
    if len(passphrase) < PASSPHRASE_CHARS_MIN:
        raise UsageError(f"a passphrase has at least {PASSPHRASE_CHARS_MIN} characters")
    made = RootKey(site, Ed25519PrivateKey.generate())
    locked = made.private.private_bytes(_PEM, _PKCS8, serialization.BestAvailableEncryption(passphrase.encode()))
    _write(path, {"transfer2go": _ROOT, "site": site, "public_key": made.public.hex(), "private_key": locked.decode()})
    return made


def public_of_root(path: Path) -> tuple[Site, bytes]:
    """Whose root key it is, and its public half; no passphrase is needed for that."""
    told = _read(path, _ROOT)
    return _field(path, told, "site", Site), _field(path, told, "public_key", bytes.fromhex)


def unlock_root(path: Path, passphrase: str) -> RootKey:
    """NotAllowed for a wrong passphrase, NeverWorks for what is no root key."""
    site, public = public_of_root(path)
    root = RootKey(site, _private(path, _read(path, _ROOT), passphrase))
    if root.public != public:
        raise _not_a_key(path, _ROOT, "its halves are of two keys")
    return root


def issue(root: RootKey, directory: Path, kind: str, not_before_ms: int, not_after_ms: int) -> WorkingKey:
    """A new working key, certified, in a new file of the directory."""
    private = Ed25519PrivateKey.generate()
    public = _public(private)
    bare = m.Certificate(root.site, kid_of(public), public, kind, not_before_ms, not_after_ms, b"")
    certificate = replace(bare, signature=root.private.sign(certified_bytes(bare)))
    key = WorkingKey(directory / f"{kind}-{certificate.kid}.json", certificate, private)
    plain = private.private_bytes(_PEM, _PKCS8, serialization.NoEncryption())
    _write(
        key.path,
        {
            "transfer2go": _WORKING,
            "certificate": {
                "site": root.site,
                "kid": certificate.kid,
                "public_key": public.hex(),
                "kind": kind,
                "not_before_ms": not_before_ms,
                "not_after_ms": not_after_ms,
                "signature": certificate.signature.hex(),
            },
            "private_key": plain.decode(),
        },
    )
    return key


def load_working(path: Path) -> WorkingKey:
    """NeverWorks for what is none, NotAllowed where others may read it."""
    told = _read(path, _WORKING)
    certificate = _field(path, told, "certificate", _certificate)
    private = _private(path, told, None)
    if _public(private) != certificate.public_key or (why := m.fault(certificate)) is not None:
        raise _not_a_key(path, _WORKING, why if _public(private) == certificate.public_key else "its halves differ")
    return WorkingKey(path, certificate, private)


def _certificate(told: Any) -> m.Certificate:
    return m.Certificate(
        Site(told["site"]),
        str(told["kid"]),
        bytes.fromhex(told["public_key"]),
        str(told["kind"]),
        int(told["not_before_ms"]),
        int(told["not_after_ms"]),
        bytes.fromhex(told["signature"]),
    )


def working_keys(directory: Path) -> list[Path]:
    """Files of working keys, in the order of their names; none where there is no directory."""
    return sorted(directory.glob("*.json")) if directory.is_dir() else []


def fault_of(
    certificate: m.Certificate, site: Site, root_key: bytes, revoked: Mapping[str, int], kind: str, now_ms: int
) -> str:
    """Why a key may not sign for the site now; "" if it may. `root_key`: the pinned one, empty where none is."""
    if certificate.site != site:
        return f"it is a key of {certificate.site}"
    if certificate.kind != kind:
        return f"it is a {certificate.kind}'s key, not a {kind}'s"
    if not root_key:
        return f"sites.toml pins no root_key of {site}"
    if not is_signed(root_key, certified_bytes(certificate), certificate.signature):
        return f"the root key of {site} in sites.toml did not certify it"
    if certificate.kid in revoked and now_ms >= revoked[certificate.kid]:
        return "it is revoked in sites.toml"
    if now_ms < certificate.not_before_ms:
        return "its time has not begun"
    return "its time is over" if now_ms > certificate.not_after_ms else ""


def key_for(
    directory: Path, kind: str, site: Site, root_key: bytes, revoked: Mapping[str, int], now_ms: int
) -> WorkingKey:
    """The key that may sign for longest. NotFound where there is none, NotAllowed where none may sign, and why."""
    best: WorkingKey | None = None
    faults = []
    for path in working_keys(directory):
        key = load_working(path)
        if why := fault_of(key.certificate, site, root_key, revoked, kind, now_ms):
            faults.append(f"{path.name}: {why}")
        elif best is None or key.certificate.not_after_ms > best.certificate.not_after_ms:
            best = key
    if best is not None:
        return best
    if faults:
        raise NotAllowed(
            f"no key of {site} may sign: {'; '.join(faults)}", str(directory), "see `transfer2go key issue`"
        )
    raise NotFound(f"no {kind} key of {site}", str(directory), "see `transfer2go key init` and `transfer2go key issue`")


def read_passphrase(path: Path) -> str:
    """The first line of a file that nobody else may read."""
    return _text(path).partition("\n")[0].rstrip("\r")


def _private(path: Path, told: Mapping[str, Any], passphrase: str | None) -> Ed25519PrivateKey:
    pem = _field(path, told, "private_key", lambda text: str(text).encode())
    try:
        found = serialization.load_pem_private_key(pem, None if passphrase is None else passphrase.encode())
    except (ValueError, TypeError) as error:
        if passphrase is not None and b"ENCRYPTED" in pem:
            raise NotAllowed("the passphrase does not open the key", str(path), "is it the right one?") from error
        raise _not_a_key(path, str(told["transfer2go"]), "its private half cannot be read") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise _not_a_key(path, str(told["transfer2go"]), "it is not an Ed25519 key")
    return found


def _field(path: Path, told: Mapping[str, Any], name: str, read: Any) -> Any:
    try:
        return read(told[name])
    except (KeyError, TypeError, ValueError, InvalidName) as error:
        raise _not_a_key(path, str(told.get("transfer2go")), f"{name}: {shown(str(error))}") from error


def _read(path: Path, what: str) -> dict[str, Any]:
    text = _text(path)
    try:
        told = json.loads(text)
    except ValueError as error:
        raise _not_a_key(path, what, "it is no JSON") from error
    if not isinstance(told, dict) or told.get("transfer2go") != what:
        raise _not_a_key(path, what, "it does not say so")
    return told


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise NotAllowed("others may read this file", str(path), f"chmod 600 {path}")
            raw = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise NotFound("no such file", str(path)) from error
    except OSError as error:
        raise NotAllowed(f"cannot be read: {error.strerror}", str(path)) from error
    try:
        if len(raw) > _FILE_BYTES_MAX:
            raise ValueError
        return raw.decode()
    except ValueError as error:
        raise NeverWorks("not a file of a key: it is no text of a few lines", str(path)) from error


def _write(path: Path, told: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w") as file:
            json.dump(told, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise NotAllowed("a key is never overwritten", str(path), "give another name") from error
    except OSError as error:
        raise Temporary(f"cannot write a key: {error.strerror}", str(path)) from error


def _not_a_key(path: Path, what: str, why: str | None) -> NeverWorks:
    return NeverWorks(f"not a {what} of transfer2go: {why}", str(path))
