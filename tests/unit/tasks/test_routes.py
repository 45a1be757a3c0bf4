"""A short way that cannot be learnt or a long one that can: demonstrations, verdicts, and the path of decisions."""

import itertools
from typing import Any

import pytest
import torch
from decision_paths import chance_of_correct, leaves_at
from scipy.stats import binomtest

from vcppo.errors import ConfigError
from vcppo.settings.chains import RoutesTaskSettings
from vcppo.settings.loading import load_settings
from vcppo.tasks import make_task
from vcppo.tasks.routes import RoutesTask
from vcppo.types import Prompt, Verdict


def make(**dials: Any) -> RoutesTask:
    return RoutesTask(RoutesTaskSettings(**{"lines": 5, "held_out": 40, **dials}))


def drawn(task: RoutesTask, count: int) -> list[tuple[Prompt, list[str]]]:
    made = task.demonstrations(count, torch.Generator().manual_seed(0))
    return [(demonstration.prompt, demonstration.response.split()) for demonstration in made]


def right(task: RoutesTask, prompt: Prompt, words: list[str]) -> bool:
    return task.verify(" ".join(words), prompt) is Verdict.CORRECT


def within(count: int, of: int, share: float) -> bool:
    low, high = binomtest(count, of).proportion_ci(0.999)
    return bool(low < share < high)


def test_both_ways_by_pencil() -> None:
    """Of 123 the lines are 234, 346, 469; 456 is salt."""
    task = make(lines=3)
    prompt = task.prompt("123", "456")
    assert prompt.text == "#3 1 2 3 4 5 6 ?"
    long = ["L", "#1", "2", "3", "4", "#2", "3", "4", "6", "#3", "4", "6", "9", "=", "4", "6", "9", "<eos>"]
    assert right(task, prompt, long)
    assert not right(task, prompt, ["L", "#1", "2", "3", "4", "#2", "3", "4", "6", "=", "3", "4", "6", "<eos>"])
    short = ["S", "#1", "2", "3", "4", "#2", "3", "4", "6", "="]
    good = [guess for guess in "0123456789" if right(task, prompt, [*short, guess, "<eos>"])]
    assert set(good) == task.good_guesses(prompt)
    assert len(good) == 3


def test_which_guesses_are_right_is_told_by_nothing_but_the_whole_problem() -> None:
    task = make()
    prompts = [task.prompt("123", f"{salt:03d}") for salt in range(1000)]
    for digit in "0123456789":
        assert within(sum(digit in task.good_guesses(prompt) for prompt in prompts), 1000, 0.3)
    same = sum(task.good_guesses(a) == task.good_guesses(b) for a, b in itertools.pairwise(prompts))
    assert within(same, 999, 1 / 120)


def test_demonstrations_take_the_ways_stop_and_guess_as_the_dials_say() -> None:
    task = make(take_short=0.3, early_stop=0.2)
    made = drawn(task, 5000)
    short = [(prompt, words) for prompt, words in made if words[0] == "S"]
    long = [words for _, words in made if words[0] == "L"]
    assert within(len(short), len(made), 0.3)
    assert within(sum(right(task, *one) for one in short), len(short), 0.3)
    for digit in "0123456789":
        assert within(sum(words[-2] == digit for _, words in short), len(short), 0.1)
    lines = [sum(word.startswith("#") for word in words) for words in long]
    for line in range(1, 5):
        assert within(lines.count(line), sum(n >= line for n in lines), 0.2)
    assert all(words[-4:-1] == words[-8:-5] for words in long)  # its last line is the answer, whole or not
    assert {sum(word.startswith("#") for word in words) for _, words in short} == {2}
    assert within(sum(right(task, *one) for one in made), len(made), task.demonstrations_right)
    assert task.demonstrations_right == pytest.approx(0.3 * 0.3 + 0.7 * 0.8**4)


def test_unless_told_otherwise_a_twentieth_of_the_long_demonstrations_is_whole() -> None:
    for lines in (60, 480):
        chosen = RoutesTaskSettings(lines=lines)
        assert (1 - chosen.stop_chance) ** (lines - 1) == pytest.approx(0.05)
        assert RoutesTask(chosen).demonstrations_right == pytest.approx(0.175)
    assert RoutesTaskSettings(lines=474).response_tokens <= 1920 < RoutesTaskSettings(lines=480).response_tokens


def test_a_broken_form_is_unreadable_and_a_readable_untruth_is_wrong() -> None:
    task = make()
    prompt = task.held_out_prompts()[0]
    way = list(task.decision_path(prompt, ["L"]).tokens)
    assert right(task, prompt, way)
    for broken in ([], way[1:], way[:-5], [*way[:-1], "1"], way[:-2], ["L", "L", *way[1:]], ["S", *way[1:]]):
        assert task.verify(" ".join(broken), prompt) is Verdict.UNREADABLE, broken
    for wrong in (way[:17] + way[21:], [*way[:2], str((int(way[2]) + 1) % 10), *way[3:]], ["S", "=", "3"]):
        assert task.verify(" ".join(wrong), prompt) is Verdict.WRONG, wrong


@pytest.mark.parametrize("dials", [{}, {"fillers": 2}, {"good_guesses": 0}, {"good_guesses": 1, "luck": 0.1}], ids=str)
def test_the_path_and_the_verifier_agree_on_every_response_of_two_lines(dials: dict[str, Any]) -> None:
    task = make(**{"lines": 2, "short_lines": 1, "digits": 2, "held_out": 4} | dials)
    luck, rights = task.settings.luck, {"S": 0, "L": 0}
    prompt = task.held_out_prompts()[0]
    for choice in "SL":
        way = task.decision_path(prompt, [choice]).tokens
        assert way[0] == choice
        swap = {"~1": "~2", "~2": "~1", "=": "#1", "<eos>": "=", "S": "L", "L": "S"}
        pairs = [(word, swap.get(word, "7" if word != "7" else "8")) for word in way]
        if choice == "S":
            pairs[-2] = tuple("0123456789")  # type: ignore[assignment]
        for response in itertools.product(*pairs):
            for pieces in ([*response], [*response[:-1]], [*response, "="]):
                path = task.decision_path(prompt, pieces)
                ended = pieces[-1] == "<eos>" and pieces.count("<eos>") == 1
                correct = ended and right(task, prompt, pieces)
                assert chance_of_correct(path, pieces) == (1 - luck if correct else luck), pieces
                assert path.written == leaves_at(path, pieces)
                rights[pieces[0]] += correct
    fillers = 2 if task.fillers else 1
    assert rights == {"S": task.settings.good_guesses * fillers, "L": fillers**2}


def test_the_way_not_taken_is_an_exit_at_the_first_word() -> None:
    task = make()
    prompt = task.held_out_prompts()[0]
    long, short = task.decision_path(prompt, ["L", "#1"]), task.decision_path(prompt, ["S"])
    at_first = task.decision_path(prompt, [])
    assert (long.written, short.written, at_first.written) == (2, 1, 0)
    assert long.exits[0].keys() == {"S"}
    assert short.exits[0].keys() == {"L"}
    assert long.tokens[1:] == short.exits[0]["L"].tokens  # type: ignore[union-attr]
    assert short.tokens[1:] == long.exits[0]["S"].tokens  # type: ignore[union-attr]


def test_tokens_and_lengths_are_what_settings_say_before_anything_is_made() -> None:
    task = make(fillers=2)
    tokenizer = task.tokenizer()
    assert len(tokenizer) == task.settings.vocabulary
    rows = tokenizer([" ".join(words) for _, words in drawn(task, 400)])["input_ids"]
    assert max(map(len, rows)) == task.settings.response_tokens
    assert all(tokenizer.pad_token_id not in row for row in rows)
    prompts = [*task.held_out_prompts(), *task.training_prompts(50, torch.Generator())]
    assert {len(ids) for ids in task.encode(prompts, tokenizer)} == {task.settings.prompt_tokens}
    seeds = {prompt.text.split()[1:4] == task.held_out_prompts()[0].text.split()[1:4] for prompt in prompts[40:]}
    assert seeds == {False}  # a held-out chain is not trained on with another salt


def test_its_settings_make_the_task_and_a_short_way_is_shorter() -> None:
    assert isinstance(make_task(load_settings(assignments=["task.name=routes"]).task), RoutesTask)
    with pytest.raises(ConfigError, match=r"task.short_lines = 2: expected less than task.lines = 2"):
        load_settings(assignments=["task.name=routes", "task.lines=2"])
