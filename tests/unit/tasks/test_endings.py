"""Chains that may be ended at any line: where it is right, how demonstrations end, and the exits of the path."""

import itertools
from typing import Any

import pytest
import torch
from decision_paths import chance_of_correct, leaves_at
from scipy.stats import binomtest

from vcppo.settings.chains import EndingsTaskSettings
from vcppo.settings.fixed import SLACK_LINES
from vcppo.settings.loading import load_settings
from vcppo.tasks import make_task
from vcppo.tasks.endings import EndingsTask
from vcppo.types import DecisionPath, Prompt, Verdict


def make(**dials: Any) -> EndingsTask:
    return EndingsTask(EndingsTaskSettings(**{"lines": 10, "held_out": 40, **dials}))


def drawn(task: EndingsTask, count: int) -> list[tuple[Prompt, list[str]]]:
    made = task.demonstrations(count, torch.Generator().manual_seed(0))
    return [(demonstration.prompt, demonstration.response.split()) for demonstration in made]


def ended_at(task: EndingsTask, prompt: Prompt, line: int) -> list[str]:
    chain = task.chain(task.seed_of(prompt))
    return [word for i in range(1, line + 1) for word in (f"#{i}", *chain[i])] + ["=", "<eos>"]


def test_it_is_right_to_end_at_good_lines_and_nowhere_else() -> None:
    """Of 123 the lines are 234, 346, 469, 693: good are those that begin with the one good digit."""
    task = make(lines=5, held_out=5)
    task.good = frozenset("4")
    prompt = task.prompt("123")
    assert prompt.text == "#5 1 2 3 ?"
    verdicts = [task.verify(" ".join(ended_at(task, prompt, line)), prompt) for line in range(5)]
    assert verdicts == [Verdict.WRONG] * 3 + [Verdict.CORRECT, Verdict.WRONG]


def test_what_is_cut_or_broken_is_unreadable_and_wrong_digits_are_wrong() -> None:
    task = make()
    prompt = task.held_out_prompts()[0]
    line = task.good_lines(task.seed_of(prompt))[0]
    words = ended_at(task, prompt, line)
    assert task.verify(" ".join(words), prompt) is Verdict.CORRECT
    for broken in (words[:-2], words[:2] + words[3:], [*words[:-1], "3"], [], ["?", *words]):
        assert task.verify(" ".join(broken), prompt) is Verdict.UNREADABLE, broken
    for wrong in ([words[0], str((int(words[1]) + 1) % 10), *words[2:]], words[4:], ["="]):
        assert task.verify(" ".join(wrong), prompt) is Verdict.WRONG, wrong


def test_demonstrations_end_at_the_hazard_of_each_line_whatever_is_good() -> None:
    task = make(lines=6, end_hazard=0.3)
    numbers = 6 + SLACK_LINES
    made = drawn(task, 4000)
    ends = [sum(word.startswith("#") for word in words) for _, words in made]
    whole = 1 - 0.7**numbers  # the others are drawn anew
    for line in range(1, numbers + 1):
        low, high = binomtest(ends.count(line), len(ends)).proportion_ci(0.9999)
        assert low < 0.3 * 0.7 ** (line - 1) / whole < high
    right = sum(task.verify(" ".join(words), prompt) is Verdict.CORRECT for prompt, words in made)
    low, high = binomtest(right, len(made)).proportion_ci(0.999)
    assert low < task.demonstrations_right < high


def test_unless_told_otherwise_a_tenth_of_the_demonstrations_is_right() -> None:
    for contexts in (10, 100):
        assert EndingsTask(EndingsTaskSettings(contexts=contexts)).demonstrations_right == pytest.approx(0.1, abs=0.02)


def test_a_response_that_never_ends_is_cut_at_the_end_of_the_last_line() -> None:
    for dials in ({}, {"fillers": 2}):
        task = make(**dials)
        assert task.max_tokens == 10 * task.settings.line_tokens
        assert task.settings.response_tokens == 9 * task.settings.line_tokens + 2
        assert len(task.tokenizer()) == task.settings.vocabulary
        assert max(task.good_lines(task.seed_of(prompt))[-1] for prompt in task.held_out_prompts()) <= 9


@pytest.mark.parametrize("dials", [{}, {"fillers": 2}, {"digits": 3, "contexts": 100, "good": 0.3}], ids=str)
def test_the_path_and_the_verifier_agree_on_every_response_of_two_lines(dials: dict[str, Any]) -> None:
    """Of three lines, the last of which is the limit; at each place the right word, another, or an end."""
    task = make(**{"lines": 3, "digits": 2, "held_out": 4, "good": 0.4} | dials)
    width = task.settings.line_tokens
    for prompt in task.held_out_prompts()[:2]:
        good, right = task.good_lines(task.seed_of(prompt)), set()
        way = [*task.way_of(task.chain(task.seed_of(prompt))[1:4])[0]]
        swap = {"~1": "~2", "~2": "~1", "7": "8"}
        choices = [{word, swap.get(word, "7"), "="} for word in way[: 2 * width]]
        for length in range(2 * width + 1):
            for start in itertools.product(*choices[:length]):
                if "=" in start[:-1]:
                    continue
                for pieces in ([*start], [*start, "<eos>"], [*start, "=", "<eos>"]):
                    path = task.decision_path(prompt, pieces)
                    correct = pieces[-1:] == ["<eos>"] and task.verify(" ".join(pieces), prompt) is Verdict.CORRECT
                    assert chance_of_correct(path, pieces) == correct, pieces
                    assert path.written == leaves_at(path, pieces)
                    right |= {tuple(pieces)} if correct else set()
        fillers = 2 if task.fillers else 1
        assert len(right) == sum(fillers**line for line in good)


def test_the_branch_that_was_taken_says_how_far_it_was_followed() -> None:
    task = make()
    prompt = next(p for p in task.held_out_prompts() if len(task.good_lines(task.seed_of(p))) > 1)
    first, *_ = task.good_lines(task.seed_of(prompt))
    words, place = ended_at(task, prompt, first), 4 * first
    for pieces, followed in ((words, 1), (words[:-1], 0), (words[:-2], 0)):
        branch = task.decision_path(prompt, pieces).exits[place]["="]
        assert branch == DecisionPath(("<eos>",), followed)


def test_its_settings_make_the_task() -> None:
    assert isinstance(make_task(load_settings(assignments=["task.name=endings"]).task), EndingsTask)
