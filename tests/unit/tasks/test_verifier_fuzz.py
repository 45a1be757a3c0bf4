"""Mutated answers, sound and hostile, all get a verdict."""

import random
import time

import pytest

from vcppo.settings.task import MathsSettings
from vcppo.tasks.verifier import shared_verifier
from vcppo.types import Judgement, Verdict

SOUND_SEEDS = [
    "\\boxed{204}", "so \\boxed{\\frac{1}{2}}", "\\boxed{\\sqrt{12} + 3x^2}", "\\boxed{[1, 2) \\cup \\{5\\}}",
    "\\boxed{\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}}", "\\boxed{x = 3 \\text{ or } y < 4}", "\\boxed{٢٠٤}",
    "\\boxed{\\binom{10}{3}}", "\\boxed{1\x002}", "\\boxed{12\\%}", "\\\\\\\\{{{}}}", "\\boxed{0.333}", "\\boxed{1e99}",
    "The answer is $\\frac{3}{4}$.", "\\boxed{\\text{Monday}}", "\\boxed{-7}", "\\boxed{(x+1)^2}", "\\boxed{\\pi}",
]  # fmt: skip
HOSTILE_SEEDS = [
    "\\boxed{9^9^9^9}", "\\boxed{9^{9^{9^9}}}", "\\boxed{((10^3)!)!}", "\\boxed{" + "(" * 50 + "1" + ")" * 50 + "}",
    "\\boxed{\\sum_{i=1}^{10^9} i^i}", "\\boxed{\\int_0^1 x^x dx}", "\\boxed{2^{10^9}}", "\\" * 200_000,
]  # fmt: skip
PIECES = [
    "\\frac{", "\\sqrt{", "^", "^{", "}", "{", "(", ")", "\\boxed{", "\\left(", "\\right)", "9", "\\",
    "$", "\x00", "\ud800", "²", "٣", "=", "<",
    "\\cup ", "\\text{", ",", "x", "i", "\\infty", "\\%", "\n", "&", "\\\\", "e", ".",
]  # fmt: skip


def mutated(rng: random.Random) -> str:
    text = rng.choice(HOSTILE_SEEDS if rng.random() < 0.03 else SOUND_SEEDS)
    for _ in range(rng.randint(1, 5)):
        i, j = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        match rng.randrange(6):
            case 0:
                text = text[:i] + rng.choice(PIECES) + text[i:]
            case 1:
                text = text[:i] + text[j:]
            case 2:
                text = text[:j] + text[i:j] * rng.randint(1, 3) + text[j:]
            case 3:
                text = text[:i] + rng.choice(SOUND_SEEDS) + text[j:]
            case 4:
                text = text[:i] + rng.choice(PIECES) * rng.choice([1, 2, 20]) + text[i:]
            case _:
                text = text[:i] + chr(rng.randrange(1, 0x3000)) + text[i + 1 :]
    return text


def judge_mutants(count: int, seed: int, *, time_limit_s: float) -> tuple[list[Judgement], float]:
    from vcppo.tasks.maths import MathsTask
    from vcppo.types import Prompt

    task = MathsTask.__new__(MathsTask)  # what judges needs no problems
    task.settings = MathsSettings(time_limit_s=time_limit_s, memory_limit_mb=256, workers=2, boxed_only=False)
    rng = random.Random(seed)
    texts = [mutated(rng) for _ in range(count)]
    prompts = [Prompt("p", "?", rng.choice(["204", "\\frac{1}{2}", "x^2", "\\{1, 2\\}"])) for _ in texts]
    began = time.perf_counter()
    judgements = task.judge(texts, prompts)
    took = time.perf_counter() - began
    shared_verifier(workers=2, time_limit_s=time_limit_s, memory_limit_mb=256).close()
    return judgements, took


def check(judgements: list[Judgement], count: int) -> None:
    assert len(judgements) == count
    assert all((judgement.verdict is Verdict.UNREADABLE) == bool(judgement.note) for judgement in judgements)
    assert len({judgement.verdict for judgement in judgements}) == 3
    assert sum(judgement.note == "crash" for judgement in judgements) == 0


def test_mutated_answers_all_get_a_verdict() -> None:
    judgements, took = judge_mutants(200, 1, time_limit_s=0.1)
    check(judgements, 200)
    assert took < 60.0


@pytest.mark.long
@pytest.mark.e2e
def test_ten_thousand_mutated_answers_all_get_a_verdict() -> None:
    judgements, took = judge_mutants(10_000, 0, time_limit_s=0.1)
    check(judgements, 10_000)
    assert {"no answer", "not maths", "unprintable", "other digits", "time"} <= {j.note for j in judgements}
    assert took < 600.0
