"""Values that a critic has already given to responses, so that a reading goes on from where it was stopped.

A folder is addressed by the critic and by every token that it reads; a file in it holds the values of some responses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vcppo.diagnosis.tokens import Tokenized
from vcppo.errors import CheckpointError
from vcppo.settings.digests import digest
from vcppo.system.files import write_bytes

VERSION = 1  # raise it when the same critic would give other values to the same tokens


@dataclass(frozen=True)
class StoredValues:
    """The values of one critic.

    `critic` tells its weights and the precision of its passes, for example by the fingerprint of its folder.
    """

    out: Path
    critic: str

    def folder(self, tokenized: Tokenized) -> Path:
        """The folder for these tokens; which of a dump's responses they are counts too."""
        texts = [
            digest([row, *pair])
            for row, *pair in zip(tokenized.rows, tokenized.prompts, tokenized.responses, strict=True)
        ]
        return self.out / "values" / digest([VERSION, self.critic, texts])

    def read(self, tokenized: Tokenized) -> dict[int, Tensor]:
        """Values by row of the dump, [tokens of the response] float32 each. A file that is damaged counts as none.

        Raises:
            CheckpointError: the folder cannot be read.
        """
        values: dict[int, Tensor] = {}
        try:
            for file in sorted(self.folder(tokenized).glob("*.safetensors")):
                try:
                    values |= {int(name): stored for name, stored in load(file.read_bytes()).items()}
                except (SafetensorError, ValueError):
                    continue
        except OSError as error:
            raise CheckpointError(f"{self.out}: stored values cannot be read ({error})") from None
        lengths = {row: len(response) for row, response in zip(tokenized.rows, tokenized.responses, strict=True)}
        return {row: stored for row, stored in values.items() if stored.shape == (lengths.get(row),)}

    def write(self, tokenized: Tokenized, values: Mapping[int, Tensor]) -> None:
        """Store the values of some responses, whole or not at all.

        Raises:
            CheckpointError: they cannot be written.
        """
        file = self.folder(tokenized) / f"{min(values):08d}.safetensors"
        try:
            write_bytes(file, save({str(row): stored.contiguous() for row, stored in values.items()}))
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be written ({error})") from None
