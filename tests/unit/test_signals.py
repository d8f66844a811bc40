"""Signals are held back while the main thread does work that must not be torn."""

import signal
from collections.abc import Iterator

import pytest

from nbpar.backends.signals import HeldSignals

ALARM = getattr(signal, "SIGALRM", None)
pytestmark = pytest.mark.skipif(ALARM is None, reason="Windows has no signals but SIGINT")


class AlarmError(Exception):
    """What the handler of these tests raises."""


@pytest.fixture
def alarm() -> Iterator[int]:
    assert ALARM is not None

    def ring(_number: int, _frame: object) -> None:
        raise AlarmError

    before = signal.signal(ALARM, ring)
    yield ALARM
    signal.signal(ALARM, before)


def test_a_signal_waits_for_the_end_of_the_block(alarm: int) -> None:
    steps = []

    def work() -> None:
        with HeldSignals():
            signal.raise_signal(alarm)
            steps.append("the block went on")

    with pytest.raises(AlarmError):
        work()
    assert steps == ["the block went on"]


def test_a_signal_breaks_in_where_it_may(alarm: int) -> None:
    steps = []

    def work() -> None:
        with HeldSignals() as signals:
            signals.may_break = True
            signal.raise_signal(alarm)
            steps.append("not reached")

    with pytest.raises(AlarmError):
        work()
    assert steps == []


def test_blocks_may_be_nested(alarm: int) -> None:
    steps = []

    def work() -> None:
        with HeldSignals():
            with HeldSignals():
                signal.raise_signal(alarm)
            steps.append("the outer block went on")

    with pytest.raises(AlarmError):
        work()
    assert steps == ["the outer block went on"]


def test_handlers_are_as_they_were_afterwards(alarm: int) -> None:
    before = [signal.getsignal(number) for number in (alarm, signal.SIGINT, signal.SIGTERM)]
    with HeldSignals():
        assert signal.getsignal(alarm) is not before[0]
    assert [signal.getsignal(number) for number in (alarm, signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_left_to_the_system_is_left_to_it() -> None:
    assert ALARM is not None
    before = signal.signal(ALARM, signal.SIG_IGN)
    try:
        with HeldSignals():
            assert signal.getsignal(ALARM) is signal.SIG_IGN
    finally:
        signal.signal(ALARM, before)


def test_a_handler_that_raises_while_others_are_put_back_leaves_none_behind(alarm: int) -> None:
    interrupts = []

    def leave() -> None:
        held = HeldSignals()
        held.__enter__()
        held._handlers[signal.SIGTERM] = "no handler"  # so that putting it back raises, as a handler may there
        held.__exit__(None, None, None)

    before = signal.signal(signal.SIGINT, lambda *_: interrupts.append("SIGINT"))
    term = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(TypeError):
            leave()
        signal.raise_signal(signal.SIGINT)
        assert interrupts == ["SIGINT"]
        with HeldSignals():
            signal.raise_signal(signal.SIGINT)
            assert interrupts == ["SIGINT"]
        assert interrupts == ["SIGINT"] * 2
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, term)
