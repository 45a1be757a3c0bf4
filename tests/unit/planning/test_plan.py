"""`vcppo plan`: shapes, bytes against measured ones, what it advises, and what it prints."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from live_bytes import LiveBytes
from tiny import new_policy, tiny
from transformers import AutoConfig, PreTrainedModel

from vcppo.cli.main import main
from vcppo.engines.base import Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.errors import CheckpointError, ConfigError
from vcppo.models.checkpoints import save_model
from vcppo.models.loading import new_critic
from vcppo.models.loading import new_policy as policy_of
from vcppo.planning import speeds
from vcppo.planning.memory_estimate import GIB, Memory, Network, generate
from vcppo.planning.plan import Gpus, Plan, make_plan, memory_without_gpu
from vcppo.planning.remedies import gpus_needed, remedies
from vcppo.planning.shapes import KNOWN, critic_shapes_of, read_shapes, shapes_of
from vcppo.planning.time_estimate import estimate_costs
from vcppo.settings.fixed import ALIGNMENT_CHUNKS, ALIGNMENT_MEMORY
from vcppo.settings.loading import load_settings, override
from vcppo.settings.run import RunSettings
from vcppo.tasks import make_task

PRODUCTS = speeds.Machine(flops_per_s=1e9, bytes_per_s=math.inf)
CLOSE = 0.15  # of a measured peak
PUBLISHED = {  # billions of weights, as the models' cards have them
    "qwen2.5-0.5b": 0.494, "qwen2.5-1.5b": 1.544, "qwen2.5-7b": 7.616, "qwen2.5-32b": 32.764,
    "qwen3-0.6b": 0.596, "qwen3-8b": 8.191, "llama-3-8b": 8.030, "llama-3.2-1b": 1.236,
    "smollm2-135m": 0.1345, "smollm2-360m": 0.362, "smollm2-1.7b": 1.711,
}  # fmt: skip


def test_the_torch_generator_takes_what_is_planned_and_gives_its_cache_back() -> None:
    settings = tiny("model.hidden_size=64", "model.intermediate_size=128", "model.layers=3", "model.heads=4")
    model = settings.model.model_copy(update={"kv_heads": 2})
    policy = policy_of(model, make_task(settings.task).tokenizer(), max_length=2048, seed=0)
    policy.config.eos_token_id = policy.generation_config.eos_token_id = None  # nobody ends
    net = network_of(settings, policy)
    rows, prompt, response = 16, 20, 200
    with LiveBytes() as count:
        for parameter in policy.parameters():
            parameter.view(-1)
        before = count.live
        engine = TorchEngine(policy)
        copies = count.live - before
        count.restart()
        engine.generate([list(range(1, 1 + prompt))] * rows, Sampling(1.0, 1.0, response), seed=0)
        peak, after = count.peak - before, count.live - before
    planned = generate(net, rows, prompt, response, nucleus=False, drops=False)
    assert planned.generator == pytest.approx(copies, rel=0.02)
    assert planned.generator + planned.cache == pytest.approx(peak, rel=CLOSE)
    assert planned.cache > 10 * planned.generator
    assert after - copies < planned.cache / 10


def network_of(settings: RunSettings, policy: PreTrainedModel) -> Network:
    config = policy.config
    shapes = dataclasses.replace(
        shapes_of(settings),
        kv_heads=config.num_key_value_heads,
        vocabulary=config.vocab_size,
        layers=config.num_hidden_layers,
    )
    return Network(shapes, False, settings.compute, settings.lora, 1)


def test_the_generator_drops_its_old_copies_before_it_makes_new_ones() -> None:
    policy = new_policy("model.hidden_size=64", "model.intermediate_size=256", "model.layers=4")
    with LiveBytes() as count:
        engine = TorchEngine(policy)
        count.restart()
        copies = count.live
        engine.update_weights(policy)
        assert count.peak < 1.2 * copies


# Shapes.


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_models_have_as_many_weights_as_their_cards_say(name: str) -> None:
    assert KNOWN[name].policy_weights / 1e9 == pytest.approx(PUBLISHED[name], abs=6e-4)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_those_of_the_real_model(architecture: str, tied: bool, tmp_path: Path) -> None:
    settings = tiny(f"model.architecture={architecture}", f"model.tied={str(tied).lower()}", "model.layers=3")
    policy = policy_of(settings.model, make_task(settings.task).tokenizer(), max_length=64, seed=0)
    shapes = shapes_of(settings)
    assert shapes.vocabulary == policy.config.vocab_size
    assert shapes.policy_weights == sum(p.numel() for p in policy.parameters())
    policy.config.save_pretrained(tmp_path)
    assert read_shapes(tmp_path / "config.json") == shapes
    assert shapes_of(override(RunSettings(), {"model.path": str(tmp_path)})) == shapes


def test_a_hub_name_is_known_with_what_follows_it() -> None:
    plain = shapes_of(override(RunSettings(), {"model.path": "Qwen/Qwen2.5-1.5B"}))
    assert shapes_of(override(RunSettings(), {"model.path": "Qwen/Qwen2.5-Math-1.5B-Instruct"})) == plain
    assert plain == KNOWN["qwen2.5-1.5b"]


def test_a_model_that_nobody_knows_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"model.path = owner/thing: .* expected a local folder or one of qwen2.5-0.5b"
    ):
        shapes_of(override(RunSettings(), {"model.path": "owner/thing"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    with pytest.raises(CheckpointError, match="'num_attention_heads' is missing"):
        shapes_of(override(RunSettings(), {"model.path": str(tmp_path)}))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        shapes_of(override(RunSettings(), {"model.path": str(tmp_path)}))


def test_a_saved_configuration_of_transformers_says_whether_the_head_is_tied(tmp_path: Path) -> None:
    for tied in (True, False):
        AutoConfig.for_model("qwen2", tie_word_embeddings=tied).save_pretrained(tmp_path)
        assert read_shapes(tmp_path / "config.json").tied is tied


# Plans.

SEVEN = {
    "model.path": "Qwen/Qwen2.5-7B",
    "compute.dtype": "bfloat16",
    "rollout.max_tokens": 8192,
    "cold_start.steps": 0,
}


def plan(changes: dict[str, Any], gpus: int = 8, memory: float = 80.0) -> Plan:
    return make_plan(override(RunSettings(), changes), Gpus.of(gpus, memory))


def memory_of(found: Plan, stage: str, name: str) -> Memory:
    return next(phase.memory for phase in found.phases if (phase.stage, phase.name) == (stage, name))


def test_policy_and_critic_share_a_gpu_with_twelve_bytes_a_weight_and_four_more() -> None:
    both = KNOWN["qwen2.5-7b"].policy_weights + KNOWN["qwen2.5-7b"].critic_weights
    memory = memory_of(plan(SEVEN), "rl", "update policy")
    assert memory.weights + memory.optimiser == 12 * both / 8
    assert memory.gradients == 4 * KNOWN["qwen2.5-7b"].policy_weights / 8, "of the one that is being updated"
    assert memory_of(plan(SEVEN), "rl", "generate").gradients == 0
    alone = memory_of(plan({**SEVEN, "method": "grpo", "rollout.prompts": 12}), "rl", "update policy")
    with_reference = KNOWN["qwen2.5-7b"].policy_weights
    assert alone.weights + alone.gradients + alone.optimiser == (16 + 4) * with_reference / 8


def test_stages_are_those_of_the_run() -> None:
    names = [phase.stage for phase in plan(SEVEN).phases]
    assert list(dict.fromkeys(names)) == ["reward-model", "answers", "value-pretraining", "rl", "evaluation"]
    fresh = {phase.stage for phase in plan({"method": "grpo"}, 1).phases}
    assert fresh == {"cold-start", "rl", "evaluation"}
    assert "preference" in {phase.stage for phase in plan({"method": "rto"}, 1).phases}


def test_replicas_hold_whole_copies() -> None:
    once, twice = (memory_of(plan({**SEVEN, "compute.replicas": n}), "rl", "score").weights for n in (1, 2))
    assert twice == 2 * once
    with pytest.raises(ConfigError, match=r"compute.replicas = 3: expected a divisor of the 8 processes"):
        plan({**SEVEN, "compute.replicas": 3})


def test_offloaded_shards_wait_in_main_memory() -> None:
    there, here = plan({**SEVEN, "compute.offload": True}), plan(SEVEN)
    memory = memory_of(there, "rl", "update policy")
    assert (memory.weights, memory.gradients, memory.optimiser) == (0, 0, 0)
    before = memory_of(here, "rl", "update policy")
    critics = memory_of(here, "rl", "update critic").gradients
    assert there.host == before.weights + before.gradients + critics + before.optimiser
    assert here.host == 0


def test_gradients_that_are_compared_lie_in_main_memory_up_to_their_limit() -> None:
    small, large = plan({}, 1), plan({**SEVEN, "record.alignment_every": 10})
    bytes_of = [memory_of(one, "rl", "update policy").gradients for one in (small, large)]
    assert small.host == (5 + 2 * 3 * ALIGNMENT_CHUNKS) * bytes_of[0]
    assert large.host == 5 * bytes_of[1] + ALIGNMENT_MEMORY
    assert plan({"record.alignment_every": 0}, 1).host == 0


def test_longer_responses_take_more_and_checkpointing_less() -> None:
    short, long = (plan({**SEVEN, "rollout.max_tokens": n}).fullest.needs for n in (2048, 8192))
    assert long > short
    less = plan({**SEVEN, "compute.gradient_checkpointing": True}).fullest.needs
    assert less < long - 20 * GIB


def test_what_does_not_fit_is_told_what_would_help() -> None:
    settings, machine = override(RunSettings(), SEVEN), Gpus.of(8, 80.0)
    assert not make_plan(settings, machine).fits
    found = remedies(settings, machine)
    assert [remedy.saves for remedy in found[:-1]] == sorted((r.saves for r in found[:-1]), reverse=True)
    for remedy in found:
        after = make_plan(override(settings, remedy.settings), machine)
        assert after.fits == remedy.fits
        assert after.fullest.memory.total == make_plan(settings, machine).fullest.memory.total - remedy.saves
    assert {"compute.gradient_checkpointing": True} in [remedy.settings for remedy in found]


def test_more_gpus_are_counted_until_it_fits() -> None:
    settings = override(RunSettings(), {**SEVEN, "compute.gradient_checkpointing": True})
    enough = gpus_needed(settings, Gpus.of(1, 80.0))
    assert enough is not None
    assert make_plan(settings, Gpus.of(enough, 80.0)).fits
    assert not make_plan(settings, Gpus.of(enough // 2, 80.0)).fits


def test_no_number_of_gpus_helps_when_one_response_is_too_long() -> None:
    assert gpus_needed(override(RunSettings(), SEVEN), Gpus.of(8, 16.0)) is None


# The command.


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments], catch_exceptions=False)


def test_the_command_says_yes_with_0_and_no_with_1(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('cold_start.steps = 0\nmodel.path = "Qwen/Qwen2.5-0.5B"\ncompute.dtype = "bfloat16"\n')
    small = invoke(str(config), "--gpus", "1", "--memory", "80")
    assert small.exit_code == 0
    assert "it fits: the fullest phase is" in small.output
    assert "assumed, not measured" in small.output
    large = invoke(str(config), "--memory", "8")
    assert large.exit_code == 1
    assert "it does not fit" in large.output
    assert "would save" in large.output


def test_the_command_prints_what_the_plan_holds() -> None:
    output = invoke("--set", "method=ppo").output
    rows = [line.split() for line in output.splitlines() if line.startswith(("rl ", "evaluation "))]
    found = make_plan(override(RunSettings(), {"method": "ppo"}), Gpus.of(1, 80.0))
    assert len(rows) == sum(phase.stage in ("rl", "evaluation") for phase in found.phases) + 2
    assert {row[-1] for row in rows[:-2]} == {"yes"}


def test_without_a_gpu_a_process_takes_main_memory() -> None:
    words = ["task.name=maths", "model.path=HuggingFaceTB/SmolLM2-135M", "compute.offload=true"]
    words.append("rollout.max_tokens=40")
    flags = [part for word in words for part in ("--set", word)]
    done = invoke(*flags, "--gpus", "0", "--memory", "8")
    settings = load_settings(None, words)
    plan, on_gpu = make_plan(settings, Gpus.of(0, 8.0)), make_plan(settings, Gpus.of(1, 8.0))
    assert plan.fullest.needs == memory_without_gpu(settings)
    assert (done.exit_code == 0) == (plan.fullest.needs <= 8 * GIB)
    assert "no GPU, 8 GiB" in done.output
    assert "GPU hours" not in done.output, "an H100's rates say nothing of a processor"
    largest = max(plan.phases, key=lambda phase: phase.memory.total)
    assert largest.needs == pytest.approx(1.05 * largest.memory.total + 0.45 * GIB)
    assert largest.memory.weights > 0, "weights have nowhere else to wait"
    assert all(phase.memory.weights == 0 for phase in on_gpu.phases), "offloaded"
    assert invoke(*flags, "--gpus", "0", "--memory", "1").exit_code == 1
    plain = [word for word in words if "offload" not in word]
    aligned = load_settings(None, [*plain, "record.alignment_every=5"])
    updates = [
        next(phase for phase in make_plan(each, Gpus.of(0, 8.0)).phases if phase.name == "update policy")
        for each in (aligned, load_settings(None, plain))
    ]
    beside = make_plan(aligned, Gpus.of(1, 8.0)).host
    assert updates[0].needs - updates[1].needs == pytest.approx(1.05 * beside), "it has nowhere else to be"
    refused = invoke(*flags, "--gpus", "0", "--set", "engine.kind=vllm")
    assert refused.exit_code == 2
    assert "engine.kind = vllm: its memory without a GPU is not planned" in refused.output


def test_mistakes_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = invoke("--set", "model.path=owner/thing")
    assert done.exit_code == 2
    assert done.output.startswith("ConfigError: model.path = owner/thing")
    assert len(done.output.splitlines()) == 1
    assert invoke(str(tmp_path / "no.toml")).exit_code == 2


def test_the_command_loads_no_torch() -> None:
    code = (
        "import sys; from vcppo.cli.main import main\n"
        "try: main(['plan', '--set', 'model.path=Qwen/Qwen2.5-7B', '--gpus', '8'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'mlflow', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_new_critic_is_counted_with_its_own_size(tmp_path: Path) -> None:
    """Its weights are those of the network that is built; the policy's stay what they were."""
    more = ("critic.init=new", "critic.layers=5", "critic.hidden_size=48", "critic.heads=3", "model.layers=2")
    settings = tiny(*more)
    policy = policy_of(settings.model, make_task(settings.task).tokenizer(), max_length=64, seed=0)
    save_model(policy, make_task(settings.task).tokenizer(), tmp_path)
    assert settings.critic.init == "new"
    critic = new_critic(tmp_path, settings.critic, seed=0)
    assert critic_shapes_of(settings).critic_weights == sum(p.numel() for p in critic.parameters())
    assert shapes_of(settings) == shapes_of(tiny("model.layers=2"))
    assert critic_shapes_of(tiny()) == shapes_of(tiny())
    machine = Gpus.of(1, 80)
    plain, large = make_plan(tiny("model.layers=2", "critic.init=policy"), machine), make_plan(settings, machine)
    needs = [{(p.stage, p.name): p.memory.total for p in plan.phases} for plan in (plain, large)]
    assert needs[0].keys() == needs[1].keys()
    assert {key for key in needs[0] if needs[0][key] != needs[1][key]} == {
        ("value-pretraining", "update"), *((stage, name) for stage, name in needs[0] if stage == "rl"),
    }  # fmt: skip
    times = [{time.stage: time.pass_h for time in plan.times} for plan in (plain, large)]
    for stage, times_longer in {"cold-start": False, "answers": False, "value-pretraining": True, "rl": True}.items():
        assert (times[1][stage] > times[0][stage]) == times_longer


def test_a_dry_run_counts_a_new_critics_passes(tmp_path: Path) -> None:
    """By arithmetic alone: memory as fast as can be."""

    def minutes(*more: str) -> dict[str, float]:
        costs = estimate_costs(tiny("critic.init=new", *more), tmp_path, machine=PRODUCTS)
        return {cost.stage: cost.minutes for cost in costs}

    plain, twice = minutes(), minutes("critic.layers=2")  # the policy has 1
    assert minutes("critic.layers=1") == plain
    assert twice["value-pretraining"] == pytest.approx(2 * plain["value-pretraining"])
    assert twice["cold-start"] == plain["cold-start"]
    of_critic = twice["rl"] - plain["rl"]
    assert of_critic == pytest.approx(minutes("critic.layers=3")["rl"] - twice["rl"])
    assert 0 < of_critic < plain["rl"]
    mixed = minutes("pretrain.gae_lambda=0.95")["value-pretraining"]
    trained = 6 * 4 * 16
    measured = 2 * 3 * 32
    assert mixed / plain["value-pretraining"] == pytest.approx((trained + measured + 2 * 4 * 16) / (trained + measured))


@pytest.mark.parametrize(
    ("assignments", "width"), [((), 4), (("compute.dtype=bfloat16",), 2), (("engine.dtype=bfloat16",), 2)]
)
def test_vllm_holds_weights_in_the_policys_precision_unless_told(assignments: tuple[str, ...], width: int) -> None:
    words = ("model.path=Qwen/Qwen2.5-1.5B", "task.name=maths", "engine.kind=vllm", "rollout.max_tokens=512")
    settings = load_settings(assignments=[*words, *assignments])
    planned = make_plan(settings, Gpus.of(8, 80))
    generating = next(phase for phase in planned.phases if phase.name == "generate")
    assert generating.memory.generator == width * planned.shapes.policy_weights


def test_a_configuration_that_is_no_object_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"config\.json: list, expected an object"):
        read_shapes(tmp_path / "config.json")


@pytest.mark.parametrize("name", ["num_experts", "num_local_experts", "n_routed_experts"])
def test_a_mixture_of_experts_is_not_counted_as_if_it_had_one(name: str, tmp_path: Path) -> None:
    config = {"model_type": "qwen3_moe", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 4, "vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(config | {name: 8}))
    with pytest.raises(CheckpointError, match="a mixture of experts, whose weights are not counted here"):
        read_shapes(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps(config | {name: None}))
    assert read_shapes(tmp_path / "config.json").hidden_size == 64
