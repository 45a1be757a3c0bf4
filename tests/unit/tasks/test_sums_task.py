"""Small sums as a task: which are asked, how they are answered, where a response decides to stop."""

import arithmetic
import pytest
import torch

from vcppo.errors import ConfigError
from vcppo.settings.loading import load_settings
from vcppo.settings.plugin import PluginTaskSettings
from vcppo.tasks.base import StoppingTask
from vcppo.tasks.plugin_address import plugin_address
from vcppo.tasks.sums import NAME, SumsOptions, SumsTask
from vcppo.types import Judgement, Prompt, Verdict

SUM = Prompt("23+45+67", "What is 23 + 45 + 67?", "135")
IN_STEPS = "23 + 45 = 68\n68 + 67 = 135\n\\boxed{135}"


def made(**options: float) -> SumsTask:
    return SumsTask(SumsOptions.model_validate({"size": 60, "held_out": 20, **options}))


def test_no_sum_is_asked_twice_and_a_seed_draws_others() -> None:
    task = made(held_out_for_search=15)
    report, search = task.held_out_prompts(), task.held_out_prompts("search")
    prompts = [*report, *search, *task.training_problems()]
    assert (len(report), len(search), len({prompt.text for prompt in prompts})) == (20, 15, 95)
    for prompt in prompts:
        terms = [int(term) for term in prompt.text.removeprefix("What is ").rstrip("?").split(" + ")]
        assert (len(terms), min(terms) >= 10, max(terms) <= 99, prompt.answer) == (3, True, True, str(sum(terms)))
    assert made().held_out_prompts() == report, "whatever is kept for searches"
    assert made(seed=1).held_out_prompts() != report
    assert {len(prompt.name.split("+")) for prompt in made(terms=5).held_out_prompts()} == {5}


@pytest.mark.parametrize("at_once", [0.0, 0.5, 1.0])
def test_demonstrations_are_right_in_steps_or_at_once(at_once: float) -> None:
    task = made(at_once=at_once)
    drawn = task.demonstrations(400, torch.Generator().manual_seed(0))
    verdicts = task.judge([one.response for one in drawn], [one.prompt for one in drawn])
    assert verdicts == [Judgement(Verdict.CORRECT)] * 400
    short = [one.response.startswith("\\boxed") for one in drawn]
    assert sum(short) / 400 == pytest.approx(at_once, abs=0.1)
    assert {one.response.count("\n") for one, brief in zip(drawn, short, strict=True) if not brief} <= {2}
    assert not {one.prompt for one in drawn} & {*task.held_out_prompts()}


@pytest.mark.parametrize(
    ("text", "judgement"),
    [
        (IN_STEPS, Judgement(Verdict.CORRECT)),
        ("\\boxed{135}", Judgement(Verdict.CORRECT)),
        ("\\boxed{1} \\boxed{ 135 }", Judgement(Verdict.CORRECT)),
        ("\\boxed{136}", Judgement(Verdict.WRONG)),
        ("It is 135.", Judgement(Verdict.UNREADABLE, "no answer")),
        ("\\boxed{}", Judgement(Verdict.UNREADABLE, "no answer")),
        ("\\boxed{135", Judgement(Verdict.UNREADABLE, "no answer")),
        ("\\boxed{23 + 45 + 67}", Judgement(Verdict.UNREADABLE, "not an integer")),
    ],
)
def test_the_integer_in_the_last_box_counts(text: str, judgement: Judgement) -> None:
    assert made().judge([text], [SUM]) == [judgement]


@pytest.mark.parametrize(
    ("text", "stops"),
    [(IN_STEPS, [False, False, True]), ("\\boxed{135}\n5 + 5 = 10", [True]), ("23 + 45 = 68", [False]), ("", [False])],
)
def test_each_line_begins_with_the_decision_to_stop_or_to_go_on(text: str, stops: list[bool]) -> None:
    tokenizer, task = arithmetic.make_tokenizer(), made()
    assert isinstance(task, StoppingTask)
    tokens = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    decisions = task.stop_decisions(tokenizer.convert_ids_to_tokens(tokens))
    assert [stopped for _, stopped in decisions] == stops
    rests = [tokenizer.decode(tokens[place:]) for place, _ in decisions]
    if text == IN_STEPS:
        assert [rest.lstrip()[:3] for rest in rests] == ["23 ", "68 ", "\\bo"]


def test_a_chat_model_is_asked_without_a_message_of_its_template() -> None:
    tokenizer = arithmetic.make_tokenizer()
    (row,) = made().encode([SUM], tokenizer)
    asked = tokenizer.decode(row)
    assert SUM.text in asked
    assert asked.startswith("<|im_start|>system\n<|im_end|>\n")


def test_lengths_that_plans_count_with_are_those_of_a_tokenizer_or_just_above() -> None:
    tokenizer, task = arithmetic.make_tokenizer(), made(at_once=0)
    prompts = [*task.held_out_prompts(), *task.training_problems()]
    asked = max(map(len, task.encode(prompts, tokenizer)))
    drawn = task.demonstrations(100, torch.Generator().manual_seed(0))
    written = max(len(tokenizer(one.response)["input_ids"]) for one in drawn) + 1
    assert asked <= task.prompt_tokens + 8
    assert 0.8 * task.response_tokens <= written <= task.response_tokens < task.max_tokens


def test_its_address_is_its_options_and_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    address = plugin_address(PluginTaskSettings(name=NAME, options={"terms": 4}))
    assert address["made_of"] == {"version": 1}
    assert address["options"]["terms"] == 4
    monkeypatch.setattr("vcppo.tasks.sums.VERSION", 2)
    assert plugin_address(PluginTaskSettings(name=NAME, options={"terms": 4})) != address


def test_more_sums_than_there_are_is_told() -> None:
    options = ["task.options.terms=2", "task.options.digits=1", "model.path=any"]
    with pytest.raises(ConfigError, match=r"together are 4200, and there are 81 sums of 2 numbers with 1 digits"):
        _ = load_settings(assignments=[f"task.name={NAME}", *options]).task.task  # type: ignore[union-attr]
