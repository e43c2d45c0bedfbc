"""What is closed when a `with` block ends."""

from __future__ import annotations

from typing import Self


class Closing:
    """Enters as itself; leaving the block closes it, whatever happened inside."""

    def close(self) -> object:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
