"""What a kind of container says of itself: its name, how a file of it is recognised, which objects are in one.

Such a description imports no library but the standard one: a container does, when a file is one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from streams.events.checked_file import CheckedFile
from streams.objects.found import Scan
from streams.storage.endpoint import Reader

HEAD_BYTES = 512
"""Enough of a file's beginning to tell what it is: a header of tar."""


class Container(ABC):
    """One open file, for one thread. What a method raises besides StorageError, the caller says of the file."""

    def __init__(self, file: CheckedFile) -> None:
        self.file = file

    @abstractmethod
    def scan(self, scan: Scan) -> None:
        """Tell `scan` of every object, in any order: those it wants with size and adler32, or why they cannot travel.

        StorageError where the whole file is damaged, or of no use.
        """

    @abstractmethod
    def reader(self, name: str, scratch: str) -> Reader:
        """The bytes of the object that a scan found as `name`; what must be unpacked first is kept in `scratch`.

        The reader outlives `file`.
        """


@dataclass(frozen=True, slots=True)
class ContainerFormat:
    name: str
    """For people."""
    ends: tuple[str, ...]
    """Ends of names that promise such a file, in lower case, without the dot."""
    container: Callable[[CheckedFile], Container]
    begins: Callable[[bytes], bool]
    """Whether the file is one, by its first `HEAD_BYTES`, as far as there are."""
    ends_as_one: Callable[[CheckedFile], bool] | None = None
    """Whether a file that begins as none is one all the same, behind something else."""
