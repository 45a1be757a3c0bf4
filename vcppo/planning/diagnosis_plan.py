"""Memory and time of `vcppo diagnose`, before it starts: critics that read, and gradients of a policy.

Operations are counted a token: 2 for each weight in a forward pass, twice as many in a backward one. Gradients of V
kinds of advantages are a forward and a backward pass for second moments, and a forward pass with V backward ones; a
sharded policy takes a forward pass for each backward one. V is 2 (returns, length) and one for each critic and lambda.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from vcppo.planning.lengths import lengths_of
from vcppo.planning.memory_estimate import (
    GIB,
    WIDE,
    Memory,
    Network,
    forward_pass,
    gradients,
    held,
    train,
)
from vcppo.planning.plan import ARITHMETIC_SHARE, FLOPS, LIBRARIES, Gpus, Phase, check_replicas
from vcppo.planning.shapes import Shapes
from vcppo.settings.fixed import FEWEST_PROMPTS, GRADIENT_BYTES, GRADIENT_CHUNKS, PRODUCT_COLUMNS
from vcppo.settings.model import ComputeSettings, LoraSettings
from vcppo.settings.run import RunSettings

TRUTHS = 2  # kinds of advantages that critics are compared with
HALF_AN_HOUR = 1800.0  # seconds
CPU_OPERATIONS = 1.5e14  # fixed, so that a report depends on no machine: 21 minutes of two cores at 60 GFLOP/s each
FEWEST_RESPONSES = 16  # that gradients are taken of


@dataclass(frozen=True)
class Workload:
    """Size of what is diagnosed."""

    responses: int
    prompts: int
    tokens: int  # of all prompts with their responses
    longest: int  # tokens of a prompt with its response
    written: int  # tokens of all responses alone
    critics: int
    lambdas: int

    @classmethod
    def of(cls, settings: RunSettings, responses: int, *, critics: int, lambdas: int) -> "Workload":
        """So many responses to the settings' task, each at its longest."""
        lengths = lengths_of(settings)
        response, longest = lengths.written, lengths.longest_prompt + lengths.written
        prompts = -(-responses // settings.rollout.samples_per_prompt)
        return cls(responses, prompts, responses * longest, longest, responses * response, critics, lambdas)

    @property
    def kinds(self) -> int:
        """Kinds of advantages whose gradients are taken, V."""
        return TRUTHS + max(self.critics, 1) * self.lambdas


@dataclass(frozen=True)
class DiagnosisPlan:
    """Its phases with what each takes of a GPU, and beside it of main memory; without a GPU both are main memory."""

    workload: Workload
    gradient_responses: int  # of which gradients are taken; 0 without a policy
    phases: tuple[Phase, ...]
    host: tuple[float, ...]  # bytes of main memory of each process, by phase
    reading_operations: float  # floating-point operations of all processes
    gradient_operations: float
    hidden_size: int  # of the larger model

    @property
    def in_main_memory(self) -> float:
        """Bytes that a process without a GPU takes at its fullest moment, Python's and its libraries' included."""
        return LIBRARIES + max(phase.memory.total + host for phase, host in zip(self.phases, self.host, strict=True))

    def needs(self, phase: Phase, host: float, machine: Gpus) -> float:
        """Return bytes of a GPU that a phase takes; without a GPU of main memory, all of it."""
        return phase.needs if machine.gpus else LIBRARIES + phase.memory.total + host

    def fits(self, machine: Gpus) -> bool:
        """True if every phase has room."""
        return all(self.needs(*each, machine) <= machine.memory for each in zip(self.phases, self.host, strict=True))

    @property
    def operations(self) -> float:
        """Of all of it."""
        return self.reading_operations + self.gradient_operations


def multiplied_weights(shapes: Shapes, *, critic: bool) -> int:
    """Weights that a token is multiplied with: all but the embedding, a policy's head included."""
    return (
        shapes.critic_weights - shapes.embedding
        if critic
        else shapes.policy_weights - shapes.embedding * (not shapes.tied)
    )


def gradient_operations(weights: float, kinds: int, *, sharded: bool) -> float:
    """Floating-point operations of the gradients of one token, at so many multiplied weights."""
    passes = 3 + (3 * kinds if sharded else 1 + 2 * kinds)
    return 2.0 * weights * passes


def operations_in_half_an_hour(settings: RunSettings, *, gpus: int) -> float:
    """Operations that gradients may take where no number of responses is named; without a GPU, fewer."""
    if not gpus:
        return CPU_OPERATIONS
    return FLOPS[settings.compute.dtype] * ARITHMETIC_SHARE * HALF_AN_HOUR * gpus


def affordable_responses(workload: Workload, weights: float, *, sharded: bool, operations: float) -> int:
    """Responses whose gradients so many operations pay for, of these; 16 at least, where there are so many."""
    of_a_response = gradient_operations(weights, workload.kinds, sharded=sharded) * workload.tokens / workload.responses
    return min(workload.responses, max(FEWEST_RESPONSES, int(operations / of_a_response)))


def plan_diagnosis(
    settings: RunSettings,
    workload: Workload,
    *,
    policy: Shapes | None,
    critic: Shapes | None,
    machine: Gpus,
    gradient_responses: int | None = None,
) -> DiagnosisPlan:
    """Return the plan of a diagnosis.

    Args:
        policy, critic: None: there is none; one of them at least.
        gradient_responses: of which gradients are taken; None: as many as half an hour pays for.
    """
    processes = machine.processes
    check_replicas(settings.compute.replicas, processes)
    shards = processes // settings.compute.replicas
    phases, host = [], []
    reading = of_gradients = 0.0
    if critic is not None:
        net = _network(critic, settings.compute, shards, critic=True)
        rows = -(-workload.responses // processes)
        memory = held(net, learns=False) + forward_pass(net, *_cells(settings, workload, rows))
        phases.append(Phase("diagnose", "values", memory))
        host.append(0.0)
        reading = 2.0 * multiplied_weights(critic, critic=True) * workload.tokens * workload.critics
    responses, width = 0, max(shapes.hidden_size for shapes in (policy, critic) if shapes is not None)
    if policy is not None:
        net = _network(policy, settings.compute, shards, critic=False)
        weights = multiplied_weights(policy, critic=False)
        paid = affordable_responses(
            workload,
            weights,
            sharded=net.sharded,
            operations=operations_in_half_an_hour(settings, gpus=machine.gpus),
        )
        responses = min(gradient_responses or paid, workload.responses)
        chunks = _chunks(workload, responses)
        cells = _cells(settings, workload, -(-responses // (chunks * processes)))
        for name, memory, beside in gradient_phases(net, workload.kinds, cells, chunks):
            phases.append(Phase("diagnose", name, memory))
            host.append(beside)
        a_token = gradient_operations(weights, workload.kinds, sharded=net.sharded)
        of_gradients = a_token * workload.tokens * responses / workload.responses
    return DiagnosisPlan(workload, responses, tuple(phases), tuple(host), reading, of_gradients, width)


def gradient_phases(
    net: Network, kinds: int, cells: tuple[int, int, int], chunks: int
) -> Iterator[tuple[str, Memory, float]]:
    """Yield (name, of the GPU, bytes of main memory beside) of each phase.

    Second moments: gradients appear as activations go, and are flattened in main memory beside sums of squares and of
    the chunk. Several kinds: activations stay to the last of them; each gradient stands beside its scale and its
    preconditioned twin. Gradients of chunks are held, both of them, whole or as sketches.
    """
    wide, rows = WIDE * net.learning / net.shards, kinds * chunks
    width = min(wide, GRADIENT_BYTES / (3 * rows))  # bytes of one that is held
    weights, stored = held(net, learns=False), 2 * rows * width
    in_pass, after = weights + train(net, *cells), weights + gradients(net)
    yield "moments", *max(((in_pass, 2 * wide), (after, 3 * wide)), key=_together)
    yield "gradients", in_pass + gradients(net), 2 * wide + stored
    columns = 2 * rows * min(WIDE * PRODUCT_COLUMNS, width)  # float64
    yield "products", weights, wide + 1.5 * stored + columns


def _together(part: tuple[Memory, float]) -> float:
    return part[0].total + part[1]


def _chunks(workload: Workload, responses: int) -> int:
    """Groups of responses that gradients are summed over: they share no prompt where there are 8 or more."""
    prompts = max(round(workload.prompts * responses / workload.responses), 1)
    return min(GRADIENT_CHUNKS, prompts if prompts >= FEWEST_PROMPTS else responses)


def _network(shapes: Shapes, compute: ComputeSettings, shards: int, *, critic: bool) -> Network:
    return Network(shapes, critic, compute, LoraSettings(), shards)


def _cells(settings: RunSettings, workload: Workload, rows: int) -> tuple[int, int, int]:
    """Return (cells of a pass, of its longest row, places of generated tokens), of so many rows of a process."""
    rows = max(min(settings.micro_batch_tokens // workload.longest, rows), 1)
    cells = rows * workload.longest
    return cells, workload.longest, max(round(cells * workload.written / workload.tokens), 1)


def diagnosis_lines(settings: RunSettings, plan: DiagnosisPlan, machine: Gpus) -> Iterator[str]:
    """Yield the lines of `vcppo plan --diagnose`."""
    work = plan.workload
    yield f"{work.responses:,} responses, {work.tokens:,} tokens with their prompts; {work.kinds} kinds of advantages"
    yield ""
    yield f"{'GiB of each process':26}{'of its GPU':>12}{'needs':>8}{'main memory':>14}{'all, no GPU':>14}  fits"
    for phase, host in zip(plan.phases, plan.host, strict=True):
        total = phase.memory.total
        needs = plan.needs(phase, host, machine)
        numbers = (total / GIB, needs / GIB, host / GIB, (total + host) / GIB)
        yield "{:26}{:12.2f}{:8.2f}{:14.2f}{:14.2f}  ".format(phase.name, *numbers) + (
            "yes" if needs <= machine.memory else "NO"
        )
    yield ""
    if plan.gradient_responses:
        yield (
            f"gradients are taken of {plan.gradient_responses:,} of {work.responses:,} responses, by default what half "
            "an hour pays for"
        )
    operations = (
        f"{plan.reading_operations / 1e12:,.3g} TFLOP of values and {plan.gradient_operations / 1e12:,.3g} of gradients"
    )
    if not machine.gpus:
        yield f"{operations}; `vcppo diagnose` says at its start how long that takes here"
        return
    peak = FLOPS[settings.compute.dtype]
    minutes = plan.operations / (peak * ARITHMETIC_SHARE * machine.gpus) / 60
    yield (
        f"{operations}: {minutes:.2g} minutes on {machine.gpus} GPU, at {ARITHMETIC_SHARE:.0%} of {peak / 1e12:g} "
        "TFLOP/s (assumed)"
    )
