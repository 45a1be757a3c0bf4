"""A stage's journal: its metrics and tables, one JSON record per line, on disk before anything else reads them.

The trainer writes here and nowhere else; `tracking` uploads from here to MLflow, so a run neither waits for a
server nor loses a number to one. Records are counted: a resumed stage cuts its journal back to the count its
checkpoint knew, and writes the same records again. A checkpoint counts records that have been synced: after a power cut
they are there, and what came after them may be anything.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcppo.errors import DataError
from vcppo.system import disk
from vcppo.system.files import make_folder, sync
from vcppo.system.redaction import redacted_values


class Journal:
    """Append-only writer; on opening it drops a torn last line (the process was killed in it), and what is no record.

    Args:
        silent: nothing is written or cut; of several processes with the same records one writes.
    """

    def __init__(self, path: Path, *, silent: bool = False) -> None:
        self.path, self.silent, self.count = path, silent, 0
        if silent:
            return
        make_folder(path.parent)
        self.truncate(_whole_records(path))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars of one step; a NaN or an infinity is written as null."""
        clean = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        self._write({"kind": "metrics", "step": step, "time": time.time(), "values": clean})

    def table(self, name: str, step: int, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write a table, of columns of equal length.

        Raises:
            DataError: they are not.
        """
        lengths = sorted({len(cells) for cells in columns.values()})
        if len(lengths) > 1:
            raise DataError(f"table {name} at step {step}: columns of {' and '.join(map(str, lengths))} cells")
        clean = {column: [_finite(cell) for cell in cells] for column, cells in columns.items()}
        self._write({"kind": "table", "name": name, "step": step, "time": time.time(), "columns": clean})

    def sync(self) -> int:
        """Have all records on the disk, for a checkpoint that counts them; return their number."""
        if not self.silent and self.path.exists():
            with disk.writing(self.path):
                sync(self.path)
                sync(self.path.parent)
        return self.count

    def truncate(self, count: int) -> None:
        """Keep the first `count` records, drop what follows.

        Raises:
            DataError: it has fewer.
        """
        if self.silent:
            return
        lines = self.path.read_bytes().splitlines(keepends=True)[:count] if self.path.exists() else []
        if len(lines) < count:
            raise DataError(f"{self.path}: {len(lines)} records, the checkpoint beside it knows of {count}")
        with open(self.path, "ab") as file:
            file.truncate(sum(map(len, lines)))
        self.count = count

    def _write(self, record: Mapping[str, Any]) -> None:
        if self.silent:
            return
        line = json.dumps(redacted_values(record), allow_nan=False, separators=(",", ":")) + "\n"
        with disk.writing(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(line)
        self.count += 1


def _whole_records(path: Path) -> int:
    """Count the records before the first line that is none."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines):
        try:
            json.loads(line)
        except ValueError:
            return number
    return len(lines)


def read_journal(path: Path, start: int = 0) -> list[dict[str, Any]]:
    """Read the records from number `start` on; a torn last line is left out, a missing file has none.

    Raises:
        DataError: a line in the middle is not a record.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
    records = []
    for number, line in enumerate(lines[start:], start + 1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise DataError(f"{path} line {number}: not a journal record") from None
    return records


class JournalTail:
    """Reads what a journal gained since the last look; starts over when a resumed stage has cut it back.

    Attributes:
        restarts: how often that was.
        unreadable: whether the last look met a line that is no record.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.restarts, self.unreadable = path, 0, False
        self._offset, self._last = 0, b""  # the last line that was read ends at the offset

    def read(self) -> list[dict[str, Any]]:
        """Read the whole records that are new; records of steps seen before may come again, with the same values."""
        if not self.path.exists():
            self._start_over()
            return []
        with open(self.path, "rb") as file:
            file.seek(self._offset - len(self._last))
            content = file.read()
            if not content.startswith(self._last):
                self._start_over()
                file.seek(0)
                content = file.read()
        whole = content[len(self._last) : content.rfind(b"\n") + 1]
        lines = whole.splitlines(keepends=True)
        try:
            records = [json.loads(line) for line in lines]
        except ValueError:
            self._start_over()
            self.unreadable = True
            return []
        self._offset, self._last = self._offset + len(whole), lines[-1] if lines else self._last
        self.unreadable = False
        return records

    def _start_over(self) -> None:
        self.restarts += bool(self._offset)
        self._offset, self._last = 0, b""


def _finite(cell: Any) -> Any:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
