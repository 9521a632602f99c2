"""The devices that models run on: all that torch does otherwise on one than on another."""

from __future__ import annotations

import gc

import torch

KINDS = ("cuda",)  # beside the CPU; the first that is there is used


def best_device() -> str:
    """The device that this process may use: a GPU, or else the CPU."""
    return next((kind for kind in KINDS if torch.get_device_module(kind).is_available()), "cpu")


def device_name(device: torch.device) -> str:
    """The card's name, or the processor's with the threads in use."""
    if device.type != "cpu":
        return str(torch.get_device_module(device).get_device_name(device))
    name = "CPU"
    try:
        with open("/proc/cpuinfo") as lines:
            name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether it has units of its own for it."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def seed_device(device: torch.device, seed: int) -> None:
    """Set the device's own generator; the CPU's is torch's."""
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def wait_for(device: torch.device) -> None:
    """Return once it has done what it was given."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def memory_of(device: torch.device) -> tuple[int, int]:
    """Bytes that are free and bytes in all, of one that is no CPU."""
    free, total = torch.get_device_module(device).mem_get_info(device)
    return free, total


def free_memory() -> None:
    """Give back what torch keeps of the device's memory though nothing is in it."""
    kind = best_device()
    if kind != "cpu":
        gc.collect()
        torch.get_device_module(kind).empty_cache()
