"""transfer2go: files across sites on a replicated log."""

from __future__ import annotations
