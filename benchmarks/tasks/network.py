"""A small neural network whose loading takes long: MPIRE's workload with an expensive init, without TensorFlow."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Network", "begin_state", "evaluate", "evaluate_here", "evaluate_in_state", "load_here"]

Matrix = npt.NDArray[np.float32]


class Network:
    """A perceptron of 784, 512 and 10 units, trained a little when it is made, and its test images."""

    def __init__(self) -> None:
        generator = np.random.default_rng(1)
        centres = generator.normal(size=(10, 784)).astype(np.float32)
        self.labels = generator.integers(0, 10, size=1000)
        noise = generator.normal(scale=4.0, size=(1000, 784)).astype(np.float32)
        self.images: Matrix = centres[self.labels] + noise
        self.inner: Matrix = generator.normal(scale=0.04, size=(784, 512)).astype(np.float32)
        self.outer: Matrix = generator.normal(scale=0.04, size=(512, 10)).astype(np.float32)
        for _ in range(6):
            self._train()

    def _train(self, rate: float = 0.1) -> None:
        """One step of gradient descent on all images."""
        hidden = np.maximum(self.images @ self.inner, 0)
        scores = hidden @ self.outer
        scores -= scores.max(axis=1, keepdims=True)
        error = np.exp(scores)
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(self.labels)), self.labels] -= 1
        error /= len(self.labels)
        back = (error @ self.outer.T) * (hidden > 0)
        self.outer -= rate * (hidden.T @ error)
        self.inner -= rate * (self.images.T @ back)

    def n_right(self, shift: float) -> int:
        """How many test images it recognises when they are made brighter by `shift`."""
        hidden = np.maximum((self.images + np.float32(shift)) @ self.inner, 0)
        return int((np.argmax(hidden @ self.outer, axis=1) == self.labels).sum())


def evaluate(network: Network, number: int) -> int:
    """One evaluation."""
    return network.n_right(number / 100)


@lru_cache(maxsize=1)
def _network_here() -> Network:
    return Network()


def load_here() -> None:
    """Initializer of pools."""
    _network_here.cache_clear()  # what a fork brought along does not count
    _network_here()


def evaluate_here(number: int) -> int:
    """`evaluate` with the worker's global network, loaded when it is not there yet."""
    return evaluate(_network_here(), number)


def begin_state(state: dict[str, Any]) -> None:
    """MPIRE's worker_init."""
    state["network"] = Network()


def evaluate_in_state(state: dict[str, Any], number: int) -> int:
    """MPIRE's task."""
    return evaluate(state["network"], number)
