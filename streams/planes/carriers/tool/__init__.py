"""The carrier `tool`: a program of the destination's fetches whole files from where their holder has them readable.

The destination carries its own request out: the holder is named for the books, is told, and serves nothing. Nobody's
word stands for what a tool brought but the checksum of the whole. Not here: which tool is on which link (settings), and
how a program is run and killed (streams/running).
"""

from __future__ import annotations

from streams.core.channel import TOOL
from streams.planes.carriers.carrier import Carrier
from streams.planes.carriers.tool.bringing import ToolDestination
from streams.planes.carriers.tool.silent_source import SilentSource

CARRIER = Carrier(TOOL, SilentSource, ToolDestination)
