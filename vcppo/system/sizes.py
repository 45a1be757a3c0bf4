"""Room on disk: how much is free where a folder is or will be, and sizes in words."""

import shutil
from pathlib import Path

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def free_bytes(folder: Path) -> int:
    """Bytes free for a user on the file system of a folder, which need not exist yet."""
    there = next(parent for parent in [folder.resolve(), *folder.resolve().parents] if parent.exists())
    return shutil.disk_usage(there).free


def readable_size(size: float) -> str:
    """Return a number of bytes in powers of 1000, with two digits or more.

    >>> [readable_size(size) for size in (0, 999, 1_234, 67_400_000_000, 1.2e18)]
    ['0 B', '999 B', '1.2 kB', '67 GB', '1200 PB']
    """
    for unit in UNITS:
        if size < 999.5 or unit == UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if size >= 9.95 or unit == "B" else f"{size:.1f} {unit}"


def parsed_size(text: str) -> int:
    """Return the number of bytes that a text such as `500MB` or `1.5 GB` says.

    >>> parsed_size("1.5 GB"), parsed_size("70")
    (1500000000, 70)

    Raises:
        ValueError: it says none.
    """
    number = text.strip().rstrip("bBkKmMgGtTpP ")
    unit = text.strip()[len(number) :].strip().upper().removesuffix("B")
    names = [name.upper().removesuffix("B") for name in UNITS]
    if unit not in names:
        raise ValueError(f"{text!r} is no size, expected for example 500MB or 1.5GB")
    return int(float(number) * 1000 ** names.index(unit))
