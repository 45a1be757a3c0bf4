"""The embedded task: its rule, its verifier, its tokenizer, its dials."""

import re
from pathlib import Path

import arithmetic
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from vcppo.errors import ConfigError
from vcppo.settings.fixed import SLACK_LINES
from vcppo.settings.loading import load_settings
from vcppo.settings.task import DigitsTaskSettings
from vcppo.stages.pipeline import run_stages
from vcppo.tasks import make_task
from vcppo.tasks.base import ExactTask
from vcppo.tasks.digits import DigitsTask
from vcppo.types import DecisionPath, Prompt, Verdict

SETTINGS = DigitsTaskSettings(chain_length=6, spread=2, digits=2, held_out=40, stop_hazard=0.2)


@pytest.fixture(scope="module")
def task() -> DigitsTask:
    return DigitsTask(SETTINGS)


def test_a_chain_by_pencil() -> None:
    """123: drop the 1, append 3 + 1: 234; then 3 4 and 4 + 2: 346; then 4 6 and 6 + 3: 469; then 6 9 and 9 + 4: 693."""
    task = DigitsTask(DigitsTaskSettings(chain_length=4, digits=3, held_out=1, stop_hazard=0.0))
    drawn = [*task.demonstrations(20000, torch.Generator().manual_seed(0))]
    text = {demonstration.prompt.text: demonstration.response for demonstration in drawn}
    assert text["#4 1 2 3 ?"] == "#1 2 3 4 #2 3 4 6 #3 4 6 9 #4 6 9 3 = 6 9 3 <eos>"


def test_the_way_of_a_response_by_pencil() -> None:
    """Of 123 to line 2, a chain as above; a response is on its way up to the first token that is not a right one's."""
    task = DigitsTask(DigitsTaskSettings(chain_length=2, digits=3, held_out=1, stop_hazard=0.0))
    assert isinstance(task, ExactTask)
    asked, right = Prompt("2/123", "#2 1 2 3 ?", "346"), "#1 2 3 4 #2 3 4 6 = 3 4 6 <eos>"
    numbers = {f"#{i}" for i in range(1, 2 + SLACK_LINES + 1)}
    for response, written in (
        ("", 0),
        ("#1 2 3", 3),
        ("#1 2 3 4 = 2 3 4 <eos>", 4),
        (right, 13),
        ("#1 2 3 4 #2 3 4 6 = 3 4 6 = 3 4 6 <eos>", 12),
        ("=", 0),
    ):
        path = task.decision_path(asked, response.split())
        assert (path.tokens, path.written) == (tuple(right.split()), written)
        assert {place: listed.keys() for place, listed in path.errors.items()} == {0: numbers, 4: numbers}
        assert not any(errors for listed in path.errors.values() for errors in listed.values())
        assert not path.exits
        assert path.left_for(response.split()) is None


def test_a_wrong_number_begins_a_detour_by_pencil() -> None:
    """And a second one, another; behind it lines have their own numbers again."""
    task = DigitsTask(DigitsTaskSettings(chain_length=2, digits=3, held_out=1, stop_hazard=0.0))
    pieces = "#2 2 3 4 #1 3 #1".split()
    path = task.decision_path(Prompt("2/123", "#2 1 2 3 ?", "346"), pieces)
    assert path.written == 0
    first = path.left_for(pieces)
    assert isinstance(first, DecisionPath)
    assert (first.tokens, first.written) == (tuple("2 3 4 #2 3 4 6 = 3 4 6 <eos>".split()), 3)
    assert first.errors == {3: path.errors[4]}
    second = first.left_for(pieces[1:])
    assert isinstance(second, DecisionPath)
    assert (second.tokens, second.written) == (tuple("3 4 6 = 3 4 6 <eos>".split()), 1)
    assert not second.errors
    assert second.left_for(pieces[5:]) is None


def test_prompts_ask_for_the_last_line(task: DigitsTask) -> None:
    for prompt in task.held_out_prompts():
        target, *seed, mark = prompt.text.split()
        assert mark == "?"
        state = [int(digit) for digit in seed]
        seen = []
        for _ in range(int(target.removeprefix("#"))):
            seen.append("".join(map(str, state)))
            state = [*state[1:], (state[-1] + state[0]) % 10]
        assert prompt.answer == "".join(map(str, state))
        assert prompt.answer not in seen  # no earlier line, nor the question, has the answer


def test_no_held_out_problem_is_trained_on_and_all_others_are(task: DigitsTask) -> None:
    held_out = {prompt.name for prompt in task.held_out_prompts()}
    assert len(held_out) == 40
    rng = torch.Generator().manual_seed(0)
    trained = {prompt.text for prompt in task.training_prompts(5000, rng)}
    shown = {demonstration.prompt.text for demonstration in task.demonstrations(5000, rng)}
    assert not {prompt.text for prompt in task.held_out_prompts()} & (trained | shown)
    assert trained == shown
    assert {text.split()[0] for text in trained} == {"#4", "#5", "#6"}  # spread 2


@pytest.mark.parametrize("searched", [1, 20, 40])
def test_problems_kept_for_searches_are_neither_trained_nor_reported_on(task: DigitsTask, searched: int) -> None:
    split = DigitsTask(SETTINGS.model_copy(update={"held_out_for_search": searched}))
    assert split.held_out_prompts() == split.held_out_prompts("report") == task.held_out_prompts()
    kept = {prompt.name for prompt in split.held_out_prompts("search")}
    assert len(kept) == searched
    rng = torch.Generator().manual_seed(0)
    drawn = split.training_prompts(5000, rng)
    trained = {prompt.name for prompt in drawn}
    shown = {demonstration.prompt.name for demonstration in split.demonstrations(5000, rng)}
    before = {prompt.name for prompt in task.training_prompts(5000, torch.Generator().manual_seed(1))}
    assert not kept & (trained | shown | {prompt.name for prompt in split.held_out_prompts()})
    assert trained == before - kept
    assert task.held_out_prompts("search") == []


def test_more_held_out_than_there_are_is_told_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"task.held_out = 40 and task.held_out_for_search = 9999: this task has"):
        DigitsTask(SETTINGS.model_copy(update={"held_out_for_search": 9999}))


def test_held_out_problems_are_the_same_for_all_and_draws_follow_the_generator(task: DigitsTask) -> None:
    assert DigitsTask(SETTINGS).held_out_prompts() == task.held_out_prompts()
    first, again, other = (task.training_prompts(50, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("#1 1 2 = 4 7 <eos>", Verdict.CORRECT),
        ("= 4 7", Verdict.CORRECT),
        ("= 9 9 = 4 7", Verdict.CORRECT),
        ("= 4 7 = 9 9", Verdict.WRONG),
        ("= 7 4", Verdict.WRONG),
        ("", Verdict.UNREADABLE),
        ("4 7", Verdict.UNREADABLE),
        ("=", Verdict.UNREADABLE),
        ("= = = =", Verdict.UNREADABLE),
        ("= 4 7 =", Verdict.UNREADABLE),
        ("= 4", Verdict.UNREADABLE),
        ("= 4 7 0", Verdict.UNREADABLE),
        ("= #4 7", Verdict.UNREADABLE),
        ("= 4 ٧", Verdict.UNREADABLE),
        ("= ４ ７", Verdict.UNREADABLE),
        ("= 4 ²", Verdict.UNREADABLE),
        ("= -4 7", Verdict.UNREADABLE),
        ("\x00= \n\ud800", Verdict.UNREADABLE),
    ],
)
def test_three_verdicts(task: DigitsTask, text: str, verdict: Verdict) -> None:
    assert task.verify(text, Prompt("p", "#4 0 0 ?", "47")) is verdict


def test_demonstrations_are_right_steps_and_only_complete_ones_are_correct(task: DigitsTask) -> None:
    complete = 0
    for demonstration in task.demonstrations(500, torch.Generator().manual_seed(1)):
        prompt = demonstration.prompt
        whole = demonstration.response.count("#") == int(prompt.text.split()[0].removeprefix("#"))
        assert (task.verify(demonstration.response, prompt) is Verdict.CORRECT) == whole
        complete += whole
    assert 0 < complete < 500


def test_demonstrations_stop_early_at_the_hazard_of_each_line() -> None:
    task = DigitsTask(DigitsTaskSettings(chain_length=6, digits=3, held_out=10, stop_hazard=0.25))
    lines = torch.tensor([d.response.count("#") for d in task.demonstrations(8000, torch.Generator().manual_seed(0))])
    for line in range(1, 6):
        there = int((lines >= line).sum())
        share = float((lines == line).sum()) / there
        assert abs(share - 0.25) < 4 * (0.25 * 0.75 / there) ** 0.5
    assert int(lines.max()) == 6


def test_the_tokenizer_survives_its_file_and_ends_answers(task: DigitsTask, tmp_path: Path) -> None:
    from vcppo.models.loading import load_tokenizer

    tokenizer = task.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    again = load_tokenizer(tmp_path)
    text = "#1 0 1 #10 9 = 2 3 <eos>"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == 9
    assert again(text)["input_ids"] == ids
    assert ids[-1] == again.eos_token_id == tokenizer.eos_token_id
    assert again.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert again.batch_decode([ids], skip_special_tokens=True) == ["#1 0 1 #10 9 = 2 3"]
    assert len(set(tokenizer.get_vocab().values())) == len(tokenizer)


def test_the_right_answer_fits_below_the_limit_and_every_word_is_known(task: DigitsTask) -> None:
    tokenizer = task.tokenizer()
    rows = tokenizer([d.response for d in task.demonstrations(200, torch.Generator().manual_seed(0))])["input_ids"]
    assert max(map(len, rows)) < task.max_tokens
    assert all(tokenizer.pad_token_id not in row for row in rows)


def test_more_problems_held_out_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task.held_out = 200: this task has \d+ problems in all"):
        make_task(DigitsTaskSettings(chain_length=4, digits=2, held_out=200))


def test_difficulty_is_a_dial() -> None:
    long, short = (DigitsTask(DigitsTaskSettings(chain_length=n, held_out=5)) for n in (40, 10))
    assert long.max_tokens - short.max_tokens == 30 * 4
    assert len(DigitsTask(DigitsTaskSettings(chain_length=10, spread=3, held_out=5))._training) > 3 * len(
        short._training
    )


def words(*known: str) -> PreTrainedTokenizerFast:
    model = Tokenizer(WordLevel({word: i for i, word in enumerate(("<pad>", *known))}, unk_token="<pad>"))
    model.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<pad>")


OWN = ("<eos>", "?", "=", *"0123456789", *(f"#{i}" for i in range(1, 11)))


def test_its_own_tokenizer_and_one_for_longer_chains_will_do(task: DigitsTask) -> None:
    task.check_tokenizer(task.tokenizer(), "m")
    task.check_tokenizer(DigitsTask(DigitsTaskSettings(chain_length=9, digits=2, held_out=5)).tokenizer(), "m")
    task.check_tokenizer(words(*OWN), "m")


@pytest.mark.parametrize("lost", ["<eos>", "?", "=", "0", "9", "#1"])
def test_a_tokenizer_without_one_of_its_words_will_not(task: DigitsTask, lost: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"the tokenizer of m has no {lost}, so it is no policy of this")):
        task.check_tokenizer(words(*(word for word in OWN if word != lost)), "m")


def test_nor_one_for_shorter_chains(task: DigitsTask) -> None:
    with pytest.raises(
        ConfigError, match=r"task.chain_length = 6: .* has words for 5 lines, .* task.chain_length = 1$"
    ):
        task.check_tokenizer(words(*(word for word in OWN if word != "#6")), "m")


@pytest.mark.parametrize("steps", [5, 0])
def test_a_model_that_reads_text_is_not_trained_on_it(tmp_path: Path, steps: int) -> None:
    model = arithmetic.make_model_folder(tmp_path / "model")
    settings = load_settings(assignments=[f"model.path={model}", f"cold_start.steps={steps}"])
    with pytest.raises(ConfigError, match=r"^task.name = digits: the tokenizer of .* expected task.name = maths"):
        run_stages(settings, tmp_path / "out")
