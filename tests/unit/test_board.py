from __future__ import annotations

import ctypes

from nbpar.wire.board import BOARD_WORDS, Slot


def board(n_workers: int = 2) -> ctypes.Array[ctypes.c_uint64]:
    return (ctypes.c_uint64 * (BOARD_WORDS * n_workers))()


def test_slot_tells_nothing_when_fresh() -> None:
    slot = Slot(board(), 0)
    assert (slot.chunk_id, slot.index, slot.tracked) == (None, None, None)


def test_kernel_reads_what_the_worker_wrote_when_both_map_the_board() -> None:
    shared = board()
    worker, kernel = Slot(shared, 1), Slot(shared, 1)
    worker.begin_chunk(7)
    assert (kernel.chunk_id, kernel.index) == (7, None)
    worker.begin_task(0)
    worker.track(3, 10)
    assert (kernel.index, kernel.tracked) == (0, (3, 10))
    assert kernel.since_s > 0
    worker.end_chunk()
    assert (kernel.chunk_id, kernel.index) == (None, None)


def test_slots_do_not_touch_each_other_when_written() -> None:
    shared = board()
    first, second = Slot(shared, 0), Slot(shared, 1)
    for word in range(BOARD_WORDS):
        first.words[word] = 2**64 - 1
    assert second.words.tolist() == [0] * BOARD_WORDS


def test_total_is_told_apart_when_unknown_or_zero() -> None:
    slot = Slot(board(), 0)
    seen = []
    for n_done, n_total in ((2, None), (0, 0)):
        slot.track(n_done, n_total)
        seen.append(slot.tracked)
    assert seen == [(2, None), (0, 0)]


def test_progress_is_forgotten_when_the_next_task_begins() -> None:
    slot = Slot(board(), 0)
    slot.track(2, 3)
    slot.begin_task(5)
    assert slot.tracked is None


def test_progress_is_forgotten_when_the_next_chunk_begins() -> None:
    slot = Slot(board(), 0)
    slot.track(2, 3)
    slot.begin_chunk(9)
    assert slot.tracked is None


def test_a_total_beyond_all_words_is_cut() -> None:
    slot = Slot(board(), 0)
    slot.track(2, 2**70)
    assert slot.tracked == (2, 2**64 - 3)


def test_two_chunks_can_be_dropped_when_both_were_asked_for() -> None:
    slot = Slot(board(), 0)
    slot.drop(5)
    slot.drop(6)
    slot.drop(5)
    assert (slot.drops(5), slot.drops(6), slot.drops(7)) == (True, True, False)
    slot.drop(7)
    assert slot.drops(7)


def test_slot_is_empty_when_cleared() -> None:
    slot = Slot(board(), 0)
    slot.begin_chunk(1)
    slot.begin_task(2)
    slot.drop(1)
    slot.clear()
    assert (slot.chunk_id, slot.index, slot.drops(1)) == (None, None, False)
