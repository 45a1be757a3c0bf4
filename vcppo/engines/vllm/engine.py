"""The engine that samples with vLLM, in this process or in a server; interchangeable with the torch engine.

A process keeps one vLLM for as long as its engines want the same model with the same settings, because starting one
takes long. An engine whose weights have been replaced there by another's loads them again before it samples.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from vcppo.engines.base import BranchPoint, Sampling, check_room, checked
from vcppo.engines.vllm.client import ServerClient
from vcppo.engines.vllm.colocated import Colocated
from vcppo.engines.vllm.host import Host, host_of
from vcppo.engines.vllm.wire import ModelSpec, Responses, Write, split
from vcppo.errors import EngineError
from vcppo.models.configurations import end_tokens, model_label, positions
from vcppo.models.forward import reshard
from vcppo.models.prepared import compute_of
from vcppo.models.sharding import named_weights
from vcppo.seeding import seed_for
from vcppo.settings.engine import VllmEngineSettings
from vcppo.settings.fixed import VLLM_COLDEST
from vcppo.types import Generation

DTYPES = ("float32", "bfloat16", "float16")
NOT_OF_THE_SHAPE = (
    *("_name_or_path", "transformers_version", "dtype", "torch_dtype"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),  # end tokens are sent with every request
)


@dataclass(frozen=True)
class CacheUse:
    """Prompt tokens of one call."""

    prompt_tokens: int
    cached_tokens: int  # of them, those whose keys and values were there already

    @property
    def hit_rate(self) -> float:
        """Share of the prompts' tokens that did not have to be read."""
        return self.cached_tokens / max(self.prompt_tokens, 1)


class VllmEngine:
    """Samples from a policy with vLLM."""

    def __init__(self, settings: VllmEngineSettings, policy: PreTrainedModel) -> None:
        self.settings = settings
        self.cache_use = CacheUse(0, 0)  # of the last call
        self.update_weights(policy)

    def update_weights(self, policy: PreTrainedModel) -> None:
        """See Engine. The policy must not change between here and the next update, for its weights may be loaded again.

        Raises:
            EngineError: vLLM cannot be started or reached, or cannot hold this policy.
        """
        self._policy, self._versions = policy, _versions(policy)
        self._spec = model_spec(self.settings, policy)
        self._ends = list(end_tokens(policy))
        host_of(self.settings, self._spec, start_host).load(self, named_weights(policy))

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, first: int = 0
    ) -> list[Generation]:
        """See Engine. Responses do not depend on each other's seeds; docs/vllm.md says what the batch may change.

        Raises:
            EngineError: vLLM has died, or a prompt with its response may be too long for the model.
        """
        stems: dict[tuple[int, ...], int] = {}
        owners = [stems.setdefault(tuple(prompt), len(stems)) for prompt in prompts]
        requests = [(owner, len(prompt), sampling.max_tokens) for owner, prompt in zip(owners, prompts, strict=True)]
        return self._generate(list(stems), requests, sampling, seed, first)

    def branch(
        self,
        stems: Sequence[Sequence[int]],
        points: Sequence[BranchPoint],
        sampling: Sampling,
        *,
        seed: int,
        first: int = 0,
    ) -> list[Generation]:
        """See Engine. Points of one stem are generated next to each other, so that they find it in the prefix cache."""
        for point in points:
            assert 0 <= point.stem < len(stems), f"{point}: there are {len(stems)} stems"
            stem = stems[point.stem]
            assert 1 <= point.length <= len(stem), f"{point}: its stem has {len(stem)} tokens"
            assert point.limit >= 1, f"{point}: nothing to write"
            assert stem[point.length - 1] not in self._ends, f"{point}: the response has ended there"
        requests = [(point.stem, point.length, min(point.limit, sampling.max_tokens)) for point in points]
        return self._generate(stems, requests, sampling, seed, first)

    def _generate(
        self,
        stems: Sequence[Sequence[int]],
        requests: Sequence[tuple[int, int, int]],
        sampling: Sampling,
        seed: int,
        first: int,
    ) -> list[Generation]:
        """Sample one response to each (stem, tokens of it, tokens of the response at most)."""
        if 0 < sampling.temperature < VLLM_COLDEST:
            raise EngineError(f"temperature {sampling.temperature:g}: vLLM samples at {VLLM_COLDEST:g} or above")
        check_room([(length, limit) for _, length, limit in requests], self._spec.max_length)
        host = host_of(self.settings, self._spec, start_host)
        if not host.holds(self):
            if _versions(self._policy) != self._versions:
                raise EngineError("the policy was trained on without update_weights, and its old weights are gone")
            host.load(self, named_weights(self._policy))
        owners, lengths, limits = zip(*requests, strict=True) if requests else ((), (), ())
        reply = host.write(
            Write(
                weights="",
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                stop=self._ends,
                stems=array("q", [token for stem in stems for token in stem]),
                stem_lengths=array("q", map(len, stems)),
                owners=array("q", owners),
                lengths=array("q", lengths),
                limits=array("q", limits),
                seeds=array("q", [seed_for(seed, first + i) for i in range(len(requests))]),
            )
        )
        self.cache_use = CacheUse(reply.prompt_tokens, reply.cached_tokens)
        return checked(_generations(reply), model_label(self._policy))


def start_host(settings: VllmEngineSettings, spec: ModelSpec) -> Host:
    """Start vLLM with this model, where the settings want it.

    Raises:
        EngineError: it cannot be started or reached.
    """
    return Colocated(spec) if settings.mode == "colocated" else ServerClient(settings, spec)


def model_spec(settings: VllmEngineSettings, policy: PreTrainedModel) -> ModelSpec:
    """Specify a policy for vLLM to build.

    Raises:
        EngineError: the policy is longer or of another type than vLLM can take.
    """
    config = {name: x for name, x in policy.config.to_dict().items() if name not in NOT_OF_THE_SHAPE}
    known = positions(policy.config)
    max_length = settings.max_length or known
    if max_length is None or (known is not None and max_length > known):
        raise EngineError(f"engine.max_length = {settings.max_length}: the policy has {known} positions")
    config["architectures"] = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(policy.config.model_type, type(policy).__name__)]
    dtype: Any = compute_of(policy).dtype if settings.dtype == "auto" else settings.dtype
    if dtype not in DTYPES:
        raise EngineError(f"engine.dtype = auto: the policy's is {dtype}, expected one of {', '.join(DTYPES)}")
    return ModelSpec(
        config=json.dumps(config, sort_keys=True),
        dtype=dtype,
        max_length=max_length,
        tensor_parallel=settings.tensor_parallel,
        memory_share=settings.memory_share,
        max_sequences=settings.max_sequences,
        enforce_eager=settings.enforce_eager,
        prefix_caching=settings.prefix_caching,
        sleep=settings.sleep and settings.mode == "colocated",
    )


def _versions(policy: PreTrainedModel) -> list[tuple[int, int]]:
    """Versions of parameters; one changes with every write in place, as of optimisers and `load_state_dict`."""
    reshard(policy)  # what a pass has gathered is not what is trained
    return [(id(parameter), parameter._version) for parameter in policy.parameters()]


def _generations(reply: Responses) -> list[Generation]:
    rows = zip(*(split(x, reply.lengths) for x in (reply.tokens, reply.logprobs)), reply.stopped, strict=True)
    return [
        Generation(tuple(tokens), tuple(logprobs), "stop" if stopped else "length")
        for tokens, logprobs, stopped in rows
    ]
