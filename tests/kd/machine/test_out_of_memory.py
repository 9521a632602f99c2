"""What PyTorch, CUDA and its libraries say of a GPU whose memory is full, and what else they say."""

from __future__ import annotations

import pytest
import torch

from kd.machine.out_of_memory import is_out_of_gpu_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5.20 GiB."),
        torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://docs"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    ],
    ids=str,
)
def test_of_memory(error: Exception) -> None:
    assert is_out_of_gpu_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        ValueError("CUDA error: out of memory"),
        MemoryError("out of memory"),
    ],
    ids=str,
)
def test_of_something_else(error: Exception) -> None:
    assert not is_out_of_gpu_memory(error)
