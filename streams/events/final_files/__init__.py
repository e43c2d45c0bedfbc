"""The formats that entries land as. A new one is a module here that describes itself, and its line below.

Not here: which tables a file is given (writing.py), what is read (formats/), what a file says it holds (provenance.py).
"""

from __future__ import annotations

from streams.events.final_files import arrow, parquet, root
from streams.events.final_files.final_file import FinalFormat

FORMATS: dict[str, FinalFormat] = {
    "parquet": parquet.FORMAT,
    "arrow": arrow.FORMAT,
    "root": root.FORMAT,
}
"""By name, in the order people are told them."""
