"""Runs a coroutine beside whatever else the process does."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

# Between two looks at how far it is.
_LOOK_SECONDS = 0.2


def run_beside(coroutine: Coroutine[Any, Any, None], meanwhile: Callable[[], None]) -> None:
    """Run a coroutine to its end in a thread of its own, so that a signal meets the waiting thread and not its tasks.

    It can also be called where a loop runs already, as in a notebook. When the waiting thread is interrupted, the
    coroutine is cancelled, and may finish what it has begun.

    Args:
        coroutine: what to run.
        meanwhile: called in the waiting thread, several times a second and in the end.

    Raises:
        BaseException: what the coroutine or the interruption raised.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_awaited(task))

    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(run)
        try:
            while not wait([future], timeout=_LOOK_SECONDS).done:
                meanwhile()
            future.result()
        except BaseException:
            if not future.done():
                loop.call_soon_threadsafe(task.cancel)
                wait([future])
            raise
        finally:
            meanwhile()


async def _awaited(task: "asyncio.Task[None]") -> None:
    await task
