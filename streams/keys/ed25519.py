"""Ed25519: whether a signature is good. Its library takes 90 ms and 8 MB to import, so only who needs it does."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the owner of a key signed this. Also False for bytes that are no key or no signature."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
