"""Form of a dump: how it is recognised, and which cell of a row has which role."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from vcppo.errors import DataError
from vcppo.tasks.rows import Row, reach, short

Role = Literal[
    "prompt", "prompt_tokens", "response", "tokens", "score", "values", "rewards", "response_mask", "logprobs",
    "truncated", "step", "problem",
]  # fmt: skip
ROLES: Mapping[Role, str] = {
    "prompt": "text, or a list of chat messages",
    "prompt_tokens": "its token ids",
    "response": "text",
    "tokens": "its token ids, the end-of-sequence token included",
    "score": "a number, true or false",
    "values": "a number a token: V before it is chosen",
    "rewards": "a number a token",
    "response_mask": "1 or true on tokens that the policy wrote",
    "logprobs": "a number a token, nats",
    "truncated": "true or false, or a reason to stop such as length",
    "step": "of training",
    "problem": "a name that is equal for responses to the same prompt; by default the prompt itself",
}


class Cell(NamedTuple):
    """A cell of a row, and the column that it came from, for messages."""

    column: str
    value: Any


Cells = dict[Role, Cell]


@dataclass
class Notes:
    """Notes on how files were read: each line once, events as counts."""

    lines: dict[str, None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    tokens_outside: int = 0  # written by the policy, and not part of the stretches that are measured

    def say(self, line: str) -> None:
        """Say it, once."""
        self.lines[line] = None

    def count(self, event: str, times: int = 1) -> None:
        """Count an event that is told as `EVENT: N`."""
        self.counts[event] += times

    def described(self) -> tuple[str, ...]:
        """All of them."""
        counted = (f"{event}: {times}" for event, times in self.counts.items())
        outside = (f"tokens that the policy wrote before those stretches, left out: {self.tokens_outside}",)
        return (*self.lines, *counted, *(outside if self.tokens_outside else ()))


@dataclass(frozen=True)
class Form:
    """One trainer's way of logging responses."""

    description: str  # one line, for help
    fits: Callable[[frozenset[str]], bool]  # whether rows with these columns are of this form
    cells: Callable[[Row, Notes, frozenset[Role]], Iterable[Cells]]  # of each response in a row; roles the user named
    notes: tuple[str, ...] = ()  # what is true of every dump of this form
    maps_columns: bool = True  # a row is one response, so that columns can be named by the user
    repeats: bool = False  # a file may tell again, row by row, what the file before it told


def has(*columns: str) -> Callable[[frozenset[str]], bool]:
    """A test for rows that have all of these columns."""
    return lambda there: there.issuperset(columns)


def cells_of(row: Row, columns: Mapping[Role, str]) -> Cells:
    """The cells of these columns, those that are there; `a.b` reaches into the column a."""
    result = {role: Cell(column, reach(row.values, column)) for role, column in columns.items()}
    return {role: cell for role, cell in result.items() if cell.value is not None}


def named_cells(row: Row, columns: Mapping[Role, str]) -> Cells:
    """As `cells_of`, of columns that the user has named.

    Raises:
        DataError: the row has no such column.
    """
    result = cells_of(row, columns)
    for role, column in columns.items():
        if role not in result:
            raise DataError(f"{row.place}: no column {column}, named as the {role}; it has {listed(row.values)}")
    return result


def alone(value: Any) -> Any:
    """The only element of a list of one, else the value."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def listed(names: Iterable[object]) -> str:
    """Names of columns in a message, the first twenty."""
    texts = [str(name) for name in names]
    return (", ".join(texts[:20]) + (f" and {len(texts) - 20} more" if len(texts) > 20 else "")) or "none"


def items(row: Row, cell: Cell) -> list[Any]:
    """A cell that must be a list.

    Raises:
        DataError: it is none.
    """
    if not isinstance(cell.value, list):
        raise DataError(f'{row.place}: "{cell.column}" is {short(cell.value)}; expected a list')
    return cell.value
