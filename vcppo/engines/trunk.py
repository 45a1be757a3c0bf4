"""What the rows of a batch share: stems read once, which many rows continue from different places."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trunk:
    """The key/value cache of some stems, and which of it each row sees. B rows, G stems, right-padded to C columns.

    Attention takes all rows of a stem as one matrix, so a stem's keys and values are moved once a step, however many
    rows continue it. Rows stand stem by stem; stems with fewer rows than the one with most have empty slots.
    """

    cache: Tensor  # [layers, 2, G, kv_heads, C, width]
    owners: Tensor  # [B] int64, ascending: the stem a row continues
    lengths: Tensor  # [B] int64: the columns of it that the row sees
    slots: Tensor  # [B] int64: the row's place among G * depth slots
    depth: int  # slots a stem
    hidden: Tensor  # [B, 1, C] bool: the columns that the row does not see

    @classmethod
    def over(cls, cache: Tensor, owners: Tensor, lengths: Tensor) -> Self:
        """Stems that no row continues and columns that no row sees are left out."""
        present, owners, counts = owners.unique_consecutive(return_inverse=True, return_counts=True)
        columns, depth = int(lengths.max()), int(counts.max())
        rank = torch.arange(len(owners), device=cache.device) - (counts.cumsum(0) - counts)[owners]
        hidden = torch.arange(columns, device=cache.device) >= lengths[:, None, None]
        kept = cache[:, :, present, :, :columns]
        return cls(kept, owners, lengths, owners * depth + rank, depth, hidden)

    def keep(self, rows: Tensor) -> "Trunk":
        """Without all rows but these ([B] bool)."""
        return Trunk.over(self.cache, self.owners[rows], self.lengths[rows])

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Of queries [B, heads, width] against one layer's keys [G, kv_heads, C, width]: [B, heads, C]."""
        kv_heads = keys.shape[1]
        asked = self._slotted(queries.unflatten(1, (kv_heads, -1)))
        found = torch.bmm(asked, keys.flatten(0, 1).mT)
        return self._unslotted(found, kv_heads).masked_fill_(self.hidden, -torch.inf)

    def mix(self, shares: Tensor, values: Tensor) -> Tensor:
        """Values [G, kv_heads, C, width] of one layer by shares [B, heads, C]: [B, heads, width]."""
        kv_heads = values.shape[1]
        mixed = torch.bmm(self._slotted(shares.unflatten(1, (kv_heads, -1))), values.flatten(0, 1))
        return self._unslotted(mixed, kv_heads)

    def _slotted(self, x: Tensor) -> Tensor:
        """[B, kv_heads, group, n] -> [G * kv_heads, depth * group, n]: a matrix a stem and key head."""
        _, kv_heads, group, size = x.shape
        stems = self.cache.shape[2]
        slotted = x.new_zeros((stems * self.depth, kv_heads, group, size))
        slotted[self.slots] = x
        by_head = slotted.view(stems, self.depth, kv_heads, group, size).transpose(1, 2)
        return by_head.reshape(stems * kv_heads, self.depth * group, size)

    def _unslotted(self, x: Tensor, kv_heads: int) -> Tensor:
        """[G * kv_heads, depth * group, n] -> [B, heads, n]."""
        by_head = x.view(-1, kv_heads, self.depth, x.shape[1] // self.depth, x.shape[2])
        return by_head.transpose(1, 2).flatten(0, 1)[self.slots].flatten(1, 2)
