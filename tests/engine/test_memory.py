"""An allocation that really fails, on a CPU, is told from every other error."""

import pytest
import torch

from evalkit.engine.runner import StepTooLargeError, catch_out_of_memory


def test_an_allocation_that_fails_is_a_step_too_large() -> None:
    with pytest.raises(StepTooLargeError), catch_out_of_memory():
        torch.empty(1 << 47, dtype=torch.float32)


def test_python_running_out_of_memory_is_a_step_too_large() -> None:
    with pytest.raises(StepTooLargeError), catch_out_of_memory():
        bytearray(1 << 60)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shape"), catch_out_of_memory():
        torch.zeros(3) @ torch.zeros(4, 2)
