"""The machine that a measurement was made on, in words for a report."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

__all__ = ["describe_machine", "name_machine"]


def describe_machine(device: str = "cpu") -> dict[str, str | int]:
    """Return processor, cores, threads, device and versions."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": name,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def name_machine(machine: Mapping[str, str | int]) -> str:
    """Put what ``describe_machine`` returned in one line."""
    return (
        f"{machine['processor']}, device {machine['device']}, {machine['threads']} of "
        f"{machine['cores']} threads, torch {machine['torch']}"
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
