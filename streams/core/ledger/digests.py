"""Digests of manifests and seals, computed by the ledger itself: a machine's own fault would else be judged right.

Held to the machines' by tests of the ledger, over every field that either takes in.
"""

from __future__ import annotations

import hashlib

from streams.core import records as m


def sha256_of(manifest: m.ManifestWritten) -> str:
    """sha256 (hex) over what a manifest means: its head, then a line an item; fields are parted by tabs."""
    summed = hashlib.sha256()
    head = (
        manifest.intent,
        manifest.source,
        str(manifest.source_no),
        str(manifest.no),
        manifest.prev_sha256,
        manifest.unit.value,
        str(manifest.last),
    )
    summed.update("\t".join(head).encode())
    for item in manifest.items:
        fields = (
            item.lfn,
            item.dataset,
            item.block,
            item.target,
            item.selection,
            str(item.length),
            str(item.bytes),
            item.adler32 or "-",
            item.version,
            item.holder or "-",
            _why(item.reason),
        )
        summed.update(b"\n")
        summed.update("\t".join(fields).encode())
    return summed.hexdigest()


def _why(reason: m.Reason | None) -> str:
    if reason is None:
        return ""
    return "/".join((reason.scope.value, reason.failure_class.value, reason.phase, reason.text))


def certified(certificate: m.Certificate) -> bytes:
    """What a root key signed of a working key."""
    text = f"transfer2go certificate 1\n{certificate.site}\n{certificate.kid}\n{certificate.public_key.hex()}\n"
    return f"{text}{certificate.kind}\n{certificate.not_before_ms}\n{certificate.not_after_ms}".encode()


def sealed(seal: m.JournalsSealed) -> bytes:
    """What a sealer signed: all of a seal but its signature."""
    text = f"transfer2go seal 1\n{seal.site}\n{seal.no}\n{seal.prev_sha256}\n{seal.sealed_ms}"
    for one in seal.journals:
        text += f"\n{one.site}\t{one.topic}\t{one.partition}\t{one.size}\t{one.root.hex()}"
    if seal.certificate is None:
        return text.encode()
    return b"\n".join((text.encode(), certified(seal.certificate), seal.certificate.signature.hex().encode()))


def seal_sha256(seal: m.JournalsSealed) -> bytes:
    """What the next seal of the chain names (32 bytes): over what was signed and the signature."""
    return hashlib.sha256(b"%b\n%b" % (sealed(seal), seal.signature.hex().encode())).digest()
