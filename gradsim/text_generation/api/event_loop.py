"""Run a coroutine in a background thread."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

# Seconds between progress updates.
_LOOK_SECONDS = 0.2


def run_beside(coroutine: Coroutine[Any, Any, None], meanwhile: Callable[[], None]) -> None:
    """Run a coroutine in its own thread and wait for it, so that signals interrupt the waiting thread only.

    This also works if the caller's thread already runs an event loop, as in a notebook. If the waiting thread is
    interrupted, the coroutine is cancelled and awaited.

    Args:
        coroutine: coroutine to run.
        meanwhile: called in the waiting thread several times per second and at the end.

    Raises:
        BaseException: the exception of the coroutine, or the interruption.
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
