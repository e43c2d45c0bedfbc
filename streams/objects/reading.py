"""Objects of one file, whatever holds them: which there are, and each as bytes to read at any offset.

    listing = listed("hists.root", ObjectSelection.parse("dir/hpt*,cutflow"))
    with open_object("hists.root", "cutflow", version=listing.version, scratch="unpacked") as reader:
        reader.readinto(0, memoryview(bytearray(reader.stat.bytes)))

The same file gives the same bytes of an object everywhere and always. Which containers there are, and how each is
recognised, is theirs to say: `streams.objects.containers`.
"""

from __future__ import annotations

from streams.core.names import shown
from streams.core.selections.objects import ObjectSelection
from streams.errors import permanent
from streams.events.checked_file import NOT_SUPPORTED, CheckedFile, unsupported
from streams.events.packing import other_packing_of
from streams.objects import containers
from streams.objects.containers.container import HEAD_BYTES, ContainerFormat
from streams.objects.found import Listing, Scan
from streams.objects.limits import damaged
from streams.storage.endpoint import Reader

_PACKED_ENDS = (".gz", ".bz2", ".xz", ".zst")


def listed(path: str, asked: ObjectSelection, *, version: str | None = None) -> Listing:
    """The objects of the file at `path` that are asked for, each read once for its checksum.

    With `version`, only of that one. StorageError: data-bad for a file that is not what it seems, permanent for what
    holds no objects and for a name or glob that nothing matches (it names the nearest). What matches and cannot travel
    is in `refused`.
    """
    with CheckedFile(path, version) as file:
        scan = Scan(asked, path)
        kind = _format(file)
        container = kind.container(file)
        with file.guarded(f"cannot read the {kind.name} file"):
            container.scan(scan)
        file.pread(0, 1)  # is it still that version?
        return scan.listing(file.version)


def open_object(path: str, name: str, *, version: str | None, scratch: str) -> Reader:
    """The bytes of the object `name` as `listed` named it; what must be unpacked first is kept in `scratch`.

    Of a file that changed since, StorageError data-bad, also while it is read.
    """
    with CheckedFile(path, version) as file:
        kind = _format(file)
        container = kind.container(file)
        with file.guarded(f"cannot read the {kind.name} file"):
            return container.reader(name, scratch)


def _format(file: CheckedFile) -> ContainerFormat:
    """By the first bytes, else by the last. Raises StorageError for what holds no objects."""
    head = file.pread(0, HEAD_BYTES)
    for one in containers.FORMATS:
        if one.begins(head):
            return one
    other = other_packing_of(head)
    if other is not None:
        what = f"{NOT_SUPPORTED}objects of a file that is packed with {other}"
        raise unsupported(what, file.path, "unpack it yourself and register the files")
    for one in containers.FORMATS:
        if one.ends_as_one is not None and one.ends_as_one(file):
            return one
    end = file.path.rpartition("/")[2]
    for packed in _PACKED_ENDS:
        end = end.removesuffix(packed)
    end = end.rpartition(".")[2].lower()
    promised = next((one for one in containers.FORMATS if end in one.ends), None)
    seen = f"it begins with {shown(ascii(head[:4])[2:-1])!r}" if head else "it is empty"
    if promised is not None:
        raise damaged(f"not a {promised.name} file: {seen}", file.path)
    names = [one.name for one in containers.FORMATS]
    what, then = f"a file that holds no objects: {seen}", f"{', '.join(names[:-1])} and {names[-1]} files do"
    raise permanent(what, file.path, then)
