"""What can go wrong in a runtime, and the rules that read it out of the runtimes' messages.

    RuntimeFailure
    ├── InvalidModel       the bytes are no model, or contradict themselves
    ├── UnsupportedModel   an operator, version or type that the runtime does not have
    ├── InvalidInput       shapes or strings that do not fit the model
    ├── ModelFailed        an operator could not be prepared or run
    │   └── DelegateFailed     … and it was XNNPACK's: built-in kernels may do better
    └── LimitReached       a limit of this process was in the way

Both runtimes raise ValueError or RuntimeError with prose; ``RULES`` is the one table that reads it.
"""

from __future__ import annotations

import re
from enum import Enum

from model_loader_wire.causes import MESSAGE_LENGTH, Cause, printable


class RuntimeFailure(Exception):
    """A failure with a cause of the wire contract; the model is still usable after it."""

    cause: Cause = Cause.INTERNAL


class InvalidModel(RuntimeFailure):
    """The bytes are no FlatBuffer of schema 3 with a subgraph, or contradict themselves."""

    cause = Cause.INVALID_MODEL


class UnsupportedModel(RuntimeFailure):
    """A custom, Flex or newer operator, or a tensor type, that the runtime does not have."""

    cause = Cause.UNSUPPORTED


class InvalidInput(RuntimeFailure):
    """The caller's shapes or strings do not fit the model."""

    cause = Cause.INVALID_INPUT


class ModelFailed(RuntimeFailure):
    """The runtime could not prepare or run an operator, or was asked out of turn."""

    cause = Cause.FAILED


class DelegateFailed(ModelFailed):
    """The failing node is the delegate's."""


class LimitReached(RuntimeFailure):
    """A limit stood in the way: its name in ``Limits``, what was wanted at least, and the limit."""

    cause = Cause.LIMIT

    def __init__(self, message: str, limit: str, value: int, maximum: int) -> None:
        super().__init__(message)
        self.limit, self.value, self.maximum = limit, value, maximum


class Stage(Enum):
    """When the runtime failed: what no rule knows is a bad file in the first, else a failed run."""

    PARSE = "parse"
    PREPARE = "prepare"
    RUN = "run"


RULES: tuple[tuple[re.Pattern[str], type[RuntimeFailure]], ...] = tuple(
    (re.compile(pattern), failure)
    for pattern, failure in (
        # The name of the delegate's nodes, in both runtimes.
        (r"TfLiteXNNPackDelegate|XNNPack delegate", DelegateFailed),
        # Custom operators, and TensorFlow operators that need the Flex delegate.
        (r"unresolved custom op", UnsupportedModel),
        (r"Select TensorFlow op", UnsupportedModel),
        # An operator, or a version of one, that came after this runtime.
        (r"builtin_code out of range", UnsupportedModel),
        (r"Didn't find op for builtin opcode", UnsupportedModel),
        # "Type STRING is unsupported by op Add.", "Unsupported data type 18 in tensor", "… not
        # currently supported": each kernel has words of its own for what it does not do.
        (r"(?i)\bunsupported\b", UnsupportedModel),
        (r"(?i)\bnot (?:currently |yet )?supported\b", UnsupportedModel),
    )
)
"""First match wins; searched in the whole message."""


def failure_from(error: Exception, stage: Stage, words: str | None = None) -> RuntimeFailure:
    """Turn what an interpreter raised into a typed failure with a readable message.

    ``words``: what is new in the error's message; None for all of it.
    """
    if isinstance(error, RuntimeFailure):
        return error
    message = readable(str(error) if words is None else words) or _wordless(stage)
    for pattern, failure in RULES:
        if pattern.search(message):
            return failure(message)
    return InvalidModel(message) if stage is Stage.PARSE else ModelFailed(message)


def readable(message: str) -> str:
    """Part the runtime's run-on sentences, and say once what it says twice."""
    text = re.sub(r"\s+", " ", message).strip()
    # tflite-runtime tries a failed preparation again, and reports both times in one message.
    half = len(text) // 2
    if text and text == text[:half] * 2:
        text = text[:half]
    text = re.sub(r"(?<=[^\s.])\.?(?=Node number \d|Failed to apply)", ". ", text)
    text = re.sub(r"\.(?=[A-Z])", ". ", text)
    return printable(text, MESSAGE_LENGTH)


def _wordless(stage: Stage) -> str:
    """Stand in for the empty message that the runtimes give for some failures."""
    return {
        Stage.PARSE: "the runtime refused the model without saying why",
        Stage.PREPARE: "the runtime could not prepare the model, without saying why",
        Stage.RUN: "the runtime could not run the model, without saying why",
    }[stage]
