"""Many parts at once on a POSIX filesystem: one sync of the disk, all names, each directory once.

`sync` and `seal` of one part are groups of one, so there is one order of steps, the one that posix_part.py explains.
One item's failure ends that item only; a failed disk ends all that wrote to it since its last good sync.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress

from streams.core.ranges import Ranges
from streams.errors import StorageError, permanent
from streams.storage import oserrors
from streams.storage.endpoint import FileMissing, PartFileLost, SealedFile, Wanted, different_file
from streams.storage.posix_part import PosixPart, PosixStore
from streams.storage.writeback import Disk

# Below this, syncing each file is cheaper than flushing a whole filesystem that others write to as well.
SYNCFS_FILES_MIN = 8
SYNCFS_DIRECTORIES_MIN = 8


def sync_parts(store: PosixStore, parts: Sequence[PosixPart]) -> list[Ranges | StorageError]:
    before = [(part.writes, part.covered) for part in parts]  # what is written meanwhile is not durable
    by_disk: dict[Disk, list[PosixPart]] = defaultdict(list)
    for part in parts:
        if part.lost is None and part.unsynced:
            by_disk[part.disk].append(part)
    named: list[PosixPart] = []
    for disk, members in by_disk.items():
        if not _sync_disk(disk, members):
            named += _sync_each(members)
    failures = store.tree.fsync_directories({part.directory for part in named})
    for part in named:
        error = failures[part.directory]
        if error is None:
            part.name_durable = True
        else:
            part.lost_in_sync(error)
    answers: list[Ranges | StorageError] = []
    for part, (writes, ranges) in zip(parts, before, strict=True):
        if part.lost is None:
            part.settle(writes)
        answers.append(part.lost or ranges)
    return answers


def _sync_disk(disk: Disk, members: Sequence[PosixPart]) -> bool:
    """One sync for all, where that pays or where only it can hear of errors; False if each must be synced alone."""
    if len(members) < SYNCFS_FILES_MIN and not any(part.unwatched for part in members):
        return False
    try:
        if not disk.sync():
            return False
    except OSError as error:
        for part in members:
            part.lost_in_sync(error)
        return True
    for part in members:
        part.name_durable = True
    return True


def _sync_each(members: Iterable[PosixPart]) -> list[PosixPart]:
    """Returns those whose names are not durable yet."""
    unnamed = []
    for part in members:
        try:
            part.fdatasync()
        except OSError as error:
            part.lost_in_sync(error)
        except PartFileLost:  # kept in part.lost
            continue
        else:
            if not part.name_durable:
                unnamed.append(part)
    return unnamed


def seal_parts(store: PosixStore, parts: Sequence[PosixPart]) -> list[SealedFile | StorageError]:
    answers: dict[int, SealedFile | StorageError] = {}
    by_directory: dict[str, list[int]] = defaultdict(list)
    for at, synced in enumerate(sync_parts(store, parts)):
        if isinstance(synced, StorageError):
            answers[at] = _look_at_target(store, parts[at], synced, parts[at].adler32)
        else:
            by_directory[parts[at].directory].append(at)
    for directory, members in by_directory.items():
        answers.update(_name_all(store, directory, [(at, parts[at]) for at in members]))
    _make_names_durable(store, parts, answers)
    return [answers[at] for at in range(len(parts))]


def _name_all(
    store: PosixStore, directory: str, members: Sequence[tuple[int, PosixPart]]
) -> dict[int, SealedFile | StorageError]:
    answers: dict[int, SealedFile | StorageError] = {}
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(store.tree.directory(directory))
        except OSError as error:
            return {at: oserrors.writing(error, part.pfn) for at, part in members}
        for at, part in members:
            answers[at] = _name(store, fd, part)
    return answers


def _name(store: PosixStore, directory_fd: int, part: PosixPart) -> SealedFile | StorageError:
    """Of a part whose bytes are known `verify` is one look at who has it, and nothing stands between that and the name.
    Where it reads bytes back, which may take long, or others' are to be synced, there is another look behind that."""
    adler = part.adler32
    try:
        looks_again = part.reads_back
        verified = adler = part.verify()
        if part.shared:
            part.unsynced = looks_again = True
            (synced,) = sync_parts(store, [part])
            if isinstance(synced, StorageError):
                raise synced
        if looks_again:
            part.still_as_verified()
        part.take_name(directory_fd)
    except FileExistsError:
        what = "something that is not a readable file is already at the destination"
        return _look_at_target(store, part, permanent(what, part.pfn), adler)
    except OSError as error:
        return oserrors.writing(error, part.pfn)
    except StorageError as error:
        return _look_at_target(store, part, error, adler)
    part.close()
    return SealedFile(part.lfn, part.bytes, verified, already=False)


def _look_at_target(
    store: PosixStore, part: PosixPart, failure: StorageError, adler: str | None
) -> SealedFile | StorageError:
    """The last word on a part that could not be named: another writer of the item may have sealed it.

    Deletes the part if nothing can become of it, not even a seed.
    """
    if failure.failure_class != "permanent" and not isinstance(failure, PartFileLost):
        return failure
    (there,) = present(store, [Wanted(part.lfn, part.bytes, adler)])
    if there is True and adler is not None:
        _ended(part, failure)
        return SealedFile(part.lfn, part.bytes, adler, already=True)
    if isinstance(there, StorageError) and not part.still_replaces:
        failure = there
    if failure is part.lost and failure.failure_class == "data-bad":
        return failure  # most of its bytes are right
    ended = failure.failure_class in ("permanent", "data-bad") or isinstance(failure, PartFileLost)
    return _ended(part, failure) if ended else failure


def _ended(part: PosixPart, failure: StorageError) -> StorageError:
    """The part is of no more use: delete it. That it could not be deleted is added to what the user is told."""
    try:
        part.discard()
    except StorageError as error:
        failure.next = f"{failure.next}; its part stays behind: {error.what}".removeprefix("; ")
    return failure


def _make_names_durable(
    store: PosixStore, parts: Sequence[PosixPart], answers: dict[int, SealedFile | StorageError]
) -> None:
    """A rename that may not outlive a power cut is no seal: such items fail for now, and are found by `present`."""
    named = [at for at, answer in answers.items() if isinstance(answer, SealedFile) and not answer.already]
    failures = settle(store, {parts[at].directory: parts[at].disk for at in named})
    for at in named:
        error = failures[parts[at].directory]
        if error is not None:
            answers[at] = oserrors.naming(error, parts[at].pfn)


def settle(store: PosixStore, directories: dict[str, Disk], *, contents: bool = False) -> dict[str, OSError | None]:
    """Make the names in these directories durable, and with `contents` the files too."""
    answers: dict[str, OSError | None] = {}
    by_disk: dict[Disk, list[str]] = defaultdict(list)
    for directory, disk in directories.items():
        by_disk[disk].append(directory)
    for disk, members in by_disk.items():
        if contents or len(members) >= SYNCFS_DIRECTORIES_MIN:
            try:
                if disk.sync():
                    answers.update(dict.fromkeys(members))
                    continue
            except OSError as error:
                answers.update(dict.fromkeys(members, error))
                continue
            if contents:
                os.sync()
        answers.update(store.tree.fsync_directories(members))
    return answers


def present(store: PosixStore, wanted: Sequence[Wanted]) -> list[bool | StorageError]:
    """See `WritableStorage.present_group`. What is found is made durable: its writer may have died before doing so."""
    each = len(wanted) < SYNCFS_FILES_MIN
    answers: list[bool | StorageError] = []
    found: dict[int, tuple[str, Disk]] = {}
    absent = _absent(store, wanted)
    for at, one in enumerate(wanted):
        if at in absent:
            answers.append(False)
            continue
        try:
            device = _matching(store, one, fsync=each)
            if device is not None:
                directory = os.path.dirname(store.path(one.lfn))
                found[at] = (directory, store.disk_of(device, directory))
            answers.append(device is not None)
        except StorageError as error:
            answers.append(error)
        except OSError as error:
            answers.append(oserrors.writing(error, store.pfn(one.lfn)))
    failures = settle(store, dict(found.values()), contents=not each)
    for at, (directory, _) in found.items():
        failure = failures[directory]
        if failure is not None:
            answers[at] = oserrors.naming(failure, store.pfn(wanted[at].lfn))
    return answers


def _absent(store: PosixStore, wanted: Sequence[Wanted]) -> set[int]:
    """Of which nothing has the name: most often by far, and half as dear to see as to fail to open it."""
    by_directory: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for at, one in enumerate(wanted):
        with suppress(StorageError):  # who opens it says so
            directory, name = os.path.split(store.path(one.lfn))
            by_directory[directory].append((at, name))
    absent: set[int] = set()
    for directory, members in by_directory.items():
        try:
            with store.tree.directory(directory) as fd:
                for at, name in members:
                    try:
                        os.stat(name, dir_fd=fd, follow_symlinks=False)
                    except FileNotFoundError:
                        absent.add(at)
        except FileNotFoundError:
            absent.update(at for at, _ in members)
        except OSError:  # as above
            continue
    return absent


def _matching(store: PosixStore, wanted: Wanted, *, fsync: bool) -> int | None:
    """The device of the file if it is there whole, None if it is not there or cannot be told."""
    try:
        reader = store.open_reader(wanted.lfn)
    except FileMissing:
        return None
    with reader:
        size = reader.stat.bytes
        if size == wanted.bytes and wanted.adler32 is None:
            return None
        try:
            adler = reader.adler32() if size == wanted.bytes else None
        except StorageError as error:
            what = f"the file already at the destination cannot be judged: {error.what}"
            raise StorageError(what, error.where) from error
        if adler is not None and adler == wanted.adler32:
            try:
                if fsync:
                    reader.fsync()
            except OSError as error:
                raise oserrors.naming(error, store.pfn(wanted.lfn)) from error
            return reader.device
    if adler is None:
        what = f"{size} bytes instead of {wanted.bytes}"
    else:
        what = f"adler32 {adler} instead of {wanted.adler32}"
    raise different_file(what, store.pfn(wanted.lfn))
