"""Randomness by name: every draw comes from a generator made of (seed, purpose, step), never from a global state."""

import hashlib

import torch


def seed_for(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that differs whenever any of the parts does."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def rng_for(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose at one step, so that resuming replays nothing."""
    return torch.Generator().manual_seed(seed_for(seed, *purpose))
