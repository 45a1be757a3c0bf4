"""Minutes before a run: the shapes, prompts and limits of the model that is given, and speeds measured here."""

import json
import math
import shutil
from pathlib import Path

import arithmetic
import plugins
import pytest
from click.testing import CliRunner
from tiny import ASSIGNMENTS, tiny

from vcppo.cli.main import main
from vcppo.models.loading import load_tokenizer
from vcppo.planning import time_estimate
from vcppo.planning.calibration import calibrate
from vcppo.planning.lengths import lengths_of
from vcppo.planning.plan import Gpus, make_plan
from vcppo.planning.shapes import shapes_of
from vcppo.planning.speed_store import speeds_file, store_speed, stored_speed
from vcppo.planning.speeds import Machine, Speed
from vcppo.planning.time_estimate import StageCost, estimate_costs, networks_of
from vcppo.settings.loading import load_settings
from vcppo.settings.run import RunSettings
from vcppo.settings.task import MathsTaskSettings
from vcppo.tasks import make_task
from vcppo.tasks.maths import MathsTask

GIGA = Machine(flops_per_s=4e9, bytes_per_s=math.inf)  # a quarter of it is reached: 1e9 a second
SPEED = Speed(
    generate_s=4.0, step_s=32.0, nucleus_s=0.5, read_s=1.0, train_s=3.0, update_s=100.0, measured="2026-01-02"
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return arithmetic.make_model_folder(tmp_path_factory.mktemp("model"), "llama")


def words_for(model: Path, *more: str) -> list[str]:
    problems = arithmetic.make_problems(model / "sums.jsonl", 40, terms=3)
    held_out = arithmetic.make_problems(model / "held-out.jsonl", 8, seed=1, terms=4)
    sets = [f"task.maths.train={problems}", f"task.maths.evaluate={held_out}", "task.maths.solution_column=solution"]
    return ["task.name=maths", f"model.path={model}", *sets, *more]


def settings_for(model: Path, *more: str) -> RunSettings:
    return load_settings(None, words_for(model, *more))


def cost_of(stage: str, settings: RunSettings, tmp_path: Path) -> StageCost:
    (cost,) = [cost for cost in estimate_costs(settings, tmp_path / "runs", machine=GIGA) if cost.stage == stage]
    return cost


@pytest.mark.parametrize("more", [(), ("task.maths.system=Be brief.",), ("task.maths.template=plain",)])
def test_prompts_are_as_long_as_the_model_reads_them(model: Path, more: tuple[str, ...]) -> None:
    settings = settings_for(model, *more)
    assert isinstance(settings.task, MathsTaskSettings)
    task = MathsTask(settings.task.maths)
    tokenizer = load_tokenizer(model)
    counts = [len(row) for row in task.encode([task._prompt(p) for p in task._train], tokenizer)]
    measured = [len(row) for row in task.encode(task.held_out_prompts(), tokenizer)]
    lengths = lengths_of(settings)
    assert (lengths.prompt, lengths.longest_prompt) == (round(sum(counts) / len(counts)), max(measured))
    assert max(measured) > max(counts), "of four terms, not three"


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("template", [True, False])
def test_prompts_of_a_task_from_outside_are_counted_alike(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str | None, template: bool
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    if not template:
        (folder / "chat_template.jinja").unlink()
    monkeypatch.setattr(plugins.Riddles, "system", system)
    monkeypatch.setattr(plugins.Riddles, "prompt_tokens", 999, raising=False)  # said, and not so
    settings = load_settings(None, ["task.name=plugins:Riddles", f"model.path={folder}", "cold_start.steps=0"])
    task, tokenizer = make_task(settings.task), load_tokenizer(folder)
    assert (tokenizer.chat_template is not None) == template
    counts = [len(row) for row in task.encode(task.training_problems(), tokenizer)]  # type: ignore[attr-defined]
    (longest,) = task.encode(task.held_out_prompts(), tokenizer)
    lengths = lengths_of(settings)
    assert (lengths.prompt, lengths.longest_prompt) == (round(sum(counts) / len(counts)), len(longest))
    assert len(longest) > max(counts), "the one that is measured on"


@pytest.mark.parametrize("template", ["{% generation %}{{ messages[0].content }}{% endgeneration %}", None])
def test_prompts_that_cannot_be_counted_are_as_long_as_their_task_says(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str | None
) -> None:
    """A template with a mark that is not known here; a task without end."""
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    if template is not None:
        monkeypatch.setattr(plugins.Riddles, "prompt_tokens", 77, raising=False)
        (folder / "chat_template.jinja").write_text(template)
    name = "Riddles" if template is not None else "EndlessRiddles"
    words = [f"task.name=plugins:{name}", f"model.path={folder}", "cold_start.steps=0"]
    lengths = lengths_of(load_settings(None, words))
    assert (lengths.prompt, lengths.longest_prompt, lengths.limit) == (77, 77, 20)
    bounded = lengths_of(load_settings(None, [*words, "rollout.max_tokens=100000"]))
    assert bounded.longest_prompt + bounded.limit == 2048, "the model's positions"


def test_the_longest_prompt_is_looked_for_among_all(model: Path) -> None:
    """Of 600 problems the average is of every second or third."""
    settings = settings_for(model)
    assert isinstance(settings.task, MathsTaskSettings)
    path = Path(settings.task.maths.train)
    row = json.loads(path.read_text().splitlines()[0])
    key = "problem" if "problem" in row else "question"
    rows = [{**row, key: f"{n} + 1 = ?" + " + 1" * (30 * (n == 333))} for n in range(600)]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    task = MathsTask(settings.task.maths)
    counts = [len(ids) for ids in task.encode([task._prompt(p) for p in task._train], load_tokenizer(model))]
    assert lengths_of(settings).longest_prompt == max(counts) > lengths_of(settings).prompt + 50


def test_a_response_is_no_longer_than_the_model_has_positions(model: Path) -> None:
    """The task's own limit is 8,192 tokens; this model has 2,048 positions."""
    lengths = lengths_of(settings_for(model))
    assert lengths.longest_prompt + lengths.limit == 2048
    assert lengths_of(settings_for(model, "rollout.max_tokens=40")).written == 40


def test_a_set_that_is_elsewhere_has_prompts_of_512_tokens() -> None:
    lengths = lengths_of(load_settings(None, ["task.name=maths", "model.path=Qwen/Qwen2.5-1.5B"]))
    assert (lengths.prompt, lengths.longest_prompt, lengths.limit) == (512, 512, 8192)


def test_the_given_models_weights_are_counted(model: Path, tmp_path: Path) -> None:
    """Three passes' worth of 2 operations a weight and token, the output head's among them."""
    settings = settings_for(model, "cold_start.steps=10", "cold_start.batch_tokens=1000")
    shapes = shapes_of(settings)
    weights = shapes.layers * shapes.layer_matrices + shapes.embedding
    assert weights > 100_000
    lengths = lengths_of(settings)
    tokens = 10 * (1000 + min(8 * (lengths.prompt + lengths.written), 500))  # what is drawn last is half too many
    assert cost_of("cold-start", settings, tmp_path).minutes == pytest.approx(3 * 2 * weights * tokens / 1e9 / 60)


def test_prompts_are_read_for_every_response_and_passed_over_with_it(model: Path, tmp_path: Path) -> None:
    more = ("rollout.max_tokens=40", "reward_model.responses=64", "reward_model.steps=5", "reward_model.pairs=2")
    settings = settings_for(model, *more)
    prompt = lengths_of(settings).prompt
    cost = cost_of("reward-model", settings, tmp_path)
    assert (cost.prompt_tokens, cost.generated_tokens) == (64 * prompt, 64 * 40)
    assert cost.forward_tokens == cost.trained_tokens == 5 * 2 * 2 * (prompt + 40)


def test_one_source_of_shapes_and_lengths(model: Path, tmp_path: Path) -> None:
    settings = settings_for(model, "rollout.max_tokens=40")
    plan = make_plan(settings, Gpus.of(1, 80))
    assert plan.shapes == networks_of(settings)[0].shapes
    by_stage = {cost.stage: cost for cost in estimate_costs(settings, tmp_path, machine=GIGA)}
    for time in plan.times:
        assert time.generated == by_stage[time.stage].generated_tokens


def test_estimates_say_that_they_are_not_of_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_estimate, "NVIDIA", tmp_path / "none")
    assert "GPU" not in time_estimate.basis(tiny())
    monkeypatch.setattr(time_estimate, "NVIDIA", tmp_path)
    assert "on the processor, not on the GPU, not measured" in time_estimate.basis(tiny())


def test_a_model_that_nobody_here_knows_has_tokens_and_no_minutes(tmp_path: Path) -> None:
    words = ["task.name=maths", "model.path=owner/thing"]
    assert all(math.isnan(cost.minutes) for cost in estimate_costs(load_settings(None, words), tmp_path))
    flags = [part for word in words for part in ("--set", word)]
    said = CliRunner().invoke(main, ["train", "--dry-run", "--out", str(tmp_path / "runs"), *flags])
    assert said.exit_code == 0
    assert "time unknown here" in said.output
    assert "the shapes of owner/thing are not known here, so no time is estimated" in said.output


def test_gpt2_under_its_own_names_is_counted(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 48, "n_layer": 2, "n_head": 3, "vocab_size": 100, "n_positions": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = load_settings(None, ["task.name=maths", f"model.path={tmp_path}", "rollout.max_tokens=8"])
    shapes = shapes_of(settings)
    assert shapes.layers * shapes.layer_matrices == 2 * 12 * 48 * 48  # four of attention, eight of feed-forward


def test_what_was_measured_here_is_counted_with(model: Path, tmp_path: Path) -> None:
    settings = settings_for(model, "rollout.max_tokens=40", "reward_model.responses=64", "reward_model.steps=5")
    policy, critic = networks_of(settings)
    assert stored_speed(policy, settings) is None
    store_speed(policy, settings, SPEED)
    assert stored_speed(policy, settings) == SPEED
    assert stored_speed(policy, settings_for(model, "compute.dtype=bfloat16")) is None
    by_stage = {cost.stage: cost for cost in estimate_costs(settings, tmp_path / "runs", machine=GIGA)}
    cold, rated = by_stage["cold-start"], by_stage["reward-model"]
    assert cold.minutes * 60 == pytest.approx(3.0 * cold.trained_tokens + 100.0 * settings.cold_start.steps)
    work = critic.shapes.layers * critic.shapes.layer_matrices
    share = work / (work + policy.shapes.embedding)  # a critic has no head to multiply with
    passes = share * (rated.forward_tokens + 3.0 * rated.trained_tokens)
    updates = 5 * 100.0 * critic.learning / policy.learning
    generation = (4.0 + 32.0 / 64) * rated.generated_tokens + rated.prompt_tokens  # 64 are written together
    assert rated.minutes * 60 == pytest.approx(generation + passes + updates)


@pytest.mark.parametrize("spoilt", ["", "{", "[]", '{"0": {"generate_s": 1}}'])
def test_a_spoilt_file_of_measurements_is_as_none(spoilt: str) -> None:
    policy, _ = networks_of(tiny())
    store_speed(policy, tiny(), SPEED)
    speeds_file().write_text(spoilt)
    assert stored_speed(policy, tiny()) is None
    store_speed(policy, tiny(), SPEED)
    assert stored_speed(policy, tiny()) == SPEED


def test_the_command_measures_and_a_dry_run_says_so(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = words_for(model, "rollout.max_tokens=40", "micro_batch_tokens=300", "rollout.prompts=4")
    flags = [part for word in words for part in ("--set", word)]
    monkeypatch.setattr("vcppo.planning.calibration.calibrate", lambda settings: calibrate(settings, budget_s=0.0))
    done = CliRunner().invoke(main, ["plan", "--calibrate", *flags])
    assert done.exit_code == 0, done.output
    assert [line.split()[-1] for line in done.output.splitlines() if "tokens/s" in line] == [
        "written",
        "read",
        "trained",
    ]
    dry = CliRunner().invoke(main, ["train", "--dry-run", "--out", str(tmp_path / "runs"), *flags])
    assert "by speeds of this model measured here on 20" in dry.output
    other = CliRunner().invoke(
        main, ["train", "--dry-run", "--out", str(tmp_path / "runs"), *flags, "--set", "lora.rank=2"]
    )
    assert "not measured; `vcppo plan --calibrate` measures this model here in a minute" in other.output


def test_a_fresh_model_is_measured_too() -> None:
    speed = calibrate(tiny(), budget_s=0.0)
    assert min(speed.read_s, speed.train_s, speed.generate_s, speed.nucleus_s, speed.update_s) > 0
    assert speed.step_s >= 0


def test_another_engine_is_not_measured() -> None:
    flags = [part for word in (*ASSIGNMENTS, "engine.kind=vllm") for part in ("--set", word)]
    done = CliRunner().invoke(main, ["plan", "--calibrate", *flags])
    assert done.exit_code == 2
    assert "engine.kind = vllm: --calibrate measures the torch engine, expected torch" in done.output
