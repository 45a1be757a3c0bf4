"""Rows of a file, one after another: JSON Lines, JSON, either of them in gzip, and Parquet.

A file is streamed: a row is held while it is read, with one piece of a JSON file around it, of Parquet with one page of
each column. A file whose end is cut off gives the rows before the cut and a note; any other row that cannot be read is
an error. Of JSON text these are read: an object a line, a list of objects, objects one after another, and the tables
that wandb keeps under `media/table` (`{"columns": [...], "data": [[...], ...]}`).
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from io import BufferedReader
from pathlib import Path
from typing import Any

from vcppo.diagnosis.dumps.files import GZIP, PARQUET, refuse_pickles
from vcppo.diagnosis.dumps.form import Notes
from vcppo.errors import DataError, first_line
from vcppo.system.files import WIDE_MARKS
from vcppo.tasks.rows import Row

_Bytes = BufferedReader | gzip.GzipFile
LONGEST = 1 << 28  # characters of a row; beyond it something else than rows was given
_PIECE = 1 << 20
_PARQUET_ROWS = 64  # at once
_SPACES = re.compile(r"[ \t\r\n]*")


def file_rows(path: Path, notes: Notes) -> Iterator[Row]:
    """Yield the rows of a file, by what it begins with.

    Raises:
        DataError: it cannot be read, is empty or broken, or is one of those that run code when they are read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(8)
        refuse_pickles(path, head)
        if not head:
            raise DataError(f"{path}: an empty file; expected responses")
        if head.startswith(PARQUET) or path.suffix.lower() == ".parquet":
            rows = _parquet_rows(path)
        else:
            rows = _text_rows(path, notes, zipped=head.startswith(GZIP))
        result = False
        for row in rows:
            result = True
            yield row
    except (OSError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)})") from None
    if not result:
        raise DataError(f"{path}: no rows; expected responses")


# ---- text ----


def _text_rows(path: Path, notes: Notes, *, zipped: bool) -> Iterator[Row]:
    with open(path, "rb") as raw, gzip.GzipFile(fileobj=raw) if zipped else nullcontext(raw) as file:
        start = _piece(file, 1 << 16)
        _refuse_other_text(path, start)
        file.seek(0)
        is_lines = not start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[") and not _spans_lines(start)
        yield from (_line_rows if is_lines else _value_rows)(path, file, notes)


def _piece(file: _Bytes, size: int) -> bytes:
    """Up to `size` bytes; none at the end, also of gzip that was cut."""
    try:
        return file.read1(size)
    except EOFError:
        return b""


def _refuse_other_text(path: Path, start: bytes) -> None:
    if start.startswith(WIDE_MARKS):
        raise DataError(f"{path}: UTF-16 or UTF-32; expected UTF-8, save it again as UTF-8")
    if b"\0" in start:
        raise DataError(f"{path}: no text; expected JSON Lines, JSON or Parquet")


def _spans_lines(start: bytes) -> bool:
    """True where the first line is no whole JSON value, as of an object that is written over several lines."""
    line, newline, _ = start.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")
    if not newline:
        return False
    return line.strip() == b"{" or (line.startswith(b"{") and line.rstrip().endswith((b"[", b",")))


def _line_rows(path: Path, file: _Bytes, notes: Notes) -> Iterator[Row]:
    number, good = 0, 0
    while True:
        try:
            line = file.readline(LONGEST)
        except EOFError:  # gzip that ends before its end
            _cut(path, good, notes)
            return
        if not line:
            return
        number += 1
        place = f"{path} line {number}"
        if len(line) >= LONGEST:
            raise DataError(f"{place}: longer than {LONGEST >> 20} MB; expected a response a line")
        line = line.removeprefix(codecs.BOM_UTF8)  # also of files that were put one after another
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not line.endswith(b"\n") and _is_cut(line, error):
                _cut(path, good, notes)
                return
            raise DataError(f"{place}: not valid JSON ({first_line(error)})") from None
        for row in _opened(place, value):
            good += 1
            yield row


def _is_cut(line: bytes, error: Exception) -> bool:
    """True where an object cannot be read because its end is missing, if need be half of its last character."""
    if not line.lstrip().startswith(b"{"):
        return False
    if isinstance(error, UnicodeDecodeError):
        return error.reason == "unexpected end of data"
    return isinstance(error, json.JSONDecodeError) and _at_end(error, error.doc)


def _cut(path: Path, good: int, notes: Notes) -> None:
    """Say that the file ends before its end.

    Raises:
        DataError: before its first row ends.
    """
    if not good:
        raise DataError(f"{path}: cut off within its first row; expected whole rows")
    notes.say(f"{path}: cut off after row {good}; what followed is lost")


def _value_rows(path: Path, file: _Bytes, notes: Notes) -> Iterator[Row]:
    """Yield the elements of a list, or values one after another, reading a piece of the file at a time."""
    scan, good, is_list = _Scan(path, file), 0, False
    if scan.next_character() == "[":
        is_list = True
        scan.at += 1
    while (character := scan.next_character()) not in ("", "]"):
        if character == "," and is_list and good:
            scan.at += 1
            if scan.next_character() == "":
                break
        place = f"{path} line {scan.line}"
        value, whole = scan.value(place)
        if not whole:
            _cut(path, good, notes)
            return
        for row in _opened(place, value):
            good += 1
            yield row
    if is_list and character == "]":
        scan.at += 1
        if scan.next_character():
            raise DataError(f"{path} line {scan.line}: more after the end of the list; expected one list of responses")
    elif is_list:
        _cut(path, good, notes)


class _Scan:
    """A cursor on JSON text of which only the piece around it is held."""

    def __init__(self, path: Path, file: _Bytes) -> None:
        self.path, self.file, self.text, self.at, self.line = path, file, "", 0, 1
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._parse = json.JSONDecoder().raw_decode

    def next_character(self) -> str:
        """The next character that is no space, where the cursor moves to; "" at the end."""
        while True:
            end = _SPACES.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches nothing as well
            self.line += self.text.count("\n", self.at, end)
            self.at = end
            if end < len(self.text):
                return self.text[end]
            if not self._read(_PIECE):
                return ""

    def value(self, place: str) -> tuple[Any, bool]:
        """The value at the cursor, which moves past it, and True; or (None, False) if the file ends within it."""
        while True:
            try:
                value, end = self._parse(self.text, self.at)
            except json.JSONDecodeError as error:
                held = len(self.text) - self.at
                if not _at_end(error, self.text):
                    raise DataError(f"{place}: not valid JSON ({first_line(error)})") from None
                if held >= LONGEST:
                    raise DataError(f"{place}: longer than {LONGEST >> 20} MB; expected a response a row") from None
                if not self._read(max(_PIECE, held)):
                    return None, False
            except (ValueError, RecursionError) as error:
                raise DataError(f"{place}: not valid JSON ({first_line(error)})") from None
            else:
                self.line += self.text.count("\n", self.at, end)
                self.at = end
                return value, True

    def _read(self, size: int) -> bool:
        piece = _piece(self.file, size)
        try:
            text = self._decode.decode(piece)
        except UnicodeDecodeError:
            raise DataError(f"{self.path} line {self.line}: no UTF-8 text; expected JSON") from None
        self.text, self.at = self.text[self.at :] + text, 0
        return bool(piece)


def _at_end(error: json.JSONDecodeError, text: str) -> bool:
    """True where a parser stopped because the text did: at its end, or in a string or word that the end cuts."""
    return error.msg.startswith("Unterminated string") or len(text) - error.pos <= 9


def _opened(place: str, value: Any) -> Iterator[Row]:
    """The rows of one JSON value: an object, or the objects in a table of wandb or in `samples`."""
    if not isinstance(value, dict):
        raise DataError(f"{place}: expected an object of columns, found {type(value).__name__}")
    columns, data, samples = value.get("columns"), value.get("data"), value.get("samples")
    if isinstance(columns, list) and isinstance(data, list):
        for number, cells in enumerate(data, 1):
            if not isinstance(cells, list) or len(cells) != len(columns):
                raise DataError(f"{place}, row {number} of its table: expected a list of {len(columns)} cells")
            yield Row(f"{place}, row {number} of its table", dict(zip(map(str, columns), cells, strict=True)))
    elif isinstance(samples, list) and "rollout_id" in value:  # slime's payload as JSON
        for number, sample in enumerate(samples, 1):
            yield from _opened(f"{place}, sample {number}", sample)
    else:
        yield Row(place, value)


# ---- Parquet ----


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, buffer_size=_PIECE, pre_buffer=False) as file:  # a column in pieces
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for values in batch.to_pylist(maps_as_pydicts="lossy"):
                    number += 1
                    yield Row(f"{path} row {number}", values)
    except (pa.ArrowException, ValueError, OverflowError) as error:  # text that is no UTF-8, dates out of range
        where = f"{path}: not a whole Parquet file" if not number else f"{path} row {number + 1}: broken"
        raise DataError(f"{where} ({first_line(error)})") from None
