"""Settings, models and batches small enough that a whole pipeline takes seconds."""

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from vcppo.models import loading
from vcppo.models.prepared import declare
from vcppo.settings.loading import Layer, build_settings, nest, parse_assignment
from vcppo.settings.model import ComputeSettings
from vcppo.settings.run import RunSettings
from vcppo.tasks import make_task
from vcppo.types import RolloutBatch

ASSIGNMENTS = (
    "task.chain_length=3",
    "task.digits=2",
    "task.stop_hazard=0.3",
    "task.held_out=10",
    "model.hidden_size=16",
    "model.intermediate_size=32",
    "model.layers=1",
    "model.heads=2",
    "model.kv_heads=2",
    "cold_start.steps=160",
    "cold_start.learning_rate=0.01",
    "cold_start.batch_tokens=300",
    "reward_model.steps=6",
    "reward_model.responses=512",
    "reward_model.pairs=4",
    "rollout.prompts=12",
    "policy.minibatches=2",
    "policy.learning_rate=0.001",
    "steps=4",
    "pretrain.steps=4",
    "pretrain.batch=16",
    "pretrain.pool=48",
    "pretrain.held_out=32",
    "pretrain.evaluate_every=2",
    "evaluation.samples=2",
    "evaluation.every=2",
    "record.checkpoint_every=2",
    "micro_batch_tokens=200",
)


def tiny(*more: str) -> RunSettings:
    """Settings of a run of some two seconds, with more `key=value` on top; what a method among them ignores, it may."""
    small, on_top = (dict(parse_assignment(text) for text in texts) for texts in (ASSIGNMENTS, more))
    layers = [Layer("tiny", nest(small, "tiny"), shared=True), Layer("--set", nest(on_top, "--set"))]
    return build_settings(layers)


def tiny_method(method: str, *more: str, shared: tuple[str, ...] = ()) -> RunSettings:
    """A method's own settings on the tiny task, with `shared` ones that it may ignore, and `more` that it may not."""
    small = [text for text in ASSIGNMENTS if not text.startswith("pretrain.steps")]
    common = nest(dict(map(parse_assignment, (*small, *shared))), "tiny")
    on_top = nest(dict(map(parse_assignment, more)), "--set")
    return build_settings([Layer("method", {"method": method}), Layer("tiny", common, True), Layer("--set", on_top)])


def new_policy(*more: str, seed: int = 0) -> PreTrainedModel:
    """A random policy on the tiny task, computed plainly."""
    settings = tiny(*more)
    tokenizer = make_task(settings.task).tokenizer()
    return plainly(loading.new_policy(settings.model, tokenizer, max_length=256, seed=seed))


def decoder_of(config: PretrainedConfig, *, seed: int) -> PreTrainedModel:
    """A decoder whose biases and norms are not 0 and 1, where a mistake in them would not show."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.3 * torch.randn(parameter.shape))
    assert isinstance(model, PreTrainedModel)
    return model


def plainly(model: PreTrainedModel) -> PreTrainedModel:
    """A model computed with the default settings where it is, its weights and modules left as they are."""
    declare(model, ComputeSettings(), model.device)
    return model


def random_batch(
    lengths: list[int], *, vocabulary: int = 20, seed: int = 0, prompt_lengths: list[int] | None = None
) -> RolloutBatch:
    """Responses of these lengths made of random tokens, prompts of 2, 3, 4, 2, ... tokens unless given."""
    rng = torch.Generator().manual_seed(seed)
    prompts = prompt_lengths or [2 + i % 3 for i in range(len(lengths))]
    rows = [torch.randint(1, vocabulary, (p + n,), generator=rng) for p, n in zip(prompts, lengths, strict=True)]
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return RolloutBatch(
        input_ids=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        prompt_lengths=torch.tensor(prompts),
        response_mask=mask,
        old_logprobs=torch.where(mask, -2.0 + torch.rand(mask.shape, generator=rng), 0.0),
        scores=torch.where(torch.rand(len(lengths), generator=rng) < 0.5, 1.0, -1.0),
        correct=torch.zeros(len(lengths), dtype=torch.bool),
        truncated=torch.zeros(len(lengths), dtype=torch.bool),
        group=torch.arange(len(lengths)),
    )
