"""`read_dump`: files of any trainer to a `Dump`, streamed, whole or a sample of prompts."""

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from vcppo.diagnosis.dumps.files import dump_files
from vcppo.diagnosis.dumps.form import ROLES, Form, Notes, Role, listed, named_cells
from vcppo.diagnosis.dumps.forms import FORMS, form_of
from vcppo.diagnosis.dumps.generic import require
from vcppo.diagnosis.dumps.responses import response
from vcppo.diagnosis.dumps.rows import file_rows
from vcppo.diagnosis.responses import Dump, LoggedResponse
from vcppo.errors import ConfigError, DataError
from vcppo.seeding import seed_for
from vcppo.tasks.rows import Row

HELD = 2**30  # bytes of main memory that responses may take unless a limit says how many they are


def read_dump(
    paths: Sequence[Path],
    *,
    form: str | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dump:
    """Read the responses in files and folders.

    Args:
        paths: files, or folders of them; those of a folder in the order of the numbers in their names.
        form: a name of FORMS; None finds it by the columns.
        columns: by role (ROLES), the name of its column, `a.b` for b within a; in place of what the form says.
        limit: responses to keep. Prompts are drawn at random and kept with all their responses until it is reached,
            so that responses to one prompt can be compared; no more than these are ever held. None: all, or as many
            as take a gibibyte of main memory.
        seed: of that draw.
    Raises:
        DataError: a file cannot be read, is of none of the forms, or a row of it is not as it should be.
        ConfigError: there is no such form or role, or the limit is below 1.
    """
    if form is not None and form not in FORMS:
        raise ConfigError(f"form = {form}: expected one of {', '.join(FORMS)}")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit = {limit}: expected 1 or more responses")
    notes = Notes()
    reader = _Reader(form, _roles(columns or {}), notes)
    files = dump_files(paths, notes)
    selected, of = _kept(reader.responses(files), limit, seed)
    if not selected:
        described = "; ".join(notes.described())
        raise DataError(f"{_source(paths)}: no response that can be measured{f' ({described})' if described else ''}")
    if len(selected) < of:
        problems = len({logged.problem for logged in selected})
        why = "" if limit else f"; all would take more than {HELD / 2**30:g} GiB of memory, a limit takes so many"
        line = f"{len(selected)} of {of} responses are read, those to {problems} prompts drawn at random (seed {seed})"
        notes.say(line + why)
    assert reader.name is not None
    return Dump(_source(paths), reader.name, tuple(selected), (*FORMS[reader.name].notes, *notes.described()))


def _roles(columns: Mapping[str, str]) -> dict[Role, str]:
    for role in columns:
        if role not in ROLES:
            raise ConfigError(f"columns: no such role, {role}; expected {', '.join(ROLES)}")
    return {role: columns[role] for role in get_args(Role) if role in columns}


def _source(paths: Sequence[Path]) -> str:
    return listed(paths)


class _Reader:
    """Reads files one after another, all of one form."""

    def __init__(self, form: str | None, columns: Mapping[Role, str], notes: Notes) -> None:
        self.name, self.columns, self.notes = form, columns, notes
        self._chosen, self._first = form is not None, ""  # whether the user named the form; the file that told it

    def responses(self, files: Iterable[Path]) -> Iterator[LoggedResponse]:
        """Yield the responses of all files."""
        before: list[int] = []
        for file in files:
            now: list[int] = []
            for number, row in enumerate(file_rows(file, self.notes), 1):
                form = self._form(file, row, is_first=number == 1)
                if form.repeats:
                    now.append(_print(row))
                    if number <= len(before) and before[number - 1] == now[-1]:
                        self.notes.count("responses left out, the file before told the same in the same row")
                        continue
                yield from self._of_row(form, row, number)
            before = now

    def _form(self, file: Path, row: Row, *, is_first: bool) -> Form:
        if is_first and not self._chosen:
            name = form_of(frozenset(map(str, row.values)))
            if self.name is not None and name != self.name:
                raise DataError(
                    f"{row.place}: of the form {name}, and {self._first} is {self.name}; expected files of one form, "
                    "read the others by themselves or name the form of all"
                )
            self.name, self._first = name, self._first or str(file)
        assert self.name is not None
        form = FORMS[self.name]
        if self.columns and not form.maps_columns:
            raise ConfigError(f"columns: those of the form {self.name} cannot be named, and {file} is of it")
        if not form.fits(frozenset(map(str, row.values))):
            raise DataError(
                f"{row.place}: not of the form {self.name}, it has {listed(row.values)}; expected {form.description}"
            )
        return form

    def _of_row(self, form: Form, row: Row, number: int) -> Iterator[LoggedResponse]:
        named = named_cells(row, self.columns)
        for cells in form.cells(row, self.notes, frozenset(named)):
            cells |= named
            require(row, cells)
            if (made := response(row.place, number, cells, self.notes)) is not None:
                yield made


def _print(row: Row) -> int:
    """A number that is the same for rows with the same content, whatever their step."""
    return hash(json.dumps({k: v for k, v in row.values.items() if k != "step"}, sort_keys=True, default=str))


def _kept(responses: Iterable[LoggedResponse], limit: int | None, seed: int) -> tuple[list[LoggedResponse], int]:
    """The responses to keep, in their order, and how many there were: those to the prompts drawn first.

    Without a limit as many as `HELD` bytes hold.
    """
    heap: list[tuple[int, int, LoggedResponse]] = []  # the last drawn, of it the last response, on top
    count, held = 0, 0
    dropped: tuple[int, int] | None = None  # from here on in the order of the draw nothing is kept
    for count, logged in enumerate(responses, 1):
        entry = (-seed_for(seed, "dump", logged.problem), -count, logged)
        if dropped is not None and entry[:2] < dropped:
            continue
        heapq.heappush(heap, entry)
        held += held_bytes(logged)
        while len(heap) > (limit or (1 if held > HELD else count)):
            problem, number, last = heapq.heappop(heap)
            dropped = problem, number
            held -= held_bytes(last)
    return [logged for _, _, logged in sorted(heap, key=lambda entry: -entry[1])], count


def held_bytes(logged: LoggedResponse) -> int:
    """Main memory that a response takes about, as it is and as tokens that a model reads.

    Python's integers and floats are some 36 and 32 bytes each, and text becomes a token for every four characters.
    """
    numbers = sum(len(column) for column in (logged.values, logged.rewards, logged.logprobs) if column is not None)
    tokens = sum(len(ids) for ids in (logged.prompt_tokens, logged.tokens) if ids is not None)
    return 500 + 36 * tokens + 32 * numbers + 10 * (len(logged.prompt) + len(logged.text or ""))
