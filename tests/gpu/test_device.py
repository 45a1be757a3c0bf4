"""What only a GPU can show: the same numbers as on the CPU, bfloat16, memory as planned, a whole run, shared responses.

`nox -s gpu -- tests` runs them; VCPPO_GPU_TESTS=here runs them on whatever there is, to try the tests themselves.
"""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import ASSIGNMENTS, plainly, random_batch, tiny
from transformers import PreTrainedModel

from vcppo.engines.base import Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.models import forward, loading
from vcppo.models.distributed import world
from vcppo.models.optimiser import Optimiser
from vcppo.models.sharding import prepare
from vcppo.planning.memory_estimate import Network, gradients, held, train
from vcppo.planning.shapes import shapes_of
from vcppo.rl.critic_update import update_critic
from vcppo.settings.loading import override
from vcppo.settings.model import ComputeSettings, LoraSettings
from vcppo.settings.run import RunSettings
from vcppo.store.cache import addresses
from vcppo.tasks import make_task
from vcppo.types import RolloutBatch

ON_GPU = torch.cuda.is_available()
pytestmark = pytest.mark.skipif(
    not ON_GPU and "VCPPO_GPU_TESTS" not in os.environ, reason="no GPU here; `nox -s gpu -- tests` where there is one"
)
SHAPE = ("model.architecture=qwen2", "model.hidden_size=128", "model.intermediate_size=256", "model.layers=2",
         "model.heads=4", "model.kv_heads=2", "model.initializer_range=0.05")  # fmt: skip
NARROW = ComputeSettings(dtype="bfloat16", gradient_checkpointing=True)
CLOSE = 0.15


def policy_on(device: str, compute: ComputeSettings | None = None) -> PreTrainedModel:
    settings = tiny(*SHAPE)
    policy = loading.new_policy(settings.model, make_task(settings.task).tokenizer(), max_length=256, seed=0)
    return plainly(policy) if device == "cpu" else prepare(policy, compute or ComputeSettings(), LoraSettings(), seed=0)


def batch() -> RolloutBatch:
    return random_batch([40, 7, 23, 61], vocabulary=20)


def scores(policy: PreTrainedModel, some: RolloutBatch) -> torch.Tensor:
    with torch.no_grad():
        return forward.response_logprobs(policy, some, 1.0)[0]


def test_models_are_where_passes_run() -> None:
    assert world().device.type == ("cuda" if ON_GPU else "cpu")
    assert next(policy_on("here").parameters()).device.type == world().device.type


def test_float32_log_probabilities_are_the_cpus() -> None:
    some = batch()
    torch.testing.assert_close(scores(policy_on("here"), some), scores(policy_on("cpu"), some), rtol=1e-4, atol=1e-4)


def test_bfloat16_log_probabilities_are_near() -> None:
    some = batch()
    got, wanted = scores(policy_on("here", NARROW), some), scores(policy_on("cpu"), some)
    assert (got - wanted).abs()[some.response_mask].mean() < 0.02


@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_packed_responses_score_as_padded_ones(attention: str) -> None:
    if attention == "flash_attention_2" and not (ON_GPU and importlib.util.find_spec("flash_attn")):
        pytest.skip("flash-attn is not installed here")
    some = batch()
    packed = changed(NARROW, attention=attention, packing=True)
    got, wanted = scores(policy_on("here", packed), some), scores(policy_on("here", NARROW), some)
    assert (got - wanted).abs()[some.response_mask].mean() < 0.02


def changed(compute: ComputeSettings, **changes: object) -> ComputeSettings:
    return compute.model_copy(update=changes)


def test_the_generators_probabilities_are_the_trainers() -> None:
    policy = policy_on("here")
    prompts = [[5, 6, 7], [8, 9, 10, 11]]
    responses = TorchEngine(policy).generate(prompts, Sampling(1.0, 1.0, 24), seed=0)
    rows = [torch.tensor([*prompt, *response.tokens]) for prompt, response in zip(prompts, responses, strict=True)]
    lengths = torch.tensor([len(response.tokens) for response in responses])
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    told = torch.nn.utils.rnn.pad_sequence([torch.tensor(a.logprobs) for a in responses], batch_first=True)
    some = dataclasses.replace(
        random_batch(lengths.tolist(), prompt_lengths=[3, 4]),
        input_ids=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        response_mask=mask,
    )
    torch.testing.assert_close(scores(policy, some), told.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("offload", [False, True])
def test_an_update_lowers_the_loss_wherever_weights_wait(offload: bool, tmp_path: Path) -> None:
    if offload and not ON_GPU:
        pytest.skip("nothing to offload from")
    policy_on("cpu").save_pretrained(tmp_path)
    critic = loading.load_critic(tmp_path, head_seed=0)
    prepare(critic, changed(NARROW, offload=offload), LoraSettings(), seed=0)
    settings = override(RunSettings(), {"critic.learning_rate": 1e-3})
    optimiser, some = Optimiser(critic, settings.critic_model, 100), batch()
    targets = torch.ones(some.response_mask.shape)
    losses = [
        update_critic(
            critic, optimiser, some, torch.zeros_like(targets), targets, kind="mse", clip_range=0.5,
            aggregation="token-mean", fixed_length=61, max_tokens=128,
        ).loss
        for _ in range(10)
    ]  # fmt: skip
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.skipif(not ON_GPU, reason="a processor does not tell the peak of its tensors")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_peak_is_as_planned(checkpointing: bool, tmp_path: Path) -> None:
    shape = {"model.architecture": "qwen2", "model.hidden_size": 1024, "model.intermediate_size": 4096,
             "model.layers": 8, "model.heads": 16, "model.kv_heads": 4, "model.initializer_range": 0.02}  # fmt: skip
    settings = override(RunSettings(), shape)
    compute = changed(NARROW, gradient_checkpointing=checkpointing)
    policy = loading.new_policy(settings.model, make_task(settings.task).tokenizer(), max_length=8192, seed=0)
    policy.save_pretrained(tmp_path)
    del policy
    before = torch.cuda.memory_allocated()
    critic = prepare(loading.load_critic(tmp_path, head_seed=0), compute, LoraSettings(), seed=0)
    length, rows = 8000, 2
    some = random_batch([length - 100] * rows, vocabulary=20, prompt_lengths=[100] * rows)
    targets, optimiser = torch.ones(some.response_mask.shape), Optimiser(critic, settings.critic_model, 100)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        update_critic(
            critic, optimiser, some, torch.zeros_like(targets), targets, kind="mse", clip_range=0.5,
            aggregation="token-mean", fixed_length=length, max_tokens=length,
        )  # fmt: skip
    net = Network(shapes_of(settings), True, compute, LoraSettings(), 1)
    planned = held(net, learns=True) + gradients(net) + train(net, length, length, length - 100)
    assert planned.total == pytest.approx(torch.cuda.max_memory_allocated() - before, rel=CLOSE)


@pytest.mark.parametrize("compute", [(), ("compute.dtype=bfloat16", "compute.gradient_checkpointing=true")])
def test_a_whole_run_comes_to_its_end_and_knows_itself_again(compute: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(tiny(*compute).model_dump_json())
    code = (
        "import sys; from pathlib import Path; from vcppo.settings.loading import load_settings\n"
        "from vcppo.stages.pipeline import run_stages\n"
        "out = Path(sys.argv[1]); uses = run_stages(load_settings(out / 'settings.json'), out)\n"
        "print([use.ran for use in uses.values()])"
    )  # not `vcppo train`: it needs MLflow, which a machine with a GPU may lack
    for ran in (True, False):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.splitlines()[-1] == str([ran] * len(addresses(tiny(*compute))))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_together(tmp_path: Path) -> None:
    flags = [part for text in (*ASSIGNMENTS, "compute.dtype=bfloat16") for part in ("--set", text)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vcppo"]
    done = subprocess.run([*command, "train", "--out", str(tmp_path), *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
