"""Evaluation goes on where it stopped, to the bit, keeps every response, and believes no file but what it wrote."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from tiny import new_policy, tiny

from vcppo.engines.base import Engine, Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.errors import CheckpointError
from vcppo.rl.sampler import Sampler
from vcppo.seeding import seed_for
from vcppo.settings.evaluation import EvaluationSettings
from vcppo.stages.evaluation import ProblemResults, evaluate, groups
from vcppo.store.samples import SampledProblem, SampleFolder
from vcppo.tasks import make_task
from vcppo.tasks.digits import DigitsTask
from vcppo.types import Generation, Verdict

TASK = make_task(tiny("task.held_out=70").task)
TOKENIZER = TASK.tokenizer()
SMALL_GROUPS = EvaluationSettings(
    seed=3, responses_at_once=10
)  # of 3 problems with 3 responses each: 11 of 32, 24 in all
SAMPLES = 3


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(new_policy("task.held_out=70"))


def run(
    make_engine: Callable[[], Engine],
    folder: Path | None,
    *,
    settings: EvaluationSettings = SMALL_GROUPS,
    notices: list[str] | None = None,
) -> list[SampledProblem]:
    said = [] if notices is None else notices
    sampling = Sampling(settings.temperature, settings.top_p, TASK.max_tokens)
    return evaluate(
        lambda: Sampler(TASK, TOKENIZER, make_engine(), sampling),
        task=TASK,
        settings=settings,
        samples=SAMPLES,
        store=None if folder is None else SampleFolder(folder, said.append),
    )


@pytest.fixture(scope="module")
def straight(engine: TorchEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples of an evaluation that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight") / "samples"
    run(lambda: engine, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def no_engine() -> Engine:
    raise AssertionError("there is nothing to sample")


@pytest.mark.parametrize(
    ("samples", "at_once", "size"), [(8, 256, 32), (1, 256, 32), (32, 256, 8), (32, 1, 1), (3, 10, 3)]
)
def test_groups_are_of_whole_problems_under_the_seed_of_their_32(samples: int, at_once: int, size: int) -> None:
    found = list(groups(70, samples, EvaluationSettings(seed=5, responses_at_once=at_once)))
    assert [number for group in found for number in group.problems] == list(range(70))
    assert max(len(group.problems) for group in found) == size
    for group in found:
        start = group.problems[0] // 32 * 32
        assert group.problems[-1] < start + 32
        assert group.seed == seed_for(5, "evaluation", start)
        assert group.first == (group.problems[0] - start) * samples


def test_responses_are_those_of_32_problems_at_once_however_many_are_written_together(engine: TorchEngine) -> None:
    """The committed results were measured so: a call of the engine for each 32 problems, responses in order."""
    prompts = TASK.held_out_prompts()
    expected = []
    for start in (0, 32, 64):
        ids = [ids for ids in TASK.encode(prompts[start : start + 32], TOKENIZER) for _ in range(SAMPLES)]
        expected += engine.generate(ids, Sampling(1.0, 1.0, TASK.max_tokens), seed=seed_for(3, "evaluation", start))
    together = run(lambda: engine, None, settings=EvaluationSettings(seed=3))
    in_groups = run(lambda: engine, None)
    for found, exactly in [(together, True), (in_groups, False)]:
        samples = [sample for problem in found for sample in problem.samples]
        assert [sample.text for sample in samples] == TOKENIZER.batch_decode(
            [generation.tokens for generation in expected], skip_special_tokens=True
        )
        assert [sample.tokens for sample in samples] == [len(generation.tokens) for generation in expected]
        assert [sample.stop_reason for sample in samples] == [generation.stop_reason for generation in expected]
        logprobs = [sum(generation.logprobs) for generation in expected]
        assert [sample.logprob for sample in samples] == (logprobs if exactly else pytest.approx(logprobs, abs=1e-4))
    assert len({sample.text for problem in together for sample in problem.samples}) > 100


def test_problems_kept_for_searches_are_asked_where_settings_say_so(engine: TorchEngine) -> None:
    kept = make_task(tiny("task.held_out=6", "task.held_out_for_search=5").task)
    asked = {
        problems: [
            problem.problem
            for problem in evaluate(
                lambda: Sampler(kept, TOKENIZER, engine, Sampling(1.0, 1.0, TASK.max_tokens)),
                task=kept,
                settings=EvaluationSettings(problems=problems),
                samples=1,
            )
        ]
        for problems in ("report", "search")
    }
    assert asked == {
        "report": [prompt.name for prompt in kept.held_out_prompts()],
        "search": [prompt.name for prompt in kept.held_out_prompts("search")],
    }
    assert [len(problems) for problems in asked.values()] == [6, 5]
    assert not {*asked["report"]} & {*asked["search"]}


def test_a_response_comes_back_from_its_seed_and_its_stream_alone(engine: TorchEngine, straight: Path) -> None:
    """A report promises that seed, first + k and the prompt are enough to write response k again."""
    problem = json.loads((straight / "00040.json").read_text())
    (ids,) = TASK.encode([TASK.held_out_prompts()[40]], TOKENIZER)
    sampling = Sampling(1.0, 1.0, TASK.max_tokens)
    (found,) = engine.generate([ids], sampling, seed=problem["seed"], first=problem["first"] + 2)
    assert TOKENIZER.decode(found.tokens, skip_special_tokens=True) == problem["samples"][2]["text"]


def test_every_problem_has_a_file_with_every_response(straight: Path) -> None:
    assert sorted(contents(straight)) == [f"{number:05d}.json" for number in range(70)]
    prompts = TASK.held_out_prompts()
    assert isinstance(TASK, DigitsTask)
    for number, path in enumerate(sorted(straight.iterdir())):
        told = json.loads(path.read_text())
        assert (told["number"], told["problem"], told["answer"]) == (
            number,
            prompts[number].name,
            prompts[number].answer,
        )
        assert len(told["samples"]) == SAMPLES
        for sample in told["samples"]:
            assert sample.keys() == {"text", "tokens", "logprob", "stop_reason", "verdict", "note"}
            assert sample["verdict"] == TASK.verify(sample["text"], prompts[number])


@pytest.mark.parametrize("writes", [0, 1, 2, 3, 4, 32, 33, 69])
def test_killed_at_any_file_and_resumed_is_straight_through_to_the_bit(
    engine: TorchEngine, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    write = SampleFolder.write
    written: list[int] = []

    def fused(self: SampleFolder, problem: SampledProblem) -> None:
        if len(written) == writes:
            raise Killed
        written.append(problem.number)
        write(self, problem)

    monkeypatch.setattr(SampleFolder, "write", fused)
    with pytest.raises(Killed):
        run(lambda: engine, tmp_path)
    assert len(contents(tmp_path) if writes else []) == writes
    monkeypatch.setattr(
        SampleFolder, "write", lambda self, problem: (written.append(problem.number), write(self, problem))
    )
    resumed = run(lambda: engine, tmp_path)
    assert contents(tmp_path) == contents(straight)
    assert sorted(written) == list(range(70)), "a problem that was kept was written again"
    assert resumed == run(no_engine, straight)


def test_only_groups_with_something_missing_are_responseed(engine: TorchEngine, straight: Path, tmp_path: Path) -> None:
    asked = []

    class Counting:
        def generate(
            self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, first: int = 0
        ) -> list[Generation]:
            asked.append(len(prompts))
            return engine.generate(prompts, sampling, seed=seed, first=first)

    for name, content in contents(straight).items():
        if name not in ("00004.json", "00005.json", "00069.json"):
            (tmp_path / name).write_bytes(content)
    run(cast(Callable[[], Engine], Counting), tmp_path)
    assert asked == [9, 9]  # problems 3 to 5, and 67 to 69
    assert contents(tmp_path) == contents(straight)


def test_what_is_sampled_is_read_and_needs_no_engine(straight: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in straight.iterdir()}
    found = run(no_engine, straight)
    assert [problem.number for problem in found] == list(range(70))
    assert {path: path.stat().st_mtime_ns for path in straight.iterdir()} == before


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        told = json.loads(content)
        change(told)
        return json.dumps(told).encode()

    return edit


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda content: content[: len(content) // 2], "not the responses to a problem (Invalid JSON"),
        (lambda content: b"", "not the responses to a problem (Invalid JSON"),
        (lambda content: b"\xff\x00", "not the responses to a problem (Invalid JSON"),
        (lambda content: b"[]", "not the responses to a problem"),
        (edited(lambda told: told.pop("seed")), "not the responses to a problem (seed: "),
        (edited(lambda told: told["samples"].pop()), "2 responses, expected 3"),
        (edited(lambda told: told.update(problem="3/99")), "responses to another problem, '3/99'"),
        (edited(lambda told: told.update(answer="x")), "responses to another problem"),
        (edited(lambda told: told["samples"][1].update(verdict="right")), "(samples.1.verdict: "),
        (edited(lambda told: told["samples"][0].update(tokens="7")), "(samples.0.tokens: "),
    ],
)
def test_a_file_that_is_not_what_was_written_is_told_and_its_problem_sampled_again(
    engine: TorchEngine, straight: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], told: str
) -> None:
    for name, content in contents(straight).items():
        (tmp_path / name).write_bytes(spoil(content) if name == "00010.json" else content)
    notices: list[str] = []
    run(lambda: engine, tmp_path, notices=notices)
    assert len(notices) == 1
    assert notices[0].startswith(f"{tmp_path / '00010.json'}: ")
    assert told in notices[0]
    assert notices[0].endswith("; its responses are sampled again")
    assert contents(tmp_path) == contents(straight)


def test_a_disk_that_takes_no_more_is_one_clear_line(engine: TorchEngine, tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match=r"samples/00000.json: cannot be (read|written)"):
        run(lambda: engine, tmp_path / "samples")


def test_the_journal_has_the_counts_of_the_responses(straight: Path) -> None:
    problems = run(no_engine, straight)
    found = ProblemResults.of(problems)
    assert found.samples == SAMPLES
    assert found.problems == [prompt.name for prompt in TASK.held_out_prompts()]
    assert found.unreadable == [sum(s.verdict is Verdict.UNREADABLE for s in problem.samples) for problem in problems]
    assert found.length_tokens[7] == sum(sample.tokens for sample in problems[7].samples) / 3
    assert found.metrics("digits").keys() == {
        "eval/digits/avg_at_3", "eval/digits/pass_at_3", "eval/digits/length_tokens",
    }  # fmt: skip
