"""Objects of one file, whatever holds them: which there are, and each as bytes to read at any offset.

    listing = listed("hists.root", ObjectSelection.parse("dir/hpt*,cutflow"))
    with open_object("hists.root", "cutflow", version=listing.version, scratch="unpacked") as reader:
        reader.readinto(0, memoryview(bytearray(reader.stat.bytes)))

The same file gives the same bytes of an object everywhere and always. Formats are modules of their own.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from typing import TypeVar

from streams.core.names import shown
from streams.core.selections.objects import ObjectSelection
from streams.errors import StorageError
from streams.events.checked_file import NOT_SUPPORTED, CheckedFile, unsupported
from streams.events.packing import HEAD_BYTES, other_packing_of, packing_of
from streams.objects import root_objects, tars, zips
from streams.objects.found import Listing, Scan
from streams.objects.limits import damaged, refused
from streams.objects.root_keys import Place
from streams.objects.root_layout import LayoutReader
from streams.objects.scratch import kept
from streams.objects.tables import Tables
from streams.objects.unpacking import Unpacked
from streams.objects.windows import Spread, Window
from streams.storage.endpoint import Reader
from streams.storage.posix_reader import PosixReader

SMALL_BYTES = 1 << 20
"""A packed zip member up to this size is unpacked into memory at each opening: sooner done than a file is synced."""
_HEAD_BYTES = 512
_PACKED_ENDS = (".gz", ".bz2", ".xz", ".zst")
_ENDS = {"zip": "zip", "tar": "tar", "tgz": "tar", "tbz2": "tar", "txz": "tar", "tzst": "tar", "root": "ROOT"}
Member = TypeVar("Member", zips.ZipMember, tars.TarMember, Place)


def listed(path: str, asked: ObjectSelection, *, version: str | None = None) -> Listing:
    """The objects of the file at `path` that are asked for, each read once for its checksum.

    With `version`, only of that one. StorageError: data-bad for a file that is not what it seems, permanent for what
    holds no objects and for a name or glob that nothing matches (it names the nearest). What matches and cannot travel
    is in `refused`.
    """
    with CheckedFile(path, version) as file:
        scan = Scan(asked, path)
        kind = _known(file)
        with file.guarded(f"cannot read the {kind} file"):
            if kind == "zip":
                zips.scan_zip(file, scan)
            elif kind == "ROOT":
                root_objects.scan_root(file, scan)
            else:
                tars.scan_tar(file, packing_of(file.pread(0, HEAD_BYTES)), scan)
        file.pread(0, 1)  # is it still that version?
        return scan.listing(file.version)


def open_object(path: str, name: str, *, version: str | None, scratch: str) -> Reader:
    """The bytes of the object `name` as `listed` named it; what must be unpacked first is kept in `scratch`.

    Of a file that changed since, StorageError data-bad, also while it is read.
    """
    with CheckedFile(path, version) as file:
        kind = _known(file)
        with file.guarded(f"cannot read the {kind} file"):
            if kind == "zip":
                return _zip_reader(file, name, scratch)
            if kind == "ROOT":
                place = _named(_TABLES.of(file, "", lambda: root_objects.root_places(file)), name, file)
                layout = _TABLES.of(file, name, lambda: root_objects.layout_of(file, place))
                return LayoutReader(file.reader(), layout)
            return _tar_reader(file, name, scratch)


def _known(file: CheckedFile) -> str:
    """Its kind; from now on the file knows what that kind's library cannot do."""
    kind = _kind(file)
    if kind == "ROOT":
        from streams.events.root import lacks

        file.lacks = lacks
    return kind


def _kind(file: CheckedFile) -> str:
    """By the first bytes. Raises StorageError for what holds no objects."""
    head = file.pread(0, _HEAD_BYTES)
    if head.startswith(b"root"):
        return "ROOT"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if packing_of(head) is not None or _is_tar(head):
        return "tar"
    other = other_packing_of(head)
    if other is not None:
        what = f"{NOT_SUPPORTED}objects of a file that is packed with {other}"
        raise unsupported(what, file.path, "unpack it yourself and register the files")
    if zips.has_table(file):
        return "zip"  # behind a program that unpacks it, or the mark of an archive that could have been split
    end = file.path.rpartition("/")[2]
    for packed in _PACKED_ENDS:
        end = end.removesuffix(packed)
    promised = _ENDS.get(end.rpartition(".")[2].lower())
    seen = f"it begins with {shown(ascii(head[:4])[2:-1])!r}" if head else "it is empty"
    if promised is not None:
        raise damaged(f"not a {promised} file: {seen}", file.path)
    what, then = f"a file that holds no objects: {seen}", "ROOT, zip and tar files do"
    raise StorageError(what, file.path, then, failure_class="permanent")


def _is_tar(head: bytes) -> bool:
    if len(head) == _HEAD_BYTES and not any(head):
        return True  # an archive of nothing: its end mark
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _zip_reader(file: CheckedFile, name: str, scratch: str) -> Reader:
    members = _TABLES.of(file, "", lambda: {member.name: member for member in zips.zip_members(file)})
    member = _named(members, name, file)
    if member.fault is not None:
        raise refused(member.fault, name, file.path)
    if member.method == zips.STORED:
        return Window(file.reader(), zips.data_start(file, member), member.bytes)
    source = file.reader()
    try:
        if member.bytes <= SMALL_BYTES:
            return Window(source, 0, member.bytes, b"".join(zips.unpack(file, member)))
        fd = kept(scratch, (file.path, file.version, name), lambda: zips.unpack(file, member))
        return Window(source, 0, member.bytes, PosixReader(fd, file.path, name))
    except BaseException:
        source.close()
        raise


def _tar_reader(file: CheckedFile, name: str, scratch: str) -> Reader:
    packing = packing_of(file.pread(0, HEAD_BYTES))
    unpacked = None
    if packing is not None:
        # The whole archive, once: nothing in its middle can be reached without what is before.
        fd = kept(scratch, (file.path, file.version, ""), lambda: Unpacked(file, packing).blocks())
        unpacked = PosixReader(fd, file.path, file.path)
    try:
        members = _TABLES.of(file, "", lambda: tars.tar_table(file, unpacked))
        member = _named(members, name, file)
        if member.fault is not None:
            raise refused(member.fault, name, file.path)
        window = Window(file.reader(), member.start, member.stored_bytes, unpacked)
        return window if member.segments is None else Spread(window, member.bytes, member.segments)
    except BaseException:
        if unpacked is not None:
            unpacked.close()
        raise


def _named(members: Mapping[str, Member], name: str, file: CheckedFile) -> Member:
    if name not in members:
        what = f"no object {shown(name)!r}"
        raise StorageError(what, file.path, "list its objects again", failure_class="permanent")
    return members[name]


_TABLES = Tables()
