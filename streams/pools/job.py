"""What a worker does with each range: the command, what it gets, what it is to write, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.core import records as m
from streams.core.readers.ranges import Meant
from streams.running.command import RunningCommand
from streams.storage.endpoint import PlacedFile

if TYPE_CHECKING:
    from streams.events.range_files import RangeKind

VARIABLES = {
    "in": "T2G_INPUT",
    "out": "T2G_OUTPUT",
    "lfn": "T2G_LFN",
    "start": "T2G_RANGE_START",
    "stop": "T2G_RANGE_STOP",
}
"""None is too near to a setting's name: the command may be transfer2go itself."""


@dataclass(frozen=True, slots=True)
class Job:
    """In the command `{in}`, `{out}`, `{lfn}`, `{start}` and `{stop}` stand for the range's, as in its environment.

    `kind` arrow comes on stdin. The output is what the command writes at `{out}`, or on stdout if `stdout`.
    """

    command: tuple[str, ...]
    kind: RangeKind = "parquet"
    suffix: str = "out"
    stdout: bool = False
    allow_empty: bool = False
    timeout_s: float | None = None
    tries: int = 3

    def input_path(self, folder: str) -> str:
        return os.path.join(folder, f"in.{self.kind}")

    def output_path(self, folder: str) -> str:
        return os.path.join(folder, f"out.{self.suffix}")

    def clear(self, folder: str) -> None:
        """Take away what a failed run wrote."""
        with suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(self.output_path(folder))

    def start(self, folder: str, of: Meant) -> RunningCommand:
        given, written = self.input_path(folder), self.output_path(folder)
        words = {"in": given, "out": written, "lfn": str(of.lfn), "start": str(of.start), "stop": str(of.stop)}
        return RunningCommand(
            filled(self.command, words),
            {VARIABLES[key]: value for key, value in words.items()},
            stdin=given if self.kind == "arrow" else None,
            stdout=written if self.stdout else None,
            timeout_s=self.timeout_s,
        )


def filled(command: Sequence[str], words: dict[str, str]) -> list[str]:
    """Each `{word}` replaced; other braces stay."""
    out = []
    for argument in command:
        for key, value in words.items():
            argument = argument.replace("{" + key + "}", value)
        out.append(argument)
    return out


@dataclass(frozen=True, slots=True)
class RangeOutcome:
    """A range that is over. `output` None: it failed for a `reason`, or had no entries. `tries` 0: nothing was run."""

    of: Meant
    output: PlacedFile | None
    reason: m.Reason | None
    tries: int
    seconds: float
