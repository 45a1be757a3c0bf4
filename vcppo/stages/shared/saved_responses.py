"""A batch of responses as a file, which later stages read."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vcppo.errors import CheckpointError
from vcppo.models.distributed import world
from vcppo.system.files import whole_file
from vcppo.types import RolloutBatch


def responses_file(folder: Path) -> Path:
    """Path of the responses."""
    return folder / "answers.safetensors"


def save_responses(folder: Path, batch: RolloutBatch) -> None:
    """Save a batch whole, from the main process."""
    if world().is_main:
        with whole_file(responses_file(folder)) as temporary:
            save_file({name: x.contiguous() for name, x in vars(batch).items()}, temporary)


def load_responses(folder: Path) -> RolloutBatch:
    """Load the batch that `save_responses` saved."""
    try:
        return RolloutBatch(**load_file(responses_file(folder)))
    except (OSError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{responses_file(folder)}: not a batch of responses ({error})") from None
