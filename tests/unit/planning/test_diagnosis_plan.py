"""The plan of a diagnosis: bytes against measured ones, operations against counted passes, and what is printed."""

import dataclasses

import pytest
import torch
from click.testing import CliRunner
from live_bytes import LiveBytes
from tiny import new_policy, random_batch, tiny

from vcppo.cli.main import main
from vcppo.planning.diagnosis_plan import (
    CPU_OPERATIONS,
    TRUTHS,
    Workload,
    affordable_responses,
    gradient_operations,
    gradient_phases,
    operations_in_half_an_hour,
    plan_diagnosis,
)
from vcppo.planning.memory_estimate import Network
from vcppo.planning.plan import Gpus
from vcppo.planning.shapes import KNOWN, shapes_of
from vcppo.rl.policy_gradients import PolicyGradients
from vcppo.settings.run import RunSettings

CLOSE = 0.15  # of a measured peak
WIDER = ("model.hidden_size=128", "model.intermediate_size=384", "model.layers=4", "model.heads=4", "model.kv_heads=4")
WORK = Workload(responses=500, prompts=125, tokens=150_000, longest=300, written=128_000, critics=1, lambdas=4)


def test_gradients_take_the_memory_that_is_planned_phase_by_phase() -> None:
    settings, kinds = tiny(*WIDER), 4
    policy = new_policy(*WIDER)
    shapes = dataclasses.replace(shapes_of(settings), vocabulary=policy.config.vocab_size)
    batch = random_batch([60] * 8, vocabulary=14, prompt_lengths=[4] * 8)
    groups = [torch.arange(2 * i, 2 * i + 2) for i in range(4)]
    net = Network(shapes, False, settings.compute, settings.lora, 1)
    planned = {
        name: memory.total + host for name, memory, host in gradient_phases(net, kinds, (128, 64, 120), len(groups))
    }
    advantages = torch.ones((kinds, *batch.response_mask.shape))
    measured = {}
    with LiveBytes() as count:
        for parameter in policy.parameters():
            parameter.view(-1)
        before = count.live - sum(4 * parameter.numel() for parameter in policy.parameters())
        gradients = PolicyGradients(policy, batch, temperature=1.0, max_tokens=128, held=48, memory=2**31)
        count.restart()
        gradients.precondition(groups)
        measured["moments"] = count.peak - before
        count.restart()
        made = [part for rows in groups for part in gradients.of(rows, advantages)]
        measured["gradients"] = count.peak - before
        count.restart()
        gradients.products(torch.cat([part for part in made[::2] if part is not None]))
        measured["products"] = count.peak - before
    assert gradients.sketch is None
    for name, peak in measured.items():
        assert planned[name] == pytest.approx(peak, rel=CLOSE), name


def test_operations_are_those_of_the_passes_that_are_taken() -> None:
    batch, kinds = random_batch([4] * 8), 5
    gradients = PolicyGradients(new_policy(), batch, temperature=1.0, max_tokens=100, held=30, memory=2**30)
    groups = [torch.arange(8)]
    gradients.precondition(groups)
    gradients.of(groups[0], torch.ones((kinds, *batch.response_mask.shape)))
    assert gradients.backward_passes == 1 + kinds
    forward = 2  # one for second moments, one for all kinds
    assert gradient_operations(1.0, kinds, sharded=False) == 2.0 * (forward + 2 * gradients.backward_passes)
    assert gradient_operations(1.0, kinds, sharded=True) == 2.0 * 3 * gradients.backward_passes


def test_half_an_hour_pays_for_a_share_of_what_is_dear_and_for_all_that_is_cheap() -> None:
    small = 70_000.0
    assert affordable_responses(WORK, small, sharded=False, operations=CPU_OPERATIONS) == 500
    dear = 134_515_008.0  # SmolLM2-135M
    some = affordable_responses(WORK, dear, sharded=False, operations=CPU_OPERATIONS)
    assert some == int(CPU_OPERATIONS / (2 * dear * (4 + 2 * (TRUTHS + 4)) * 300)) == 116
    assert affordable_responses(WORK, 1e12, sharded=False, operations=CPU_OPERATIONS) == 16
    on_gpus = operations_in_half_an_hour(RunSettings(), gpus=2)
    assert affordable_responses(WORK, dear, sharded=True, operations=on_gpus) == 500


def test_a_plan_has_readers_and_gradients_by_what_is_at_hand() -> None:
    shapes = KNOWN["qwen2.5-0.5b"]
    whole = plan_diagnosis(RunSettings(), WORK, policy=shapes, critic=shapes, machine=Gpus(0, 0.0))
    assert [phase.name for phase in whole.phases] == ["values", "moments", "gradients", "products"]
    assert 16 < whole.gradient_responses < 116
    reading = plan_diagnosis(RunSettings(), WORK, policy=None, critic=shapes, machine=Gpus(0, 0.0))
    assert (reading.gradient_responses, reading.gradient_operations) == (0, 0.0)
    assert reading.reading_operations == whole.reading_operations
    asked = plan_diagnosis(
        RunSettings(), WORK, policy=shapes, critic=None, machine=Gpus(0, 0.0), gradient_responses=400
    )
    assert asked.gradient_responses == 400
    assert asked.gradient_operations == pytest.approx(
        whole.gradient_operations * 400 / whole.gradient_responses, rel=1e-6
    )
    gpus = plan_diagnosis(RunSettings(), WORK, policy=shapes, critic=shapes, machine=Gpus.of(2, 80))
    assert gpus.gradient_responses == 500
    assert max(gpus.host) < max(whole.host), "two processes hold half of every gradient each"


def test_the_command_says_what_a_diagnosis_takes() -> None:
    arguments = ["plan", "--diagnose", "500", "--set", "model.path=Qwen/Qwen2.5-0.5B", "--set", "task.name=maths"]
    done = CliRunner().invoke(main, [*arguments, "--set", "rollout.max_tokens=256", "--gpus", "1"])
    assert done.exit_code == 0, done.output
    assert "500 responses, 384,000 tokens with their prompts; 6 kinds of advantages" in done.output
    assert [line.split()[0] for line in done.output.splitlines() if line.endswith("yes")] == [
        "values",
        "moments",
        "gradients",
        "products",
    ]
    small = CliRunner().invoke(main, [*arguments, "--memory", "3"])
    assert (small.exit_code, "NO" in small.output) == (1, True)
