"""How much a command imports before it says a word: each of these libraries takes a tenth of a second and more."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"awkward", "jgo", "moto", "pandas", "pyarrow", "requests", "uproot", "urllib3"}


@pytest.mark.parametrize("noun", ["intent", "site", "file", "topic", "status"])
def test_a_verb_imports_no_library_that_it_does_not_use(noun: str):
    script = f"import sys, streams.cli.{noun}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
