"""The engine and its server: requests, weights, several clients, a server that is busy or silent."""

import socket
import struct
import threading
import time
from array import array
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from vllm_echo import FREE, Echo, as_responses, at, pair, policy, wait_for

from vcppo.engines import make_engine
from vcppo.engines.base import BranchPoint, Sampling
from vcppo.engines.vllm import server as room
from vcppo.engines.vllm.client import ServerClient
from vcppo.engines.vllm.engine import VllmEngine, model_spec
from vcppo.engines.vllm.shards import shards
from vcppo.engines.vllm.wire import (
    PROTOCOL,
    Address,
    Busy,
    Commit,
    Committed,
    Hello,
    Load,
    Loaded,
    ModelSpec,
    Open,
    Piece,
    Refused,
    Welcome,
    Write,
    receive,
    send,
)
from vcppo.errors import EngineError
from vcppo.models.sharding import named_weights
from vcppo.seeding import seed_for


def test_requests_arrive_whole_and_responses_come_back_in_order(url: str) -> None:
    engine = make_engine(at(url), policy(end=[1, 7]))
    assert isinstance(engine, VllmEngine)
    responses = engine.generate([[5, 6], [2, 3, 1], [5, 6]], Sampling(0.7, 0.9, 4), seed=3, first=10)
    assert [response.tokens for response in responses] == [(6, 5), (1, 3, 2), (6, 5)]
    assert [response.stop_reason for response in responses] == ["length", "stop", "length"]
    assert responses[0].logprobs == (-0.5, -0.5)
    (request,) = Echo.made[0].requests
    assert (request.temperature, request.top_p, request.stop) == (0.7, 0.9, [1, 7])
    assert list(request.seeds) == [seed_for(3, 10), seed_for(3, 11), seed_for(3, 12)]
    assert (list(request.stem_lengths), list(request.owners)) == ([2, 3], [0, 1, 0])  # a prompt is sent once
    assert engine.cache_use.hit_rate == 0.4
    assert engine.generate([], FREE, seed=0) == []


def test_a_branch_sends_each_stem_once_and_each_points_limit(url: str) -> None:
    engine = make_engine(at(url), policy())
    stems = [[2, 3, 4, 5], [6, 7]]
    points = [BranchPoint(1, 2, 9), BranchPoint(0, 3, 2), BranchPoint(0, 3, 9), BranchPoint(0, 1, 1)]
    responses = engine.branch(stems, points, FREE, seed=0)
    assert [response.tokens for response in responses] == [(7, 6), (4, 3), (4, 3, 2), (2,)]
    (request,) = Echo.made[0].requests
    assert list(request.limits) == [4, 2, 4, 1]
    assert (list(request.stems), list(request.owners)) == ([2, 3, 4, 5, 6, 7], [1, 0, 0, 0])


@pytest.mark.parametrize("tied", [True, False])
def test_all_weights_arrive_in_shards_and_by_their_names(url: str, tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcppo.engines.vllm.shards.SHARD", 300)
    monkeypatch.setattr("vcppo.engines.vllm.client.PIECE", 100)
    first = policy(tied=tied)
    make_engine(at(url), first)
    assert Echo.made[0].loaded.keys() == dict(named_weights(first)).keys()
    assert ("lm_head.weight" in Echo.made[0].loaded) != tied
    for name, tensor in named_weights(first):
        assert torch.equal(Echo.made[0].loaded[name], tensor)


def test_shards_are_as_large_as_allowed_and_hold_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcppo.engines.vllm.shards.SHARD", 16)  # bytes: four numbers
    weights = [(str(i), torch.full((size,), float(i))) for i, size in enumerate([1, 3, 2, 9, 1, 1])]
    sent = [{name: x.tolist() for name, x in shard.items()} for shard in shards(iter(weights), torch.float32)]
    assert sent == [{"0": [0], "1": [1] * 3}, {"2": [2] * 2}, {"3": [3] * 9}, {"4": [4], "5": [5]}]


def test_weights_are_sent_in_the_dtype_that_they_are_wanted_in(url: str) -> None:
    first = policy()
    make_engine(at(url, dtype="bfloat16"), first)
    assert {x.dtype for x in Echo.made[0].loaded.values()} == {torch.bfloat16}


def test_engines_that_take_turns_each_sample_from_their_own_weights(url: str) -> None:
    first, second = policy(), policy()
    one = make_engine(at(url), first)
    two = make_engine(at(url), second)

    def held() -> torch.Tensor:
        return Echo.made[-1].loaded["model.norm.weight"].clone()

    with torch.no_grad():
        second.model.norm.weight.fill_(2.0)
    two.update_weights(second)
    one.generate([[2]], FREE, seed=0)
    assert held().unique().tolist() == [1.0]
    two.generate([[2]], FREE, seed=0)
    assert held().unique().tolist() == [2.0]
    names = {request.weights for request in Echo.made[0].requests}
    two.generate([[2]], FREE, seed=0)
    assert {request.weights for request in Echo.made[0].requests} == names  # nothing was sent again
    assert len(Echo.made) == 1


def test_a_policy_trained_on_without_an_update_is_not_passed_off_as_the_old_one(url: str) -> None:
    first = policy()
    one = make_engine(at(url), first)
    make_engine(at(url), policy())
    optimiser = torch.optim.AdamW(first.parameters())
    first(input_ids=torch.tensor([[2, 3]])).logits.sum().backward()
    optimiser.step()
    with pytest.raises(EngineError, match="trained on without update_weights"):
        one.generate([[2]], FREE, seed=0)
    one.update_weights(first)
    assert one.generate([[2]], FREE, seed=0)


def test_another_shape_is_another_model(url: str) -> None:
    one = make_engine(at(url), policy())
    make_engine(at(url), policy(positions=64))
    assert [echo.spec.max_length for echo in Echo.made] == [32, 64]
    one.generate([[2]], FREE, seed=0)  # opened again, weights and all
    assert Echo.made[-1].spec.max_length == 32


def test_weights_that_somebody_else_replaced_are_missed(url: str) -> None:
    engine = make_engine(at(url), policy())
    Echo.made[0].weights = "another's"
    with pytest.raises(EngineError, match="refuses: ValueError: the weights asked for are not in the model"):
        engine.generate([[2]], FREE, seed=0)


def test_weights_with_one_missing_are_refused(url: str) -> None:
    first = policy()
    del first.model.norm.weight
    first.model.norm.register_buffer("weight", torch.ones(8), persistent=False)
    with pytest.raises(EngineError, match="the weights lack 1 of the model's parameters"):
        make_engine(at(url), first)


def raw_client(url: str, spec: ModelSpec) -> socket.socket:
    """A connection with the model opened."""
    connection = Address.parse(url).connect(5.0)
    send(connection, Hello(PROTOCOL))
    assert isinstance(receive(connection), Welcome)
    send(connection, Open(vars(spec)))
    receive(connection)
    return connection


def push(connection: socket.socket, value: float) -> None:
    """Send weights, all of them this value."""
    data = save({"model.norm.weight": torch.full((8,), value)})
    send(connection, Piece(array("B", data)))
    send(connection, Load(""))
    assert isinstance(receive(connection), Loaded)


def test_weights_that_two_send_at_once_are_not_taken_for_those_of_the_first(url: str) -> None:
    spec = model_spec(at(url), policy())
    with raw_client(url, spec) as one, raw_client(url, spec) as two:
        push(one, 1.0)
        push(two, 2.0)
        send(one, Commit("one"))
        refused = receive(one)
        assert isinstance(refused, Refused)
        assert "another client" in refused.reason
        send(two, Commit("two"))
        assert isinstance(receive(two), Committed)
        assert Echo.made[0].weights == "two"
        push(one, 1.0)  # once more, alone
        send(one, Commit("one"))
        assert isinstance(receive(one), Committed)


def test_weights_of_one_that_is_gone_are_not_taken_for_anothers(url: str) -> None:
    spec = model_spec(at(url), policy())
    with raw_client(url, spec) as one:
        with raw_client(url, spec) as two:
            push(one, 1.0)
            push(two, 2.0)
        wait_for(lambda: reading() == 1)
        send(one, Commit("one"))
        assert isinstance(receive(one), Refused)


def test_weights_that_were_refused_are_not_half_of_the_next(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise ValueError("no parameter of the model")

    spec = model_spec(at(url), policy())
    with raw_client(url, spec) as one, raw_client(url, spec) as two:
        with monkeypatch.context() as strict:
            strict.setattr(Echo.made[0], "load_file", refuse)
            send(one, Piece(array("B", b"some")))
            send(one, Load(""))
            assert isinstance(receive(one), Refused)
        push(two, 2.0)
        send(two, Commit("two"))
        assert isinstance(receive(two), Committed)
        push(one, 1.0)
        send(one, Commit("one"))
        assert isinstance(receive(one), Committed)


def reading() -> int:
    """Connections that the server reads, beside the one that takes them."""
    return sum(thread.name == room.READER for thread in threading.enumerate()) - 1


def test_a_client_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its responses are more than the kernel holds for it."""
    here, there = pair()
    with here, there:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 200_000))
        client, began = room.Client(here), time.monotonic()
        client.send(as_responses([[1] * 2_000_000]))
        assert time.monotonic() - began < 20
        with pytest.raises(OSError, match="Broken pipe"):
            here.send(b"more")


def asked_of(echo: Echo) -> Write:
    return Write(
        weights=echo.weights,
        temperature=1.0,
        top_p=1.0,
        stop=[],
        stems=array("q", [4]),
        stem_lengths=array("q", [1]),
        owners=array("q", [0]),
        lengths=array("q", [1]),
        limits=array("q", [1]),
        seeds=array("q", [0]),
    )


def test_responses_of_several_clients_are_written_together_and_one_that_leaves_is_dropped(url: str) -> None:
    settings = at(url)
    first = policy()
    engine = make_engine(settings, first)
    echo = Echo.made[0]
    with raw_client(url, model_spec(settings, first)) as other:
        echo.held.clear()
        send(other, asked_of(echo))
        wait_for(lambda: len(echo.jobs) == 1)
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(engine.generate([[2, 3]], FREE, seed=0)))
        thread.start()
        wait_for(lambda: echo.together == 2)
    wait_for(lambda: bool(echo.dropped))  # the other has hung up
    echo.held.set()
    thread.join(10)
    assert [response.tokens for response in found[0]] == [(3, 2)]  # type: ignore[attr-defined]
    assert echo.dropped == ["1"]


def test_a_server_that_is_busy_for_longer_than_the_timeout_is_waited_for(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "BUSY_EVERY_S", 0.05)
    engine = make_engine(at(url, request_timeout_s=1.0), policy())
    Echo.made[0].held.clear()
    threading.Timer(2.5, Echo.made[0].held.set).start()
    assert engine.generate([[2, 3]], FREE, seed=0)[0].tokens == (3, 2)


def test_who_waits_for_anothers_responses_is_told_that_the_server_is_busy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "BUSY_EVERY_S", 0.05)
    settings, first = at(url, request_timeout_s=1.0), policy()
    engine, echo = make_engine(settings, first), Echo.made[0]
    with raw_client(url, model_spec(settings, first)) as other:
        echo.held.clear()
        send(other, asked_of(echo))
        wait_for(lambda: len(echo.jobs) == 1)
        threading.Timer(2.5, echo.held.set).start()
        engine.update_weights(first)
        assert isinstance(receive(other), Busy)


def test_a_server_that_has_gone_silent_is_told_in_one_line(url: str) -> None:
    engine = make_engine(at(url, request_timeout_s=1.0), policy())
    Echo.made[0].held.clear()
    with pytest.raises(EngineError) as caught:
        engine.generate([[2, 3]], FREE, seed=0)
    assert str(caught.value) == (
        f"the vLLM server at engine.url = {url} has said nothing for engine.request_timeout_s = 1 s"
    )
    Echo.made[0].held.set()


def test_a_shard_that_memory_does_not_hold_goes_by_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    client = object.__new__(ServerClient)
    client.settings, client._process = at("here:7100"), SimpleNamespace(exchange=memory, folder=disk)  # type: ignore[assignment]
    sent: list[dict[str, torch.Tensor]] = []

    def save_file(shard: dict[str, torch.Tensor], path: Path) -> None:
        if path.parent == memory:
            path.write_bytes(b"half")
            raise SafetensorError("No space left on device")
        path.write_bytes(save(shard))

    monkeypatch.setattr("vcppo.engines.vllm.client.save_file", save_file)
    monkeypatch.setattr(client, "_request", lambda message, *_: sent.append(load_file(memory / message.file)))
    client._send_shard({"x": torch.ones(3)}, "shard")
    assert [shard["x"].tolist() for shard in sent] == [[1, 1, 1]]
    assert [*memory.iterdir(), *disk.iterdir()] == []


def test_weights_that_find_no_room_are_told_in_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(at(url), policy())
    monkeypatch.setattr("vcppo.engines.vllm.client.tempfile.mkdtemp", lambda **_: "/nowhere")
    with pytest.raises(EngineError, match=r"^/nowhere: weights cannot be written there \("):
        engine.update_weights(policy())
