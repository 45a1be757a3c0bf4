"""Trainer and server understand each other, message by message; vLLM is played by others."""

import dataclasses
import socket
import threading
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import plainly
from transformers import AutoModelForCausalLM
from vllm_echo import FREE, Echo, as_responses, at, pair, policy

from vcppo.engines import make_engine
from vcppo.engines.base import BranchPoint, Sampling
from vcppo.engines.vllm import host
from vcppo.engines.vllm.engine import model_spec
from vcppo.engines.vllm.wire import Address, Busy, Hello, Open, Refused, WireError, receive, send
from vcppo.errors import ConfigError, EngineError, TrainingError
from vcppo.settings.engine import VllmEngineSettings
from vcppo.settings.loading import load_settings

# ---- messages ----


@pytest.mark.parametrize(
    "message",
    [
        Hello(7),
        Refused("because, 'ä'\n"),
        Busy(),
        Open({"config": "{}", "memory_share": None}),
        as_responses([[3, 2**40], [], [5]]),
        as_responses([]),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_is_said_is_what_is_heard(message: object) -> None:
    one, other = pair()
    with one, other:
        thread = threading.Thread(target=send, args=(one, message))
        thread.start()
        assert receive(other) == message
        thread.join()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no vcppo engine server"),
        (b"vcp1" + b"\xff\xff\xff\x7f" + bytes(8), "no vcppo engine server"),
        (b"vcp1" + (2).to_bytes(4, "little") + bytes(8) + b"{}", "not understood"),
        (b"vcp1" + (4).to_bytes(4, "little") + bytes(8) + b"nope", "not understood"),
        (b"vcp1\x05", "the connection was closed"),
    ],
    ids=["http", "huge", "no kind", "no json", "cut"],
)
def test_nonsense_is_refused_and_nothing_of_it_is_run(raw: bytes, words: str) -> None:
    one, other = pair()
    with one, other:
        one.sendall(raw)
        one.shutdown(socket.SHUT_WR)
        with pytest.raises(WireError, match=words):
            receive(other)


@pytest.mark.parametrize(
    "header",
    [
        b'{"kind": "Hello", "fields": {"protocol": 1, "more": 2}, "arrays": []}',
        b'{"kind": "Popen", "fields": {}, "arrays": []}',
        b'{"kind": "Piece", "fields": {}, "arrays": [["data", "u", 4]]}',
        b'{"kind": "Piece", "fields": {}, "arrays": [["data", "q", 4]]}',
        b'{"kind": "Piece", "fields": {}, "arrays": [["data", "B", 999]]}',
    ],
)
def test_messages_that_are_not_of_the_protocol_are_refused(header: bytes) -> None:
    one, other = pair()
    with one, other:
        one.sendall(b"vcp1" + len(header).to_bytes(4, "little") + (4).to_bytes(8, "little") + header + b"abcd")
        with pytest.raises(WireError):
            receive(other)


# ---- what is asked of the engine ----


def test_a_prompt_that_leaves_no_room_for_its_response_is_refused_before_anything_is_written(url: str) -> None:
    engine = make_engine(at(url), policy())
    assert engine.generate([[2] * 28], FREE, seed=0)
    with pytest.raises(EngineError) as caught:
        engine.generate([[2], [3] * 29], FREE, seed=0)
    assert str(caught.value) == (
        "prompt 1 has 29 tokens and its response up to 4: more than the model's 32; see engine.max_length and "
        "rollout.max_tokens"
    )
    with pytest.raises(EngineError, match="prompt 0 has 29 tokens"):
        engine.branch([[3] * 30], [BranchPoint(0, 29, 4)], FREE, seed=0)


def test_a_temperature_that_vllm_would_not_keep_is_refused(url: str) -> None:
    with pytest.raises(EngineError, match=r"temperature 0.001: vLLM samples at 0.01 or above"):
        make_engine(at(url), policy()).generate([[2]], Sampling(0.001, 1.0, 4), seed=0)


def test_greedy_decoding_is_temperature_0_to_vllm(url: str) -> None:
    make_engine(at(url), policy()).generate([[2]], Sampling(0.0, 1.0, 4), seed=0)
    (request,) = Echo.made[0].requests
    assert request.temperature == 0.0


def test_log_probabilities_that_are_not_finite_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = dataclasses.replace(as_responses([[3, 2], [5]]), logprobs=array("f", [-0.5, float("nan"), -0.5]))
    monkeypatch.setattr("vllm_echo.as_responses", lambda said: spoilt)
    with pytest.raises(TrainingError, match="Qwen2ForCausalLM: its logits for token 1 of response 0 are not finite"):
        make_engine(at(url), policy()).generate([[2, 3], [5]], FREE, seed=0)


def test_more_positions_than_the_policy_has_are_refused() -> None:
    with pytest.raises(EngineError, match=r"engine.max_length = 64: the policy has 32 positions"):
        model_spec(at("h:1", max_length=64), policy())
    assert model_spec(at("h:1", max_length=16), policy()).max_length == 16


def test_a_model_is_named_and_the_same_whatever_it_was_loaded_from(tmp_path: Path) -> None:
    first = policy()
    first.save_pretrained(tmp_path)
    loaded = plainly(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32))
    spec = model_spec(at("h:1"), first)
    assert '"architectures": ["Qwen2ForCausalLM"]' in spec.config
    assert model_spec(at("h:1"), loaded) == spec


@pytest.mark.parametrize("text", ["node3", "node3:0", "node3:99999", "node3:\N{SUPERSCRIPT TWO}", ":7000"])
def test_an_address_has_a_host_and_a_port_that_there_is(text: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        Address.parse(text)
    with pytest.raises(ConfigError, match=r"engine\.url = .* expected host:port"):
        load_settings(assignments=["engine.kind=vllm", "engine.mode=server", f"engine.url={text}"])


def test_a_host_that_forgets_itself_while_another_is_looked_for_is_no_error() -> None:
    """A server that died says so when it is asked for another model."""
    other: Any = Reopened()
    host._hosts.clear()
    host._hosts[other.key] = other
    made: Any = object()
    asked: Any = "another model"
    try:
        assert host.host_of(SETTINGS, asked, lambda settings, spec: made) is made
    finally:
        host._hosts.clear()


SETTINGS = VllmEngineSettings()


class Reopened:
    """A host that is gone when it is asked."""

    key: Any = (SETTINGS, "a model")

    def reopened(self, spec: object) -> bool:
        gone: Any = self
        host.forget(gone)
        return False

    def close(self) -> None: ...
