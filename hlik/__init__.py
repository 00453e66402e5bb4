"""hlik: hierarchical PyMC models fitted by likelihood.

What comes after a fit, formulas and pictures are imported when first asked for: half of the time that `import hlik`
would take, and matplotlib's and formulae's on top.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from hlik._version import __version__
from hlik.errors import ConvergenceWarning, DataWarning, ModelError
from hlik.estimators.agq import AGQ
from hlik.estimators.eql import EQL
from hlik.estimators.hl import HL
from hlik.estimators.laplace import Laplace
from hlik.estimators.mcem import MCEM
from hlik.estimators.mcla import MCLA
from hlik.estimators.saem import SAEM
from hlik.fit import fit
from hlik.hem import hem
from hlik.transforms import reciprocal

if TYPE_CHECKING:
    from hlik.accuracy import check_accuracy
    from hlik.formula.formulas import from_formula
    from hlik.formula.matrices import from_matrices
    from hlik.formula.one_call import hglm
    from hlik.inference.accessors import loglik, vcov
    from hlik.inference.anova import anova
    from hlik.inference.bootstrap import bootstrap
    from hlik.inference.compare import compare
    from hlik.inference.contrasts import contrasts, wald_test
    from hlik.inference.criteria import criteria
    from hlik.inference.history import history
    from hlik.inference.influence import influence
    from hlik.inference.intervals import confint
    from hlik.inference.lr_test import lr_test
    from hlik.inference.pointwise import pointwise_log_likelihood
    from hlik.inference.predict import predict
    from hlik.inference.profile_table import profile
    from hlik.inference.ranef import ranef
    from hlik.inference.residual_tests import residual_tests
    from hlik.inference.residuals import residuals
    from hlik.inference.sandwich import sandwich
    from hlik.inference.satterthwaite import satterthwaite
    from hlik.inference.simulate import simulate
    from hlik.inference.summary import summary
    from hlik.inference.variance_partition import variance_partition
    from hlik.inference.variance_tests import variance_tests
    from hlik.inference.warm_start import warm_start
    from hlik.inspection import inspect
    from hlik.pedigree import Pedigree
    from hlik.plots import (
        plot_compare,
        plot_diagnostics,
        plot_effects,
        plot_em,
        plot_history,
        plot_importance,
        plot_map,
        plot_profile,
        plot_ranef,
    )

__all__ = [
    "AGQ",
    "EQL",
    "HL",
    "MCEM",
    "MCLA",
    "SAEM",
    "ConvergenceWarning",
    "DataWarning",
    "Laplace",
    "ModelError",
    "Pedigree",
    "__version__",
    "anova",
    "bootstrap",
    "check_accuracy",
    "compare",
    "confint",
    "contrasts",
    "criteria",
    "fit",
    "from_formula",
    "from_matrices",
    "hem",
    "hglm",
    "history",
    "influence",
    "inspect",
    "loglik",
    "lr_test",
    "plot_compare",
    "plot_diagnostics",
    "plot_effects",
    "plot_em",
    "plot_history",
    "plot_importance",
    "plot_map",
    "plot_profile",
    "plot_ranef",
    "pointwise_log_likelihood",
    "predict",
    "profile",
    "ranef",
    "reciprocal",
    "residual_tests",
    "residuals",
    "sandwich",
    "satterthwaite",
    "simulate",
    "summary",
    "variance_partition",
    "variance_tests",
    "vcov",
    "wald_test",
    "warm_start",
]

MODULES = {
    "Pedigree": "hlik.pedigree",
    "anova": "hlik.inference.anova",
    "bootstrap": "hlik.inference.bootstrap",
    "check_accuracy": "hlik.accuracy",
    "compare": "hlik.inference.compare",
    "confint": "hlik.inference.intervals",
    "contrasts": "hlik.inference.contrasts",
    "criteria": "hlik.inference.criteria",
    "from_formula": "hlik.formula.formulas",
    "from_matrices": "hlik.formula.matrices",
    "hglm": "hlik.formula.one_call",
    "history": "hlik.inference.history",
    "influence": "hlik.inference.influence",
    "inspect": "hlik.inspection",
    "loglik": "hlik.inference.accessors",
    "lr_test": "hlik.inference.lr_test",
    "plot_compare": "hlik.plots",
    "plot_diagnostics": "hlik.plots",
    "plot_effects": "hlik.plots",
    "plot_em": "hlik.plots",
    "plot_history": "hlik.plots",
    "plot_importance": "hlik.plots",
    "plot_map": "hlik.plots",
    "plot_profile": "hlik.plots",
    "plot_ranef": "hlik.plots",
    "pointwise_log_likelihood": "hlik.inference.pointwise",
    "predict": "hlik.inference.predict",
    "profile": "hlik.inference.profile_table",
    "ranef": "hlik.inference.ranef",
    "residual_tests": "hlik.inference.residual_tests",
    "residuals": "hlik.inference.residuals",
    "sandwich": "hlik.inference.sandwich",
    "satterthwaite": "hlik.inference.satterthwaite",
    "simulate": "hlik.inference.simulate",
    "summary": "hlik.inference.summary",
    "variance_partition": "hlik.inference.variance_partition",
    "variance_tests": "hlik.inference.variance_tests",
    "vcov": "hlik.inference.accessors",
    "wald_test": "hlik.inference.contrasts",
    "warm_start": "hlik.inference.warm_start",
}
"""Where the names are that are imported when first asked for."""


def __getattr__(name: str) -> object:
    """Import what is asked for."""
    if name == "distributions":
        return import_module("hlik.distributions")
    if name not in MODULES:
        raise AttributeError(f"module 'hlik' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(MODULES[name]), name)
    return found


def __dir__() -> list[str]:
    return [*globals(), *MODULES, "distributions"]
