"""Questions whose answer is a table of their own: what the machine gives, how long a start takes, how costs grow."""

from __future__ import annotations

from benchmarks.studies.base import Section, Study
from benchmarks.studies.first_steps import FirstSteps
from benchmarks.studies.growth import GrowthOfItems, GrowthOfTasks, GrowthOfWorkers
from benchmarks.studies.machine import Machine

__all__ = ["STUDIES", "Section", "Study"]

STUDIES: tuple[type[Study], ...] = (Machine, FirstSteps, GrowthOfTasks, GrowthOfWorkers, GrowthOfItems)
