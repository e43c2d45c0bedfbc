"""Text files as UTF-8, whatever they are written in, in pieces that begin anywhere a character does.

The encoding is the one that was chosen; nothing is guessed. What the first bytes say of another one is a refusal.
"""

from __future__ import annotations

import codecs

from streams.core.selections.text_format import UTF8
from streams.errors import StorageError, permanent
from streams.events.checked_file import CheckedFile

_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MARK = codecs.BOM_UTF8
_ORDERED = ("utf-16", "utf-32")
"""Their byte order is said by a mark at the beginning."""
_HEAD_BYTES = 4096


class TextFile:
    """A text file from its first character on (`begin`: the byte where it stands). Raises StorageError, permanent."""

    def __init__(self, file: CheckedFile, encoding: str) -> None:
        self._file = file
        self.encoding = encoding
        head = file.pread(0, _HEAD_BYTES)
        mark, marked = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", ""))
        self.begin = len(mark)
        if encoding in _ORDERED and marked.startswith(encoding):
            self.encoding = marked
        elif encoding in _ORDERED:
            what = f"it does not begin with a mark of the byte order, as {encoding} does"
            raise self._refused(what, f"{encoding}-le or {encoding}-be")
        elif encoding != marked:
            self.begin = 0
            if encoding == UTF8 and marked:
                raise self._refused(f"it is no UTF-8: it begins with the mark of {marked}", marked.rpartition("-")[0])
        if self.encoding == UTF8 and head.count(0) * 3 > len(head):
            raise self._refused("it is no UTF-8 text: of its first bytes more than a third are NUL", "utf-16-le")

    def _refused(self, what: str, such: str) -> StorageError:
        return permanent(what, self._file.path, _then(such))

    def read(self, start: int, stop: int) -> bytes:
        """What the bytes `[start, stop)` say, as UTF-8; a character that is cut off by `stop` is left out."""
        raw = self._file.pread(start, stop)
        if self.encoding == UTF8:
            return raw
        decoder = codecs.getincrementaldecoder(self.encoding)()
        try:
            return decoder.decode(raw, stop >= self._file.bytes).encode()
        except UnicodeError as error:
            raise self._wrong(error, start) from error

    def bytes_of(self, text: bytes) -> int:
        """How many bytes of the file say this UTF-8."""
        return len(text) if self.encoding == UTF8 else len(text.decode().encode(self.encoding))

    def check(self, text: bytes, start: int) -> None:
        """Raises StorageError, permanent, for what is not UTF-8 though it should be; `start`: where it stands."""
        if self.encoding != UTF8 or text.isascii():
            return
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise self._wrong(error, start) from None

    def lines_before(self, stop: int, line_end: int = 0x0A) -> int:
        """Line ends before a byte of the file. Reads it from its start."""
        count, at = 0, self.begin
        while at < stop:
            text = self.read(at, min(stop, at + (1 << 20)))
            if not text:
                break
            count += text.count(line_end)
            at += self.bytes_of(text)
        return count

    def _wrong(self, error: UnicodeError, start: int) -> StorageError:
        at = start + (error.start if isinstance(error, UnicodeDecodeError) else 0)
        where = f"byte {at + 1:,}"
        if self.encoding == UTF8:
            where += f", line {self.lines_before(at) + 1:,}"
            what, then = f"it is not UTF-8 at {where}", _then("latin-1")
        else:
            what, then = f"it is not {self.encoding} at {where}", "name the encoding it has"
        return permanent(what, self._file.path, then)


def _then(such: str) -> str:
    return f"say its encoding, as [:];encoding={such}"
