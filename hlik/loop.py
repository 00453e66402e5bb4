"""The loop that every estimator runs in: its steps, its history, its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hlik.estimators.base import CONVERGED, RUNNING, Estimate, Estimator
from hlik.estimators.mcem_state import Resumed
from hlik.heap import keep_freed_memory
from hlik.linalg import on_compile
from hlik.model import HierarchicalModel
from hlik.progress import Progress


@dataclass(frozen=True, eq=False)
class Fit:
    """What the loop hands to `hlik.result.inference_data`: the estimate, how it was reached, how it ended."""

    estimate: Estimate
    estimator: Estimator
    status: str
    history: tuple[dict[str, float], ...]
    theta_path: np.ndarray
    beta_path: np.ndarray
    seconds: float

    @property
    def converged(self) -> bool:
        """Whether the estimator reached its criterion."""
        return self.status == CONVERGED


def run(
    model: HierarchicalModel,
    estimator: Estimator,
    *,
    start: Mapping[str, Any] | None = None,
    rng: np.random.Generator,
    progressbar: bool = True,
) -> Fit:
    """Iterate an estimator on a model that it can fit; Ctrl-C returns what has been reached."""
    began = time.perf_counter()
    keep_freed_memory(model.n_rows)
    values = start if isinstance(start, Resumed) else {k: np.asarray(x, float) for k, x in (start or {}).items()}
    history: list[dict[str, float]] = []
    paths: list[tuple[np.ndarray, np.ndarray]] = []
    status = f"stopped after max_iterations={estimator.max_iterations} steps: raise it, or pass better start values"
    with Progress(estimator.name, estimator.max_iterations, progressbar) as progress:
        on_compile(lambda: progress.message("compiling the sparse kernels, once per machine"))
        state = estimator.prepare(model, values, rng)
        try:
            for _ in range(estimator.max_iterations):
                state, row = estimator.step(state)
                history.append(row)
                paths.append(estimator.position(state))
                progress.advance(row)
                now = estimator.status(state)
                if now != RUNNING:
                    status = now
                    break
        except KeyboardInterrupt:
            if not history:
                raise
            status = f"interrupted after {len(history)} steps"
        estimate = estimator.finish(state)
        on_compile(None)
    theta_path = np.array([theta for _, theta in paths])
    beta_path = np.array([beta for beta, _ in paths])
    return Fit(estimate, estimator, status, tuple(history), theta_path, beta_path, time.perf_counter() - began)
