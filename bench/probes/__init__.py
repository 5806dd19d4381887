"""What is measured beside rates and times."""
from __future__ import annotations

from bench.probes.base import Options, Probe, Result, run
from bench.probes.bodies import Peak, Upload
from bench.probes.calls import Calls
from bench.probes.idle import Idle
from bench.probes.imports import Imports
from bench.probes.spikes import Spike

__all__ = ["PROBES", "Options", "Probe", "Result", "run"]

PROBES: dict[str, Probe] = {probe.name: probe for probe in (Calls(), Imports(), Idle(), Peak(), Upload(), Spike())}
