"""What is new in an interpreter's messages."""

from __future__ import annotations

import numpy as np
import pytest

from loader_service.runtime.failures import ModelFailed
from loader_service.runtime.interpreter import InterpreterRuntime
from loader_service.runtime.words import Words
from loader_service.writer import hostile
from tests.runtime.engines import call, load


def test_what_was_said_before_is_left_out() -> None:
    words = Words()
    assert words.new_in("One.") == "One."
    assert words.new_in("One.Two.") == "Two."
    assert words.new_in("One.Two.Two.") == "Two."


def test_a_long_message_is_known_by_its_end() -> None:
    words = Words()
    words.new_in("One." * 10_000)
    assert words.new_in("One." * 10_000 + "Two.") == "Two."


@pytest.mark.parametrize("second", ["One.", "Two.", "Another one.", ""])
def test_a_message_that_does_not_begin_with_the_last_one_is_new(second: str) -> None:
    words = Words()
    words.new_in("One.")
    assert words.new_in(second) == second


def test_each_failure_of_a_model_says_its_own_words_only(runtime: InterpreterRuntime) -> None:
    model = load(runtime, hostile.gather())
    said = []
    for _ in range(3):
        with pytest.raises(ModelFailed) as failure:
            call(model, [np.array([7], np.int32)])
        said.append(str(failure.value))
    assert said == ["gather index out of bounds. Node number 0 (GATHER) failed to invoke."] * 3
