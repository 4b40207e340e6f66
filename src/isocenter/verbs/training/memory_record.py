"""How much memory a run has taken, beside what was predicted."""

from __future__ import annotations

from typing import Any

from isocenter.lazy import torch
from isocenter.runtime import peak_memory
from isocenter.values import Plan

PREDICTED = "training.memory"


def peak_device_memory(device: str) -> float | None:
    """GiB: the most that tensors have held on the device; None where it has no memory of its own."""
    return float(torch.cuda.max_memory_allocated(device)) / 2**30 if device.startswith("cuda") else None


def memory_record(plan: Plan) -> dict[str, Any]:
    """GiB measured, and predicted where the plan does; for `environment.json`."""
    on_device = peak_device_memory(str(plan["training.device"]))
    return {
        "peak_memory_gib": round(peak_memory() / 2**30, 3),
        **({} if on_device is None else {"peak_device_memory_gib": round(on_device, 3)}),
        **({"predicted_memory_gib": plan[PREDICTED]} if PREDICTED in plan else {}),
    }


def memory_words(record: dict[str, Any]) -> str:
    """For the report's facts."""
    said = f"{record['peak_memory_gib']:.2f} GiB"
    if "peak_device_memory_gib" in record:
        said += f", on the device {record['peak_device_memory_gib']:.2f} GiB"
    predicted = record.get("predicted_memory_gib")
    return said if predicted is None else f"{said} (predicted: {predicted} GiB)"
