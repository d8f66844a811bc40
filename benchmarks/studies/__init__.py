"""Questions whose answer is a table of their own: how long a start takes, how costs grow."""

from __future__ import annotations

from benchmarks.studies.base import Section, Study
from benchmarks.studies.first_steps import FirstSteps
from benchmarks.studies.growth import GrowthOfItems, GrowthOfTasks, GrowthOfWorkers

__all__ = ["STUDIES", "Section", "Study"]

STUDIES: tuple[type[Study], ...] = (FirstSteps, GrowthOfTasks, GrowthOfWorkers, GrowthOfItems)
