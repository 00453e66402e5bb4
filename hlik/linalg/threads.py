"""One BLAS thread around the kernels, safely when several Python threads factorise at once.

The kernels call BLAS on many small blocks. Two BLAS threads on two busy cores made a factorisation 50 to 80
times slower, and a triangular solve with three columns a hundred times. So one thread is the default; work
that is parallel is better served by several processes or Python threads (the kernels release the
interpreter's lock).
"""

import os
import threading
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


class _BlasLimit:
    """Context manager: sets BLAS's thread count on the first entry and restores it on the last exit.

    In most libraries the count belongs to the process. If every thread saved and restored it by itself, one
    that enters second and leaves last would "restore" the limited count and leave it so for ever: the threads
    inside are counted, the first one sets and the last one restores. Libraries threaded by OpenMP keep a
    count for every thread: those are set and restored by each thread for itself.
    """

    def __init__(self) -> None:
        self.limit: int | None = 1
        self._lock = threading.Lock()
        self._threads_inside = 0
        self._shared_counts: list[tuple[Any, int]] = []
        self._own = threading.local()
        self._libraries: tuple[list[Any], list[Any]] | None = None

    def __enter__(self) -> None:
        depth = getattr(self._own, "depth", 0)
        self._own.depth = depth + 1
        if depth > 0:
            return
        self._own.is_idle = self.limit == 1 and one_thread_by_environment()
        if self._own.is_idle:
            return
        with self._lock:
            if self._libraries is None:
                self._libraries = _blas_libraries()
            per_process, per_thread = self._libraries
            self._own.counts = _set_counts(per_thread, self.limit)
            self._threads_inside += 1
            if self._threads_inside == 1:
                self._shared_counts = _set_counts(per_process, self.limit)

    def __exit__(self, *exception: object) -> None:
        self._own.depth -= 1
        if self._own.depth > 0 or self._own.is_idle:
            return
        with self._lock:
            _restore_counts(self._own.counts)
            self._threads_inside -= 1
            if self._threads_inside == 0:
                _restore_counts(self._shared_counts)


@cache
def one_thread_by_environment() -> bool:
    """Whether the environment's variables hold every BLAS at one thread: then nothing has to be looked for."""
    common = os.environ.get("OMP_NUM_THREADS", "")
    return all(os.environ.get(f"{library}_NUM_THREADS", common) == "1" for library in ("OPENBLAS", "MKL"))


def _blas_libraries() -> tuple[list[Any], list[Any]]:
    """The BLAS libraries loaded: those with one thread count for the process, and those with one for every thread.

    Looking for them takes milliseconds, setting a count microseconds.
    """
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    per_thread = [library for library in libraries if getattr(library, "threading_layer", None) == "openmp"]
    return [library for library in libraries if library not in per_thread], per_thread


def _set_counts(libraries: list[Any], limit: int | None) -> list[tuple[Any, int]]:
    """Set the thread counts that differ from the limit; returns the libraries changed with their counts before."""
    if limit is None:
        return []
    changed = [(library, library.get_num_threads()) for library in libraries]
    changed = [(library, count) for library, count in changed if count != limit]
    for library, _ in changed:
        _set_count(library, limit)
    return changed


def _restore_counts(changed: list[tuple[Any, int]]) -> None:
    for library, count in changed:
        _set_count(library, count)
    changed.clear()


def _set_count(library: Any, count: int) -> None:
    """Set one library's thread count, whichever thread asks.

    From 3.8 on, threadpoolctl lets only the first thread that sets a process-wide count set it again, and
    ignores the others. Here the last thread to leave has to restore what the first one set, so that claim is
    given up each time.
    """
    give_up_claim = getattr(library, "clear_controlling_thread", None)
    if give_up_claim is not None:
        give_up_claim(force=True)
    library.set_num_threads(count)
    if give_up_claim is not None:
        give_up_claim(force=True)


limited_blas = _BlasLimit()
"""``with limited_blas: ...`` holds BLAS at the number of threads asked for with `set_blas_threads`."""


def set_blas_threads(limit: int | None) -> None:
    """Let the kernels use so many BLAS threads; ``None`` leaves BLAS as it is. The default is 1.

    More than one pays only on idle cores and for factors with large dense blocks (thousands of columns).

    Parameters
    ----------
    limit : int or None
        Takes effect at the next factorisation.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be a positive number of threads or None, got {limit!r}")
    limited_blas.limit = limit
