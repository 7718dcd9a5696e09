"""Coroutines behind a plain iterator: the loop runs while its reader waits for the next result.

No thread: an interrupt reaches whoever waits, at once, and nothing goes on behind a reader that has left.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Protocol, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Closes(Protocol):
    """Has something to let go."""

    async def close(self) -> None:
        """Let it go."""
        ...


def run(coroutine: Coroutine[Any, Any, Result], resource: Closes) -> Result:
    """The result of one coroutine; `resource` is closed behind it."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        _end(loop, resource)


def run_all(
    jobs: Sequence[Job], work: Callable[[Job], Awaitable[Result]], num_workers: int, resource: Closes
) -> Iterator[Result]:
    """Each job's result once, in the order they end, `num_workers` jobs at a time.

    The first job that fails ends all with its error. `resource` is closed at the end, whatever the end is.
    """
    loop = asyncio.new_event_loop()
    ended: asyncio.Queue[Result | BaseException] = asyncio.Queue()
    waiting = iter(jobs)

    async def worker() -> None:
        for job in waiting:
            ended.put_nowait(await work(job))

    def failed(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            ended.put_nowait(error)

    try:
        tasks = [loop.create_task(worker()) for _ in range(min(num_workers, len(jobs)))]
        for task in tasks:
            task.add_done_callback(failed)
        for _ in jobs:
            result = loop.run_until_complete(ended.get())
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        _end(loop, resource)


def _end(loop: asyncio.AbstractEventLoop, resource: Closes) -> None:
    """Cancel what still runs, close the resource and the loop."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    with contextlib.suppress(TimeoutError):
        loop.run_until_complete(resource.close())
    loop.close()
