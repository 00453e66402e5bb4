"""hlik: hierarchical PyMC models fitted by likelihood."""

from importlib import import_module

from hlik._version import __version__
from hlik.accuracy import check_accuracy
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
from hlik.transforms import reciprocal

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

FORMULA_MODULES = {"from_formula": "formulas", "from_matrices": "matrices", "hglm": "one_call"}


def __getattr__(name: str) -> object:
    """Load plots and formulas when first asked for: matplotlib's pyplot and formulae are slow to import."""
    if name in __all__ and name.startswith("plot_"):
        from hlik import plots

        return getattr(plots, name)
    if name in FORMULA_MODULES:
        return getattr(import_module(f"hlik.formula.{FORMULA_MODULES[name]}"), name)
    if name == "distributions":
        return import_module("hlik.distributions")
    raise AttributeError(f"module 'hlik' has no attribute {name!r}")
