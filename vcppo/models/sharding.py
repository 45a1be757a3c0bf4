"""Adapters, devices and shards of models in use; gathering their weights whole again.

A plain float32 model on one process is left as it is. Any other is sharded by `fully_shard` (FSDP2), on one process
too: that is how passes in bfloat16 keep float32 weights, and how weights can wait in main memory.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from vcppo.errors import CheckpointError, ConfigError
from vcppo.models.distributed import mesh, world
from vcppo.models.forward import check_packing, register_scorers, reshard
from vcppo.models.prepared import declare
from vcppo.seeding import seed_for
from vcppo.settings.model import ComputeSettings, LoraSettings

ADAPTER = "default"


def prepare(model: PreTrainedModel, compute: ComputeSettings, lora: LoraSettings, *, seed: int) -> PreTrainedModel:
    """Give a loaded model its adapters, its device and its shards, in place; every process calls this alike.

    Args:
        seed: of fresh adapters, which change nothing until they are trained.
    Raises:
        ConfigError: `lora.targets` names no layer of the model, its attention cannot be computed so here, it cannot
            keep packed responses apart, or processes do not divide into replicas.
    """
    if lora.rank:
        add_adapters(model, lora, seed)
    try:
        model.set_attn_implementation(compute.attention)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"compute.attention = {compute.attention}: {str(error).splitlines()[0]}") from None
    if compute.gradient_checkpointing:
        # only models in training mode recompute; with every dropout at 0 that mode changes nothing else
        enable: Any = getattr(model, "activation_checkpointing_enable", None)  # its name since transformers 5.23
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
        model.train()
        drop_nothing(model)
    if world().size % compute.replicas:
        raise ConfigError(f"compute.replicas = {compute.replicas}: expected a divisor of the {world().size} processes")
    declare(model, compute, world().device)
    sharded = world().size > 1 or compute.dtype != "float32" or _offloads(compute)
    prepared = _shard(model, compute) if sharded else model.to(world().device)
    if compute.packing:
        check_packing(prepared)
    return prepared


_configured_dropouts: WeakKeyDictionary[PreTrainedModel, list[tuple[Any, str, float]]] = WeakKeyDictionary()


def drop_nothing(model: PreTrainedModel) -> None:
    """Set every dropout to 0, wherever a family keeps it: in a layer, in numbers of a module, or in a configuration.

    What configurations said is kept for `configured_dropouts`.
    """
    configured = _configured_dropouts.setdefault(model, [])
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, _ in _dropouts(module):
            setattr(module, name, 0.0)
        config = getattr(module, "config", None)  # one object for all modules, or one for each part of the model
        for name, value in _dropouts(config):
            if value:
                configured.append((config, name, value))
            setattr(config, name, 0.0)


def _dropouts(place: Any) -> list[tuple[str, float]]:
    numbers = list(vars(place).items()) if place is not None else []
    return [(x, p) for x, p in numbers if "drop" in x and isinstance(p, int | float) and not isinstance(p, bool)]


@contextmanager
def configured_dropouts(model: PreTrainedModel) -> Iterator[None]:
    """Let the model's configurations say what they said before `drop_nothing`, as whoever loads it has to know."""
    configured = _configured_dropouts.get(model, [])
    for config, name, value in configured:
        setattr(config, name, value)
    try:
        yield
    finally:
        for config, name, _ in configured:
            setattr(config, name, 0.0)


def add_adapters(model: PreTrainedModel, settings: LoraSettings, seed: int) -> None:
    """Inject low-rank adapters beside the linear layers; only they are trained, and a critic's head."""
    from peft import LoraConfig, inject_adapter_in_model  # seconds to import

    names = settings.targets if settings.targets == "all-linear" else [x.strip() for x in settings.targets.split(",")]
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=_targets(model, names))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "adapters"))
        try:
            inject_adapter_in_model(config, model, adapter_name=ADAPTER)
        except ValueError as error:
            raise ConfigError(f"lora.targets = {settings.targets}: {str(error).splitlines()[0]}") from None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith(("score.", "classifier.")))


def named_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight whole, by its name in a checkpoint, adapters merged, tied ones once; saved buffers too.

    One at a time, so that no more than one is whole; every process walks through them alike.
    """
    merged = {id(module.base_layer.weight): module for module in _adapted(model)}
    reshard(model)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        weight = whole(parameter.detach())
        if (module := merged.get(id(parameter))) is not None:
            scale = module.scaling[ADAPTER]
            up, down = (whole(part[ADAPTER].weight.detach()) for part in (module.lora_B, module.lora_A))
            weight = weight + scale * (up @ down)
        yield name.replace(".base_layer.", "."), weight
    saved = model.state_dict().keys()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in saved)


def plain(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model itself if it is whole and without adapters, else a float32 copy that is."""
    if not is_sharded(model) and not _adapted(model):
        return model
    with torch.device("meta"):
        fresh = base_class(model)(copy.deepcopy(model.config))
    weights = {name: weight.to(world().device) for name, weight in named_weights(model)}
    fresh.load_state_dict(weights, strict=False, assign=True)
    fresh.tie_weights()
    for path, buffer in list(model.named_buffers()):
        _set_buffer(fresh, path, buffer)
    return fresh.eval()


def copy_weights(into: nn.Module, source: nn.Module) -> None:
    """Copy the weights of a model that was prepared alike."""
    mix_weights(into, source, 1.0)


@torch.no_grad()
def mix_weights(into: nn.Module, source: nn.Module, share: float) -> None:
    """theta <- share * theta of the source + (1 - share) * theta, for a model that was prepared alike."""
    reshard(into)
    reshard(source)
    for parameter, new in zip(into.parameters(), source.parameters(), strict=True):
        parameter.copy_(new) if share == 1.0 else parameter.lerp_(new, share)


def load_weights(model: nn.Module, saved: dict[str, Any]) -> None:
    """Load a state dict whose tensors are whole or sharded, whatever the model's are."""
    current = model.state_dict()
    placed = {name: like(value, current[name]) if name in current else value for name, value in saved.items()}
    model.load_state_dict(placed)


def like(value: Tensor, target: Tensor) -> Tensor:
    """Place a tensor as `target`, of the same shape, is: whole, or in the same shards."""
    if isinstance(value, DTensor):
        if isinstance(target, DTensor) and _placement(value) == _placement(target):
            return value
        value = whole(value)
    if isinstance(target, DTensor):
        return _distribute(value.to(target.device_mesh.device_type), target)
    return value


def whole(x: Tensor) -> Tensor:
    """Gather a tensor from its shards; itself if it has none."""
    if not isinstance(x, DTensor):
        return x
    on_mesh: Any = x.to(x.device_mesh.device_type)
    gathered: Tensor = on_mesh.full_tensor()
    return gathered


def is_sharded(model: nn.Module) -> bool:
    """True if the model's weights are sharded, over one process too."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _shard(model: PreTrainedModel, compute: ComputeSettings) -> PreTrainedModel:
    """Shard layer by layer; what is outside of layers is gathered for the whole pass. A critic's head stays float32."""
    placed = mesh(compute.replicas)
    narrow = None if compute.dtype == "float32" else getattr(torch, compute.dtype)
    precision = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32)
    offload = CPUOffloadPolicy() if _offloads(compute) else OffloadPolicy()
    device, loaded = world().device, dict(model.named_parameters()) | dict(model.named_buffers())
    if model.device.type != "meta":
        model.to("cpu" if _offloads(compute) else device)
    for layer in _layers(model):
        fully_shard(layer, mesh=placed, mp_policy=precision, offload_policy=offload)
    for name in ("score", "classifier"):
        if isinstance(head := getattr(model, name, None), nn.Linear):
            fully_shard(head, mesh=placed, offload_policy=offload)
    fully_shard(model, mesh=placed, mp_policy=precision, offload_policy=offload)
    if world().size > 1:
        _scatter_from_main(model, loaded, compute)
    for path, buffer in list(model.named_buffers()):
        _set_buffer(model, path, buffer.to(device))
    register_scorers(model)
    return model


def _scatter_from_main(model: PreTrainedModel, loaded: dict[str, Tensor], compute: ComputeSettings) -> None:
    """Give every process its shards of the weights that the main one has loaded, one tensor at a time."""
    here = world()
    if model.device.type == "meta":
        model.to_empty(device="cpu" if _offloads(compute) else here.device)
    with torch.no_grad():
        for name, target in [*model.named_parameters(), *model.named_buffers()]:
            if here.is_main:
                tensor = loaded[name].detach().to(here.device).contiguous()
            else:
                tensor = torch.empty(target.shape, dtype=target.dtype, device=here.device)
            dist.broadcast(tensor, src=0)
            target.copy_(_distribute(tensor, target) if isinstance(target, DTensor) else tensor)


def _distribute(x: Tensor, target: DTensor) -> Tensor:
    """Shard a whole tensor, which every process has, as `target` is."""
    return distribute_tensor(x, target.device_mesh, target.placements, src_data_rank=None).to(target.device)


def _placement(x: DTensor) -> tuple[Any, Any]:
    return x.device_mesh, x.placements


def _layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's layers, each a group of shards."""
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise CheckpointError(
            f"{model.config.model_type}: its base model has no list `layers` to be sharded; expected a decoder such as "
            "Llama's, or one process, compute.dtype = float32 and compute.offload = false"
        )
    return layers


def _offloads(compute: ComputeSettings) -> bool:
    """True if weights wait in main memory between passes; without an accelerator they are there anyway."""
    return compute.offload and world().device.type != "cpu"


def _targets(model: PreTrainedModel, names: str | list[str]) -> list[str]:
    """Full names of the layers: all linear ones in the decoder's layers, or those with such a last name."""
    linear = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".layers." in f".{name}"
    ]
    chosen = linear if names == "all-linear" else [name for name in linear if name.rsplit(".", 1)[-1] in names]
    if not chosen:
        known = sorted({name.rsplit(".", 1)[-1] for name in linear})
        there = f"this model has {', '.join(known)}" if known else "adapters go beside linear layers of a list `layers`"
        raise ConfigError(f"lora.targets = {names}: no such layer in {type(model).__name__}; {there}")
    return chosen


def base_class(model: PreTrainedModel) -> type[PreTrainedModel]:
    """Return the class that transformers knows; FSDP subclasses it."""
    kind = type(model)
    while issubclass(kind, FSDPModule):
        kind = kind.__bases__[-1]
    return kind


def _adapted(model: PreTrainedModel) -> list[Any]:
    """Return the layers with an adapter beside them."""
    return [module for module in model.modules() if hasattr(module, "lora_A")]


def _set_buffer(model: nn.Module, path: str, value: Tensor) -> None:
    """Replace a buffer; buffers are not sharded. Whether one is saved stays as it is."""
    module, _, name = path.rpartition(".")
    setattr(model.get_submodule(module), name, value)
