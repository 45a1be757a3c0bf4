"""Files of a dump, in the order in which they were written; those that cannot be read are refused."""

import re
from collections.abc import Sequence
from pathlib import Path

from vcppo.diagnosis.dumps.form import Notes
from vcppo.errors import DataError

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
EXPORT = (  # of what slime saves by torch
    'python -c "import json, torch; '
    "[print(json.dumps(s, default=lambda x: getattr(x, 'tolist', x.__str__)())) "
    "for s in torch.load('FILE', weights_only=False)['samples']]\" > FILE.jsonl"
)
_TORCH = (
    "it may run code when it is read, and is not; save its rows as JSON Lines where it was written, of slime by "
    f"{EXPORT} (docs/dumps.md)"
)
_PICKLE = "it may run code when it is read, and is not; save its rows as JSON Lines or Parquet where it was written"
_OTHER = "of a kind that is not read; save its rows as JSON Lines or Parquet"
REFUSED = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), f"a file of torch: {_TORCH}"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".dill"), f"a pickle: {_PICKLE}"),
    **dict.fromkeys((".npy", ".npz"), f"a file of NumPy, which may hold a pickle: {_PICKLE}"),
    **dict.fromkeys((".csv", ".tsv", ".arrow", ".safetensors", ".zip", ".tar", ".xlsx"), _OTHER),
}
_MAGIC = {
    b"PK\x03\x04": f"a zip archive, as torch writes: {_TORCH}",
    b"\x93NUMPY": f"a file of NumPy, which may hold a pickle: {_PICKLE}",
    **{bytes((0x80, version)): f"a pickle: {_PICKLE}" for version in range(2, 6)},
}
PARQUET, GZIP = b"PAR1", b"\x1f\x8b"


def dump_files(paths: Sequence[Path], notes: Notes) -> list[Path]:
    """The files of a dump: those that were named, and those in named folders, step 2 before step 10.

    Raises:
        DataError: there is none, one does not exist, or one is of a kind that is not read.
    """
    if not paths:
        raise DataError("no file of responses was named")
    result = [file for path in paths for file in (_in_folder(path, notes) if path.is_dir() else [_named(path)])]
    unique: dict[Path, Path] = {}
    for file in result:
        unique.setdefault(file.resolve(), file)
    if len(unique) < len(result):
        notes.say(f"{len(result) - len(unique)} of the files were named twice and are read once")
    return list(unique.values())


def _named(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: not a file; expected {', '.join(SUFFIXES)} or a folder of them")
    if (why := REFUSED.get(path.suffix.lower())) is not None:
        raise DataError(f"{path}: {why}")
    return path


def _in_folder(folder: Path, notes: Notes) -> list[Path]:
    if (folder / "samples").is_dir():  # an evaluation of vcppo
        folder = folder / "samples"
    try:
        there = sorted((file for file in folder.iterdir() if _is_shown(file)), key=natural)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error})") from None
    readable = [file for file in there if file.name.lower().endswith(SUFFIXES)]
    training = [file for file in readable if file.name.startswith("train_data_step")]
    validation = [file for file in readable if file.name.startswith("val_data_step")]
    if training and validation:  # of NeMo-RL
        notes.say(f"{folder}: responses of training are read, the {len(validation)} files of validation are not")
        readable = [file for file in readable if file not in validation]
    if not readable:
        refused = next((file for file in there if file.suffix.lower() in REFUSED), None)
        if refused is not None:
            raise DataError(f"{refused}: {REFUSED[refused.suffix.lower()]}")
        names = ", ".join(file.name for file in there[:5]) or "no file"
        raise DataError(f"{folder}: it has {names}; expected files that end in {', '.join(SUFFIXES)}")
    others = [file.name for file in there if not file.name.lower().endswith(SUFFIXES)]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        notes.say(f"{folder}: left out as of other kinds: {', '.join(others[:3])}{more}")
    return readable


def _is_shown(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")


def natural(path: Path) -> list[tuple[int, int, str]]:
    """A key that sorts names with numbers by their numbers.

    >>> sorted(map(Path, ["10.jsonl", "step_2.jsonl", "9.jsonl"]), key=natural)[0].name
    '9.jsonl'
    """
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part[:400]), "") if part.isdecimal() and part.isascii() else (1, 0, part) for part in parts if part]


def refuse_pickles(path: Path, head: bytes) -> None:
    """Refuse a file that begins like one that runs code, whatever its name is.

    Raises:
        DataError: it does.
    """
    for magic, why in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{path}: {why}")
