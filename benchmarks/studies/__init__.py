"""Questions whose answer is a table of their own: the machine, faults, the start, how costs grow, the dashboard."""

from __future__ import annotations

from benchmarks.studies.base import Section, Study
from benchmarks.studies.dashboard import Dashboard
from benchmarks.studies.doors import Doors
from benchmarks.studies.faults import Faults
from benchmarks.studies.first_steps import FirstSteps
from benchmarks.studies.growth import GrowthOfItems, GrowthOfTasks, GrowthOfWorkers
from benchmarks.studies.loop_cells import LoopCells
from benchmarks.studies.machine import Machine
from benchmarks.studies.profiling import Profiling

__all__ = ["STUDIES", "Section", "Study"]

STUDIES: tuple[type[Study], ...] = (
    Machine,
    Faults,
    FirstSteps,
    GrowthOfTasks,
    GrowthOfWorkers,
    GrowthOfItems,
    Profiling,
    LoopCells,
    Doors,
    Dashboard,
)
