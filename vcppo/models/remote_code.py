"""What is wrong with code that came with a model (`model.trust_remote_code`), in one line."""

import ast
import platform
import traceback
from pathlib import Path

from vcppo.errors import CheckpointError, first_line

OF_A_CHECKPOINT = "transformers_modules"  # where transformers puts the code that came with a model


def failure_of_code(error: ImportError | SyntaxError, path: Path | str) -> CheckpointError:
    """Return the line for a model whose code is no Python, or imports what is not there.

    transformers itself imports too: a package that a family or its tokenizer needs is named as it names it.
    """
    if isinstance(error, SyntaxError):
        shown = f" ({error.text.strip()[:80]})" if error.text else ""
        return CheckpointError(
            f"{path}: the code that came with it, {_unreadable_file(error, path)}, line {error.lineno}{shown}: "
            f"{error.msg}; expected code that Python {platform.python_version()} reads"
        )
    return CheckpointError(
        f"{path}: {_where(error)} imports what is not here ({first_line(error)}); expected the packages, in the "
        "versions, that it was written for: the model's page names them"
    )


def _unreadable_file(error: SyntaxError, path: Path | str) -> str:
    """Name of the file; transformers reads one first without its name."""
    if error.filename and not error.filename.startswith("<"):
        return Path(error.filename).name
    for file in sorted(Path(path).glob("*.py")):
        try:
            ast.parse(file.read_bytes())
        except SyntaxError:
            return file.name
    return "a file"


def _where(error: ImportError) -> str:
    """The last line of a model's own code on the way to the error; none where transformers found out by itself."""
    frames = traceback.extract_tb(error.__traceback__)
    its = [frame for frame in frames if OF_A_CHECKPOINT in Path(frame.filename).parts]
    return f"its code, {Path(its[-1].filename).name}, line {its[-1].lineno}," if its else "it"
