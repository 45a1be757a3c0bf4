"""Answers that are right by construction are rewarded, others are not; and the construction holds what it says."""

import random
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from bench.verify_pairs import KINDS, Pair, ending, pairs
from bench.verify_pairs.sets import Interval
from bench.verify_pairs.writing import fixed, forms, tex
from vcppo.settings.task import MathsSettings
from vcppo.tasks.maths import MathsTask
from vcppo.types import Prompt, Verdict

ROOT = Path(__file__).parents[3]
COUNT = 8 * len(KINDS)
APPROXIMATE = ("roundings", "percentages")  # where other numbers may be the same answer


@pytest.fixture(scope="module")
def judged() -> list[tuple[Pair, Verdict]]:
    made = pairs(seed=7, count=COUNT)
    task = MathsTask(MathsSettings(workers=2, time_limit_s=20))
    found = task.judge([pair.answer for pair in made], [Prompt(pair.kind, "", pair.reference) for pair in made])
    return [(pair, judgement.verdict) for pair, judgement in zip(made, found, strict=True)]


def test_no_other_value_is_rewarded(judged: list[tuple[Pair, Verdict]]) -> None:
    assert [pair for pair, verdict in judged if not pair.equal and verdict is Verdict.CORRECT] == []


def test_the_same_value_is_refused_once_in_a_hundred_at_most(judged: list[tuple[Pair, Verdict]]) -> None:
    refused = [(pair, verdict) for pair, verdict in judged if pair.equal and verdict is not Verdict.CORRECT]
    assert len(refused) <= 0.01 * COUNT / 2, refused


def test_kinds_and_truths_are_balanced_and_no_pair_comes_twice() -> None:
    made = pairs(seed=0, count=40 * len(KINDS))
    assert Counter((pair.kind, pair.equal) for pair in made) == {(k, e): 20 for k in KINDS for e in (True, False)}
    assert len({(pair.reference, pair.answer) for pair in made}) == len(made)


def test_a_seed_says_which_pairs() -> None:
    made = pairs(seed=3, count=60)
    assert made == pairs(seed=3, count=100)[:60]
    assert made != pairs(seed=4, count=60)


def test_a_kind_that_has_no_more_pairs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.verify_pairs.KINDS", {"choices": KINDS["choices"]})
    with pytest.raises(ValueError, match="no more pairs of choices"):
        pairs(seed=0, count=2000)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_as_the_same_and_as_another(kind: str) -> None:
    for seed in range(300):
        case = KINDS[kind](random.Random(seed))
        assert not set(case.other) & {case.reference, *case.same}, case
        assert set(case.same) - {case.reference}, case


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in APPROXIMATE])
def test_what_python_reads_as_a_number_agrees(kind: str) -> None:
    for seed in range(300):
        case = KINDS[kind](random.Random(seed))
        if (wanted := number(case.reference)) is not None:
            assert {number(form) for form in case.same} <= {wanted, None}, case
            assert wanted not in {number(form) for form in case.other}, case


def number(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except ValueError:
        return None


def test_writings_by_pencil() -> None:
    assert forms("@a/@b | \\frac{@a}{@b} | |@x|", a=1, b=2, x="y") == ["1/2", "\\frac{1}{2}", "|y|"]
    assert [fixed(Fraction(2, 3), 3), fixed(Fraction(-1, 8), 2), fixed(Fraction(5, 10**12), 12)] == [
        "0.667",
        "-0.13",
        "0.000000000005",
    ]
    assert [tex(Fraction(-3, 4)), tex(Fraction(8, 4))] == ["-\\frac{3}{4}", "2"]
    assert ending("\\fbox{7}", random.Random(0)) == "The answer is $\\fbox{7}$."


def test_intervals_by_pencil() -> None:
    half_open, ray = Interval(Fraction(1), Fraction(5, 2), True, False), Interval(None, Fraction(3), False, True)
    assert half_open.brackets() == "[1, \\frac{5}{2})"
    assert half_open.inequality("x") == "1 \\le x < \\frac{5}{2}"
    assert half_open.turned("x") == "\\frac{5}{2} > x \\ge 1"
    assert [ray.brackets(), ray.inequality("x"), ray.turned("x")] == ["(-\\infty, 3]", "x \\le 3", "3 \\ge x"]
    assert [miss.brackets() for miss in ray.near_misses()] == ["(-\\infty, 3)", "(-\\infty, 4]", "[3, \\infty)"]


@pytest.mark.e2e
def test_the_bench_says_what_it_found_and_fails_where_the_bar_is_missed() -> None:
    command = [sys.executable, "-m", "bench.bench_verify", "--pairs", "26", "--ours-only", "--failures"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == ("MISSED" in found.stdout), found.stderr
    assert "of 13: " in found.stdout.partition("false rewards")[2].partition("false refusals")[0]
    assert "of 13: " in found.stdout.partition("false refusals")[2]
    assert len([line for line in found.stdout.splitlines() if line.startswith("integers")]) == 1
