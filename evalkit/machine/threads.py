"""Work in a thread of its own, beside what the main one does."""

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import TypeVar

_T = TypeVar("_T")


def in_thread(work: Callable[[], _T], name: str) -> Future[_T]:
    """Begun at once, with the caller's context variables; no end of the program waits for it."""
    future: Future[_T] = Future()
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result is told
            future.set_exception(error)

    Thread(target=run, name=name, daemon=True).start()
    return future
