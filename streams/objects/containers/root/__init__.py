"""ROOT files: each key is an object (objects.py), laid out (layout.py) as a ROOT file of its own.

The records of a file are keys.py's, the baskets of trees trees.py's.
"""

from __future__ import annotations

from streams.events.checked_file import CheckedFile
from streams.objects.containers.container import Container, ContainerFormat
from streams.objects.containers.root.objects import RootObjects


def _begins(head: bytes) -> bool:
    return head.startswith(b"root")


def _container(file: CheckedFile) -> Container:
    from streams.events.formats.root.file import lacks

    file.lacks = lacks
    return RootObjects(file)


FORMAT = ContainerFormat("ROOT", ("root",), _container, _begins)
