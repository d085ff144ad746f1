"""What a result must say about the machine that it was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

# Flags that decide which kernels of a library run.
FLAGS = [
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "sve",
    "sve2",
    "i8mm",
]


def processor_info() -> dict[str, str]:
    """Return the first processor's fields of /proc/cpuinfo; empty where there is no such file."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cache_sizes() -> dict[str, str]:
    """Return the sizes of the first processor's caches as the kernel gives them."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        sizes[f"L{level} {kind.lower()}"] = size
    return sizes


def describe_machine() -> dict[str, Any]:
    """Return processor, caches, flags of interest, cores that this process may use, and load."""
    info = processor_info()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "family_model_stepping": "/".join(info.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "is_virtual": "hypervisor" in flags,
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "caches": cache_sizes(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }
