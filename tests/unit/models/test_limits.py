"""Length limit of a response: within the positions that a model has beside the prompt, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import arithmetic
import pytest
import torch
from click.testing import CliRunner
from tiny import ASSIGNMENTS, new_policy, tiny
from transformers import AutoConfig, PretrainedConfig

from vcppo.cli.main import main
from vcppo.engines.base import BranchPoint, Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.errors import ConfigError, EngineError
from vcppo.models.configurations import positions
from vcppo.models.limits import Limit, Room, limit_of
from vcppo.models.loading import load_tokenizer
from vcppo.models.loading import new_policy as fresh
from vcppo.settings.run import RunSettings
from vcppo.stages import pipeline
from vcppo.stages.context import StageContext
from vcppo.store.cache import StageFolder, addresses
from vcppo.tasks import make_task

# ---- what a configuration says ----

CONFIGURATIONS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "llama": ("llama", {"max_position_embeddings": 4096}, 4096),
    "qwen2": ("qwen2", {"max_position_embeddings": 32}, 32),
    "gpt2, by its own name": ("gpt2", {"n_positions": 1024}, 1024),
    "gpt_bigcode": ("gpt_bigcode", {"n_positions": 77}, 77),
    "gptj": ("gptj", {"n_positions": 33}, 33),
    "mpt, which calls it a sequence length": ("mpt", {"max_seq_len": 55}, 55),
    "opt": ("opt", {"max_position_embeddings": 2048}, 2048),
    "gemma3, of its text": ("gemma3", {"text_config": {"max_position_embeddings": 99}}, 99),
    "qwen2_5_vl, of its text": ("qwen2_5_vl", {"text_config": {"max_position_embeddings": 88}}, 88),
    "llava, of its text": ("llava", {"text_config": {"model_type": "llama", "max_position_embeddings": 66}}, 66),
    "bloom, which has no bound": ("bloom", {}, None),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_configuration_says_its_positions_by_whatever_name(case: str) -> None:
    kind, options, wanted = CONFIGURATIONS[case]
    assert positions(AutoConfig.for_model(kind, **options)) == wanted


def test_a_configuration_of_no_known_kind_has_no_bound() -> None:
    assert positions(PretrainedConfig()) is None


# ---- the limit ----

MODEL = Room.of_model("owner/model", 4096)


@pytest.mark.parametrize(
    ("said", "default", "longest", "wanted"),
    [
        (None, 4000, 96, 4000),  # all but
        (None, 3000, 96, 3000),
        (None, 8192, 96, 4000),
        (None, 8192, 4095, 1),
        (None, 4001, 96, 4000),
        (4000, 8192, 96, 4000),
        (1, 8192, 4095, 1),
    ],
)
def test_a_limit_fits_beside_the_longest_prompt(said: int | None, default: int, longest: int, wanted: int) -> None:
    found = limit_of(said, default, room=MODEL, longest_prompt=longest, of="training")
    assert found.tokens == wanted
    if said is None and default > wanted:
        assert found.note == (
            f"owner/model has 4096 positions, the longest of the training prompts has {longest} tokens: responses to "
            f"them end at {wanted} tokens, instead of the task's {default}"
        )
    else:
        assert found.note is None


@pytest.mark.parametrize(("said", "longest"), [(4001, 96), (8192, 1), (4096, 1), (2, 4095), (10**6, 2000)])
def test_a_limit_that_was_set_and_does_not_fit_is_refused(said: int, longest: int) -> None:
    with pytest.raises(ConfigError, match=rf"^rollout.max_tokens = {said}: .* expected at most {4096 - longest}$"):
        limit_of(said, 100, room=MODEL, longest_prompt=longest, of="training")


@pytest.mark.parametrize("longest", [4096, 4097, 5000, 10**5])
@pytest.mark.parametrize("said", [None, 1])
def test_a_prompt_that_fits_alone_no_more_is_refused(longest: int, said: int | None) -> None:
    with pytest.raises(ConfigError, match=rf"longest of the training prompts has {longest} tokens: there is no room"):
        limit_of(said, 100, room=MODEL, longest_prompt=longest, of="training")


def test_where_nothing_bounds_a_response_the_limit_is_set_values() -> None:
    room = Room.of_model("owner/model", None)
    assert limit_of(None, 8192, room=room, longest_prompt=10**6, of="training") == Limit(8192)
    assert limit_of(7, 8192, room=room, longest_prompt=10**6, of="training") == Limit(7)
    assert room.smaller(MODEL) is MODEL
    assert MODEL.smaller(room) is MODEL
    assert MODEL.smaller(Room.of_engine(512)).source == "engine.max_length is 512"


# ---- the torch engine ----


def policy_of(known: int) -> Any:
    settings = tiny()
    policy = fresh(settings.model, make_task(settings.task).tokenizer(), max_length=known, seed=0).eval()
    policy.config.eos_token_id = policy.generation_config.eos_token_id = -1  # nothing ends
    return policy


@pytest.mark.parametrize(
    ("known", "prompt", "limit"), [(32, 1, 31), (32, 31, 1), (32, 4, 28), (10, 5, 5), (7, 2, 5), (2, 1, 1)]
)
def test_the_torch_engine_writes_to_the_last_position_and_not_beyond(known: int, prompt: int, limit: int) -> None:
    engine = TorchEngine(policy_of(known))
    (response,) = engine.generate([[2] * prompt], Sampling(1.0, 1.0, limit), seed=0)
    assert len(response.tokens) == limit
    stem = [[2] * prompt + list(response.tokens)]
    engine.branch(stem, [BranchPoint(0, prompt, limit)], Sampling(1.0, 1.0, 100), seed=0)
    said = f"prompt 1 has {prompt} tokens and its response up to {limit + 1}: more than the model's {known}"
    with pytest.raises(EngineError, match=said):
        engine.generate([[], [2] * prompt], Sampling(1.0, 1.0, limit + 1), seed=0)
    points = [BranchPoint(0, 1, 1), BranchPoint(0, prompt, limit + 1)]
    with pytest.raises(EngineError, match=said):
        engine.branch(stem, points, Sampling(1.0, 1.0, 100), seed=0)


# ---- a run, and an evaluation ----


def sums(folder: Path, known: int, *more: str) -> list[str]:
    """Assignments of a run on sums with a model of so many positions."""
    model = arithmetic.make_model_folder(folder / "model", hidden_size=16, layers=1, heads=2, kv_heads=1)
    told = json.loads((model / "config.json").read_text(encoding="utf-8")) | {"max_position_embeddings": known}
    (model / "config.json").write_text(json.dumps(told), encoding="utf-8")
    train = arithmetic.make_problems(folder / "train.jsonl", 20, seed=1, terms=6)
    held_out = arithmetic.make_problems(folder / "held.jsonl", 4, seed=2, terms=2)
    paths = (f"model.path={model}", f"task.maths.train={train}", f"task.maths.evaluate={held_out}")
    small = [text for text in ASSIGNMENTS if text.split("=")[0] in ("evaluation.samples", "micro_batch_tokens")]
    return [*small, "task.name=maths", "task.maths.workers=1", *paths, *more]


def context(assignments: list[str], out: Path) -> StageContext:
    from vcppo.settings.loading import load_settings

    settings: RunSettings = load_settings(None, assignments)
    return StageContext(settings, StageFolder(out, addresses(settings)["cold-start"]), {})


def longest(of: str, here: StageContext) -> int:
    tokenizer = load_tokenizer(here.settings.model.path or "")
    if of == "training":
        prompts = here.task.training_prompts(2000, torch.Generator().manual_seed(0))
    else:
        prompts = here.task.held_out_prompts()
    return max(map(len, here.task.encode(prompts, tokenizer)))


def test_the_maths_tasks_own_limit_gives_way_to_the_model_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = context(sums(tmp_path, 200), tmp_path)
    training, held_out = longest("training", here), longest("evaluation", here)
    assert training > held_out
    assert here.sampling == Sampling(1.0, 1.0, 200 - training)
    assert here.evaluation_limit.tokens == 200 - held_out

    monkeypatch.setattr(pipeline, "STAGES", dict.fromkeys(pipeline.STAGES, lambda context: {}))
    monkeypatch.setattr(pipeline, "is_complete", lambda folder, settings: True)
    pipeline.run_stages(here.settings, tmp_path)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert f"has 200 positions, the longest of the training prompts has {training} tokens: responses" in lines[0]
    assert f"them end at {200 - held_out} tokens, instead of the task's 8192" in lines[1]


def test_a_model_with_room_is_not_spoken_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    here = context(sums(tmp_path, 32768), tmp_path)
    assert here.sampling.max_tokens == 8192
    assert here.rollout_limit.note is None
    assert context(list(ASSIGNMENTS), tmp_path).sampling.max_tokens == make_task(tiny().task).max_tokens


@pytest.mark.parametrize(
    ("known", "more", "said"),
    [
        (200, ("rollout.max_tokens=190",), "rollout.max_tokens = 190: "),
        (200, ("rollout.max_tokens=8192",), "rollout.max_tokens = 8192: "),
        (2048, ("rollout.max_tokens=2048",), "rollout.max_tokens = 2048: "),
        (12, (), "there is no room for a response"),
        (12, ("rollout.max_tokens=1",), "there is no room for a response"),
        (2048, ("engine.kind=vllm", "engine.max_length=100", "rollout.max_tokens=90"), "engine.max_length is 100"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    known: int, more: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    words = [part for text in sums(tmp_path, known, *more) for part in ("--set", text)]
    for command in (["evaluate", str(tmp_path / "model")], ["evaluate", str(tmp_path / "model"), "--dry-run"]):
        failed = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "out"), *words])
        assert failed.exit_code == 2
        assert said in failed.stderr.splitlines()[-1]
    with pytest.raises(ConfigError) as caught:
        pipeline.run_stages(context(sums(tmp_path, known, *more), tmp_path).settings, tmp_path / "out")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "cache").exists()


def test_a_fresh_policy_is_asked_for_no_more_than_it_has(tmp_path: Path) -> None:
    room = make_task(tiny().task).max_tokens + 64
    assert context([*ASSIGNMENTS, f"rollout.max_tokens={room - 4}"], tmp_path).sampling.max_tokens == room - 4
    with pytest.raises(ConfigError, match=rf"the fresh policy has {room} positions, .* 4 tokens; expected at most"):
        _ = context([*ASSIGNMENTS, f"rollout.max_tokens={room - 3}"], tmp_path).sampling


def test_a_saved_critic_bounds_responses_too(tmp_path: Path) -> None:
    from vcppo.models.checkpoints import save_model

    settings = tiny()
    save_model(new_policy(), make_task(settings.task).tokenizer(), tmp_path / "critic")  # of 256 positions
    told = json.loads((tmp_path / "critic" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "critic" / "config.json").write_text(json.dumps(told | {"max_position_embeddings": 9}), "utf-8")
    saved = (*ASSIGNMENTS, "critic.init=saved", f"critic.path={tmp_path / 'critic'}")
    kept = [text for text in saved if not text.startswith("reward_model")]
    here = context(kept, tmp_path)
    assert here.sampling.max_tokens == 9 - 4
    assert "critic has 9 positions" in str(here.rollout_limit.note)


def test_an_evaluation_says_its_shortened_limit_and_records_it(tmp_path: Path) -> None:
    words = [part for text in sums(tmp_path, 60) for part in ("--set", text)]
    done = CliRunner().invoke(main, ["evaluate", str(tmp_path / "model"), "--out", str(tmp_path / "out"), *words])
    assert done.exit_code == 0, done.stderr
    here = context(sums(tmp_path, 60), tmp_path)
    limit = 60 - longest("evaluation", here)
    (note,) = [line for line in done.stderr.splitlines() if line.startswith("note: ") and "positions" in line]
    assert f"end at {limit} tokens, instead of the task's 8192" in note
    (report,) = (tmp_path / "out" / "evaluations").glob("*/report.json")
    assert json.loads(report.read_text(encoding="utf-8"))["sampling"]["max_tokens"] == limit
