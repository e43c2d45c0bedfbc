"""The containers of objects that can be read. A new one is a module here that describes itself, and its line below.

Not here: what a walk through a container finds (found.py), limits, what is kept unpacked (scratch.py).
"""

from __future__ import annotations

from streams.objects.containers import root, tars, zips
from streams.objects.containers.container import ContainerFormat

FORMATS: tuple[ContainerFormat, ...] = (
    root.FORMAT,
    zips.FORMAT,
    tars.FORMAT,
)
"""They are asked in this order, and people are told of all in it."""
