"""A dump that is larger than what may be held: some prompts of it, and a note that says so."""

import json
from pathlib import Path

import pytest

from vcppo.diagnosis.dumps import reading
from vcppo.diagnosis.dumps.reading import held_bytes, read_dump
from vcppo.diagnosis.responses import LoggedResponse
from vcppo.seeding import seed_for


def dump(folder: Path, count: int = 300, *, each: int = 3) -> Path:
    file = folder / "large.jsonl"
    rows = (
        {"prompt": f"question {i // each}", "response": "word " * (20 + 200 * (i % 7 == 0)), "score": i % 2}
        for i in range(count)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_what_may_be_held_bounds_a_dump_without_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = dump(tmp_path)
    whole = read_dump([file]).responses
    assert len(whole) == 300
    some = sum(map(held_bytes, whole)) // 4
    monkeypatch.setattr(reading, "HELD", some)
    part = read_dump([file])
    assert 40 <= len(part.responses) <= 110
    assert sum(map(held_bytes, part.responses)) <= some
    assert list(part.responses) == [one for one in whole if one in set(part.responses)], "in their order"
    sizes = [sum(one.problem == name for one in part.responses) for name in {one.problem for one in part.responses}]
    assert sorted(sizes)[1:] == [3] * (len(sizes) - 1), "prompts with all their responses, but for the last one"
    (note,) = [note for note in part.notes if "drawn at random" in note]
    assert note.startswith(f"{len(part.responses)} of 300 responses are read, those to {len(sizes)} prompts")
    assert note.endswith("GiB of memory, a limit takes so many")
    assert part == read_dump([file])
    assert len(read_dump([file], limit=200).responses) == 200, "a limit counts for itself"


def test_no_more_is_held_at_once_while_a_dump_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, alive = dump(tmp_path), []
    monkeypatch.setattr(reading, "HELD", 40_000)
    sizes = reading.held_bytes

    def counted(logged: LoggedResponse) -> int:
        alive.append(sizes(logged))
        return alive[-1]

    monkeypatch.setattr(reading, "held_bytes", counted)
    part = read_dump([file]).responses
    assert sum(map(sizes, part)) <= 40_000 < sum(map(sizes, part)) + 2 * max(alive)


def test_a_small_response_does_not_take_the_place_of_a_large_one_that_was_drawn_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "three.jsonl"

    def write(lengths: dict[str, int]) -> Path:
        rows = [{"prompt": name, "response": "x" * length, "score": 1} for name, length in lengths.items()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return file

    whole = read_dump([write(dict.fromkeys("abc", 1))]).responses
    first, second, third = sorted(whole, key=lambda one: seed_for(0, "dump", one.problem))
    write({first.prompt: 350, second.prompt: 750, third.prompt: 50})
    monkeypatch.setattr(reading, "HELD", 10_000)
    assert [one.prompt for one in read_dump([file]).responses] == [first.prompt]


def test_what_is_held_counts_ids_numbers_and_text() -> None:
    one = LoggedResponse(problem="p", score=1.0, prompt="ab", text="abcd", tokens=(1, 2), values=(0.1, 0.2))
    assert held_bytes(one) == 500 + 2 * 36 + 2 * 32 + 10 * 6
