"""Read a cell as the type that its role has: numbers, token ids, text, messages."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vcppo.diagnosis.dumps.form import Cell, alone
from vcppo.errors import DataError
from vcppo.tasks.rows import short

TRUE = ("true", "correct", "right", "yes", "pass", "passed")
FALSE = ("false", "wrong", "incorrect", "unreadable", "no", "fail", "failed")
LARGEST = 3.4e38  # in size, of float32
CUT = ("length", "max_tokens", "max_length", "truncated")  # reasons to stop


def number(place: str, cell: Cell) -> float:
    """A finite number: also true, a text of either, or the only element of a list.

    Raises:
        DataError: it is none.
    """
    value = alone(cell.value)
    if isinstance(value, str):
        word = value.strip().lower()
        value = 1.0 if word in TRUE else 0.0 if word in FALSE else _parsed(word)
    if not isinstance(value, bool | int | float):
        kind = f"an object of {', '.join(map(str, value))}" if isinstance(value, dict) else short(cell.value)
        hint = f"; name a number in it, as {cell.column}.NAME" if isinstance(value, dict) else ""
        raise DataError(f'{place}: "{cell.column}" is {kind}; expected a number, true or false{hint}')
    result = _float(value)
    if not math.isfinite(result):
        raise DataError(f'{place}: "{cell.column}" is {result}; expected a finite number')
    if abs(result) > LARGEST:
        raise DataError(f'{place}: "{cell.column}" is {result:g}; expected a number of size {LARGEST:g} at most')
    return result


def _parsed(word: str) -> Any:
    try:
        return float(word)
    except ValueError:
        return word


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def numbers(place: str, cell: Cell) -> tuple[float, ...]:
    """A number a token; null is NaN.

    Raises:
        DataError: it is no list of numbers.
    """
    listing = _listing(place, cell, "a list of numbers, one a token")
    outcome = []
    for at, value in enumerate(listing, 1):
        if value is not None and not isinstance(value, bool | int | float):
            raise DataError(f'{place}: "{cell.column}" has {short(value)} at token {at}; expected a number')
        outcome.append(math.nan if value is None else _float(value))
    return tuple(outcome)


def refuse_not_finite(place: str, cell: Cell, row: Sequence[float]) -> None:
    """Refuse NaN, infinity and what is infinite in float32.

    Raises:
        DataError: there is one.
    """
    for at, value in enumerate(row, 1):
        if math.isfinite(value) and abs(value) > LARGEST:
            raise DataError(
                f'{place}: "{cell.column}" is {value:g} at token {at}; expected a number of size {LARGEST:g} at most'
            )
        if not math.isfinite(value):
            raise DataError(f'{place}: "{cell.column}" is {value} at token {at}; expected a finite number')


def token_ids(place: str, cell: Cell) -> tuple[int, ...]:
    """Token ids.

    Raises:
        DataError: it is no list of whole numbers from 0.
    """
    listing = _listing(place, cell, "a list of token ids")
    for at, value in enumerate(listing, 1):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise DataError(f'{place}: "{cell.column}" has {short(value)} at token {at}; expected a token id')
    return tuple(listing)


def mask(place: str, cell: Cell) -> tuple[bool, ...]:
    """Return a flag for each token: True where the policy wrote it.

    Raises:
        DataError: it is no list of 0 and 1, or of true and false.
    """
    listing = _listing(place, cell, "a list of 0 and 1, one a token")
    for at, value in enumerate(listing, 1):
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise DataError(f'{place}: "{cell.column}" has {short(value)} at token {at}; expected 0 or 1')
    return tuple(map(bool, listing))


def _listing(place: str, cell: Cell, wanted: str) -> list[Any]:
    value = _from_json(cell.value)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list):
        raise DataError(f'{place}: "{cell.column}" is {type(value).__name__} {short(value)}; expected {wanted}')
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def text(place: str, cell: Cell) -> str:
    """Text, of whole Unicode: half a character becomes U+FFFD. Of a list of one message, its content.

    Raises:
        DataError: it is no text.
    """
    value = alone(cell.value)
    if isinstance(value, Mapping) and isinstance(value.get("content"), str):
        value = value["content"]
    if not isinstance(value, str):
        raise DataError(f'{place}: "{cell.column}" is {type(value).__name__} {short(value)}; expected text')
    return whole(value)


def whole(value: str) -> str:
    """Text that can be encoded: surrogates in pairs become their character, alone U+FFFD."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def messages(cell: Cell) -> tuple[Mapping[str, Any], ...] | None:
    """A conversation, of JSON text as well; None if it is none."""
    value = _from_json(cell.value)
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(turn, Mapping) and "role" in turn and "content" in turn for turn in value):
        return None
    return tuple({name: _whole_tree(part) for name, part in turn.items() if part is not None} for turn in value)


def _whole_tree(value: Any) -> Any:
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, list):
        return [_whole_tree(part) for part in value]
    if isinstance(value, Mapping):
        return {whole(str(name)): _whole_tree(part) for name, part in value.items()}
    return value


def was_cut(cell: Cell) -> bool | None:
    """True where a response was cut at the length limit, by a truth value or a reason to stop; None if neither says."""
    value = alone(cell.value)
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in (*CUT, *TRUE, "1") else False if word else None
    return bool(value) if isinstance(value, bool | int | float) else None
