"""A server that plays vLLM, and a policy to ask it with."""

import socket
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny import plainly
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from vcppo.engines.base import Sampling
from vcppo.engines.vllm.wire import ModelSpec, Responses, Write, split
from vcppo.settings.engine import VllmEngineSettings

FREE = Sampling(temperature=1.0, top_p=1.0, max_tokens=4)


def policy(*, positions: int = 32, tied: bool = True, end: int | list[int] | None = 1) -> PreTrainedModel:
    config = AutoConfig.for_model(
        "qwen2",
        vocab_size=11,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
        eos_token_id=end,
    )
    return plainly(AutoModelForCausalLM.from_config(config).eval())


class Echo:
    """Stands where vLLM would: a response is its prompt, backwards, a token a step."""

    on_cpu = True
    made: "list[Echo]" = []  # noqa: RUF012

    def __init__(self, spec: ModelSpec, folder: Path, *, colocated: bool) -> None:
        assert not colocated
        self.spec, self.weights = spec, ""
        self.loaded: dict[str, torch.Tensor] = {}
        self.requests: list[Write] = []
        self.jobs: dict[str, list[list[int]]] = {}
        self.together = 0  # jobs that were once written at the same time
        self.dropped: list[str] = []
        self.held = threading.Event()  # while not set, nothing is finished
        self.held.set()
        Echo.made.append(self)

    def load_file(self, path: Path) -> None:
        self.weights = ""
        self.loaded |= load_file(path)

    def commit(self, weights: str) -> None:
        if "model.norm.weight" not in self.loaded:
            raise ValueError("the weights lack 1 of the model's parameters")
        self.weights = weights

    def begin(self, request: Write) -> str:
        if request.weights != self.weights or not self.weights:
            raise ValueError("the weights asked for are not in the model")
        self.requests.append(request)
        stems = split(request.stems, request.stem_lengths)
        name = str(len(self.requests))
        asked = zip(request.owners, request.lengths, request.limits, strict=True)
        self.jobs[name] = [stems[owner][:length][::-1][:limit] for owner, length, limit in asked]
        return name

    def step(self) -> list[tuple[str, Responses]]:
        self.together = max(self.together, len(self.jobs))
        if not self.held.is_set():
            time.sleep(0.01)
            return []
        return [(name, as_responses(self.jobs.pop(name))) for name in list(self.jobs)]

    def drop(self, name: str) -> None:
        self.dropped.append(name)
        del self.jobs[name]

    def close(self) -> None:
        self.weights = "closed"


def as_responses(said: list[list[int]]) -> Responses:
    return Responses(
        tokens=array("q", [token for tokens in said for token in tokens]),
        logprobs=array("f", [-0.5 for tokens in said for _ in tokens]),
        lengths=array("q", map(len, said)),
        stopped=array("B", [1 in tokens for tokens in said]),
        prompt_tokens=10,
        cached_tokens=4,
    )


def at(url: str, **more: object) -> VllmEngineSettings:
    return VllmEngineSettings(mode="server", url=url, **more)


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
