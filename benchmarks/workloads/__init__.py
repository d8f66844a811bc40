"""All comparisons, in the order of the report."""

from __future__ import annotations

from benchmarks.core import Workload
from benchmarks.workloads.arrays import ArraysIn, ArraysInAndOut, ArraysOut, ComputeBound
from benchmarks.workloads.article import ArticleManyPasses, ArticleOnePass
from benchmarks.workloads.documents import Documents
from benchmarks.workloads.images import Images
from benchmarks.workloads.imbalance import HeavyTail
from benchmarks.workloads.latency import RoundTrip
from benchmarks.workloads.loops import SmallMapsInALoop
from benchmarks.workloads.network import ExpensiveInit
from benchmarks.workloads.shared import SharedTable
from benchmarks.workloads.streaming import SlowConsumer
from benchmarks.workloads.tiny import MillionFromList, MillionFromRange, TenThousand

__all__ = ["WORKLOADS"]

WORKLOADS: tuple[type[Workload], ...] = (
    MillionFromList,
    MillionFromRange,
    TenThousand,
    RoundTrip,
    SmallMapsInALoop,
    ArraysIn,
    ArraysInAndOut,
    ArraysOut,
    ComputeBound,
    ArticleManyPasses,
    ArticleOnePass,
    SharedTable,
    HeavyTail,
    Images,
    Documents,
    ExpensiveInit,
    SlowConsumer,
)
