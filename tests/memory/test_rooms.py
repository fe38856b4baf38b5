"""Lent memory: reused while it is large enough, and usable inside and outside inference mode."""

from __future__ import annotations

import torch

from agentmem.memory.rooms import Rooms


def test_the_same_memory_is_lent_again() -> None:
    """For any shape that fits; another name or dtype has its own; a larger one replaces it."""
    rooms = Rooms(torch.device("cpu"))
    first = rooms.room("logits", (2, 3, 4), torch.float32)

    assert first.shape == (2, 3, 4)
    assert rooms.room("logits", (5, 4), torch.float32).data_ptr() == first.data_ptr()
    assert rooms.room("shares", (2, 3, 4), torch.float32).data_ptr() != first.data_ptr()
    assert rooms.room("logits", (2, 3, 4), torch.bfloat16).data_ptr() != first.data_ptr()
    larger = rooms.room("logits", (100,), torch.float32)
    assert larger.shape == (100,)
    assert rooms.room("logits", (112,), torch.float32).data_ptr() == larger.data_ptr(), "grown by eighths"


def test_memory_born_in_inference_mode_can_be_written_outside() -> None:
    """A turn may be run in either."""
    rooms = Rooms(torch.device("cpu"))
    with torch.inference_mode():
        rooms.room("logits", (3,), torch.float32).fill_(1.0)

    assert rooms.room("logits", (3,), torch.float32).add_(1.0).tolist() == [2.0, 2.0, 2.0]


def test_cleared_memory_is_given_back() -> None:
    """Nothing is held any more; what is still in use by someone stays as it is."""
    rooms = Rooms(torch.device("cpu"))
    lent = rooms.room("logits", (1000,), torch.float32).fill_(1.0)
    rooms.clear()

    assert rooms.room("logits", (1000,), torch.float32).data_ptr() != lent.data_ptr()
    assert lent.sum() == 1000
