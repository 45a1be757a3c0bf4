"""reasoning-gym as a task: its problems, cut so that none is asked twice; its own scores, partial credit included."""

import random
from typing import Any

import pytest
import torch

from vcppo.errors import ConfigError
from vcppo.settings.loading import load_settings
from vcppo.settings.plugin import PluginTaskSettings
from vcppo.tasks.plugin_address import plugin_address
from vcppo.tasks.reasoning_gym import NAME, ReasoningGymTask
from vcppo.tasks.reasoning_gym_data import ReasoningGymOptions
from vcppo.types import Judgement, Prompt, Verdict, credit_of

gym = pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: pip install 'vcppo[reasoning-gym]'")

DATASETS: dict[str, dict[str, Any]] = {  # some that score all or nothing, some that give partial credit in other ways
    "basic_arithmetic": {"min_terms": 2, "max_terms": 4},
    "gcd": {},
    "spell_backward": {},
    "word_sorting": {},
    "countdown": {},
    "mini_sudoku": {},
    "time_intervals": {},
    "letter_counting": {},
    "prime_factorization": {},
    "sentence_reordering": {},
}
INSTANCES = 1000


def made(dataset: Any, **options: Any) -> ReasoningGymTask:
    return ReasoningGymTask(ReasoningGymOptions(dataset=dataset, **{"size": 40, "held_out": 20, **options}))


def responses(answer: str, rng: random.Random) -> str:
    """Right, nearly right, wrong, or malformed, each as often."""
    shuffled = answer.split()
    rng.shuffle(shuffled)
    number = f"{rng.randint(0, 99)}"
    answers = [answer, f" {answer} is it", answer[: len(answer) // 2], " ".join(shuffled), number, "", "(((", "no idea"]
    malformed = [
        answer,
        f"<answer>{answer}",
        f"{answer}</answer>",
        f"<answer>{number}</answer><answer>{answer}</answer>",
    ]
    return rng.choice([f"It is <answer>{text}</answer>" for text in answers] + malformed)


def library_score(dataset: Any, text: str, entry: dict[str, Any]) -> float | None:
    """As its own examples score a completion; None where it raises an error."""
    try:
        return float(dataset.score_answer(gym.utils.extract_answer(text), entry))
    except ValueError:
        return None


def test_scores_are_the_librarys_on_a_thousand_instances() -> None:
    rng, partial, seen = random.Random(0), 0, dict.fromkeys(Verdict, 0)
    task = made(dict.fromkeys(DATASETS, 1), config=DATASETS, size=1, held_out=INSTANCES, seed=3)
    specs = [gym.composite.DatasetSpec(name, 1, config) for name, config in DATASETS.items()]
    dataset = gym.create_dataset("composite", datasets=specs, seed=3, size=INSTANCES + 1)
    entries = [dataset[i] for i in range(INSTANCES)]
    prompts = [Prompt(f"p-{i:05d}", entry["question"], entry["answer"]) for i, entry in enumerate(entries)]
    texts = [responses(prompt.answer, rng) for prompt in prompts]
    for text, entry, judgement in zip(texts, entries, task.judge(texts, prompts), strict=True):
        score = library_score(dataset, text, entry)
        seen[judgement.verdict] += 1
        if score is None:
            assert judgement == Judgement(Verdict.UNREADABLE, "not scored")
            continue
        assert credit_of(judgement.verdict, judgement.credit) == min(score, 1), (entry, text)  # 1 + 2e-16 occurs
        assert (judgement.verdict is Verdict.CORRECT) == (score >= 1)
        assert (judgement.note == "no answer") == (gym.utils.extract_answer(text) is None)
        partial += 0 < score < 1
    assert {entry["metadata"]["source_dataset"] for entry in entries} == set(DATASETS)
    assert (sum(seen.values()), partial > 150, min(seen.values()) > 150) == (1000, True, True)


def test_problems_are_the_librarys_by_index_and_none_is_asked_twice() -> None:
    task = made("gcd", config={"max_value": 12}, held_out_for_search=15, size=60)
    dataset = gym.create_dataset("gcd", max_value=12, seed=0, size=95)
    report, search = task.held_out_prompts(), task.held_out_prompts("search")
    training = task.training_problems()
    for prompts, indices in ((report, range(20)), (search, range(20, 35)), (training, range(35, 95))):
        numbers = [int(prompt.name.rpartition("-")[2]) for prompt in prompts]
        assert set(numbers) <= set(indices)
        assert [prompt.text for prompt in prompts] == [dataset[number]["question"] for number in numbers]
    texts = [prompt.text for prompt in (*report, *search, *training)]
    assert len(set(texts)) == len(texts) < 95, "with numbers to 12, some come again"
    drawn = task.training_prompts(500, torch.Generator().manual_seed(0))
    assert {prompt.text for prompt in drawn} <= {prompt.text for prompt in training}
    assert made("gcd", config={"max_value": 12}).held_out_prompts() == report, "whatever is kept for searches"
    assert made("gcd", config={"max_value": 12}, seed=1).held_out_prompts() != report


def test_several_datasets_come_by_weight_each_with_its_config_and_its_judge() -> None:
    task = made({"gcd": 3, "spell_backward": 1}, config={"spell_backward": {"max_word_len": 4}}, held_out=200)
    kinds = [prompt.name.rpartition("-")[0] for prompt in task.held_out_prompts()]
    assert 0.65 < kinds.count("gcd") / len(kinds) < 0.85
    assert task.name == "gcd+spell_backward"
    for prompt in task.held_out_prompts()[:20]:
        assert task.judge([f"<answer>{prompt.answer}</answer>"], [prompt]) == [Judgement(Verdict.CORRECT, credit=1.0)]
    spelled = [prompt for prompt in task.held_out_prompts() if prompt.name.startswith("spell")]
    assert max(len(prompt.answer) for prompt in spelled) <= 4


def test_prompts_ask_for_the_tags_as_the_library_does() -> None:
    task = made("gcd", template="simple")
    assert task.system == gym.utils.SYSTEM_PROMPTS["simple"]
    drawn = task.demonstrations(3, torch.Generator().manual_seed(0))
    assert [one.response for one in drawn] == [f"<answer>{one.prompt.answer}</answer>" for one in drawn]
    assert (
        task.judge([one.response for one in drawn], [one.prompt for one in drawn])
        == [Judgement(Verdict.CORRECT, credit=1.0)] * 3
    )


def test_an_answer_that_is_too_much_to_score_costs_its_limit_and_no_more() -> None:
    task = made("countdown", time_limit_s=0.5)
    (prompt,) = task.held_out_prompts()[:1]
    texts = [f"<answer>{text}</answer>" for text in ("9**9**9**9", "__import__('os')._exit(3)", prompt.answer)]
    assert task.judge(texts, [prompt] * 3) == [
        Judgement(Verdict.UNREADABLE, "time"),
        Judgement(Verdict.UNREADABLE, "crash"),
        Judgement(Verdict.CORRECT, credit=1.0),
    ]


def test_a_dataset_without_reference_answers_is_asked_and_not_imitated() -> None:
    task = made("graph_color", size=3, held_out=2)
    assert [prompt.answer for prompt in task.held_out_prompts()] == ["", ""]
    with pytest.raises(
        ConfigError, match=r"^task.options.dataset = graph_color: some problems of it have no reference"
    ):
        task.demonstrations(1, torch.Generator())


def test_nothing_to_train_on_is_told() -> None:
    task = made("coin_flip", config={"min_trials": 1, "max_trials": 1}, held_out=200, size=5)
    with pytest.raises(
        ConfigError, match=r"^task.options.dataset = coin_flip: all of its 5 problems to learn from are"
    ):
        task.training_problems()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "gcdd"}, "task.options.dataset = gcdd: reasoning-gym has no such dataset; did you mean gcd?"),
        ({"dataset": {}}, "task.options.dataset = none: reasoning-gym has no such dataset; it has ab, "),
        (
            {"dataset": "gcd", "config": {"size_of": 1}},
            "task.options.config = {'size_of': 1}: reasoning-gym refuses it (",
        ),
        (
            {"dataset": "gcd", "config": {"min_value": 0}},
            "task.options.config = {'min_value': 0}: reasoning-gym refuses",
        ),
        (
            {"dataset": {"gcd": 1}, "config": {"lcm": {}}},
            "task.options.config = {'lcm': {}}: reasoning-gym refuses it (",
        ),
        ({"dataset": "gcd", "sizes": 3}, f"task.options.sizes (from --set): task.name = {NAME} has no such option, it"),
        ({}, f"task.options.dataset: task.name = {NAME} needs it"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    said = [f"task.name={NAME}", "model.path=m", *(f"task.options.{k}={_toml(v)}" for k, v in options.items())]
    with pytest.raises(ConfigError) as caught:
        load_settings(assignments=said)
    assert str(caught.value).startswith(message)


def test_its_address_has_the_librarys_version_and_no_source() -> None:
    address = plugin_address(PluginTaskSettings(name=NAME, options={"dataset": "gcd"}))
    assert address["made_of"].keys() == {"version", "reasoning-gym"}
    assert address["options"]["size"] == 1000
    heir = plugin_address(PluginTaskSettings(name="plugins:SpelledGym", options={"dataset": "gcd"}))
    assert heir["made_of"].keys() == {"version", "reasoning-gym", "source"}


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + "}"
    return str(value)
