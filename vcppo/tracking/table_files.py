"""Tables as files, CSV or Parquet by their names, that are replaced all together or not at all."""

import csv
import io
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vcppo.system import disk
from vcppo.system.files import scratch_folder, sync, sync_tree

Row = dict[str, Any]

# Of an export; curves, positions and problems were CSV in earlier versions.
FILES = (
    *("runs.csv", "curves.parquet", "curves.csv", "positions.parquet", "positions.csv"),
    *("calibration.csv", "problems.parquet", "problems.csv", "truth.csv"),
)
KINDS: Mapping[str, Any] = {  # of the columns of a Parquet file; those of others are text
    **dict.fromkeys(("base_seed", "seed", "step", "n", "position", "samples", "correct", "unreadable"), pa.int64()),
    **dict.fromkeys(
        ("value", "value_mean", "return_mean", "value_bias", "explained_variance", "advantage_mean", "length_tokens"),
        pa.float32(),
    ),
    "from_end": pa.bool_(),
}
ROWS_AT_ONCE = 2**17  # rows that are in memory, and in a row group


def write_files(destination: Path, files: Mapping[str, tuple[Sequence[str], Iterable[Row]]]) -> list[Path]:
    """Write every file beside its place, then put all in place: all of them, or, after an error, none.

    Those of FILES that are not written now are removed: they are of another export.

    Raises:
        DiskError: the disk is full, or refuses.
    """
    stale = [name for name in FILES if name not in files and (destination / name).exists()]
    with disk.writing(destination), scratch_folder(destination) as folder, ExitStack() as undo:
        new, old = folder / "new", folder / "old"
        new.mkdir()
        old.mkdir()
        for name, (columns, rows) in files.items():
            if name.endswith(".parquet"):
                write_parquet(new / name, columns, rows)
            else:
                (new / name).write_text(as_csv(columns, rows), encoding="utf-8")
        for name in (*files, *stale):
            if (destination / name).exists():
                shutil.copy2(destination / name, old / name)
        sync_tree(new)
        for name in (*files, *stale):
            undo.callback(_restore, old / name, destination / name)
            if name in files:
                os.replace(new / name, destination / name)
            else:
                (destination / name).unlink()
        sync(destination)
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


def write_parquet(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows as Parquet, compressed by zstd, a number in 32 bits (seven digits), what is missing as null.

    A table of 200 runs, 50 iterations and 60 metrics takes a few megabytes, against a hundred as CSV. The same rows
    give the same bytes with one version of pyarrow.
    """
    schema = pa.schema([(name, KINDS.get(name, pa.string())) for name in columns])
    left = iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=9) as writer:
        while chunk := list(islice(left, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))


def _restore(old: Path, place: Path) -> None:
    if old.exists():
        os.replace(old, place)
    else:
        place.unlink(missing_ok=True)
