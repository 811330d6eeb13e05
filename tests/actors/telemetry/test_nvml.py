"""NVML's units and refusals, by a fake with the names of the real module."""

import importlib
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from actors.telemetry.nvml import NvmlAbsent, load_nvml, read_board
from engine.cost.telemetry import Metric, Sample, SourceKind


class Fake:
    """Two GPUs; the second one supports neither the energy counter nor utilisation, as an old one or one cut by MIG."""

    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported

    def __init__(self, driver: bool = True) -> None:
        self.driver = driver
        self.open = 0

    def nvmlInit(self) -> None:
        if not self.driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA H200"

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 70_123

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> Any:
        return self._unless_old(handle, 987_654_321)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return self._unless_old(handle, SimpleNamespace(gpu=42, memory=7))

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=150_000_000_000, used=1_000, free=149_999_999_000)

    def _unless_old(self, handle: int, value: Any) -> Any:
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return value


def test_units_are_ours_and_what_is_not_supported_is_missing() -> None:
    fake = Fake()
    memory = {Metric.MEMORY_USED: 1_000, Metric.MEMORY_TOTAL: 150_000_000_000}
    assert read_board(fake, 5, "n1") == [
        Sample(
            SourceKind.GPU,
            "GPU-0",
            5,
            {Metric.POWER: 70_123, Metric.ENERGY: 987_654_321_000, Metric.BUSY: 420} | memory,
            "n1",
            "NVIDIA H200",
        ),
        Sample(SourceKind.GPU, "GPU-1", 5, {Metric.POWER: 70_123} | memory, "n1", "NVIDIA H200"),
    ]
    assert fake.open == 0


def test_a_machine_without_a_driver_says_so() -> None:
    with pytest.raises(NvmlAbsent, match="no NVIDIA driver answers"):
        read_board(Fake(driver=False), 5, "n1")


def test_the_real_module_has_what_is_called() -> None:
    assert load_nvml() is pynvml


def test_without_the_module_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(NvmlAbsent, match="tallygate\\[nvml\\]"):
        load_nvml()
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace())
    with pytest.raises(NvmlAbsent, match="not that of nvidia-ml-py"):
        load_nvml()


def test_the_gpus_of_this_machine() -> None:
    """On a machine with a GPU: the energy counter grows, and the figures are those of a board."""
    try:
        samples = read_board(load_nvml(), 5, "here")
    except NvmlAbsent as error:
        pytest.skip(f"no GPU here: {error}")
    for sample in samples:
        assert 1_000 < sample.values[Metric.POWER] < 2_000_000
        assert sample.values[Metric.MEMORY_TOTAL] > 1 << 30
