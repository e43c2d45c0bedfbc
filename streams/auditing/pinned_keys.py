"""By which root keys seals are believed: those that sites.toml pins."""

from __future__ import annotations

from streams.core.ledger.sealed_sizes import SIZES_MAX
from streams.core.ledger.seals import CHAIN_MAX, PinnedKey, Seals
from streams.settings import Settings


def seals_of(settings: Settings, *, sizes_max: int = SIZES_MAX, chain_max: int = CHAIN_MAX) -> Seals:
    """Of all sites, none heard yet. Where no key is pinned the library of keys is not imported."""
    keys = {
        entry.name: PinnedKey(entry.root_key, entry.revoked_keys) for entry in settings.registry.sites if entry.root_key
    }
    if not keys:
        return Seals(sizes_max=sizes_max, chain_max=chain_max)
    from streams.keys.ed25519 import is_signed

    return Seals(keys, is_signed, sizes_max=sizes_max, chain_max=chain_max)
