"""The maths task: verdicts by AIME's rule, notes for what cannot be read, templates, demonstrations, steps."""

import json
import time
from pathlib import Path

import arithmetic
import pytest
import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from vcppo.engines.base import Sampling
from vcppo.errors import CheckpointError, ConfigError, DataError
from vcppo.rl.demonstrations import draw
from vcppo.rl.metrics import rollout_metrics, samples_table
from vcppo.settings.reward import RewardSettings
from vcppo.settings.task import MathsSettings, MathsTaskSettings
from vcppo.tasks import make_task
from vcppo.tasks.extraction import LONGEST
from vcppo.tasks.maths import TAIL, MathsTask
from vcppo.types import Generation, Judgement, Prompt, Rollout, Verdict

CORRECT, WRONG = Judgement(Verdict.CORRECT), Judgement(Verdict.WRONG)
AIME = Prompt("p", "?", "204")


def unreadable(note: str) -> Judgement:
    return Judgement(Verdict.UNREADABLE, note)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Sums to learn from and sums to measure on."""
    folder = tmp_path_factory.mktemp("sums")
    train, evaluate = (
        arithmetic.make_problems(folder / f"{name}.jsonl", n, seed=n) for name, n in (("t", 40), ("e", 9))
    )
    return {"train": str(train), "evaluate": str(evaluate)}


def task(files: dict[str, str], **more: object) -> MathsTask:
    made = make_task(MathsTaskSettings(maths=MathsSettings(**files, workers=1, **more)))
    assert isinstance(made, MathsTask)
    return made


@pytest.mark.parametrize("answers", ["integer", "math-verify"])
@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("so \\boxed{204}", CORRECT),
        ("so \\boxed{ 204 }", CORRECT),
        ("so \\boxed{204.}", CORRECT),
        ("so \\boxed{\\text{204}}", CORRECT),
        ("so \\boxed{0204}", CORRECT),
        ("so $\\boxed{204}$.", CORRECT),
        ("\\boxed{7}, no: \\boxed{204}", CORRECT),
        ("\\boxed{204}, no: \\boxed{7}", WRONG),
        ("\\boxed{204}, no: \\boxed{7", CORRECT),  # cut before the second one closed
        ("\\boxed{-204}", WRONG),
        ("\\boxed{2040}", WRONG),
        ("", unreadable("no answer")),
        ("the answer is 204", unreadable("no answer")),
        ("\\boxed{}", unreadable("no answer")),
        ("\\boxed{204", unreadable("no answer")),
        ("\\boxed{٢٠٤}", unreadable("other digits")),
        ("\\boxed{２０４}", unreadable("other digits")),
        ("\\boxed{20⁴}", unreadable("other digits")),
        ("\\boxed{2\x0004}", unreadable("unprintable")),
        ("\\boxed{204\ud800}", unreadable("unprintable")),
        ("\x00\ud800 \\boxed{204}", CORRECT),  # what stands elsewhere does not matter
        ("\\" * 200_000 + "\\boxed{204}", CORRECT),
        ("\\boxed{" + "\\" * 200_000 + "}", unreadable("no answer")),  # the brace does not close: \} is no brace
        ("\\boxed{" + "9" * (LONGEST + 1) + "}", unreadable("too long")),
        ("\\boxed{" + "(" * 100_000 + "7" + ")" * 100_000 + "}", unreadable("too long")),
        ("\\boxed{" * 50_000 + "204" + "}" * 50_000, CORRECT),
        ("{" * 500_000 + "\\boxed{204}", CORRECT),
    ],
)
def test_aimes_rule_needs_no_process(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch, answers: str, text: str, verdict: Judgement
) -> None:
    monkeypatch.setattr("vcppo.tasks.maths.shared_verifier", None)  # whoever asks for it fails
    began = time.perf_counter()
    assert task(files, answers=answers).judge([text], [AIME]) == [verdict]
    assert time.perf_counter() - began < 2.0


@pytest.mark.parametrize("answer", ["\\frac{408}{2}", "204.0", "x", "9^9^9^9", "2 0 4", "204 \\text{ cm}"])
def test_where_answers_are_integers_nothing_else_is_readable(files: dict[str, str], answer: str) -> None:
    assert task(files, answers="integer").judge([f"\\boxed{{{answer}}}"], [AIME]) == [unreadable("not an integer")]


def test_what_is_no_integer_goes_to_math_verify_and_comes_back_in_its_place(files: dict[str, str]) -> None:
    half = Prompt("h", "?", "\\frac{1}{2}")
    texts = [
        "\\boxed{0.5}",
        "\\boxed{204}",
        "nothing",
        "\\boxed{\\frac12}",
        "\\boxed{\\frac{1}{2}}",
        "\\boxed{204.0}",
    ]
    prompts = [half, AIME, half, AIME, half, AIME]
    assert task(files).judge(texts, prompts) == [CORRECT, CORRECT, unreadable("no answer"), WRONG, CORRECT, CORRECT]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("The answer is $\\frac{1}{2}$.", CORRECT),
        ("The answer is 0.5 " + "and so on " * (TAIL // 10), unreadable("no answer")),  # too far from the end
        ("The answer is ٠.٥", unreadable("no answer")),
        ("The answer is 0\x00.5\ud800: 3/4", WRONG),
        ("The answer is $\\frac{1}{2}$, in \\boxed{3}", WRONG),  # a box comes first
        (" \n", unreadable("no answer")),
    ],
)
def test_answers_without_a_box(files: dict[str, str], text: str, verdict: Judgement) -> None:
    half = Prompt("h", "?", "\\frac{1}{2}")
    assert task(files, boxed_only=False).judge([text], [half]) == [verdict]


@pytest.mark.parametrize("copy", ["9 + 8", "9+8", "x = 9 + 8", r"\sqrt{289}", r"\frac{34}{2}", "17!/16!", "34/2"])
def test_a_copied_question_is_no_answer(files: dict[str, str], copy: str) -> None:
    sums = Prompt("s", f"What is {copy}?", "17")
    texts = [f"\\boxed{{{copy}}}", f"the answer to {copy}.", f"\\boxed{{{copy} = 17}}"]
    for form in ("by-set", "number", "closed-form"):
        boxed, bare, worked = task(files, boxed_only=False, form=form).judge(texts, [sums] * 3)
        assert boxed == unreadable("not evaluated")
        assert bare.verdict is Verdict.UNREADABLE
        assert worked == CORRECT
    assert task(files, form="expression").judge(texts[:1], [sums]) == [CORRECT]


@pytest.mark.parametrize(
    ("text", "integer", "any_number"),
    [
        ("so it is 204.", CORRECT, CORRECT),
        ("204", CORRECT, CORRECT),
        ("**204**", CORRECT, CORRECT),
        ("so 1 + 203 = 204", CORRECT, CORRECT),
        ("the answer to 200 + 4", unreadable("no answer"), unreadable("no answer")),
        ("it is 203.", WRONG, WRONG),
        ("it is 204.0", unreadable("not an integer"), CORRECT),
        ("\\boxed{203} or 204", WRONG, WRONG),  # a box comes first
        ("\\boxed{} or 204", unreadable("no answer"), unreadable("no answer")),
        ("it is 2 " + "and so on " * (TAIL // 10), unreadable("no answer"), unreadable("no answer")),
        ("0" * TAIL + "204", unreadable("no answer"), unreadable("no answer")),  # cut within the number
        ("none", unreadable("no answer"), unreadable("no answer")),
    ],
)
def test_without_a_box_the_last_plain_number_is_the_answer(
    files: dict[str, str], text: str, integer: Judgement, any_number: Judgement
) -> None:
    assert task(files, boxed_only=False, answers="integer").judge([text], [AIME]) == [integer]
    assert task(files, boxed_only=False).judge([text], [AIME]) == [any_number]


def test_where_expressions_are_answers_a_text_is_searched_for_one(files: dict[str, str]) -> None:
    root = Prompt("r", "?", "2\\sqrt{3}")
    text = "The answer is $2\\sqrt{3}$."
    assert task(files, boxed_only=False, form="expression").judge([text], [root]) == [CORRECT]
    assert task(files, boxed_only=False).judge([text], [root]) == [unreadable("no answer")]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("I think \\boxed{204}</think> \\boxed{204}", CORRECT),
        ("I think \\boxed{204}</think> It is that.", unreadable("no answer")),
        ("I think \\boxed{204}", unreadable("no answer")),
        ("I think \\boxed{3}</think> \\boxed{204}</think>", CORRECT),
    ],
)
def test_a_box_in_the_thought_does_not_count(files: dict[str, str], text: str, verdict: Judgement) -> None:
    assert task(files, think=True).judge([text], [AIME]) == [verdict]
    assert task(files).judge([text], [AIME])[0].verdict is Verdict.CORRECT


def test_no_training_problem_is_measured_and_draws_follow_the_generator(files: dict[str, str]) -> None:
    sums = task(files)
    held_out = sums.held_out_prompts()
    assert sums.name == "e"
    assert len(held_out) == 9
    drawn = sums.training_prompts(400, torch.Generator().manual_seed(0))
    assert not {p.text for p in drawn} & {p.text for p in held_out}
    assert len({p.name for p in drawn}) > 30
    assert sums.training_prompts(400, torch.Generator().manual_seed(0)) == drawn
    question = arithmetic.problems(9, seed=9)[0]["question"]
    assert (
        held_out[0].text == f"{question}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
    )
    assert task(files, instruction="").held_out_prompts()[0].text == question


# ---- templates ----

ASK = [Prompt("p", "1 + 1?", "2")]


def text_of(sums: MathsTask, tokenizer: PreTrainedTokenizerFast) -> str:
    (ids,) = sums.encode(ASK, tokenizer)
    return str(tokenizer.decode(ids))


def test_the_chat_template_is_the_tokenizers_own(files: dict[str, str]) -> None:
    tokenizer = arithmetic.make_tokenizer()
    user = "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert text_of(task(files), tokenizer) == user
    assert text_of(task(files, think=True), tokenizer) == f"{user}<think>\n"
    assert text_of(task(files, system="Be brief."), tokenizer) == f"<|im_start|>system\nBe brief.<|im_end|>\n{user}"
    assert text_of(task(files, template="plain"), tokenizer) == "1 + 1?\n\n"
    assert text_of(task(files, template="plain", think=True, think_open="<t>"), tokenizer) == "1 + 1?\n\n<t>\n"
    assert task(files).encode([], tokenizer) == []


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_a_begin_of_text_stands_once(files: dict[str, str], template: str) -> None:
    tokenizer = arithmetic.make_tokenizer(begin=True)
    (ids,) = task(files, template=template).encode(ASK, tokenizer)
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id


def test_a_thought_that_the_template_opens_is_not_opened_twice(files: dict[str, str]) -> None:
    tokenizer = arithmetic.make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\\n'", "assistant\\n<think>\\n'")
    assert text_of(task(files, think=True), tokenizer).count("<think>") == 1


def test_templates_that_know_of_thinking_are_told(files: dict[str, str]) -> None:
    tokenizer = arithmetic.make_tokenizer()
    tokenizer.chat_template += "{%- if not enable_thinking %}{{ 'no thoughts' }}{%- endif %}"
    assert text_of(task(files), tokenizer).endswith("no thoughts")
    assert text_of(task(files, think=True), tokenizer).endswith("assistant\n<think>\n")


def test_a_tokenizer_that_does_not_serve_is_told(files: dict[str, str]) -> None:
    with pytest.raises(
        ConfigError, match=r"task.maths.template = chat: the tokenizer of .* has no chat template; expe"
    ):
        task(files).encode(ASK, arithmetic.make_tokenizer(chat=False))
    broken = arithmetic.make_tokenizer()
    broken.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(CheckpointError, match="its chat template fails"):
        task(files).encode(ASK, broken)
    special, loaded = arithmetic.make_tokenizer(), arithmetic.make_tokenizer()
    special.add_special_tokens({"additional_special_tokens": ["</think>"]})
    loaded.add_tokens([AddedToken("</think>", special=True)])  # as tokenizer.json alone may say it
    assert "</think>" not in loaded.all_special_tokens
    for tokenizer in (special, loaded):
        with pytest.raises(ConfigError, match=r"think_close = </think>: this tokenizer leaves it out of decoded"):
            task(files, think=True).encode(ASK, tokenizer)
    with pytest.raises(ConfigError, match=r"model.path = none"):
        task(files).tokenizer()


# ---- demonstrations ----


def test_demonstrations_are_right_and_end(files: dict[str, str]) -> None:
    tokenizer, sums = arithmetic.make_tokenizer(), task(files)
    shown = sums.demonstrations(20, torch.Generator().manual_seed(0))
    judged = sums.judge([d.response for d in shown], [d.prompt for d in shown])
    assert judged == [CORRECT] * 20
    sequences, starts = draw(sums, tokenizer, 500, torch.Generator().manual_seed(0))
    assert sum(map(len, sequences)) >= 500
    for sequence, start, demonstration in zip(sequences, starts, shown, strict=False):
        assert tuple(sequence[:start].tolist()) == sums.encode([demonstration.prompt], tokenizer)[0]
        assert tokenizer.decode(sequence[start:]) == demonstration.response + "<|im_end|>"


def test_demonstrations_think_before_they_answer(files: dict[str, str]) -> None:
    sums = task(files, think=True)
    shown = sums.demonstrations(5, torch.Generator().manual_seed(0))
    assert sums.judge([d.response for d in shown], [d.prompt for d in shown]) == [CORRECT] * 5
    thought, _, rest = shown[0].response.partition("\n</think>\n\n")
    assert thought.endswith(f"The answer is \\boxed{{{shown[0].prompt.answer}}}.")
    assert rest == f"The final answer is \\boxed{{{shown[0].prompt.answer}}}."


def test_a_source_without_solutions_has_nothing_to_imitate(tmp_path: Path, files: dict[str, str]) -> None:
    train = tmp_path / "t.jsonl"
    train.write_text(json.dumps({"problem": "A", "answer": "1"}))
    bare = task({**files, "train": str(train)})
    with pytest.raises(ConfigError, match=r"t.jsonl: it has no worked solutions.*task.maths.solution_column"):
        bare.demonstrations(1, torch.Generator())


# ---- steps ----


@pytest.mark.parametrize(
    ("pieces", "starts"),
    [
        (["a", "Ċ", "b"], [0, 2]),
        (["a", ".ĊĊ", "b", "c", "Ċ", "Ċ", "d"], [0, 2, 6]),
        (["Ċ", "a", "Ċ", "b"], [0, 3]),  # no step of a blank line alone
        (["a", "Ċ", "Ġ", "Ġb", "c"], [0, 3]),
        (["▁a", "<0x0A>", "▁b", "\n", "c"], [0, 2, 4]),
        (["a", "Ċb", "c"], [0, 1]),
        (["a", "b", "c"], [0]),
        (["Ċ"], [0]),
        (["a", "Ċ"], [0]),
    ],
)
def test_a_line_is_a_step(files: dict[str, str], pieces: list[str], starts: list[int]) -> None:
    assert task(files).step_starts(pieces) == starts


def test_steps_of_a_worked_sum(files: dict[str, str]) -> None:
    tokenizer = arithmetic.make_tokenizer()
    ids = tokenizer(arithmetic.problem([7, 4, 9])["solution"])["input_ids"]
    starts = task(files).step_starts(tokenizer.convert_ids_to_tokens(ids))
    lines = [tokenizer.decode(ids[i:j]) for i, j in zip(starts, [*starts[1:], len(ids)], strict=True)]
    assert lines == ["7 + 4 = 11\n", "11 + 9 = 20\n", "The answer is \\boxed{20}."]


# ---- what is counted ----


def test_reasons_are_counted_where_they_were_given() -> None:
    def rollout(verdict: Verdict, note: str) -> Rollout:
        return Rollout(AIME, (1,), Generation((1, 2), (0.0, 0.0), "stop"), "t", verdict, note)

    given = [(Verdict.UNREADABLE, "no answer")] * 2 + [(Verdict.UNREADABLE, "time"), (Verdict.WRONG, "")]
    rollouts = [rollout(*pair) for pair in given]
    metrics = rollout_metrics(rollouts, RewardSettings())
    assert {name: value for name, value in metrics.items() if name.startswith("verify/")} == {
        "verify/no_answer_rate": 0.5,
        "verify/time_rate": 0.25,
    }
    assert metrics["rollout/unreadable_rate"] == 0.75
    assert not [name for name in rollout_metrics(rollouts[3:], RewardSettings()) if name.startswith("verify/")]
    assert samples_table(rollouts)["note"] == ["no answer", "no answer", "time", ""]


def test_a_tiny_model_answers_in_its_template(files: dict[str, str], tmp_path: Path) -> None:
    from vcppo.engines.torch.engine import TorchEngine
    from vcppo.models import loading
    from vcppo.rl.sampler import Sampler

    folder = arithmetic.make_model_folder(tmp_path / "m", "llama", hidden_size=16, layers=1, tied=True)
    sums = task(files)
    engine = TorchEngine(loading.load_policy(folder))
    sampler = Sampler(sums, loading.load_tokenizer(folder), engine, Sampling(1.0, 1.0, 8))
    rollouts = sampler.roll_out(sums.held_out_prompts()[:3], seed=0)
    assert [(r.verdict, r.note) for r in rollouts] == [(Verdict.UNREADABLE, "no answer")] * 3


def test_an_evaluation_needs_no_training_set(tmp_path: Path) -> None:
    """AIME can be asked where there is nothing to learn from; training then says what is missing."""
    measured = arithmetic.make_problems(tmp_path / "e.jsonl", 3)
    nowhere = tmp_path / "gone.jsonl"
    made = task({"train": str(nowhere), "evaluate": str(measured)})
    assert len(made.held_out_prompts()) == 3
    with pytest.raises(DataError, match=f"task.maths.train = {nowhere}: No such file"):
        made.training_prompts(1, torch.Generator())
