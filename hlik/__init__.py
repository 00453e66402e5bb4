"""hlik: hierarchical PyMC models fitted by likelihood."""

from hlik._version import __version__
from hlik.errors import ConvergenceWarning, DataWarning, ModelError
from hlik.estimators.eql import EQL
from hlik.estimators.laplace import Laplace
from hlik.fit import fit
from hlik.inference.tables import ranef, summary
from hlik.inference_data import history
from hlik.inspection import inspect
from hlik.transforms import reciprocal

__all__ = [
    "EQL",
    "ConvergenceWarning",
    "DataWarning",
    "Laplace",
    "ModelError",
    "__version__",
    "fit",
    "history",
    "inspect",
    "plot_diagnostics",
    "plot_history",
    "plot_ranef",
    "ranef",
    "reciprocal",
    "summary",
]


def __getattr__(name: str) -> object:
    """Load the plots when first asked for: matplotlib's pyplot is slow to import."""
    if name in ("plot_diagnostics", "plot_history", "plot_ranef"):
        from hlik import plots

        return getattr(plots, name)
    raise AttributeError(f"module 'hlik' has no attribute {name!r}")
