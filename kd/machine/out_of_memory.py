"""Whether an error says that a GPU's memory was not enough."""

from __future__ import annotations

import torch

# CUDA itself, where a context or an allocation past PyTorch's own allocator found no room; and the libraries that make
# their workspaces when they are first called, and say of one that they could not make that they are not initialized.
SIGNS = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
)


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Whether PyTorch's allocator says so, or, where it was not the one to ask, CUDA or one of its libraries."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
