"""What a consumer made of its entries and the position behind them, stored in one step: no entry counts twice.

    checkpoint = Checkpoint("zpeak.dat")
    position, content = checkpoint.read()
    with EventStream(intent, position=position) as stream:
        for batch in stream:
            ...
            checkpoint.write(batch.position, content)

A write replaces the file whole: a crash leaves the old one or the new one.
"""

from __future__ import annotations

import json
import os
import tempfile

from streams.errors import data_bad
from streams.storage import oserrors
from streams.storage.checksums import crc32c
from streams.storage.writeback import sync_name


class Checkpoint:
    """The file at `path`: a line of JSON (position, bytes, crc32c), then the content as it was given."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def read(self) -> tuple[str | None, bytes]:
        """(position, content) as last written; (None, b"") when never. StorageError, data-bad, for a damaged file."""
        try:
            with open(self.path, "rb") as file:
                head, content = file.readline(), file.read()
        except FileNotFoundError:
            return None, b""
        except OSError as error:
            raise oserrors.reading(error, self.path) from error
        try:
            told = json.loads(head)
            position, sound = str(told["position"]), (told["bytes"], told["crc32c"]) == (len(content), crc32c(content))
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise data_bad("not a checkpoint, or a damaged one", self.path, "move it away")
        return position, content

    def write(self, position: str, content: bytes) -> None:
        """Durable when it returns."""
        head = json.dumps({"position": position, "bytes": len(content), "crc32c": crc32c(content)})
        try:
            fd, name = tempfile.mkstemp(prefix=".t2g-", dir=os.path.dirname(self.path))
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(head.encode() + b"\n" + content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self.path)
            except BaseException:
                os.unlink(name)
                raise
            sync_name(self.path)
        except OSError as error:
            raise oserrors.writing(error, self.path) from error
