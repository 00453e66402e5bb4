"""Pictures of a fit: they take its InferenceData and return matplotlib axes.

The numbers come from the InferenceData (`hlik.plots.read`) and from small pure functions
(`hlik.plots.quantiles`); `hlik.plots.panels` draws one axes at a time. No global state: styles and figures
that exist are left alone.
"""

from hlik.plots.compare import plot_compare
from hlik.plots.diagnostics import plot_diagnostics
from hlik.plots.effects import plot_effects
from hlik.plots.em import plot_em
from hlik.plots.history import plot_history
from hlik.plots.importance import plot_importance
from hlik.plots.map import plot_map
from hlik.plots.profile import plot_profile
from hlik.plots.random_effects import plot_ranef

__all__ = [
    "plot_compare",
    "plot_diagnostics",
    "plot_effects",
    "plot_em",
    "plot_history",
    "plot_importance",
    "plot_map",
    "plot_profile",
    "plot_ranef",
]
