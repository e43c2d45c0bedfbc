"""What an endpoint keeps for itself on its disk: small files (its marker, what checks saw), and what was set aside.

All of it lies in one directory at the root, which no name leads to and no walk enters. What is set aside keeps its path
below a folder of it, on the same filesystem: a rename, which never replaces and never deletes.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress

from streams.errors import StorageError, permanent
from streams.storage import oserrors
from streams.storage.posix_removal import name_lock
from streams.storage.posix_walk import dated
from streams.storage.tree import OWN_DIRECTORY, DirectoryTree

_ASIDE = f"{OWN_DIRECTORY}/aside"


def read(tree: DirectoryTree, name: str) -> bytes | None:
    """See `ReadableStorage.read_own`."""
    path = f"{OWN_DIRECTORY}/{name}"
    try:
        with os.fdopen(tree.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise oserrors.reading(error, os.path.join(tree.root, path)) from error


def write(tree: DirectoryTree, name: str, content: bytes, *, once: bool) -> None:
    """See `WritableStorage.write_own`."""
    new = f"{name}.{secrets.token_hex(8)}.new"
    try:
        tree.make_directory(OWN_DIRECTORY)
        with tree.directory(OWN_DIRECTORY) as directory:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=directory)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                if once:
                    with suppress(FileExistsError):
                        tree.rename_noreplace(directory, new, name)
                else:
                    os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(new, dir_fd=directory)
        failure = tree.fsync_directories([OWN_DIRECTORY])[OWN_DIRECTORY]
        if failure is not None:
            raise failure
    except OSError as error:
        raise oserrors.writing(error, os.path.join(tree.root, OWN_DIRECTORY, name)) from error


def aside_path(tree: DirectoryTree, folder: str) -> str:
    """Where what is set aside in a folder lies."""
    return os.path.join(tree.root, _ASIDE, folder)


def set_aside(tree: DirectoryTree, found: Sequence[tuple[str, str]], folder: str) -> list[str | StorageError | None]:
    """See `WritableStorage.set_aside`. One lock is held at a time."""
    answers = [_move_away(tree, path, version, folder) for path, version in found]
    _sync(tree, (path for (path, _), answer in zip(found, answers, strict=True) if answer is None), folder)
    return answers


def lies_aside(tree: DirectoryTree, path: str) -> tuple[str, int] | None:
    """See `WritableStorage.lies_aside`."""
    try:
        with tree.directory(_ASIDE) as fd:
            folders = sorted(os.listdir(fd), reverse=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise oserrors.reading(error, os.path.join(tree.root, _ASIDE)) from error
    for folder in folders:
        with suppress(OSError):
            return folder, tree.stat(f"{_ASIDE}/{folder}/{path}", os.O_NOFOLLOW).st_size
    return None


def bring_back(tree: DirectoryTree, paths: Sequence[str], folder: str) -> list[StorageError | None]:
    """See `WritableStorage.bring_back`."""
    answers = [_move(tree, f"{_ASIDE}/{folder}/{path}", path, path) for path in paths]
    _sync(tree, (path for path, answer in zip(paths, answers, strict=True) if answer is None), folder)
    return answers


def _move_away(tree: DirectoryTree, path: str, version: str, folder: str) -> str | StorageError | None:
    try:
        with name_lock(tree, path):
            there = dated(tree, path)
            if there is None:
                return "it is gone"
            if there.version != version:
                return "it has changed since it was looked at"
            return _move(tree, path, f"{_ASIDE}/{folder}/{path}", path)
    except StorageError as error:
        return error
    except OSError as error:
        return oserrors.writing(error, os.path.join(tree.root, path))


def _move(tree: DirectoryTree, old: str, new: str, said: str) -> StorageError | None:
    """`said`: the path that an error names."""
    where = os.path.join(tree.root, said)
    (old_directory, old_name), (new_directory, new_name) = os.path.split(old), os.path.split(new)
    try:
        tree.make_directory(new_directory)
        with tree.directory(old_directory) as from_fd, tree.directory(new_directory) as to_fd:
            tree.rename_noreplace(from_fd, old_name, new_name, to_fd)
    except FileExistsError:
        return permanent("another file has the name", where)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return permanent("it lies on another filesystem than the root of its endpoint", where, "move it by hand")
        return oserrors.writing(error, where)
    return None


def _sync(tree: DirectoryTree, paths: Iterable[str], folder: str) -> None:
    """A rename that a crash undoes leaves the file where it was: nothing is told of one that is not durable."""
    directories = {os.path.dirname(path) for path in paths}
    both = [*directories, *(os.path.join(_ASIDE, folder, directory).rstrip("/") for directory in directories)]
    tree.fsync_directories(both)
