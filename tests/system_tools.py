"""Programs of the operating system that some tests use; without one the test is skipped, and says so."""

from __future__ import annotations

import os
import shutil

import pytest

PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin", "/sbin", "/bin"))


def tool(name: str) -> str:
    """Path of a program, also where PATH hides the system's own."""
    found = shutil.which(name, path=PLACES)
    if found is None:
        pytest.skip(f"no {name} on this machine")
    return found
