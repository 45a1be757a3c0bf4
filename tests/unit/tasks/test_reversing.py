"""examples/plugin_task: nothing is trained on that is measured on, and letters in their place earn credit."""

import torch

from examples.plugin_task.reversing import Reversing, ReversingOptions
from vcppo.types import Judgement, Prompt, Verdict

PROMPT = Prompt("abcd", "abcd?", "dcba")


def test_letters_in_their_place_earn_credit() -> None:
    judged = Reversing(ReversingOptions()).judge(["dcba", "dcb", "dcbaa", "aaaa", "", "ffff"], [PROMPT] * 6)
    assert judged == [
        Judgement(Verdict.CORRECT, credit=1.0),
        Judgement(Verdict.WRONG, credit=0.75),
        Judgement(Verdict.WRONG, credit=0.8),
        Judgement(Verdict.WRONG, credit=0.25),
        Judgement(Verdict.UNREADABLE, "empty"),
        Judgement(Verdict.WRONG, credit=0.0),
    ]


def test_every_word_is_in_one_part() -> None:
    task = Reversing(ReversingOptions(letters=3))
    parts = [task.training_problems(), task.held_out_prompts(), task.held_out_prompts("search")]
    words = [prompt.name for part in parts for prompt in part]
    assert len(words) == len(set(words)) == 6**3
    drawn = task.demonstrations(400, torch.Generator().manual_seed(0))
    early = [len(one.response) < 3 for one in drawn]
    assert 150 < sum(early) < 250
    assert all(one.prompt.answer.startswith(one.response) for one in drawn)
