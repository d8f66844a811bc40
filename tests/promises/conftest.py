"""Promises that hold for every backend are tried on the pools of tests/backends."""

from __future__ import annotations

from tests.backends.conftest import make_pool, method, pool, pools

__all__ = ["make_pool", "method", "pool", "pools"]
