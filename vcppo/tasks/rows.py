"""Rows of a table of problems, from a file or the hub, and their cells as text: numbers with the digits they have.

A whole number becomes an integer (5.0 is 5: tables with gaps hold integers as doubles), every other number plain
decimal text, never Python's `5e-05`: of JSON as it was written, of a float32 column the shortest that is unique in
float32, of a column of decimals all its places.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vcppo.errors import DataError, first_line
from vcppo.settings.known_sets import FILES
from vcppo.system.files import open_text

if TYPE_CHECKING:
    import pyarrow as pa

GROUND_TRUTHS = ("ground_truth", "answer", "final_answer", "expected_answer", "gold", "target")
LARGEST = 400  # powers of ten of a number that is written out; a double ends at 308
_E_NOTATION = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]{1,4}")


class Row(NamedTuple):
    """One row of a table, by column."""

    place: str  # its name in messages
    values: Mapping[str, Any]


# ---- cells ----


def reach(values: Mapping[str, Any], column: str) -> Any:
    """Return a column's value, or `a.b` within the column a, which may be JSON text; None if it is not there."""
    if column in values:
        return values[column]
    at: Any = values
    for part in column.split("."):
        at = _from_json(at) if isinstance(at, str) else at
        if not isinstance(at, Mapping) or part not in at:
            return None
        at = at[part]
    return at


def text_cell(row: Row, column: str) -> str:
    """Return a cell as text: a number as plain decimals, of a conversation the last user turn, "" for a missing one.

    Raises:
        DataError: it is neither text nor a number, infinite, or broken Unicode.
    """
    value = reach(row.values, column)
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) and "content" in turn for turn in value):
        user_turns = [turn["content"] for turn in value if turn.get("role", "user") == "user"]
        value = user_turns[-1] if user_turns else None
    return _plain(value, row, column)


def reference_cell(row: Row, column: str) -> str:
    """Return a reference answer as text: the cell, or the only one in a list, an object or JSON text of it.

    `[4]`, `["4"]` and `{"ground_truth": 4}` are 4, as text too. `[1, 2]` as text is an interval, an answer as it is.

    Raises:
        DataError: there are several, or as `text_cell`.
    """
    value = reach(row.values, column)
    while not (layer := _only(value, row, column))[1]:
        value = layer[0]
    return _plain(layer[0], row, column)


def _only(value: Any, row: Row, column: str) -> tuple[Any, bool]:
    """Return (content of one layer of list, object or JSON, False), or (the value, True) where there is no layer."""
    held = _from_json(value) if isinstance(value, str) else value
    if held is not value and not isinstance(held, str) and _is_maths(held):
        return value, True
    if isinstance(held, list):
        if len(held) > 1:
            raise DataError(
                f'{row.place}: "{column}" holds {len(held)} ground truths, {short(held)}; expected one, for nothing '
                'says which of them is meant; an answer of several parts is one text, such as "3, 4"'
            )
        return (held[0] if held else None), False
    if isinstance(held, Mapping):
        names = [name for name in GROUND_TRUTHS if held.get(name) is not None] if len(held) > 1 else list(held)
        if len(names) != 1:
            raise DataError(
                f'{row.place}: "{column}" is an object of {", ".join(map(str, held)) or "nothing"}; expected a single '
                f"ground truth in it, by one of the names {', '.join(GROUND_TRUTHS)}, or task.maths.answer_column = "
                f"{column}.NAME"
            )
        return held[names[0]], False
    return held, True


def _is_maths(held: list[Any] | dict[str, Any]) -> bool:
    """True where a text read as JSON has no quotes in it, and other than one number: an interval, a matrix, a set."""
    leaves: list[Any] = [held]
    while any(isinstance(part, list) for part in leaves):
        leaves = [inner for part in leaves for inner in (part if isinstance(part, list) else [part])]
    return leaves == [{}] or (len(leaves) != 1 and not any(isinstance(part, str | dict) for part in leaves))


def _from_json(text: str) -> Any:
    """The list, object or quoted text that a text is in JSON, else the text: `{1, 2}` and `3` are texts."""
    bare = text.strip()
    if not bare.startswith(("[", "{", '"')):
        return text
    try:
        return json.loads(bare, parse_float=_as_written)
    except (ValueError, RecursionError):
        return text


def _plain(value: Any, row: Row, column: str) -> str:
    if isinstance(value, float):
        value = Decimal(repr(value))
    if value is None or (isinstance(value, Decimal) and value.is_nan()):
        return ""  # tables write NaN where a number is missing
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise DataError(f'{row.place}: "{column}" is {type(value).__name__} {short(value)}; expected text or a number')
    if isinstance(value, Decimal):
        if not value.is_finite() or abs(value.adjusted()) > LARGEST:
            raise DataError(
                f'{row.place}: "{column}" is the number {value:.3g}; expected one between 1e-{LARGEST} and 1e{LARGEST}'
            )
        return _digits(value)
    text = str(value).strip()
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise DataError(
            f'{row.place}: "{column}" holds half a character (a surrogate alone), {short(text)}; expected whole Unicode'
        )
    return text


def plain_number(text: str) -> str:
    """A number in Python's notation as plain decimals, any other text as it is.

    >>> plain_number("5e-05"), plain_number("6.02e3"), plain_number("2e")
    ('0.00005', '6020', '2e')
    """
    if not _E_NOTATION.fullmatch(text) or abs((value := Decimal(text)).adjusted()) > LARGEST:
        return text
    return _digits(value)


def _digits(value: Decimal) -> str:
    """All digits of a finite number, an integer where it is whole."""
    if value == value.to_integral_value():
        return str(int(value))
    return format(value, "f")


def short(value: object) -> str:
    """Shorten a value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- tables ----


def file_rows(path: Path, source: str) -> Iterator[Row]:
    """Yield the rows of a file, by its suffix.

    Raises:
        DataError: it cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{source}: no such file")
    try:
        yield from {".jsonl": _jsonl_rows, ".parquet": _parquet_rows, ".csv": _csv_rows}[path.suffix](path, source)
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{source}: cannot be read ({error})") from None


def _jsonl_rows(path: Path, source: str) -> Iterator[Row]:
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")  # files that were put one after another
            if not line.strip():
                continue
            place = f"{source} line {number}"
            try:
                values = json.loads(line, parse_float=_as_written)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{place}: not valid JSON ({error})") from None
            if not isinstance(values, dict):
                raise DataError(f"{place}: expected an object of columns, found {type(values).__name__}")
            yield Row(place, values)


def _as_written(text: str) -> Decimal:
    """A number of JSON with its digits; beyond all bounds it is infinite."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("Infinity")


def _csv_rows(path: Path, source: str) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with open_text(path, newline="") as file:
        reader = csv.DictReader(file)
        for values in reader:
            place = f"{source} line {reader.line_num}"
            if None in values:
                raise DataError(f"{place}: more cells than the header has columns; a cell with a comma needs quotes")
            yield Row(place, dict(values))


def _parquet_rows(path: Path, source: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = _table_rows(pq.read_table(path))
    except pa.ArrowException as error:
        raise DataError(f"{source}: not a Parquet file ({first_line(error)})") from None
    return (Row(f"{source} row {number}", values) for number, values in enumerate(rows, 1))


def hub_rows(hub: str, config: str | None, split: str, use: str) -> Iterable[Row]:
    """A split of a set on the hub, from the local cache of `datasets` where it is.

    Raises:
        DataError: it cannot be loaded.
    """
    import datasets
    from huggingface_hub import errors

    what = f"{hub}{f' ({config})' if config else ''}, split {split}"
    try:
        datasets.disable_progress_bars()
        rows = datasets.load_dataset(hub, config, split=split)
    except (OSError, ValueError, RuntimeError, errors.HTTPError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"task.maths.{use}: {what} cannot be loaded from the dataset hub ({first_line(error)}); a local "
            f"{', '.join(FILES)} file works without it"
        ) from None
    if isinstance(rows, datasets.Dataset):
        rows = _table_rows(rows.with_format("arrow")[:])  # plain rows would be floats, whatever the column holds
    return [Row(f"{what}, row {number}", values) for number, values in enumerate(rows, 1)]


def _table_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows as Python's objects; float32 and float16 numbers as decimals with the digits of their type."""
    rows: list[dict[str, Any]] = table.to_pylist(maps_as_pydicts="lossy")
    narrow = {field.name: field.type for field in table.schema if _holds_narrow_floats(field.type)}
    return [row | {name: _with_column_digits(row[name], kind) for name, kind in narrow.items()} for row in rows]


def _holds_narrow_floats(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _holds_narrow_floats(kind.value_type)
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return pa.types.is_float32(kind) or pa.types.is_float16(kind) or any(map(_holds_narrow_floats, inner))


def _with_column_digits(value: Any, kind: pa.DataType) -> Any:
    import numpy as np
    import pyarrow as pa

    if value is None:
        return None
    if pa.types.is_dictionary(kind):
        return _with_column_digits(value, kind.value_type)
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return Decimal(str((np.float32 if pa.types.is_float32(kind) else np.float16)(value)))
    if pa.types.is_struct(kind):
        return {field.name: _with_column_digits(value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        return {key: _with_column_digits(part, kind.item_type) for key, part in value.items()}
    if isinstance(value, list) and kind.num_fields == 1:
        return [_with_column_digits(part, kind.field(0).type) for part in value]
    return value
