"""What holds of the vLLM engine wherever it runs. Models are small, but with heads as wide as vLLM needs on a CPU."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from vcppo.engines import make_engine
from vcppo.engines.base import BranchPoint, Sampling
from vcppo.engines.distributed import SharedEngine
from vcppo.engines.torch.engine import TorchEngine
from vcppo.engines.vllm.engine import VllmEngine
from vcppo.errors import EngineError
from vcppo.models.prepared import declare
from vcppo.models.sharding import named_weights
from vcppo.settings.engine import VllmEngineSettings
from vcppo.settings.model import ComputeSettings
from vcppo.types import Generation

VOCABULARY, END, POSITIONS = 29, 1, 256
CLOSE = 1e-4  # nats; vLLM and transformers add in different orders, in float32
FREE = Sampling(temperature=1.0, top_p=1.0, max_tokens=24)
COLD = Sampling(temperature=0.01, top_p=1.0, max_tokens=24)
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=24)
RAGGED = [[5, 6], [3, 4, 5, 6, 7], [2], [9, 8, 7], [3, 3, 3, 3, 3, 3, 3]]
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2, tied": {"kind": "qwen2", "tie_word_embeddings": True},
    "qwen3, untied": {"kind": "qwen3", "tie_word_embeddings": False},
    "llama, untied": {"kind": "llama", "tie_word_embeddings": False},
    "llama, tied": {"kind": "llama", "tie_word_embeddings": True},
}


def model(kind: str = "qwen2", *, seed: int = 0, end: int = END, **more: object) -> PreTrainedModel:
    """Random weights, biases and norms too, with spread-out logits. 2 key heads for 4 query heads."""
    shape = {"hidden_size": 128, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY}
    rest = {"max_position_embeddings": POSITIONS, "eos_token_id": end, "bos_token_id": None, "pad_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**shape, **heads, **rest, **more})).eval()
        change_everything(made, by=0.2)
    declare(made, ComputeSettings(), made.device)
    return made


def change_everything(policy: PreTrainedModel, *, by: float = 0.1) -> None:
    """In place, as an optimiser does it."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(by * torch.randn(parameter.shape))


def reference(policy: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int], temperature: float) -> Tensor:
    """Log-probabilities of the tokens after the prompt, from one plain forward pass of transformers."""
    with torch.inference_mode():
        logits = policy(input_ids=torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0]
    rows = torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, dim=-1)
    return rows.gather(1, torch.tensor(tokens)[:, None])[:, 0]


def assert_agrees(
    policy: PreTrainedModel, prompts: Sequence[Sequence[int]], responses: Sequence[Generation], temperature: float
) -> None:
    """The responses' log-probabilities are transformers' within `CLOSE`."""
    assert len(prompts) == len(responses)
    for prompt, response in zip(prompts, responses, strict=True):
        want = reference(policy, prompt, response.tokens, temperature)
        torch.testing.assert_close(torch.tensor(response.logprobs), want, rtol=0, atol=CLOSE)


def engine_of(settings: VllmEngineSettings, policy: PreTrainedModel) -> VllmEngine:
    made = make_engine(settings, policy)
    engine = made.engine if isinstance(made, SharedEngine) else made  # a rank's own, asked for its share below
    assert isinstance(engine, VllmEngine)
    return engine


def check_updates(settings: VllmEngineSettings, family: str) -> None:
    """After each of several updates that change every parameter, the embedding too, responses are the new policy's."""
    policy = model(**FAMILIES[family])
    engine = engine_of(settings, policy)
    prompts = RAGGED * 4
    for update in range(4):
        if update:
            before = engine.generate(prompts, FREE, seed=0)
            change_everything(policy)
            engine.update_weights(policy)
            assert engine.generate(prompts, FREE, seed=0) != before
        for temperature in (1.0, 0.7):
            responses = engine.generate(prompts, Sampling(temperature, 1.0, 24), seed=update)
            assert_agrees(policy, prompts, responses, temperature)


def check_the_same_as_torch(settings: VllmEngineSettings) -> None:
    """A cold temperature makes both engines write the likeliest tokens; what ends, ends alike, and where it must."""
    policy = model("qwen3", seed=3)
    with torch.no_grad():
        policy.lm_head.weight.mul_(10.0)  # so that second best is far behind, as temperatures of vLLM go
    one, other = engine_of(settings, policy), TorchEngine(policy)
    greedy = other.generate(RAGGED, GREEDY, seed=0)
    for coldest in (COLD, GREEDY):
        assert said(one.generate(RAGGED, coldest, seed=0)) == said(greedy)
    assert_agrees(policy, RAGGED, one.generate(RAGGED, GREEDY, seed=0), 1.0)  # as the torch engine's are
    responses = other.generate(RAGGED, FREE, seed=5)
    stems = [[*prompt, *response.tokens] for prompt, response in zip(RAGGED, responses, strict=True)]
    places = [(s, n) for s, stem in enumerate(stems) for n in range(1, len(stem), 3) if stem[n - 1] != END]
    points = [BranchPoint(s, n, 1 + n % 7) for s, n in places]
    assert said(one.branch(stems, points, COLD, seed=0)) == said(other.branch(stems, points, GREEDY, seed=0))

    policy = model("qwen3", seed=3)
    one.update_weights(policy)
    responses = one.branch(stems, points * 2, Sampling(0.8, 1.0, 5), seed=1)
    assert_agrees(policy, [stems[point.stem][: point.length] for point in points * 2], responses, 0.8)
    for made, point in zip(responses, points * 2, strict=True):
        limit = min(point.limit, 5)
        assert len(made.tokens) == limit if made.stop_reason == "length" else len(made.tokens) <= limit


def said(responses: Sequence[Generation]) -> list[tuple[tuple[int, ...], str]]:
    """Without log-probabilities."""
    return [(response.tokens, response.stop_reason) for response in responses]


def check_many(settings: VllmEngineSettings) -> None:
    """More tokens of prompts than a step takes: vLLM would read one in two steps and wind its generator back."""
    policy, rng = model(), torch.Generator().manual_seed(0)
    prompts = torch.randint(2, VOCABULARY, (300, 40), generator=rng).tolist()
    responses = engine_of(settings, policy).generate(prompts, Sampling(1.0, 1.0, 3), seed=0)
    assert_agrees(policy, prompts[::37], responses[::37], 1.0)


def check_ends(settings: VllmEngineSettings) -> None:
    """Responses that the policy ended keep the end token; those that were cut are of full length, and say so."""
    policy = model()
    responses = engine_of(settings, policy).generate(RAGGED * 12, Sampling(1.5, 1.0, 8), seed=0)
    assert {response.stop_reason for response in responses} == {"stop", "length"}
    for response in responses:
        assert len(response.tokens) == len(response.logprobs)
        assert END not in response.tokens[:-1]
        assert (response.tokens[-1] == END) == (response.stop_reason == "stop")
        assert response.stop_reason == "stop" or len(response.tokens) == 8
    assert_agrees(policy, RAGGED * 12, responses, 1.5)


def check_frequencies(settings: VllmEngineSettings) -> None:
    """Tokens come as often as their probability says."""
    policy = model(end=-1)
    responses = engine_of(settings, policy).generate([[5, 6, 7]] * 4000, Sampling(1.3, 1.0, 1), seed=0)
    counts = torch.bincount(torch.tensor([response.tokens[0] for response in responses]), minlength=VOCABULARY)
    with torch.inference_mode():
        want = torch.softmax(policy(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1] / 1.3, dim=-1)
    error = (counts / 4000 - want).abs() / (want * (1 - want) / 4000 + 1e-6).sqrt()
    assert float(error.max()) < 4.5  # standard errors, 29 tokens


def check_seeds(settings: VllmEngineSettings) -> None:
    """A response depends on its own number and the seed, not on who is written with it."""
    engine = engine_of(settings, model())
    together = engine.generate(RAGGED, FREE, seed=7)
    assert engine.generate(RAGGED, FREE, seed=7) == together
    assert engine.generate(RAGGED, FREE, seed=8) != together
    alone = [engine.generate([prompt], FREE, seed=7, first=i)[0] for i, prompt in enumerate(RAGGED)]
    assert [response.tokens for response in alone] == [response.tokens for response in together]
    ends = [BranchPoint(i, len(prompt), 99) for i, prompt in enumerate(RAGGED)]
    assert [response.tokens for response in engine.branch(RAGGED, ends, FREE, seed=7)] == [x.tokens for x in together]
    assert len({response.tokens for response in engine.generate([[5, 6]] * 6, FREE, seed=7)}) > 1


def check_prefix_cache(settings: VllmEngineSettings) -> None:
    """A long prompt is read once for many responses; after an update nothing of it is left."""
    policy = model()
    engine = engine_of(settings, policy)
    prompt = [2 + i % 20 for i in range(100)]
    responses = engine.generate([prompt] * 8, FREE, seed=0)
    assert engine.cache_use.prompt_tokens == 800
    assert engine.cache_use.cached_tokens >= 7 * 96  # whole blocks of 32
    assert_agrees(policy, [prompt] * 8, responses, 1.0)
    points = [BranchPoint(0, n, 4) for n in (40, 70, 100) for _ in range(3)]
    engine.branch([prompt], points, FREE, seed=0)
    assert engine.cache_use.hit_rate > 0.7
    change_everything(policy)
    engine.update_weights(policy)
    again = engine.generate([prompt] * 2, FREE, seed=0)
    assert_agrees(policy, [prompt] * 2, again, 1.0)
    assert engine.cache_use.cached_tokens == 96  # the second's, from the first


def check_nucleus(settings: VllmEngineSettings) -> None:
    """With top_p below 1 only likely tokens come; their log-probabilities are of the nucleus, as documented."""
    policy = model(end=-1)
    responses = engine_of(settings, policy).generate([[5, 6, 7]] * 200, Sampling(1.0, 0.5, 1), seed=0)
    with torch.inference_mode():
        chances = torch.softmax(policy(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1], dim=-1)
    ordered, order = chances.sort(descending=True)
    nucleus = order[ordered.cumsum(0) - ordered < 0.5]
    assert {response.tokens[0] for response in responses} == set(nucleus.tolist())
    for response in responses:
        want = float(torch.log(chances[response.tokens[0]] / chances[nucleus].sum()))
        assert abs(response.logprobs[0] - want) < CLOSE


def check_turns(settings: VllmEngineSettings) -> None:
    """Two engines alive at once each sample from their own policy."""
    first, second = model(seed=1), model(seed=2)
    one, two = engine_of(settings, first), engine_of(settings, second)
    for _ in range(2):
        assert_agrees(first, RAGGED, one.generate(RAGGED, FREE, seed=0), 1.0)
        assert_agrees(second, RAGGED, two.generate(RAGGED, FREE, seed=0), 1.0)


def check_missing(settings: VllmEngineSettings) -> None:
    """Weights with one missing are refused, and nothing is written with what is left of the ones before."""
    policy = model()
    engine = engine_of(settings, policy)
    for lost in ("model.layers.1.self_attn.k_proj.weight", "model.embed_tokens.weight"):
        with pytest.MonkeyPatch.context() as patch:
            kept = [(name, weight) for name, weight in named_weights(policy) if name != lost]
            patch.setattr("vcppo.engines.vllm.engine.named_weights", lambda _, kept=kept: iter(kept))
            with pytest.raises(EngineError, match="lack 1 of the model's parameters, among them model"):
                engine.update_weights(policy)
    assert_agrees(policy, RAGGED, engine.generate(RAGGED, FREE, seed=0), 1.0)


CHECKS = {
    "many": check_many,
    "ends": check_ends,
    "frequencies": check_frequencies,
    "seeds": check_seeds,
    "prefix cache": check_prefix_cache,
    "nucleus": check_nucleus,
    "turns": check_turns,
    "missing": check_missing,
    "the same as torch": check_the_same_as_torch,
}


RANKS = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from vllm_cases import FREE, RAGGED, assert_agrees, change_everything, engine_of, model
from vcppo.settings.engine import VllmEngineSettings

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
settings = VllmEngineSettings(mode=sys.argv[2], tensor_parallel=int(sys.argv[3]), python=sys.argv[4] or None)
policy = model("qwen2", seed=1, tie_word_embeddings=True)
engine = engine_of(settings, policy)
mine = RAGGED[:2] if rank == 0 else RAGGED[2:]
for update in range(2):
    responses = engine.generate(mine, FREE, seed=3, first=2 * rank)
    assert_agrees(policy, mine, responses, 1.0)
    shares = [None, None]
    torch.distributed.all_gather_object(shares, [response.tokens for response in responses])
    torch.manual_seed(update)
    change_everything(policy)
    engine.update_weights(policy)
    if rank == 0:
        print("written", shares[0] + shares[1], flush=True)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""
