"""How many bytes of tensors are alive: counted operation by operation, with real tensors or fake ones.

A fake tensor has a shape and no contents, so a model of billions of weights can be run here for its sizes alone. What
a kernel takes for itself while it runs is not seen, nor what an allocator loses.
"""

import weakref
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """`live` bytes now and the `peak` since it was last set, of storages that operations inside have met."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = self.largest = 0
        self._sizes: Any = weakref.WeakKeyDictionary()

    def restart(self) -> None:
        """Let the peak start from what is alive now."""
        self.peak, self.largest = self.live, 0

    def __enter__(self) -> Any:
        self._resize = torch.UntypedStorage.resize_

        def resize(storage: Any, size: int) -> Any:
            found = self._resize(storage, size)
            if storage in self._sizes:
                self._see(storage)
            return found

        # FSDP frees gathered weights so; it is no operation
        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign,assignment]
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *exception: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for x in tree_leaves((args, kwargs, found)):
            if isinstance(x, torch.Tensor) and x.device.type != "meta":
                local = x._local_tensor if isinstance(x, DTensor) else x
                self._see(local.untyped_storage())
        return found

    def _see(self, storage: Any) -> None:
        size, known = storage.nbytes(), self._sizes.get(storage)
        if known is None:
            known = self._sizes[storage] = [0]
            weakref.finalize(storage, self._forget, known)
        self.live += size - known[0]
        known[0] = size
        self.peak, self.largest = max(self.peak, self.live), max(self.largest, size)

    def _forget(self, known: list[int]) -> None:
        self.live -= known[0]
