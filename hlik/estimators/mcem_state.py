"""What the steps of Monte Carlo EM hand to each other, and what a fit goes on from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hlik.errors import ModelError
from hlik.estimators.mcem_boundary import Gone
from hlik.estimators.mcem_louis import Louis
from hlik.hlikelihood import HLikelihood
from hlik.model import HierarchicalModel
from hlik.samplers.base import Draws, Sampler

if TYPE_CHECKING:
    from hlik.estimators.mcem_base import MonteCarloEM


class Resumed(dict[str, np.ndarray]):
    """Starting values from a result, with the group ``em`` of one by Monte Carlo EM.

    Attributes
    ----------
    position
        Where its chains ended, on the scale of v, shape (chains, q); None for other estimators' results.
    draws
        How many draws its E-step had reached; 0 for other estimators' results.
    step_size
        Of its chains; None where there is none.
    """

    def __init__(self, values: dict[str, np.ndarray], idata: Any):
        super().__init__(values)
        self.position: np.ndarray | None = None
        self.draws, self.step_size = 0, None
        if "em" in idata.groups():
            group = idata["em"]
            self.position = np.asarray(group["position"])
            self.draws = int(group["next_draws"])
            step_size = np.asarray(group["step_size"])
            self.step_size = step_size if np.all(np.isfinite(step_size)) else None


def values_of(idata: Any, model: HierarchicalModel) -> Resumed:
    """Starting values of the parameters that a result and a model share.

    Raises
    ------
    ModelError
        Where it is no result of `hlik.fit`, or a parameter has another shape there.
    """
    if "estimates" not in idata.groups():
        raise ModelError("start: expected values by name, or a result of hlik.fit, which has a group 'estimates'.")
    values = {}
    for parameter in model.parameters:
        if parameter.name in idata["estimates"]:
            values[parameter.name] = np.asarray(idata["estimates"][parameter.name], float)
            if values[parameter.name].shape != parameter.variable.shape:
                raise ModelError(
                    f"start: {parameter.name!r} has shape {values[parameter.name].shape} in the result and "
                    f"{parameter.variable.shape} in the model."
                )
    return Resumed(values, idata)


@dataclass(frozen=True, eq=False)
class EMState:
    """What the next step needs.

    Attributes
    ----------
    beta, theta
        Where the parameters stand.
    draws, at
        The last sample of v, and the (beta, theta) it was drawn at.
    next_draws
        Draws of the next E-step.
    phase
        ``"em"``; ``"final"``: the last sample, from which estimates and standard errors come; ``"done"``.
    held
        Elements of psi that are held where they are, bool, shape (p + r,); None: none.
    gone, released
        Terms whose variance is at zero; names of those that were there, and are not to be put there again.
    mcse_path
        Monte Carlo standard errors of psi after every step, each (p + r,).
    small
        How often running the rule's criterion was met.
    """

    settings: MonteCarloEM
    likelihood: HLikelihood
    sampler: Sampler
    rng: np.random.Generator
    beta: np.ndarray
    theta: np.ndarray
    next_draws: int
    draws: Draws | None = None
    at: tuple[np.ndarray, np.ndarray] | None = None
    phase: str = "em"
    iteration: int = 0
    small: int = 0
    polished: int = 0
    louis: Louis | None = None
    mcse_path: tuple[np.ndarray, ...] = field(default=())
    memory: tuple[np.ndarray, ...] = field(default=())
    stopped: str = ""
    held: np.ndarray | None = None
    gone: tuple[Gone, ...] = ()
    released: tuple[str, ...] = ()

    @property
    def psi(self) -> np.ndarray:
        """(beta, theta)."""
        return np.concatenate([self.beta, self.theta])

    def natural(self, beta: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """All parameters on their natural scale; fixed effects on that of their value variables."""
        model = self.likelihood.model
        parts = [np.ravel(p.natural.value(theta)) for p in model.dispersion_parameters if p.natural is not None]
        return np.concatenate([beta, *parts])
