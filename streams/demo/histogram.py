"""A histogram of equal bins: filled batch by batch, drawn as text, as a PNG, and kept as a ROOT object."""

from __future__ import annotations

from typing import Any

import numpy as np

_BLOCKS = " ▁▂▃▄▅▆▇█"


class Histogram:
    """`bins` equal bins of `[low, high)`; what lies outside is counted apart. `counts` are whole numbers."""

    def __init__(self, bins: int, low: float, high: float, title: str = "", unit: str = "") -> None:
        self.edges = np.linspace(low, high, bins + 1)
        self.counts = np.zeros(bins, dtype=np.int64)
        self.outside = 0
        self.title, self.unit = title, unit

    def fill(self, values: Any) -> None:
        """`values`: a flat array of numbers; a NaN lies outside."""
        counts, _ = np.histogram(values, self.edges)
        self.counts += counts
        self.outside += len(values) - int(counts.sum())

    @property
    def entries(self) -> int:
        return int(self.counts.sum()) + self.outside

    def text(self, rows: int = 10) -> list[str]:
        """Lines of a drawing, one character a bin, with the height of the highest bin and the range below."""
        peak = int(self.counts.max()) or 1
        lines = []
        for row in range(rows, 0, -1):
            heights = self.counts * rows * 8 // peak - (row - 1) * 8
            label = f"{peak:>7,} ┤" if row == rows else "        │"
            lines.append(label + "".join(_BLOCKS[min(8, max(0, int(height)))] for height in heights))
        axis = "        └" + "─" * len(self.counts)
        low, high = f"{self.edges[0]:g}", f"{self.edges[-1]:g} {self.unit}".rstrip()
        return [*lines, axis, "         " + low + high.rjust(max(len(high) + 1, len(self.counts) - len(low)))]

    def png(self, path: str) -> None:
        """Drawn by matplotlib, which the extra `plot` brings; ImportError without it."""
        from matplotlib.figure import Figure  # no pyplot: it would look for a screen

        figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
        axes = figure.subplots()
        axes.stairs(self.counts, self.edges, fill=True)
        axes.set_title(self.title)
        axes.set_xlabel(self.unit)
        axes.set_ylabel("entries per bin")
        figure.savefig(path, format="png")

    def write_root(self, path: str, name: str) -> None:
        """As the object `name` of a new ROOT file."""
        import uproot

        with uproot.recreate(path) as file:
            file[name] = (self.counts.astype(np.float64), self.edges)
