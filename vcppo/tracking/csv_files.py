"""CSV files that are replaced all together or not at all."""

import csv
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

Row = dict[str, Any]

FILES = ("runs.csv", "curves.csv", "positions.csv", "calibration.csv", "problems.csv", "truth.csv")


def write_csv_files(destination: Path, files: Mapping[str, tuple[Sequence[str], Iterable[Row]]]) -> list[Path]:
    """Write every file beside its place, then put all in place: all of them, or, after an error, none.

    Those of FILES that are not written now are removed: they are of another export.
    """
    destination.mkdir(parents=True, exist_ok=True)
    stale = [name for name in FILES if name not in files and (destination / name).exists()]
    with tempfile.TemporaryDirectory(prefix=".export-", dir=destination) as folder, ExitStack() as undo:
        new, old = Path(folder, "new"), Path(folder, "old")
        new.mkdir()
        old.mkdir()
        for name, (columns, rows) in files.items():
            (new / name).write_text(as_csv(columns, rows), encoding="utf-8")
        for name in (*files, *stale):
            if (destination / name).exists():
                shutil.copy2(destination / name, old / name)
        for name in (*files, *stale):
            undo.callback(_restore, old / name, destination / name)
            if name in files:
                os.replace(new / name, destination / name)
            else:
                (destination / name).unlink()
        undo.pop_all()
    return [destination / name for name in files]


def as_csv(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Return rows as CSV; a float in its shortest form that reads back the same, what is missing left empty.

    >>> as_csv(("a", "b", "c"), [{"a": 0.1, "b": None, "c": True}])
    'a,b,c\\n0.1,,True\\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _restore(old: Path, place: Path) -> None:
    if old.exists():
        os.replace(old, place)
    else:
        place.unlink(missing_ok=True)
