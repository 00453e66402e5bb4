"""Tasks on any `concurrent.futures.Executor`: results in order, lost tasks run again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import Any

from hlik.errors import ModelError

ATTEMPTS = 4  # of a task on an executor, before it is run in the calling process
LOST = ("KilledWorker", "CommClosedError", "FutureCancelledError", "FuturesCancelledError", "LostWorkerError")
"""Exceptions of Dask that tell of workers, not of the task; told by name, as Dask need not be installed."""


def check_executor(executor: Any, name: str) -> None:
    """Refuse what cannot run tasks."""
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ModelError(
            f"{name}: executor must be a concurrent.futures.Executor, such as ProcessPoolExecutor() or "
            f"dask.distributed.Client(...).get_executor(); got {executor!r}."
        )


def run_all(executor: Executor | None, function: Callable[..., Any], tasks: Iterable[Sequence[Any]]) -> Iterator[Any]:
    """``function(*task)`` for every task, in order.

    Parameters
    ----------
    executor
        Where they run; None: here, one after the other.
    function
        Of a module, so that other processes can import it.
    tasks
        Arguments; they must be such as can be pickled where the executor has processes.

    Yields
    ------
    The results, in the order of the tasks, whatever the order in which they end.

    Notes
    -----
    A task whose worker died is submitted again, up to three times; then, and where a pool of processes is broken for
    good, it runs in this process with a `RuntimeWarning`. Errors of the function itself are raised.
    """
    if executor is None:
        for task in tasks:
            yield function(*task)
        return
    listed = list(tasks)
    futures = [_submit(executor, function, task) for task in listed]
    try:
        for task, future in zip(listed, futures, strict=True):
            yield _result(executor, function, task, future)
    finally:
        for future in futures:
            if future is not None:
                future.cancel()


def _submit(executor: Executor, function: Callable[..., Any], task: Sequence[Any]) -> Future[Any] | None:
    """The future of a task; None where the executor takes none any more."""
    try:
        return executor.submit(function, *task)
    except BrokenExecutor:
        return None


def _result(executor: Executor, function: Callable[..., Any], task: Sequence[Any], future: Future[Any] | None) -> Any:
    for _ in range(ATTEMPTS):
        if future is None:
            break
        try:
            return future.result()
        except (BrokenExecutor, CancelledError):
            future = _submit(executor, function, task)
        except Exception as error:
            if type(error).__name__ not in LOST:
                raise
            future = _submit(executor, function, task)
    warnings.warn(
        "Workers of the executor died: their tasks are run in this process, with the same results.",
        RuntimeWarning,
        stacklevel=2,
    )
    return function(*task)
