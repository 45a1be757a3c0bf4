"""The passes behind an alignment: gradients of each chunk of responses, kept until all are done, and their products.

A process needs `memory` bytes for what is held of all chunks, beside training's own for weights, gradients and one
micro-batch, and three float32 numbers for each weight of its shards (vcppo/planning/diagnosis_plan.py).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from vcppo.maths.alignment import Floats
from vcppo.models.distributed import world
from vcppo.models.prepared import compute_of
from vcppo.rl.alignment import chunk_products
from vcppo.rl.policy_gradients import PolicyGradients
from vcppo.settings.fixed import GRADIENT_BYTES, GRADIENT_CHUNKS
from vcppo.system.files import whole_file
from vcppo.types import TokenBatch

Progress = Callable[[int, int], None]  # chunks done, of all


@dataclass(frozen=True)
class GradientSettings:
    """Settings of the passes that take gradients."""

    temperature: float  # of the sampling
    max_tokens: int  # cells of a forward pass
    batch_size: int  # responses of an update, for which noise is told
    responses: int | None = None  # that gradients are taken of, to prompts drawn by the seed; None: all
    chunks: int = GRADIENT_CHUNKS  # groups of responses that share no prompt; intervals are over them
    memory: int = GRADIENT_BYTES  # for gradients of all of them
    seed: int = 0
    folder: Path | None = None  # where chunks are kept until all are done, and then their products


def products_of_chunks(
    policy: PreTrainedModel,
    batch: TokenBatch,
    kinds: Tensor,
    groups: Sequence[Tensor],
    settings: GradientSettings,
    progress: Progress,
) -> tuple[Floats, Floats, int]:
    """([V, V, C, C] dot products, the same preconditioned, backward passes of all processes)."""
    gradients = PolicyGradients(
        policy,
        batch,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        held=3 * len(kinds) * len(groups),  # plain, preconditioned, and one of the two once more when multiplied
        memory=settings.memory,
    )
    made_by = (gradients.sketch, settings.temperature, compute_of(policy).dtype)
    stored = _Stored(settings.folder, policy, batch, kinds, groups, made_by)
    steps = len(groups) + 1
    if (done := stored.load("products")) is not None:
        progress(steps, steps)
        return done["plain"].numpy(), done["scaled"].numpy(), int(done["passes"])
    saved = stored.load("moments")
    if saved is None:
        gradients.precondition(groups)
        assert gradients.scale is not None
        stored.save("moments", {"scale": gradients.scale})
    else:
        gradients.scale = saved["scale"]
    progress(1, steps)
    plain, scaled = [], []
    for number, rows in enumerate(groups):
        made = stored.load(f"chunk-{number:04d}")
        if made is None:
            of_plain, of_scaled = gradients.of(rows, kinds)
            assert of_scaled is not None
            made = {"plain": of_plain, "scaled": of_scaled}
            stored.save(f"chunk-{number:04d}", made)
        plain.append(made["plain"])
        scaled.append(made["scaled"])
        progress(number + 2, steps)
    products = chunk_products(gradients, plain), chunk_products(gradients, scaled)
    passes = round(world().total({"passes": float(gradients.backward_passes)})["passes"])
    done = {name: torch.tensor(made).contiguous() for name, made in zip(("plain", "scaled"), products, strict=True)}
    stored.save("products", {**done, "passes": torch.tensor(passes)})
    stored.remove_all_but("products")
    return *products, passes


class _Stored:
    """Results of one process on disk, under an address of all that they depend on but the policy's name.

    Gradients of chunks are there until their products are, which stay: they are small, and the same diagnosis called
    again, because its page was lost or MLflow was away, takes no gradient twice.
    """

    def __init__(
        self,
        folder: Path | None,
        policy: PreTrainedModel,
        batch: TokenBatch,
        kinds: Tensor,
        groups: Sequence[Tensor],
        made_by: tuple[object, ...],
    ) -> None:
        self.folder: Path | None = None
        if folder is None:
            return
        here, digest = world(), hashlib.sha256()
        weights = torch.tensor(
            [float(p.detach().double().sum()) for p in policy.parameters() if not isinstance(p, DTensor)]
        )
        for tensor in (weights, batch.input_ids, batch.prompt_lengths, batch.response_mask, kinds, *groups):
            digest.update(tensor.contiguous().numpy().tobytes())
        digest.update(repr((*made_by, here.rank, here.size)).encode())
        self.folder = folder / digest.hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str) -> dict[str, Tensor] | None:
        """Return what was saved in every process; a file that is damaged counts as none."""
        if self.folder is None:
            return None
        try:
            stored = load_file(self.folder / f"{name}.safetensors")
        except (FileNotFoundError, SafetensorError):
            stored = None
        return stored if all(world().gather([stored is not None])) else None

    def save(self, name: str, tensors: dict[str, Tensor]) -> None:
        if self.folder is None:
            return
        with whole_file(self.folder / f"{name}.safetensors", synced=False) as temporary:
            save_file(tensors, temporary)

    def remove_all_but(self, name: str) -> None:
        if self.folder is None:
            return
        for path in self.folder.iterdir():
            if path.stem != name:
                path.unlink()
