"""Where a failure becomes a gRPC status: here and nowhere else."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc

from loader_service.broker.messages import failure_to_message
from loader_service.broker.refusal import Refusal
from model_loader_wire.causes import TABLE, Cause, Failure

ERROR_KEY = "model-loader-error-bin"
MESSAGE_BYTES, LAST_WORDS_BYTES, STATUS_BYTES = 2048, 1536, 512
"""Most of each text in a failed call's metadata."""
NO_DESCRIPTOR = (
    "the service has no file descriptor left: close models, or start it with a higher limit "
    "(ulimit -n)"
)

log = logging.getLogger("model_loader.calls")

Context = grpc.aio.ServicerContext[Any, Any]
Result = TypeVar("Result")


async def abort(context: Context, failure: Failure) -> NoReturn:
    """End a call with the failure's code, message and details.

    gRPC refuses more than 8 KiB of metadata, so long texts are cut. The whole of a lost model's
    last words can be had from GetModel.
    """
    code = grpc.StatusCode[TABLE[failure.cause].grpc_code]
    detail = failure_to_message(
        replace(
            failure,
            message=_cut(failure.message, MESSAGE_BYTES),
            last_words=_cut(failure.last_words[::-1], LAST_WORDS_BYTES)[::-1],
        )
    )
    status = _cut(failure.message, STATUS_BYTES)
    await context.abort(code, status, ((ERROR_KEY, detail.SerializeToString()),))


def _cut(text: str, length: int) -> str:
    return text.encode("utf-8", "replace")[:length].decode("utf-8", "ignore")


def edge(
    method: Callable[[Any, Any, Context], Awaitable[Result]],
) -> Callable[[Any, Any, Context], Awaitable[Result]]:
    """Turn a Refusal into a gRPC status, here and nowhere else; what is none is a fault of ours.

    The method's object has a method `refused`, which is told of each that no event has told of.
    """

    @wraps(method)
    async def guarded(self: Any, request: Any, context: Context) -> Result:
        try:
            return await method(self, request, context)
        except Refusal as refusal:
            if not refusal.told:
                self.refused(method.__name__, refusal.failure)
            await abort(context, refusal.failure)
        except grpc.aio.BaseError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                log.error("%s failed: %s", method.__name__, error)
                await abort(context, Failure(Cause.UNAVAILABLE, NO_DESCRIPTOR))
            log.exception("%s failed", method.__name__)
            message = f"a fault of the service: {type(error).__name__}; see its log"
            await abort(context, Failure(Cause.INTERNAL, message))

    return guarded
