"""A progress bar in PyMC's style that stays silent for quick fits."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

PATIENCE = 0.5  # seconds before the bar appears: a bar that flashes is noise


class Progress:
    """A context that shows iterations, the size of the last step and the time, once a fit takes a while.

    Parameters
    ----------
    name
        What runs: the estimator's name.
    total
        Largest number of iterations.
    show
        Whether to show anything at all.
    """

    def __init__(self, name: str, total: int, show: bool):
        self.name = name
        self.total = total
        self.show = show
        self._began = time.perf_counter()
        self._bar: Any = None
        self._task: Any = None
        self._done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, row: dict[str, float]) -> None:
        """One iteration is done; `row` is its history."""
        self._done += 1
        if self.show and (self._bar is not None or time.perf_counter() - self._began > PATIENCE):
            self._start()
            self._bar.update(
                self._task, description=self.name, completed=self._done, step=f"{row.get('step', float('nan')):.1e}"
            )

    def message(self, text: str) -> None:
        """Say at once what is being waited for (a compilation, say)."""
        if self.show:
            self._start()
            self._bar.update(self._task, description=f"{self.name}: {text}")

    def _start(self) -> None:
        if self._bar is not None:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("step {task.fields[step]}"),
            TimeElapsedColumn(),
        )
        self._bar.start()
        self._task = self._bar.add_task(self.name, total=self.total, step="-")
