"""A minute's measurement of how fast a policy runs here: generation, passes, training, updates. Needs torch.

The network has the shapes of the run's model and random weights, and is computed as the run computes it; nothing of
the run's is read but the model's configuration.
"""

import time
from collections.abc import Callable, Iterator
from datetime import date

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from vcppo.engines.base import Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.errors import ConfigError
from vcppo.models.configurations import positions
from vcppo.models.forward import micro_batches_of_rank, response_logprobs
from vcppo.models.loading import load_config, new_policy
from vcppo.models.optimiser import Optimiser
from vcppo.models.sharding import prepare
from vcppo.planning.lengths import Lengths, lengths_of
from vcppo.planning.speeds import Speed
from vcppo.settings.fixed import GENERATOR_ROWS
from vcppo.settings.run import RunSettings
from vcppo.settings.task import MathsTaskSettings
from vcppo.tasks import make_task
from vcppo.types import TokenBatch

ROWS = 64  # responses written together, at most
SHARE = 0.25  # of the budget for each of three measurements; the rest is the model's making and the updates
REPEATS = 3  # of each measurement, at least; the median counts


def calibrate(
    settings: RunSettings, *, budget_s: float = 60.0, clock: Callable[[], float] = time.perf_counter
) -> Speed:
    """Measure the speed of the settings' policy in about `budget_s` seconds; of a very large model, longer.

    Raises:
        ConfigError: another engine than torch generates, or the model's configuration is not here.
        CheckpointError: the torch engine cannot decode such a model.
    """
    if settings.engine.kind != "torch":
        raise ConfigError(
            f"engine.kind = {settings.engine.kind}: --calibrate measures the torch engine, expected torch"
        )
    lengths = lengths_of(settings)
    policy = prepare(_policy(settings, lengths), settings.compute, settings.lora, seed=0)
    share = SHARE * budget_s
    batch = _batch(policy, settings, lengths)
    cells = int(batch.total_lengths.sum())

    def read() -> None:
        with torch.no_grad():
            response_logprobs(policy, batch, 1.0)

    def train() -> None:
        for micro_batch in micro_batches_of_rank(policy, batch.total_lengths, settings.micro_batch_tokens):
            logprobs, _ = response_logprobs(policy, batch.take(micro_batch.rows), 1.0)
            (-logprobs.mean()).backward()

    generate_s = _generation(policy, settings, lengths, share, clock)
    read_s = _median(read, share, clock) / cells
    train_s = _median(train, share, clock) / cells
    optimiser = Optimiser(policy, settings.cold_start, 10**6)

    def update() -> None:
        for parameter in policy.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        optimiser.step()

    return Speed(generate_s, read_s, train_s, _median(update, share / 3, clock), date.today().isoformat())


def _policy(settings: RunSettings, lengths: Lengths) -> PreTrainedModel:
    """Random weights in the model's shapes, without a token that ends a response."""
    path, trust = settings.model.path, settings.model.trust_remote_code
    if path is None:
        assert not isinstance(settings.task, MathsTaskSettings)
        tokenizer = make_task(settings.task).tokenizer()
        policy = new_policy(settings.model, tokenizer, max_length=lengths.longest, seed=0)
    else:
        config = load_config(path, trust_remote_code=trust)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=trust).eval()
    policy.config.eos_token_id = policy.generation_config.eos_token_id = None
    return policy


def _batch(policy: PreTrainedModel, settings: RunSettings, lengths: Lengths) -> TokenBatch:
    """As many prompts with responses, of usual lengths, as a micro-batch holds."""
    total = min(lengths.prompt + lengths.written, max(settings.micro_batch_tokens, lengths.prompt + 1))
    total = min(total, positions(policy.config) or total)
    prompt = min(lengths.prompt, total - 1)
    rows = max(settings.micro_batch_tokens // total, 1)
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(policy.config.vocab_size, (rows, total), generator=rng)
    mask = torch.ones((rows, total - prompt), dtype=torch.bool)
    return TokenBatch(input_ids=ids, prompt_lengths=torch.full((rows,), prompt), response_mask=mask)


def _generation(
    policy: PreTrainedModel,
    settings: RunSettings,
    lengths: Lengths,
    share: float,
    clock: Callable[[], float],
) -> float:
    """Seconds a token of responses, prompts apart: what more tokens take, over how many more they are."""
    rows = max(min(settings.responses_per_iteration, ROWS, GENERATOR_ROWS), 1)
    rng = torch.Generator().manual_seed(1)
    prompts = torch.randint(policy.config.vocab_size, (rows, lengths.prompt), generator=rng).tolist()
    engine = TorchEngine(policy)
    sampled = settings.rollout

    def seconds(tokens: int) -> float:
        began = clock()
        engine.generate(prompts, Sampling(sampled.temperature, sampled.top_p, tokens), seed=0)
        return clock() - began

    first = min(seconds(1) for _ in range(REPEATS))
    for tokens in _growing(lengths.written):
        whole = seconds(tokens)
        if whole - first > share / 3 or tokens == lengths.written:
            break
    return max(whole - first, 1e-9) / (rows * (tokens - 1)) if tokens > 1 else first / rows


def _growing(most: int) -> Iterator[int]:
    """8, 32, 128, ... and `most`."""
    tokens = 8
    while tokens < most:
        yield tokens
        tokens *= 4
    yield most


def _median(work: Callable[[], None], share: float, clock: Callable[[], float]) -> float:
    """Median seconds of the work, done once before it counts and then until `share` seconds are over."""
    work()
    times: list[float] = []
    end = clock() + share
    while len(times) < REPEATS or clock() < end:
        began = clock()
        work()
        times.append(clock() - began)
    return sorted(times)[len(times) // 2]
