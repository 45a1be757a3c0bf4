"""Bytes of a GPU that a model takes: at rest, in training, scoring and generation. Shapes and settings in, bytes out.

The model is of what this project does: float32 weights in shards (FSDP2), passes in `compute.dtype`, log-probabilities
in blocks of logits, the torch generator's float32 copies. What a kernel takes for itself while it runs is not in it.
F cells in a pass, N of them places of generated tokens, H hidden size, I intermediate size, V vocabulary, L layers.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from vcppo.planning.shapes import Shapes
from vcppo.settings.fixed import ALIGNMENT_CHUNKS, ALIGNMENT_MEMORY, CACHE_GROWTH, COMPACT_BELOW
from vcppo.settings.model import ComputeSettings, LoraSettings

GIB = 2**30
WIDE = 4  # bytes of a float32
MOMENTS = 2 * WIDE  # AdamW's
# Float32 blocks of logits alive at once (vcppo/maths/logprobs.py); bfloat16 passes have copies of them beside.
BLOCKS_FORWARD, BLOCKS_BACKWARD, BLOCKS_NARROW = 3, 2, 0.5
COMPACTION = 1.0 + COMPACT_BELOW  # a cache and the copy of its rows that are still being written
SAMPLING = 5  # arrays of [rows, V] float32 in drawing a token; a nucleus sorts, with int64 places
NUCLEUS = 7
GRADIENTS_AT_WORK = 5  # of an alignment: a micro-batch's, a chunk's, second moments and their roots


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU at one moment, by what they hold."""

    weights: float = 0.0  # float32, this process's shards
    gradients: float = 0.0
    optimiser: float = 0.0
    gathered: float = 0.0  # weights and gradients that a pass gathers for a moment
    activations: float = 0.0
    logits: float = 0.0
    generator: float = 0.0  # its copy of the weights, or all that vLLM may take
    cache: float = 0.0  # keys and values

    @property
    def total(self) -> float:
        """All of it."""
        return float(sum(getattr(self, field.name) for field in fields(self)))

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def on_host(self) -> "Memory":
        """Return what is left on the GPU when weights, gradients and optimiser wait in main memory."""
        return Memory(*(0.0 if f.name in OFFLOADED else getattr(self, f.name) for f in fields(self)))


OFFLOADED = ("weights", "gradients", "optimiser")


@dataclass(frozen=True)
class Network:
    """A policy, or a critic of the same shapes, as this run computes it."""

    shapes: Shapes
    critic: bool
    compute: ComputeSettings
    lora: LoraSettings
    shards: int  # processes that it is sharded over

    @property
    def sharded(self) -> bool:
        """True where FSDP holds it; a plain float32 model on one process is left as it is."""
        return self.shards > 1 or self.compute.dtype != "float32" or self.compute.offload

    @property
    def width(self) -> int:
        """Bytes of a number in a pass."""
        return 2 if self.compute.dtype == "bfloat16" else WIDE

    @property
    def weights(self) -> int:
        """Weights with adapters."""
        base = self.shapes.critic_weights if self.critic else self.shapes.policy_weights
        return base + self.adapters

    @property
    def adapted(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of a layer's matrices that have an adapter."""
        linear = self.shapes.linear
        names = [name.strip() for name in self.lora.targets.split(",")]
        return [size for name, size in linear.items() if self.lora.targets == "all-linear" or name in names]

    @property
    def adapters(self) -> int:
        """Weights of all adapters."""
        return self.shapes.layers * self.lora.rank * sum(inputs + outputs for inputs, outputs in self.adapted)

    @property
    def learning(self) -> int:
        """Weights that are trained."""
        if not self.lora.rank:
            return self.weights
        return self.adapters + (self.shapes.value_head if self.critic else 0)

    @property
    def head(self) -> int:
        """Weights of the output head."""
        return self.shapes.value_head if self.critic else self.shapes.embedding

    @property
    def root(self) -> int:
        """Weights outside of layers, gathered for a whole pass."""
        tied = self.critic or self.shapes.tied
        return self.shapes.hidden_size + (1 if tied else 2) * self.shapes.embedding


def held(net: Network, *, learns: bool) -> Memory:
    """Return what a model takes between updates: its shards and, where it learns, AdamW's moments."""
    return Memory(weights=WIDE * net.weights / net.shards, optimiser=MOMENTS * net.learning / net.shards * learns)


def gradients(net: Network) -> Memory:
    """Return what accumulates over the passes of one update, and is freed after it."""
    return Memory(gradients=WIDE * net.learning / net.shards)


def alignment(net: Network) -> float:
    """Return bytes of main memory in which the gradients of an alignment are compared: sums, moments, and chunks'."""
    shard = WIDE * net.learning / net.shards
    directions = 3  # of the advantages, of Monte-Carlo returns, of length
    return GRADIENTS_AT_WORK * shard + min(2 * directions * ALIGNMENT_CHUNKS * shard, ALIGNMENT_MEMORY)


def resting(net: Network) -> Memory:
    """Return what a sharded model leaves gathered after a pass without gradient: the weights outside of layers."""
    return Memory(gathered=net.width * net.root if net.sharded else 0.0)


def layer_saved(net: Network, cells: int, longest: int) -> float:
    """Return bytes a layer saves of F cells for the backward pass: float32 and narrow inputs of norms, q, ..."""
    s, b = net.shapes, net.width
    hidden, inner = s.hidden_size, s.intermediate_size
    queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
    trains_norms = not net.lora.rank
    norm = (WIDE if b < WIDE else b) * hidden + b * hidden * trains_norms + b * hidden
    attention = b * (2 * queries + 2 * keys) + WIDE * s.heads
    if s.architecture == "qwen3":
        attention += (WIDE + b if b < WIDE else 2 * b) * (queries + keys)  # norms of queries and keys
    if net.compute.attention == "eager":
        attention += s.heads * longest * (WIDE + b if b < WIDE else b) + 2 * b * (queries - keys)
    elif net.compute.packing and net.compute.attention == "sdpa":
        attention += b * cells + 2 * b * (queries - keys)  # a mask of all cells by all cells, keys repeated
    feed = 4 * b * inner
    adapters = b * net.lora.rank * len(net.adapted)
    return float(cells * (2 * norm + attention + feed + adapters))


def saved_activations(net: Network, cells: int, longest: int) -> float:
    """Return bytes of activations that all layers save for the backward pass."""
    if net.compute.gradient_checkpointing:
        return float(net.shapes.layers * cells * net.width * net.shapes.hidden_size)
    return net.shapes.layers * layer_saved(net, cells, longest)


def gathering(net: Network) -> float:
    """Return bytes of weights while those outside of layers are gathered: received, copied, and the first layer's."""
    if not net.sharded:
        return 0.0
    return (2 if net.shards > 1 else 1) * net.width * net.root + gathered_layers(net)


def gathered_layers(net: Network) -> float:
    """Return bytes of layers gathered at a time: this one and, over several processes, what is sent beside it."""
    if not net.sharded:
        return 0.0
    layer = net.width * (net.shapes.layer_weights + net.adapters // net.shapes.layers)
    return float(layer * (2 if net.shards > 1 else 1))


def reduced_layer(net: Network) -> float:
    """Return bytes of one layer's gradient: of the pass, and reduced over processes, before and after."""
    if not net.sharded:
        return 0.0
    learning = net.adapters / net.shapes.layers if net.lora.rank else net.shapes.layer_weights
    return learning * (net.width + WIDE + WIDE / net.shards)


def final_states(net: Network, cells: int, places: int) -> float:
    """Return bytes of the head's inputs: the last norm's inputs and the states at the places."""
    hidden, b = net.shapes.hidden_size, net.width
    norm = ((WIDE + 2 * b) if b < WIDE else 3 * b) * hidden
    head_inputs = b * hidden + (WIDE * hidden if net.critic and b < WIDE else 0)
    return float(cells * norm + places * head_inputs)


def logit_block(net: Network, places: int) -> float:
    """Return the bytes of one block of float32 logits."""
    rows = max(net.compute.logit_cells // net.shapes.vocabulary, 1)
    return float(WIDE * min(rows, places) * net.shapes.vocabulary)


def forward_pass(net: Network, cells: int, longest: int, places: int) -> Memory:
    """Return what a forward pass without gradient takes at its fullest moment."""
    s, b = net.shapes, net.width
    inner = cells * (2 * WIDE * s.hidden_size + 4 * b * s.hidden_size + 3 * b * s.intermediate_size)
    if net.compute.attention == "eager":
        inner += cells * s.heads * longest * (WIDE + b)
    root = net.width * net.root if net.sharded else 0.0
    in_layers = Memory(gathered=root + gathered_layers(net), activations=inner)
    states = final_states(net, cells, places)
    block = 0.0 if net.critic else BLOCKS_FORWARD * logit_block(net, places)
    start = Memory(gathered=gathering(net), activations=float(cells * b * s.hidden_size))
    return fullest([start, in_layers, Memory(gathered=root, activations=states, logits=block)])


def train(net: Network, cells: int, longest: int, places: int) -> Memory:
    """Return what a forward and backward pass take at their fullest moment, beside what is resident."""
    s, b = net.shapes, net.width
    root = b * net.root if net.sharded else 0.0
    layers, states = saved_activations(net, cells, longest), final_states(net, cells, places)
    learns_all = not net.lora.rank
    head = s.embedding if learns_all and not net.critic else 0  # gradients of the vocabulary
    block = 0.0 if net.critic else logit_block(net, places)
    flowing = cells * s.hidden_size * (WIDE + 2 * b)
    again = layer_saved(net, cells, longest) if net.compute.gradient_checkpointing else 0.0
    # where activations last to the end, the layer before may still be summing its gradient
    before = reduced_layer(net) if again and s.layers > 1 else b * s.layer_weights * learns_all
    moments = [
        Memory(gathered=gathering(net), activations=float(cells * b * s.hidden_size)),
        Memory(gathered=root, activations=layers + states, logits=BLOCKS_FORWARD * block),
        Memory(
            gathered=root + (WIDE + b) * head,
            activations=layers + states + b * places * s.hidden_size,
            logits=(BLOCKS_BACKWARD + BLOCKS_NARROW * (b < WIDE)) * block,
        ),
        Memory(
            gathered=root + b * head + gathered_layers(net) + before,
            activations=layers + again + flowing + 2 * b * cells * s.intermediate_size,
        ),
        Memory(
            gathered=root + b * head + gathered_layers(net) + reduced_layer(net),
            activations=layers - (0.0 if again else layer_saved(net, cells, longest)) + flowing,
        ),
    ]
    if learns_all:
        learned = s.embedding * (1 if net.critic or s.tied else 2)
        if net.sharded:
            summing = b * s.embedding * (3 if s.tied and not net.critic else 2 if not net.critic else 1)
            reducing = b * learned + WIDE * learned * (1 + 1 / net.shards)
            moments += [Memory(gathered=root + summing), Memory(gathered=reducing)]
        else:
            moments.append(Memory(gathered=WIDE * (s.embedding + head), activations=flowing))
    if net.compute.replicas > 1:  # every layer's sum over replicas lasts until the pass has ended
        summed = Memory(gathered=WIDE * net.learning / net.shards)
        moments = [moment + summed for moment in moments]
    return fullest(moments)


def torch_generator(net: Network) -> float:
    """Return bytes of the torch generator's fused float32 copies; of a plain model it shares what needs no fusing."""
    s = net.shapes
    fused = s.layers * s.layer_matrices + 2 * s.embedding - _unfused(s)
    return float(WIDE * (fused + (_unfused(s) if net.sharded or net.lora.rank else 0)))


def _unfused(s: Shapes) -> int:
    """Return the weights that the generator uses as they are."""
    outputs = sum(s.linear[name][0] * s.linear[name][1] for name in ("o_proj", "down_proj"))
    return s.layers * outputs + s.embedding


def refresh(net: Network) -> Memory:
    """Return what the torch generator takes while it loads weights: all of them gathered, and their fused copies."""
    whole = WIDE * net.shapes.policy_weights if net.sharded or net.lora.rank else 0
    fused = torch_generator(net) - (WIDE * _unfused(net.shapes) if whole else 0.0)
    return Memory(generator=whole + fused)


def cache_columns(prompt: int, response: int, *, drops: bool = True) -> float:
    """Return columns of the torch generator's cache that are alive at its fullest, a copy being made included.

    >>> cache_columns(36, 100, drops=False)  # it holds 36 + 64, then 136 more while the 100 are copied
    236.0
    """
    limit = prompt + response
    size = min(limit, prompt + CACHE_GROWTH)
    most = size
    while size < limit:
        larger = min(2 * size, limit)
        most, size = max(most, size + larger), larger
    return float(max(most, COMPACTION * size)) if drops else float(most)


def generate(net: Network, rows: int, prompt: int, response: int, *, nucleus: bool, drops: bool = True) -> Memory:
    """Return what the torch generator takes for `rows` responses, its copy of the weights included."""
    s = net.shapes
    column = 2 * s.layers * s.kv_heads * s.head_dim * WIDE
    reading = rows * prompt * (3 * s.hidden_size + 3 * s.intermediate_size + 3 * s.heads * s.head_dim)
    drawing = rows * s.vocabulary * (SAMPLING + NUCLEUS * nucleus)
    return Memory(
        activations=float(WIDE * reading),
        logits=float(WIDE * drawing),
        generator=torch_generator(net),
        cache=float(rows * column * cache_columns(prompt, response, drops=drops)),
    )


def fullest(moments: Iterable[Memory]) -> Memory:
    """Return the one that takes most."""
    return max(moments, key=lambda memory: memory.total)
