"""Results changed by hand, and what a picture shows."""

import arviz as az
import numpy as np
import xarray as xr


def changed(idata: az.InferenceData, **groups: dict[str, xr.DataArray]) -> az.InferenceData:
    """A copy in which some variables of some groups are others."""
    parts = {group: idata[group].copy() for group in idata.groups()}
    for group, variables in groups.items():
        data = parts[group].drop_vars(list(variables))
        parts[group] = data.drop_vars([c for c in data.coords if c in ("obs", "plate")]).assign(variables)
    return az.InferenceData(**parts)


def large(idata: az.InferenceData, n: int) -> az.InferenceData:
    """The seeds fit with n observations and n levels of made-up diagnostics."""
    rng = np.random.default_rng(5)
    chi2, leverage = rng.chisquare(1, n), rng.uniform(0.1, 0.3, n)
    made = {
        "linear_predictor": rng.normal(size=n),
        "fitted": rng.uniform(size=n),
        "leverage": leverage,
        "deviance": chi2,
        "dispersion": np.ones(n),
        "residual_deviance": np.sqrt(chi2),
        "residual_pearson": np.sqrt(chi2),
        "residual_studentised": rng.normal(size=n),
    }
    diagnostics = {f"r_{name}": xr.DataArray(values, dims="row") for name, values in made.items()}
    for name in ("leverage", "deviance", "dispersion"):
        diagnostics[f"u_{name}"] = xr.DataArray(made[name], dims="level")
    v, error = rng.normal(size=n), np.full(n, 0.1)
    return changed(
        idata,
        diagnostics=diagnostics,
        observed_data={"r": xr.DataArray(np.arange(n), dims="row")},
        unconstrained_estimates={"u_logodds__": xr.DataArray(v, dims="level")},
        unconstrained_standard_errors={"u_logodds__": xr.DataArray(error, dims="level")},
    )


def points(ax, line: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of one of the Line2D objects drawn as markers."""
    marked = [found for found in ax.lines if found.get_marker() == "o"]
    return marked[line].get_data()


def band(ax) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, lower, upper) of the first filled band."""
    (path,) = ax.collections[0].get_paths()
    n = (len(path.vertices) - 3) // 2
    x, y = path.vertices.T
    return x[1 : n + 1], y[1 : n + 1], y[n + 2 : 2 * n + 2][::-1]


def text_in(ax) -> str:
    return " ".join(text.get_text() for text in ax.texts)
