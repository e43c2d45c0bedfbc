"""Small real disks, mounted for a test: full ones, and what a power cut leaves (needs the right to mount).

And whoever may not write to one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.system_tools import PLACES, tool

MB = 1_000_000
CUTS_MAX = 5
"""Tries to cut power before anything is synced: any process here may sync all disks at any time, and some tests do."""


@contextmanager
def mounted(directory: Path, *arguments: str) -> Iterator[Path]:
    directory.mkdir(exist_ok=True)
    done = subprocess.run([tool("mount"), *arguments, str(directory)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is impossible here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run([tool("umount"), "--lazy", str(directory)], check=True)


def tmpfs(directory: Path, options: str) -> AbstractContextManager[Path]:
    return mounted(directory, "-t", "tmpfs", "-o", options, "tmpfs")


def ext4_image(path: Path, megabytes: int) -> Path:
    if shutil.which("mkfs.ext4", path=PLACES) is None:
        pytest.skip("no mkfs.ext4 here")
    with path.open("wb") as file:
        file.truncate(megabytes * MB)
    subprocess.run([tool("mkfs.ext4"), "-q", "-E", "nodiscard", str(path)], check=True)
    return path


@contextmanager
def as_nobody() -> Iterator[None]:
    """For root may write everywhere. Of this thread only: a change of all threads' user ends a mock cluster's."""
    user, libc = os.geteuid(), ctypes.CDLL(None)
    libc.setfsuid(user or 65_534)
    try:
        yield
    finally:
        libc.setfsuid(user)


def power_cut(image: Path, tmp_path: Path, name: str) -> AbstractContextManager[Path]:
    """The disk as it would be if power went now: what the filesystem sent to it, without its cache."""
    copy = tmp_path / f"{name}.image"
    shutil.copyfile(image, copy)
    return mounted(tmp_path / name, "-o", "loop", str(copy))
