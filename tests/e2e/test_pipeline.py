"""Whole runs on a tiny model, the same to the bit whatever interrupts them; long because all begin with one run."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ASSIGNMENTS, tiny

from vcppo.cli.exit_codes import NOT_DELIVERED
from vcppo.errors import TrainingError
from vcppo.models.optimiser import Optimiser
from vcppo.planning.lengths import lengths_of
from vcppo.planning.time_estimate import estimate_costs
from vcppo.settings.run import RunSettings
from vcppo.stages.pipeline import run_stages
from vcppo.stages.shared.saved_responses import load_responses
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import Journal, read_journal

pytestmark = pytest.mark.e2e

STAGES = ["cold-start", "reward-model", "answers", "value-pretraining", "rl", "evaluation"]
VARYING = ("time/", "system/rss_mb", "cost/elapsed_s", "cost/peak_memory_mb")


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The --out of one run that nothing disturbed."""
    out = tmp_path_factory.mktemp("straight")
    run_stages(tiny(), out)
    return out


def folder(out: Path, stage: str, settings: RunSettings | None = None) -> Path:
    return StageFolder(out, addresses(settings or tiny())[stage]).path


def borrow(straight: Path, out: Path, *stages: str) -> None:
    """Stages of the undisturbed run into another --out."""
    for stage in stages:
        shutil.copytree(folder(straight, stage), folder(out, stage))


def told(path: Path) -> list[dict[str, Any]]:
    """The journal without clocks and memory."""
    records = []
    for record in read_journal(path / "journal.jsonl"):
        del record["time"]
        if record["kind"] == "metrics":
            record["values"] = {k: v for k, v in record["values"].items() if not k.startswith(VARYING)}
        records.append(record)
    return records


def models_in(path: Path) -> dict[str, bytes]:
    """Every file of weights, and what an evaluation has kept, by its place."""
    files = [*path.rglob("*.safetensors"), *path.glob("samples/*.json")]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def assert_same(one: Path, other: Path, *stages: str, settings: RunSettings | None = None) -> None:
    for stage in stages:
        first, second = (folder(out, stage, settings) for out in (one, other))
        assert told(first) == told(second), stage
        assert models_in(first) == models_in(second), stage
        results = [json.loads((path / "done.json").read_text())["result"] for path in (first, second)]
        assert results[0] == results[1]


def numpy_state() -> Any:
    state: Any = np.random.get_state()
    return state[1].copy()


def test_two_runs_are_equal_to_the_bit_and_touch_no_global_randomness(straight: Path, tmp_path: Path) -> None:
    torch.rand(7)  # the run before may have left the state that this one will leave
    states = torch.get_rng_state(), numpy_state(), random.getstate()
    run_stages(tiny(), tmp_path)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (numpy_state() == states[1]).all()
    assert random.getstate() == states[2]
    assert_same(straight, tmp_path, *STAGES)
    assert {"policy/model.safetensors", "critic/model.safetensors"} == set(models_in(folder(straight, "rl")))


def test_a_journal_tells_what_the_contract_names(straight: Path) -> None:
    records = read_journal(folder(straight, "rl") / "journal.jsonl")
    steps = [r for r in records if r["kind"] == "metrics" and "rollout/accuracy" in r["values"]]
    assert [r["step"] for r in steps] == [0, 1, 2, 3]
    names = set(steps[0]["values"])
    for name in ("length_tokens", "length_p10_tokens", "length_p90_tokens", "unreadable_rate", "truncated_rate"):
        assert f"rollout/{name}" in names
    for name in ("loss", "entropy", "approx_kl", "clip_fraction", "ratio_max", "grad_norm", "learning_rate", "ref_kl"):
        assert f"policy/{name}" in names
    for name in ("loss", "explained_variance", "value_bias", "mean", "grad_norm", "learning_rate"):
        assert f"value/{name}" in names
    assert {"advantage/mean", "advantage/std", "advantage/real_reward_share", "system/rss_mb"} <= names
    assert {f"time/{part}_s" for part in ("generate", "score", "update", "other", "iteration")} <= names
    assert all(r["values"]["system/rss_mb"] > 10 for r in steps)
    evaluations = [r["step"] for r in records if r["kind"] == "metrics" and "eval/digits/avg_at_1" in r["values"]]
    assert evaluations == [0, 2]
    assert {r["name"] for r in records if r["kind"] == "table"} == {
        "critic_by_position", "critic_by_fraction", "critic_calibration", "samples",
    }  # fmt: skip
    final = read_journal(folder(straight, "evaluation") / "journal.jsonl")
    assert final[0]["step"] == 4
    assert set(final[0]["values"]) == {"eval/digits/avg_at_2", "eval/digits/pass_at_2", "eval/digits/length_tokens"}
    assert len(final[1]["columns"]["problem"]) == 10
    for stage, name in [("cold-start", "cold_start/loss"), ("reward-model", "reward_model/pair_accuracy")]:
        assert name in read_journal(folder(straight, stage) / "journal.jsonl")[0]["values"]


def test_the_final_evaluation_keeps_every_response(straight: Path) -> None:
    path = folder(straight, "evaluation")
    problems = [json.loads(file.read_text()) for file in sorted((path / "samples").iterdir())]
    table = read_journal(path / "journal.jsonl")[1]["columns"]
    assert [problem["problem"] for problem in problems] == table["problem"]
    verdicts = [[sample["verdict"] for sample in problem["samples"]] for problem in problems]
    assert [len(of_problem) for of_problem in verdicts] == table["samples"] == [2] * 10
    for verdict in ("correct", "unreadable"):
        assert [of_problem.count(verdict) for of_problem in verdicts] == table[verdict]


def test_the_cold_start_learns_its_demonstrations(straight: Path) -> None:
    losses = [record["values"]["cold_start/loss"] for record in told(folder(straight, "cold-start"))]
    assert losses[0] > 2.5  # log of 21 words is 3.0
    assert losses[-1] < 1.5


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Fuse:
    """Lets `left` writes and updates happen, then kills before the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: float = float("inf")
        for owner, name in ((os, "replace"), (Journal, "_write"), (Optimiser, "step")):
            monkeypatch.setattr(owner, name, self.guard(getattr(owner, name)))

    def guard(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any) -> Any:
            if self.left <= 0:
                raise Killed
            self.left -= 1
            return original(*arguments)

        return guarded


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_moment_of_a_stage_and_resumed_is_straight_through(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Attempt i dies before its i-th write or update (in the cold start, every 23rd), until one gets through."""
    borrow(straight, tmp_path, *STAGES[: STAGES.index(stage)])
    fuse = Fuse(monkeypatch)
    attempts = 0
    for attempts in range(1000):
        fuse.left = 23 * attempts if stage == "cold-start" else attempts
        try:
            run_stages(tiny(), tmp_path, until=stage)
        except Killed:
            continue
        break
    assert attempts > 1
    fuse.left = float("inf")
    assert_same(straight, tmp_path, stage)
    assert not (folder(tmp_path, stage) / "state.pt").exists()


def test_only_what_followed_the_last_checkpoint_is_done_again(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    borrow(straight, tmp_path, *STAGES[:4])
    taken: list[int] = []
    step = Optimiser.step

    def counted(self: Optimiser) -> float:
        if len(taken) == 14:  # 4 iterations of 2 minibatches, policy and critic each: the last but one update
            taken.append(0)
            raise Killed
        taken.append(1)
        return step(self)

    monkeypatch.setattr(Optimiser, "step", counted)
    with pytest.raises(Killed):
        run_stages(tiny(), tmp_path, until="rl")
    run_stages(tiny(), tmp_path, until="rl")
    assert sum(taken) == 14 + 8  # two iterations again
    assert_same(straight, tmp_path, "rl")


RUN = """
import sys
from pathlib import Path
from vcppo.settings.loading import load_settings
from vcppo.stages.shared.saved_responses import load_responses
from vcppo.stages.pipeline import run_stages

run_stages(load_settings(assignments=sys.argv[2:]), Path(sys.argv[1]))
"""


def test_sigkill_in_rl_and_a_new_process_is_straight_through(straight: Path, tmp_path: Path) -> None:
    borrow(straight, tmp_path, *STAGES[:4])
    journal = folder(tmp_path, "rl") / "journal.jsonl"
    with subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path), *ASSIGNMENTS]) as process:
        deadline = time.monotonic() + 120
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 6):
            assert time.monotonic() < deadline
            assert process.poll() in (None, 0)
            time.sleep(0.002)
        process.kill()
    run_stages(tiny(), tmp_path)
    assert_same(straight, tmp_path, "rl", "evaluation")


def test_nothing_is_computed_twice(straight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Optimiser, "step", Fuse.guard(type("", (), {"left": 0})(), Optimiser.step))
    seen = []
    uses = run_stages(tiny("arm=renamed"), straight, on_stage=lambda stage, key, ran: seen.append((stage, ran)))
    assert seen == [(stage, False) for stage in STAGES]
    assert not any(use.ran for use in uses.values())


def ran(out: Path, *assignments: str, until: str = "evaluation") -> list[str]:
    uses = run_stages(tiny(*assignments), out, until=until)
    return [stage for stage, use in uses.items() if use.ran]


@pytest.fixture
def out(straight: Path, tmp_path: Path) -> Path:
    """An --out with everything before RL in it."""
    borrow(straight, tmp_path, *STAGES[:4])
    return tmp_path


def test_another_lambda_takes_everything_before_rl_from_the_cache(out: Path, straight: Path) -> None:
    assert ran(out, "gae.lambda_actor=0.5") == ["rl", "evaluation"]
    other = tiny("gae.lambda_actor=0.5")
    assert models_in(folder(out, "rl", other)) != models_in(folder(straight, "rl"))


def test_grpo_needs_no_critic(out: Path) -> None:
    grpo = ("advantage.estimator=grpo", "rollout.samples_per_prompt=4", "rollout.prompts=3", "steps=2")
    assert ran(out, *grpo) == ["rl", "evaluation"]
    path = folder(out, "rl", tiny(*grpo))
    assert set(models_in(path)) == {"policy/model.safetensors"}
    names = {name for record in told(path) for name in record.get("values", {})}
    assert not any(name.startswith("value/") for name in names)
    assert "policy/loss" in names


def test_a_critic_may_start_from_the_policy(out: Path) -> None:
    assert ran(out, "critic.init=policy", "steps=2") == ["value-pretraining", "rl", "evaluation"]


@pytest.mark.parametrize(
    "assignments",
    [
        ("gae.bootstrap_truncated=true", "rollout.max_tokens=3", "critic.init=policy"),  # nothing right, no pairs
        ("rollout.max_tokens=1", "critic.init=policy"),
        ("rollout.top_p=0.9", "rollout.temperature=0.8", "advantage.whiten=minibatch"),
        ("kl.placement=reward", "kl.estimator=k1", "gae.length_adaptive_alpha=0.05"),
        ("kl.placement=loss", "policy.dual_clip=3", "policy.entropy_coefficient=0.01", "policy.epochs=2"),
        ("critic.value_loss=clipped", "critic.updates_per_policy_update=2", "policy.aggregation=fixed-length"),
        ("rollout.prompts=7", "policy.minibatches=5"),
        ("critic.init=new", "critic.layers=2", "critic.hidden_size=24", "critic.heads=3"),
    ],
    ids=lambda assignments: assignments[0],
)
def test_settings_off_the_beaten_path_run_to_their_end(out: Path, assignments: tuple[str, ...]) -> None:
    assert "rl" in ran(out, "steps=1", "pretrain.steps=0", *assignments, until="rl")
    settings = tiny("steps=1", "pretrain.steps=0", *assignments)
    values = told(folder(out, "rl", settings))[-1]["values"]
    lost = {name for name, value in values.items() if value is None}
    undefined = {"value/explained_variance", "value/explained_variance_ceiling"}  # all returns are alike
    undefined |= {"alignment/reward_cosine", "alignment/length_cosine"}  # and a gradient is lost in noise
    assert lost <= undefined


@pytest.mark.parametrize("wait", [0, 1, 2])
def test_the_policy_waits_exactly_so_many_iterations_for_its_critic(out: Path, straight: Path, wait: int) -> None:
    for steps, moves in [(wait, False), (wait + 1, True)]:
        if steps == 0:
            continue
        settings = tiny(f"critic.policy_starts_after={wait}", f"steps={steps}")
        run_stages(settings, out, until="rl")
        path = folder(out, "rl", settings)
        start = (folder(straight, "cold-start") / "policy" / "model.safetensors").read_bytes()
        assert ((path / "policy" / "model.safetensors").read_bytes() != start) == moves
        critics = {file.read_bytes() for file in folder(out, "value-pretraining").glob("critic-*/model.safetensors")}
        assert (path / "critic" / "model.safetensors").read_bytes() not in critics
        steps_told = [r for r in told(path) if r["kind"] == "metrics" and "rollout/accuracy" in r["values"]]
        assert ["policy/loss" in record["values"] for record in steps_told] == [False] * wait + [True] * moves


def test_as_many_policy_updates_as_asked(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    step = Optimiser.step
    monkeypatch.setattr(Optimiser, "step", lambda self: (taken.append(self.total_steps), step(self))[1])
    five = ("rollout.prompts=12", "policy.minibatches=5", "policy.epochs=2", "critic.updates_per_policy_update=3")
    ran(out, *five, "steps=2", "pretrain.steps=0", until="rl")
    assert (taken.count(20), taken.count(60)) == (20, 60)  # 2 iterations, 2 passes, 5 updates; the critic 3 each


def test_a_run_may_start_from_a_saved_policy(straight: Path, tmp_path: Path) -> None:
    saved = folder(straight, "cold-start") / "policy"
    settings = tiny(f"model.path={saved}", "cold_start.steps=2", "cold_start.learning_rate=1e-9")
    run_stages(settings, tmp_path, until="cold-start")
    losses = [record["values"]["cold_start/loss"] for record in told(folder(tmp_path, "cold-start", settings))]
    assert losses[0] == pytest.approx(told(folder(straight, "cold-start"))[-1]["values"]["cold_start/loss"], rel=0.3)


def test_a_run_that_leaves_sense_says_where_and_which_state_is_good(out: Path) -> None:
    settings = ("guard.max_ratio=1.0001", "policy.learning_rate=0.5", "record.checkpoint_every=1")
    with pytest.raises(TrainingError, match=r"^rl: iteration \d: probability ratio .* (no state was saved|last good)"):
        run_stages(tiny(*settings), out, until="rl")


def test_a_stage_that_leaves_the_finite_numbers_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"^cold-start: gradient norm is (nan|inf) at update \d+, .*LlamaForCausalLM"
    ):
        run_stages(tiny("cold_start.learning_rate=1e30", "cold_start.warmup_steps=0"), tmp_path, until="cold-start")


def test_fresh_rollouts_make_no_pool(out: Path) -> None:
    assert "answers" in ran(out, "pretrain.fresh_rollouts=true", until="value-pretraining")
    settings = tiny("pretrain.fresh_rollouts=true")
    done = json.loads((folder(out, "answers", settings) / "done.json").read_text())
    assert done["result"]["answers"] == 32.0  # those held out
    pooled = models_in(folder(out, "value-pretraining"))
    assert models_in(folder(out, "value-pretraining", settings)) != pooled


def test_a_critic_may_start_at_the_mean_score_without_pretraining(out: Path) -> None:
    """The control for value pretraining: it knows the fixed policy's mean alone, from responses sampled once."""
    chosen = ("critic.init=policy", "critic.initial_value=mean-score", "pretrain.steps=0", "reward.wrong=-0.25")
    settings = tiny(*chosen)
    uses = run_stages(settings, out, until="rl")
    assert [name for name, use in uses.items() if use.ran] == ["answers", "rl"]
    responses = load_responses(folder(out, "answers", settings))
    assert len(responses.scores) == settings.pretrain.held_out
    mean = float(responses.scores.mean())
    assert mean not in (0.0, 1.0, -1.0)
    at_zero = tiny(*(text for text in chosen if "initial_value" not in text))
    run_stages(at_zero, out, until="rl")
    moved, zero = (
        next(r["values"]["value/mean"] for r in told(folder(out, "rl", which)) if "value/mean" in r.get("values", {}))
        for which in (settings, at_zero)
    )
    assert moved - zero == pytest.approx(mean, abs=1e-5)  # the same head, moved
    other = run_stages(tiny(*chosen, "gae.lambda_actor=0.5"), out, until="rl")
    assert [name for name, use in other.items() if use.ran] == ["rl"]
    (cost,) = [cost for cost in estimate_costs(settings, out / "elsewhere") if cost.stage == "answers"]
    assert cost.generated_tokens == settings.pretrain.held_out * lengths_of(settings).written


def test_a_corrupt_state_is_moved_aside_in_one_line_and_the_stage_begins_anew(out: Path) -> None:
    path = folder(out, "rl")
    path.mkdir(parents=True)
    (path / "state.pt").write_bytes(b"garbage of some length")
    notices: list[str] = []
    assert run_stages(tiny(), out, until="rl", notice=notices.append)["rl"].ran
    (line,) = notices
    assert re.match(r".*/state\.pt: not a readable state \(\w+\); moved to [0-9a-f]+\.bad-1, and trained again", line)
    assert (path.with_name(f"{path.name}.bad-1") / "state.pt").read_bytes() == b"garbage of some length"


# ---- the command line, in processes of its own ----


@pytest.fixture
def train(out: Path) -> list[str]:
    flags = [flag for text in ASSIGNMENTS for flag in ("--set", text)]
    nobody = "http://127.0.0.1:9"  # no tracking server: quicker, and no obstacle
    return [sys.executable, "-m", "vcppo", "train", "--out", str(out), "--tracking-uri", nobody, *flags]


def _hear_interrupts() -> None:
    """A shell's background job, as this one may be, ignores SIGINT and hands that down."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.long
def test_train_interrupted_exits_130_and_goes_on_to_the_same_end(train: list[str], out: Path, straight: Path) -> None:
    long = tiny("steps=60")  # some seconds of RL: a busy machine may be late with the signal
    run_stages(long, straight)
    train += ["--set", "steps=60"]
    journal = folder(out, "rl", long) / "journal.jsonl"
    pipe = subprocess.PIPE
    with subprocess.Popen(train, stdout=pipe, stderr=pipe, preexec_fn=_hear_interrupts) as process:
        deadline = time.monotonic() + 120
        while not (journal.exists() and journal.read_bytes()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert b"the same command goes on" in said[0]
    done = subprocess.run(train, capture_output=True, text=True, timeout=120)
    assert done.returncode == NOT_DELIVERED, done.stderr  # to a server that is not there
    assert "eval/digits/avg_at_2" in done.stdout
    assert "vcppo track replay" in done.stdout
    assert_same(straight, out, "rl", "evaluation", settings=long)
