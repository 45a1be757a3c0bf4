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
from vcppo.engines.torch.engine import TorchEngine, outside_nucleus
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
FEW = 4  # and at least: what a step takes however many they are is told by the two
SHARE = 0.25  # of the budget for each of three measurements; the rest is the model's making and the updates
NUCLEUS_SHARE, SPREAD = 0.9, 10.0  # of logits: a trained model has some likely tokens, and that is what a nucleus takes
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

    rows = max(min(settings.responses_per_iteration, ROWS, GENERATOR_ROWS), 2 * FEW)
    many, few = (_generation(policy, settings, lengths, count, share / 2, clock) for count in (rows, FEW))
    step_s = max(few - many, 0.0) / (1 / FEW - 1 / rows)  # a token takes generate_s + step_s / rows
    generate_s = max(many - step_s / rows, 1e-9)
    read_s = _median(read, share, clock) / cells
    train_s = _median(train, share, clock) / cells
    optimiser = Optimiser(policy, settings.cold_start, 10**6)

    def update() -> None:
        for parameter in policy.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        optimiser.step()

    update_s, nucleus_s = _median(update, share / 3, clock), _nucleus(policy, share / 10, clock)
    return Speed(generate_s, step_s, nucleus_s, read_s, train_s, update_s, date.today().isoformat())


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
    rows: int,
    share: float,
    clock: Callable[[], float],
) -> float:
    """Seconds a token of so many responses, prompts apart: what more tokens take, over how many more they are."""
    rng = torch.Generator().manual_seed(1)
    prompts = torch.randint(policy.config.vocab_size, (rows, lengths.prompt), generator=rng).tolist()
    engine = TorchEngine(policy)
    temperature = settings.rollout.temperature

    def seconds(tokens: int) -> float:
        began = clock()
        engine.generate(prompts, Sampling(temperature, 1.0, tokens), seed=0)
        return clock() - began

    first = min(seconds(1) for _ in range(REPEATS))
    for tokens in _growing(lengths.written):
        whole = seconds(tokens)
        if whole - first > share / 3 or tokens == lengths.written:
            break
    return max(whole - first, 1e-9) / (rows * (tokens - 1)) if tokens > 1 else first / rows


def _nucleus(policy: PreTrainedModel, share: float, clock: Callable[[], float]) -> float:
    """Seconds a token that the search for a nucleus takes, among probabilities of random logits."""
    rng = torch.Generator().manual_seed(2)
    weights = (SPREAD * torch.randn((FEW, policy.config.vocab_size), generator=rng)).softmax(dim=-1)

    def find() -> None:
        outside_nucleus(weights, NUCLEUS_SHARE)

    return _median(find, share, clock) / FEW


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
