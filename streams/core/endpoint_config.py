"""What a site's configuration says of one of its endpoints. Pure; nothing is opened here."""

from __future__ import annotations

from dataclasses import dataclass

from streams.core.path_rules import PathRules
from streams.core.store_names import Store

DEFAULT_ENDPOINT = "default"
"""The one endpoint a site has today: its name in records; its URL never travels."""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """`url`: where it is, "" where nothing says so. `rules`: LFN to PFN, None for PFN = root + LFN.

    `stores`: what is read beside it; names below theirs are theirs.
    """

    name: str
    url: str
    rules: PathRules | None = None
    stores: tuple[Store, ...] = ()
