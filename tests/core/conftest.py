"""Hypothesis tries the same examples at every run, and a busy machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.load_profile("same")
