"""Text files that people wrote: UTF-8, with a byte order mark or without one."""

import codecs
from pathlib import Path
from typing import TextIO

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32 LE begins as UTF-16 LE does


def open_text(path: Path, *, newline: str | None = None) -> TextIO:
    """An open file, past its byte order mark.

    Raises:
        UnicodeError: it is UTF-16 or UTF-32, as some spreadsheets and shells write.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(_WIDE) or b"\0" in head:
        raise UnicodeError("it is UTF-16, UTF-32 or no text; expected UTF-8: save it again as UTF-8")
    return open(path, encoding="utf-8-sig", newline=newline)


def read_text(path: Path) -> str:
    """All of a file.

    Raises:
        UnicodeError: as `open_text`, or it is not UTF-8.
    """
    with open_text(path) as file:
        return file.read()
