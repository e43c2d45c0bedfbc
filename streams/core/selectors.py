"""What an intent asks for: files, blocks or datasets by name. Which part of each file: core/selections."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from streams.core.names import Block, Dataset, Lfn
from streams.errors import InvalidName


class Kind(StrEnum):
    FILE = "file"
    BLOCK = "block"
    DATASET = "dataset"


@dataclass(frozen=True, slots=True)
class Selector:
    """One name asked for; `name` is legal for its kind or the constructor raises `InvalidName`."""

    kind: Kind
    name: str

    def __post_init__(self) -> None:
        {Kind.FILE: Lfn, Kind.BLOCK: Block, Kind.DATASET: Dataset}[self.kind](self.name)


def parse(text: str) -> Selector:
    """A selector from what a person types: `/P/P/T#b` is a block, `/store/…` a file, `/P/P/T` a dataset.

    A name of three segments is a dataset unless it starts with `/store/`; `file:`, `block:`, `dataset:` force a kind.
    """
    for kind in Kind:
        if text.startswith(kind.value + ":"):
            return Selector(kind, text[len(kind.value) + 1 :])
    if "#" in text:
        return Selector(Kind.BLOCK, text)
    if text.startswith("/store/") or text.count("/") != 3:
        return Selector(Kind.FILE, text)
    try:
        return Selector(Kind.DATASET, text)
    except InvalidName:
        return Selector(Kind.FILE, text)
