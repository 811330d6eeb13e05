"""What the driver of this machine says of its GPUs, through NVML: for machines without dcgm-exporter.

`nvidia-ml-py` is an optional extra (`pip install tallygate[nvml]`); its module is handed in, so that units and refusals
are tested where there is no GPU.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from engine.cost.telemetry import Metric, Sample, SourceKind

_CALLS: Final = (
    "nvmlInit",
    "nvmlShutdown",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo",
)


class NvmlAbsent(Exception):
    """This machine's GPUs cannot be asked; the message says what is missing."""


def load_nvml() -> ModuleType:
    """The module `pynvml`. Raises NvmlAbsent without it."""
    try:
        module = importlib.import_module("pynvml")
    except ImportError as error:
        raise NvmlAbsent("nvidia-ml-py is not installed: pip install 'tallygate[nvml]'") from error
    missing = [name for name in _CALLS if not hasattr(module, name)]
    if missing:
        raise NvmlAbsent(f"the module pynvml is not that of nvidia-ml-py: it has no {missing[0]}")
    return module


def read_board(nvml: Any, time_us: int, host: str) -> list[Sample]:
    """A sample per GPU. What a GPU does not support is missing from it. Raises NvmlAbsent where there is no driver."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise NvmlAbsent(f"no NVIDIA driver answers on this machine: {error}") from error
    try:
        return [_read_gpu(nvml, index, time_us, host) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        raise NvmlAbsent(f"the NVIDIA driver of this machine: {error}") from error
    finally:
        nvml.nvmlShutdown()


def _read_gpu(nvml: Any, index: int, time_us: int, host: str) -> Sample:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = _supported(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    rates = _supported(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    energy_mj = _supported(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    stated = {
        Metric.POWER: _supported(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle)),
        Metric.ENERGY: None if energy_mj is None else energy_mj * 1_000,
        Metric.BUSY: None if rates is None else rates.gpu * 10,
        Metric.MEMORY_USED: None if memory is None else memory.used,
        Metric.MEMORY_TOTAL: None if memory is None else memory.total,
    }
    values = {metric: int(value) for metric, value in stated.items() if value is not None}
    uuid, model = str(nvml.nvmlDeviceGetUUID(handle)), str(nvml.nvmlDeviceGetName(handle))
    if not values:
        raise NvmlAbsent(f"GPU {uuid} says nothing that is asked of it")
    return Sample(SourceKind.GPU, uuid, time_us, values, host, model)


def _supported(nvml: Any, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except nvml.NVMLError_NotSupported:
        return None
