"""One BLAS thread around the kernels, safely when several Python threads factorise at once.

The kernels call BLAS on many small blocks. Two BLAS threads on two busy cores made a factorisation 50 to 80 times slower,
and a triangular solve with three columns a hundred times. So one thread is the default; work that is parallel is better
served by several processes or Python threads (the kernels release the interpreter's lock).
"""

import threading
from typing import Any

from threadpoolctl import ThreadpoolController


class _BlasLimit:
    """Context manager: sets the thread count when the first user enters, restores it when the last one leaves.

    The count belongs to the process. If every thread saved and restored it by itself, one that enters second and leaves
    last would "restore" the limited count and leave it so for ever.
    """

    def __init__(self) -> None:
        self.limit: int | None = 1
        self._lock = threading.Lock()
        self._users = 0
        self._libraries: list[Any] | None = None
        self._counts_before: list[tuple[Any, int]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1 or self.limit is None:
                return
            if self._libraries is None:  # looking for the loaded libraries takes milliseconds: once
                controller = ThreadpoolController().select(user_api="blas")
                self._libraries = list(controller.lib_controllers)
            for library in self._libraries:
                count = library.get_num_threads()
                if count != self.limit:
                    self._counts_before.append((library, count))
                    library.set_num_threads(self.limit)

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for library, count in self._counts_before:
                    library.set_num_threads(count)
                self._counts_before.clear()


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
