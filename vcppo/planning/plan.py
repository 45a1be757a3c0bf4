"""Memory that a run takes of each GPU, by stage and phase, before it is started, and what to change if it is too much;
or of main memory, where there is no GPU.

Bytes are those of memory_estimate.py, at the fullest moment of each phase with every response as long as it may be.
Times rest on the rates below, which are assumed and not measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vcppo.errors import ConfigError
from vcppo.planning.lengths import lengths_of
from vcppo.planning.memory_estimate import (
    GIB,
    WIDE,
    Memory,
    Network,
    alignment,
    forward_pass,
    fullest,
    generate,
    gradients,
    held,
    refresh,
    resting,
    torch_generator,
    train,
)
from vcppo.planning.shapes import Shapes, critic_shapes_of, shapes_of
from vcppo.planning.time_estimate import critic_tokens, stage_tokens, written_tokens
from vcppo.planning.writing import Writing, evaluation_writing, training_writing
from vcppo.settings.engine import VllmEngineSettings
from vcppo.settings.fixed import GENERATOR_ROWS, VLLM_SHARE
from vcppo.settings.loading import override
from vcppo.settings.preference import preference_settings
from vcppo.settings.run import RunSettings
from vcppo.store.cache import addresses

RESERVE = 2 * GIB  # CUDA's context, workspaces of its libraries, buffers of NCCL
LIBRARIES = 0.45 * GIB  # of main memory in a process that has imported torch and transformers
SLACK = 0.05  # of what tensors take, lost between them by the allocator

# Assumed rates: an H100 SXM's by its data sheet, and the shares of them that well-fed kernels reach.
FLOPS = {"bfloat16": 989e12, "float32": 67e12}
BYTES_PER_S = 3.35e12
ARITHMETIC_SHARE, BANDWIDTH_SHARE = 0.4, 0.6
KERNELS_A_LAYER, KERNEL_S = 20, 5e-6  # of one step of the torch generator


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a run, all alike, one process each; of none, one process and its main memory."""

    gpus: int
    memory: float  # bytes of each

    @classmethod
    def of(cls, gpus: int, memory_gib: float) -> "Gpus":
        """From the command line's values."""
        return cls(gpus, memory_gib * GIB)

    @property
    def processes(self) -> int:
        """Processes that share the work."""
        return max(self.gpus, 1)

    @property
    def reserve(self) -> float:
        """Bytes that a process takes beside tensors."""
        return RESERVE if self.gpus else LIBRARIES


@dataclass(frozen=True)
class Phase:
    """The fullest moment of a part of a stage."""

    stage: str
    name: str
    memory: Memory
    note: str = ""  # why it cannot work, whatever the total
    reserve: float = RESERVE  # bytes beside tensors

    @property
    def needs(self) -> float:
        """Bytes of a GPU, or of main memory, with what is not tensors."""
        return (1.0 + SLACK) * self.memory.total + self.reserve


@dataclass(frozen=True)
class StageTime:
    """Tokens and assumed hours of a stage on all GPUs; every response at its longest."""

    stage: str
    generated: int
    scored: int
    trained: int
    generate_h: float
    pass_h: float


@dataclass(frozen=True)
class Plan:
    """A run on a machine."""

    shapes: Shapes
    machine: Gpus
    phases: list[Phase]
    times: list[StageTime]
    host: float  # bytes of main memory that a process's offloaded shards, and gradients that are compared, take

    @property
    def fullest(self) -> Phase:
        """The phase that decides."""
        return max(self.phases, key=lambda phase: phase.needs)

    @property
    def fits(self) -> bool:
        """True where every phase has room."""
        return self.fullest.needs <= self.machine.memory and not any(phase.note for phase in self.phases)


def check_replicas(replicas: int, processes: int) -> None:
    """Refuse processes that do not divide into replicas.

    Raises:
        ConfigError: they do not.
    """
    if processes % replicas:
        raise ConfigError(f"compute.replicas = {replicas}: expected a divisor of the {processes} processes")


def make_plan(settings: RunSettings, machine: Gpus) -> Plan:
    """Return the plan of a run with these settings.

    Raises:
        ConfigError: the GPUs do not divide into replicas, the model's shapes are unknown, or vLLM has no GPU.
    """
    if settings.engine.kind == "vllm" and not machine.gpus:
        raise ConfigError("engine.kind = vllm: its memory without a GPU is not planned; expected engine.kind = torch")
    check_replicas(settings.compute.replicas, machine.processes)
    layout = _Layout(settings, machine)
    stages = [stage for stage in addresses(settings) if stage != "cold-start" or settings.cold_start.steps > 0]
    phases = [replace(phase, reserve=machine.reserve) for stage in stages for phase in layout.phases(stage)]
    host = 0.0
    if settings.compute.offload and machine.gpus:
        models = layout.resident()
        host = sum(held(net, learns=learns).total + gradients(net).total * learns for net, learns in models)
        phases = [replace(phase, memory=phase.memory.on_host()) for phase in phases]
    if settings.alignment_interval:
        beside = alignment(layout.policy)
        if machine.gpus:
            host += beside
        else:  # it has nowhere else to be
            phases = [
                replace(phase, memory=phase.memory + Memory(gradients=beside)) if phase.stage == "rl" else phase
                for phase in phases
            ]
    return Plan(layout.shapes, machine, phases, [layout.time(stage) for stage in stages], host)


def memory_without_gpu(settings: RunSettings) -> float:
    """Return bytes of main memory of a process without a GPU, at its fullest moment.

    Raises:
        ConfigError, CheckpointError: the model's shapes are unknown.
    """
    return make_plan(override(settings, {"compute.replicas": 1}), Gpus(0, 0.0)).fullest.needs


class _Layout:
    """Models on a GPU in each phase, from the settings."""

    def __init__(self, settings: RunSettings, machine: Gpus) -> None:
        self.settings, self.machine = settings, machine
        self.shapes, self.critic_shapes = shapes_of(settings), critic_shapes_of(settings)
        self.shards = machine.processes // settings.compute.replicas
        self.policy, self.critic = self._network(critic=False), self._network(critic=True)
        lengths = lengths_of(settings)
        self.prompt, self.written, self.response = lengths.longest_prompt, lengths.written, lengths.limit
        self.longest = lengths.longest
        self.vllm = settings.engine.kind == "vllm"
        engine = settings.engine if settings.engine.kind == "vllm" else VllmEngineSettings()  # read where self.vllm
        self.apart = self.vllm and engine.mode == "server" and bool(engine.url or engine.devices)
        self.sleeps = engine.mode == "colocated" and engine.sleep
        self.tensor_parallel = engine.tensor_parallel if self.vllm else 1
        dtype = settings.compute.dtype if engine.dtype == "auto" else engine.dtype
        self.vllm_width = 4 if dtype == "float32" else 2  # bytes of a weight
        self.share = engine.memory_share or VLLM_SHARE[engine.mode]

    def _network(self, *, critic: bool) -> Network:
        return Network(
            self.critic_shapes if critic else self.shapes,
            critic,
            self.settings.compute,
            self.settings.lora,
            self.shards,
        )

    def resident(self) -> list[tuple[Network, bool]]:
        """Return (model, whether it learns) of all that RL has resident."""
        settings = self.settings
        models = [(self.policy, True)]
        if settings.has_value_model:
            models.append((self.critic, settings.critic.update_every != "never"))
        compared = settings.needs_reference + (settings.token_reward.kind != "none")
        sampler = settings.rollout.refresh_every != 1
        return models + [(self.policy, False)] * (compared + sampler)

    def phases(self, stage: str) -> Iterator[Phase]:
        """The phases of a stage."""
        s = self.settings
        if stage == "cold-start":
            yield Phase(
                stage, "update", held(self.policy, learns=True) + self._train(self.policy, s.cold_start.batch_tokens)
            )
        elif stage == "reward-model":
            yield self._generate(stage, held(self.policy, learns=False))
            pairs = 2 * s.reward_model.pairs * self.longest
            yield Phase(stage, "update", held(self.critic, learns=True) + self._train(self.critic, pairs))
        elif stage == "answers":
            yield self._generate(stage, held(self.policy, learns=False))
        elif stage == "value-pretraining":
            learner = held(self.critic, learns=True)
            if s.token_reward.kind != "none":  # the reference and RTO's DPO policy score the responses
                judges = held(self.policy, learns=False) + held(self.policy, learns=False)
                cells = self._cells((s.pretrain.pool + s.pretrain.held_out) * self.longest)
                yield Phase(stage, "score", learner + judges + forward_pass(self.policy, *cells))
                learner += judges if s.pretrain.fresh_rollouts else Memory()
            if s.pretrain.fresh_rollouts:
                yield self._generate(stage, learner + held(self.policy, learns=False))
                learner += held(self.policy, learns=False)
            yield Phase(stage, "update", learner + self._train(self.critic, s.pretrain.batch * self.longest))
        elif stage == "forecast-answers":
            yield self._generate(stage, held(self.policy, learns=False))
        elif stage == "forecast":
            base = sum((held(net, learns=False) for net, _ in self.resident()), Memory())
            rows = s.record.forecast_responses * self.longest
            yield Phase(stage, "gradients", base + self._train(self.policy, rows))
        elif stage == "preference":
            inner = _Layout(preference_settings(s), self.machine)
            yield from (Phase(stage, p.name, p.memory, p.note) for p in inner.phases("rl"))
        elif stage == "rl":
            yield from self._rl()
        else:
            writing = evaluation_writing(s, s.evaluation.samples)
            yield self._generate(stage, held(self.policy, learns=False), writing)

    def _rl(self) -> Iterator[Phase]:
        settings, models = self.settings, self.resident()
        base = sum((held(net, learns=learns) for net, learns in models), Memory())
        frozen = sum((resting(net) for net, learns in models if not learns), Memory())  # since their last pass
        yield self._generate("rl", base + frozen)
        awake = base if self.vllm and self.sleeps else base + self._generator()
        if settings.evaluation.every and not self.vllm:  # by another generator, beside that of the rollouts
            writing = evaluation_writing(settings, settings.evaluation.samples_during)
            yield Phase("rl", "evaluate", awake + frozen + self._generator(writing))
        cells = self._cells(settings.responses_per_iteration * self.longest)
        readers = [self.policy] * settings.checks_mismatch + [net for net, _ in models[1:]]
        if readers:
            others = sum((resting(net) for net in readers[1:]), Memory())
            reading = fullest(forward_pass(net, *cells) for net in set(readers))
            yield Phase("rl", "score", awake + others + reading)
        retained = settings.responses_per_iteration - int(settings.responses_per_iteration * settings.select.prune_rate)
        minibatch = -(-retained // settings.policy.minibatches) * self.longest
        for net, learns in models:
            if learns:
                others = frozen if net.critic or not settings.has_value_model else frozen + resting(self.critic)
                name = "update critic" if net.critic else "update policy"
                yield Phase("rl", name, awake + others + self._train(net, minibatch))

        if not self.vllm:
            yield Phase("rl", "refresh", base + frozen + refresh(self.policy))

    def _cells(self, total: int) -> tuple[int, int, int]:
        """Return (cells of a pass, of its longest row, places of generated tokens), of `total` cells over all GPUs."""
        most = max(self.settings.micro_batch_tokens, self.longest)
        rows = max(min(most, -(-total // self.machine.processes)) // self.longest, 1)
        cells = max(rows * self.longest, min(most, -(-total // self.machine.processes)))
        return cells, self.longest, cells * self.response // self.longest

    def _train(self, net: Network, total: int) -> Memory:
        return gradients(net) + train(net, *self._cells(total))

    def _rows(self, rows: int) -> int:
        """Return the responses that one process generates at once."""
        groups = max(self.machine.processes // self.tensor_parallel, 1)
        share = -(-rows // groups)
        return share if self.vllm else min(share, GENERATOR_ROWS)

    def _generator(self, writing: Writing | None = None) -> Memory:
        """Return what the generator takes of a GPU while it writes so; None: between two calls."""
        if self.apart:
            return Memory()
        if self.vllm:
            weights = float(self.vllm_width) * self.shapes.policy_weights / self.tensor_parallel
            return Memory(generator=weights, cache=max(self.share * self.machine.memory - weights, 0.0))
        if writing is None:
            return Memory(generator=torch_generator(self.policy))
        rows = self._rows(writing.rows)
        return generate(self.policy, rows, self.prompt, self.response, nucleus=writing.nucleus)

    def _generate(self, stage: str, others: Memory, writing: Writing | None = None) -> Phase:
        note, writing = "", writing or training_writing(stage, self.settings)
        if self.vllm and not self.apart and self._generator().cache < GIB:
            note = (
                f"engine.memory_share = {self.share:g} of {self.machine.memory / GIB:g} GiB leaves vLLM no room beside "
                f"{self._generator().generator / GIB:.1f} GiB of weights"
            )
        return Phase(stage, "generate", others + self._generator(writing), note)

    def _forward_flops(self, shapes: Shapes) -> float:
        """Return the floating-point operations of one token's forward pass, the output head's as if of a policy."""
        attention = 2.0 * shapes.layers * shapes.heads * shapes.head_dim * self.longest
        return 2.0 * (shapes.layers * shapes.layer_matrices + shapes.embedding) + attention

    def time(self, stage: str) -> StageTime:
        """Return the assumed hours of a stage."""
        s, shapes = self.settings, self.shapes
        generated, scored, trained = stage_tokens(stage, s, self.written)
        valued, learnt = critic_tokens(stage, s, self.written)
        forward, of_critic = self._forward_flops(shapes), self._forward_flops(self.critic_shapes)
        again = 1 if s.compute.gradient_checkpointing else 0
        rate = FLOPS[s.compute.dtype] * ARITHMETIC_SHARE * self.machine.processes
        passes = forward * (scored + (3 + again) * trained) + (of_critic - forward) * (valued + (3 + again) * learnt)
        pass_s = passes / rate
        width = self.vllm_width if self.vllm else WIDE
        weights = width * shapes.policy_weights / self.tensor_parallel
        column = 2.0 * shapes.layers * shapes.kv_heads * shapes.head_dim * width / self.tensor_parallel
        kernels_s = 0.0 if self.vllm else shapes.layers * KERNELS_A_LAYER * KERNEL_S
        writing_s = 0.0
        for writing, tokens in written_tokens(stage, s, self.written):
            rows = self._rows(writing.rows)
            step_s = (weights + rows * column * (self.prompt + self.written / 2)) / (BYTES_PER_S * BANDWIDTH_SHARE)
            steps = tokens / (rows * max(self.machine.processes // self.tensor_parallel, 1))
            writing_s += steps * (step_s + kernels_s)
        return StageTime(stage, generated, scored, trained, writing_s / 3600, pass_s / 3600)
