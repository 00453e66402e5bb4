"""The systems: how each is started, what it cannot do, and its settings."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.cases import Case

HERE = Path(__file__).parent
PEERS_PYTHON = HERE / ".venv" / "bin" / "python"


@dataclass(frozen=True)
class System:
    """A program that fits a case and the words that describe how."""

    name: str
    command: Callable[[Case, Path], list[str]]  # from a case and the folder of its data
    available: Callable[[], bool]
    gaussian: str  # what is maximised, by what, how exactly: normal responses
    other: str  # the same for the others
    obstacle: Callable[[Case], str | None] = lambda case: None  # why a case is not tried


def _python(python: str, module: str, *more: str) -> Callable[[Case, Path], list[str]]:
    return lambda case, folder: [python, "-m", f"benchmarks.workers.{module}", str(folder), *more]


def _rscript(script: str) -> Callable[[Case, Path], list[str]]:
    program = str(HERE / "workers" / script)
    return lambda case, folder: ["Rscript", program, str(folder), case.family, case.formula, str(case.repeats)]


@cache
def _succeeds(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _has_python(package: str) -> Callable[[], bool]:
    return lambda: _succeeds(str(PEERS_PYTHON), "-c", f"import {package}")


def _has_r(package: str) -> Callable[[], bool]:
    return lambda: _succeeds("Rscript", "-e", f"library({package})")


def _structure_obstacle(case: Case) -> str | None:
    return "related levels" if any(term.structure for term in case.terms) else None


def _statsmodels_obstacle(case: Case) -> str | None:
    crossed = {"insteval", "sire-dam-1e5", "movies-1e6", "verbagg"}
    if case.name in crossed:
        return "MixedLM takes crossed factors only as one group, with dense matrices of all rows by all levels"
    return _structure_obstacle(case)


def _laplace_obstacle(case: Case) -> str | None:
    return "EQL is exact here: the same as REML" if case.family == "gaussian" else None


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System(
            "hlik",
            _python(sys.executable, "fit_hlik", "eql"),
            lambda: True,
            "EQL(), which is REML here; until the next step on the dispersions is below 1e-8 standard errors; standard "
            "errors, leverages, residuals and draws included; all defaults",
            "EQL(), dispersion 1: extended quasi-likelihood, not Laplace; the rest as for normal responses",
        ),
        System(
            "hlik-laplace",
            _python(sys.executable, "fit_hlik", "laplace"),
            lambda: True,
            "not run: the same as EQL",
            "Laplace(), defaults: Laplace's approximation of the likelihood",
            _laplace_obstacle,
        ),
        System(
            "gpboost",
            _python(str(PEERS_PYTHON), "fit_gpboost"),
            _has_python("gpboost"),
            "maximum likelihood, not REML; the rest as for other responses",
            "Laplace; lbfgs; relative change of the likelihood below 1e-6; with more than one factor conjugate "
            "gradients and stochastic Lanczos quadrature for the determinant; all defaults",
            _structure_obstacle,
        ),
        System(
            "statsmodels",
            _python(str(PEERS_PYTHON), "fit_statsmodels"),
            _has_python("statsmodels"),
            "MixedLM, REML; bfgs, lbfgs, cg in turn with their defaults",
            "PoissonBayesMixedGLM, BinomialBayesMixedGLM: variational Bayes with the default priors, which is not "
            "maximum likelihood; bfgs; there is no likelihood estimator for these models",
            _statsmodels_obstacle,
        ),
        System(
            "lme4",
            _rscript("fit_lme4.R"),
            _has_r("lme4"),
            "lmer, REML; nloptwrap (bobyqa), xtol_abs = ftol_abs = 1e-8; derivatives checked at the end; all defaults",
            "glmer, Laplace (nAGQ = 1); bobyqa, then Nelder-Mead; tolPwrss = 1e-7; derivatives checked; all defaults",
            _structure_obstacle,
        ),
        System(
            "glmmtmb",
            _rscript("fit_glmmtmb.R"),
            _has_r("glmmTMB"),
            "REML (Laplace, exact here); nlminb, rel.tol = 1e-10; standard errors included; all defaults",
            "Laplace; nlminb, rel.tol = 1e-10; standard errors included; all defaults",
            _structure_obstacle,
        ),
    )
}


def available(names: Sequence[str]) -> tuple[list[System], list[str]]:
    """The systems that can be started here, and the names of the others."""
    found = [SYSTEMS[name] for name in names if SYSTEMS[name].available()]
    return found, [name for name in names if SYSTEMS[name] not in found]
