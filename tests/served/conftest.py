"""vLLM's own names, in the shapes that its stat loggers are handed, so that the plug-in runs where no vLLM is."""

import sys
from types import ModuleType

import pytest


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """`vllm.v1.metrics.loggers.StatLoggerBase`, abstract as the real one."""
    from abc import ABC, abstractmethod

    class StatLoggerBase(ABC):
        @abstractmethod
        def __init__(self, vllm_config: object, engine_index: int = 0) -> None: ...

        @abstractmethod
        def record(
            self, scheduler_stats: object, iteration_stats: object, mm_cache_stats: object = None, engine_idx: int = 0
        ) -> None: ...

        @abstractmethod
        def log_engine_initialized(self) -> None: ...

        def log(self) -> None:
            return None

    for name in ("vllm", "vllm.v1", "vllm.v1.metrics"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    loggers = ModuleType("vllm.v1.metrics.loggers")
    loggers.StatLoggerBase = StatLoggerBase  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm.v1.metrics.loggers", loggers)
