"""Prefixes that rows of a batch share: stems read once, which many rows continue from different places."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trunk:
    """The key/value cache of some stems, and which of it each row sees. B rows, G stems, right-padded to C columns.

    Attention takes all rows of a stem as one matrix, so a stem's keys and values are moved once per step, however many
    rows continue it. Rows stand stem by stem; a stem with fewer rows than the one with most has empty places, which
    repeat the first row. A head is one of the query heads, and a place belongs to a stem, key head, row and head.
    """

    cache: Tensor  # [layers, 2, G, kv_heads, C, width]
    heads: int
    owners: Tensor  # [B] int64, ascending: the stem a row continues
    lengths: Tensor  # [B] int64: the columns of it that the row sees
    into: Tensor  # [G * kv_heads * places] int64: for each place, its entry of [B * heads]
    back: Tensor  # [B * heads] int64: the place of each entry
    bias: Tensor  # [B, 1, C] float32: 0 for the columns the row sees, else minus infinity

    @classmethod
    def over(cls, cache: Tensor, heads: int, owners: Tensor, lengths: Tensor) -> Self:
        """Build it without stems that no row continues and columns that no row sees."""
        device, kv_heads = cache.device, cache.shape[3]
        present, owners, counts = owners.unique_consecutive(return_inverse=True, return_counts=True)
        depth, columns = int(counts.max()), int(lengths.max())
        rank = torch.arange(len(owners), device=device) - (counts.cumsum(0) - counts)[owners]
        places = torch.arange(len(present) * depth * heads, device=device)
        by_row = places.view(len(present), kv_heads, depth, -1).transpose(1, 2).reshape(len(present), depth, heads)
        back = by_row[owners, rank].flatten()
        into = torch.zeros_like(places)
        into[back] = torch.arange(len(back), device=device)
        bias = torch.zeros((len(owners), 1, columns), device=device)
        bias.masked_fill_(torch.arange(columns, device=device) >= lengths[:, None, None], -torch.inf)
        return cls(cache[:, :, present, :, :columns], heads, owners, lengths, into, back, bias)

    def keep(self, rows: Tensor) -> "Trunk":
        """Drop all rows but these ([rows] int64)."""
        return Trunk.over(self.cache, self.heads, self.owners[rows], self.lengths[rows])

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Scores of queries [B * heads, width] against one layer's keys [G, kv_heads, C, width]: [B, heads, C]."""
        scores = torch.bmm(self._placed(queries), keys.flatten(0, 1).mT)
        return self._rows(scores).add_(self.bias)

    def mix(self, shares: Tensor, values: Tensor) -> Tensor:
        """Mix values [G, kv_heads, C, width] of one layer by shares [B * heads, C]: [B, heads, width]."""
        return self._rows(torch.bmm(self._placed(shares), values.flatten(0, 1)))

    def _placed(self, x: Tensor) -> Tensor:
        """[B * heads, n] -> [G * kv_heads, places, n]: a matrix per stem and key head."""
        matrices = self.cache.shape[2] * self.cache.shape[3]
        return x.index_select(0, self.into).view(matrices, -1, x.shape[-1])

    def _rows(self, x: Tensor) -> Tensor:
        """[G * kv_heads, places, n] -> [B, heads, n]."""
        return x.view(-1, x.shape[-1]).index_select(0, self.back).view(-1, self.heads, x.shape[-1])
