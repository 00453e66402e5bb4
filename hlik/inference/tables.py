"""Tables of estimates, made from the InferenceData alone."""

from __future__ import annotations

import json
from html import escape
from typing import Any, ClassVar

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from hlik.errors import ModelError
from hlik.inference.averages import variance_of_v
from hlik.inference.correlated import correlated_rows, is_packed
from hlik.links import LINKS
from hlik.random_families import RANDOM_FAMILIES


def model_of(idata: az.InferenceData) -> dict[str, Any]:
    """What a result says of its model: responses, random effects, parameters."""
    if not hasattr(idata, "fit") or "model" not in idata["fit"].attrs:
        raise ModelError("This InferenceData is not a result of hlik.fit: it has no group 'fit' with a model.")
    return json.loads(idata["fit"].attrs["model"])


def response_label(described: dict[str, Any]) -> str:
    """A response by the name that the user gave it: ``y`` for the observed part ``y_observed`` of a masked one."""
    return described.get("label", described["name"])


COLUMNS = ("role", "estimate", "se", "statistic", "df", "p_value", "lower", "upper")


class Summary(pd.DataFrame):
    """A summary table that prints as a statistician's: model, fixed effects, dispersions, likelihoods, status."""

    _metadata: ClassVar[list[str]] = ["heading", "effects", "closing"]
    heading = ""
    effects = ""
    closing = ""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __str__(self) -> str:
        parts = [self.heading]
        for role, columns in ROLES.items():
            block = pd.DataFrame(self)[self["role"] == role]
            if len(block):
                parts.append(_text(f"{role.capitalize()}s", block, columns))
        return "\n\n".join([*parts, *([self.effects] if self.effects else []), self.closing])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table between its heading and closing lines, for notebooks."""
        return f"<pre>{escape(self.heading)}</pre>{pd.DataFrame(self).to_html()}" + "".join(
            f"<pre>{escape(text)}</pre>" for text in (self.effects, self.closing) if text
        )


ROLES = {
    "fixed effect": ("estimate", "se", "statistic", "p_value", "lower", "upper"),
    "dispersion parameter": ("estimate", "se", "lower", "upper"),
}
"""Sections of the printed table and their columns."""


def _text(title: str, block: pd.DataFrame, columns: tuple[str, ...]) -> str:
    """A section of the printed table: labels to the left, four significant digits."""
    cells = [[title, *columns]]
    for label, row in block.iterrows():
        cells.append([str(label), *(_number(column, row[column]) for column in columns)])
    return _aligned(cells)


def _aligned(cells: list[list[str]]) -> str:
    """Rows of text: the first column to the left, the others to the right."""
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in cells]
    return "\n".join(line.rstrip() for line in lines)


def _number(column: str, value: float) -> str:
    if not np.isfinite(value):
        return "-"
    if column == "p_value":
        return "<0.0001" if value < 1e-4 else f"{value:.4f}"
    return f"{value:.4g}"


def summary(idata: az.InferenceData, level: float = 0.95) -> pd.DataFrame:
    """Table of the parameters.

    Parameters
    ----------
    idata
        A result of `hlik.fit`, also one read back from NetCDF.
    level
        Coverage of the intervals.

    Returns
    -------
    pandas.DataFrame
        A row a parameter element, indexed by label; columns ``role``, ``estimate``, ``se`` (natural scale, delta
        method), ``statistic`` (estimate / se; fixed effects only: a variance of zero is on the boundary), ``df``,
        ``p_value`` (two-sided, t with the residual degrees of freedom), ``lower``, ``upper`` (Wald; for dispersion
        parameters on the scale of the value variable, mapped back, where that scale is a log, logit or other link;
        else on the natural scale). A packed Cholesky factor of `pymc.LKJCholeskyCov` shows as the standard deviations
        ``sd(x|g)[...]`` (interval on the log scale) and correlations ``cor(x|g)[..., ...]`` (on Fisher's z) of the
        effects that it belongs to. It prints with the model and its likelihoods.

    Notes
    -----
    The residual degrees of freedom are n - trace(hat matrix); R's hglm rounds them, hlik does not.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
    ...     u = pm.Normal("u", 0, sigma, shape=3)
    ...     _ = pm.Poisson("y", pm.math.exp(beta + u[np.repeat([0, 1, 2], 3)]), observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> table = hlik.summary(hlik.fit(model, progressbar=False))
    >>> list(table.index), list(table.columns)  # doctest: +NORMALIZE_WHITESPACE
    (['beta', 'sigma'],
     ['role', 'estimate', 'se', 'statistic', 'df', 'p_value', 'lower', 'upper'])
    """
    if not 0 < level < 1:
        raise ModelError(f"level must lie between 0 and 1; got {level}.")
    described = model_of(idata)
    df = float(idata["fit"]["df_residual"])
    rows: list[dict[str, Any]] = []
    for parameter in described["parameters"]:
        if is_packed(idata, parameter):
            rows += correlated_rows(idata, parameter, level)
            continue
        rows += _parameter_rows(idata, parameter, level, df)
    frame = pd.DataFrame(rows, columns=["label", *COLUMNS]).set_index("label")
    table = Summary(frame)
    table.heading, table.effects, table.closing = _heading(idata, described), _effects(idata), _closing(idata)
    return table


def _parameter_rows(idata: az.InferenceData, parameter: dict[str, Any], level: float, df: float) -> list[dict]:
    name = parameter["name"]
    estimate, error = idata["estimates"][name], idata["standard_errors"][name]
    is_fixed = parameter["role"] == "fixed effect"
    spread = stats.t(df) if is_fixed else stats.norm()
    lower, upper = _interval(idata, parameter, float(spread.ppf(0.5 + level / 2)))
    rows = []
    for position, label in enumerate(labels(estimate)):
        value, se = float(estimate.values.flat[position]), float(error.values.flat[position])
        statistic = value / se if is_fixed and se > 0 else np.nan
        rows.append(
            {
                "label": label,
                "role": parameter["role"],
                "estimate": value,
                "se": se,
                "statistic": statistic,
                "df": df if is_fixed else np.nan,
                "p_value": float(2 * spread.sf(abs(statistic))) if is_fixed else np.nan,
                "lower": float(lower.flat[position]),
                "upper": float(upper.flat[position]),
            }
        )
    return rows


def _interval(idata: az.InferenceData, parameter: dict[str, Any], quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """Wald interval on the scale of the value variable, mapped back by its link; natural scale where it has none."""
    scale, value_name, name = parameter["scale"], parameter["value_name"], parameter["name"]
    natural = idata["estimates"][name].values
    own = idata["unconstrained_estimates"][value_name].values
    if scale == "identity" or own.shape != natural.shape:
        half = quantile * idata["standard_errors"][name].values
        return natural - half, natural + half
    half = quantile * idata["unconstrained_standard_errors"][value_name].values
    inverse = LINKS[scale].inverse
    ends = np.stack([inverse(own - half), inverse(own + half)])
    return ends.min(axis=0), ends.max(axis=0)


def labels(values: xr.DataArray) -> list[str]:
    """``name[label, ...]`` for every element, in C order."""
    if not values.dims:
        return [str(values.name)]
    positions = np.indices(values.shape).reshape(values.ndim, -1).T
    coords = [values.coords[d].values if d in values.coords else np.arange(values.sizes[d]) for d in values.dims]
    return [f"{values.name}[{', '.join(str(coords[k][i]) for k, i in enumerate(p))}]" for p in positions]


def ranef(idata: az.InferenceData, level: float = 0.95) -> pd.DataFrame:
    """Table of the random effects.

    Parameters
    ----------
    idata
        A result of `hlik.fit`.
    level
        Coverage of the intervals.

    Returns
    -------
    pandas.DataFrame
        A row a level, indexed by label; columns ``term``, ``estimate`` and ``se`` on the scale of the variable
        itself (u), ``v`` and ``v_se`` on the scale of the linear predictor (for a non-centred effect z that is
        scale times z), ``lower`` and ``upper``: Wald on the scale of the value variable, mapped to u. The errors
        are those of prediction: the dispersion parameters count as known.

    Examples
    --------
    >>> import numpy as np, pymc as pm, hlik
    >>> with pm.Model() as model:
    ...     beta, lam = pm.Normal("beta", 0, 5), pm.HalfNormal("lam", 1)
    ...     u = pm.Gamma("u", 1 / lam, 1 / lam, shape=3)
    ...     mu = pm.math.exp(beta) * u[np.repeat([0, 1, 2], 3)]
    ...     _ = pm.Poisson("y", mu, observed=[1, 0, 2, 9, 6, 8, 3, 2, 4])
    >>> hlik.ranef(hlik.fit(model, progressbar=False))["estimate"].round(3).tolist()
    [0.33, 1.876, 0.794]
    """
    described = model_of(idata)
    quantile = float(stats.norm.ppf(0.5 + level / 2))
    tables = []
    for term in described["random_effects"]:
        estimate, error = idata["estimates"][term["name"]], idata["standard_errors"][term["name"]]
        own = idata["unconstrained_estimates"][term["value_name"]].values.ravel()
        own_error = idata["unconstrained_standard_errors"][term["value_name"]].values.ravel()
        v, v_se = (idata["diagnostics"][f"{term['name']}_{part}"].values.ravel() for part in ("v", "v_se"))
        if own.size != estimate.size:  # effects that sum to zero have fewer values on PyMC's scale
            own, own_error = v, v_se = estimate.values.ravel(), error.values.ravel()
        inverse = LINKS[term["scale"]].inverse if term["scale"] else LINKS["identity"].inverse
        with np.errstate(all="ignore"):
            ends = np.stack([inverse(own - quantile * own_error), inverse(own + quantile * own_error)])
        tables.append(
            pd.DataFrame(
                {
                    "term": term["name"],
                    "estimate": estimate.values.ravel(),
                    "se": error.values.ravel(),
                    "v": v,
                    "v_se": v_se,
                    "lower": ends.min(axis=0),
                    "upper": ends.max(axis=0),
                },
                index=pd.Index(labels(estimate), name="label"),
            )
        )
    if not tables:
        raise ModelError("The model has no random effects.")
    return pd.concat(tables)


def _heading(idata: az.InferenceData, described: dict[str, Any]) -> str:
    attributes = idata["fit"].attrs
    lines = [f"hlik {attributes['estimator']}"]
    for r in described["responses"]:
        link = f", link {r['link']}" if r["link"] else ""
        line = f"Response {response_label(r)}: {r['distribution']}{link}, {r['n']:,} observations"
        missing = r.get("missing", 0)
        lines.append(line + (f", {missing:,} of {r['n'] + missing:,} missing" if missing else ""))
    fixed = json.loads(attributes.get("fixed", "{}"))
    if fixed:
        lines.append("Held fixed: " + ", ".join(f"{name} = {value}" for name, value in fixed.items()))
    return "\n".join(lines)


def _effects(idata: az.InferenceData) -> str:
    """The random effects: distribution, number of levels, and the standard deviation of v where it is known."""
    cells = [["Random effects", "distribution", "levels", "scale of v", "sd of v"]]
    for effect in model_of(idata)["random_effects"]:
        name, scale = effect["name"], effect["scale"] or "-"
        cells.append([name, effect["distribution"], f"{effect['levels']:,}", scale, _spread_of_v(idata, effect)])
    return _aligned(cells) if len(cells) > 1 else ""


def _spread_of_v(idata: az.InferenceData, effect: dict[str, Any]) -> str:
    """Standard deviation of v, or its smallest and largest where levels differ."""
    if f"{effect['name']}_covariance" in idata["fit"]:
        return _spread_of_block(idata["fit"][f"{effect['name']}_covariance"].values)
    key = f"{effect['name']}_dispersion"
    if effect["family"] is None or "diagnostics" not in idata.groups() or key not in idata["diagnostics"]:
        return "-"
    lam = idata["diagnostics"][key].values
    ends = np.sqrt(variance_of_v(RANDOM_FAMILIES[effect["family"]], np.array([lam.min(), lam.max()])))
    low, high = (_number("", value) for value in ends)
    return low if low == high else f"{low} to {high}"


def _spread_of_block(covariance: np.ndarray) -> str:
    """Standard deviations of correlated effects, and the correlation where there are two."""
    if len(covariance) > 4:
        return "-"
    deviation = np.sqrt(np.diag(covariance))
    text = ", ".join(_number("", value) for value in deviation)
    return text + (f"; correlation {covariance[0, 1] / deviation.prod():.3f}" if len(covariance) == 2 else "")


def _closing(idata: az.InferenceData) -> str:
    fit = idata["fit"]
    attributes = fit.attrs
    names = {"h": "h", "p_v_h": "p_v(h)", "p_bv_h": "p_bv(h)", "caic": "cAIC"}
    if attributes["likelihood"] not in names:
        names = {"log_likelihood": "log-likelihood", **names}
    numbers = ", ".join(f"{label} = {float(fit[key]):.3f}" for key, label in names.items() if key in fit)
    count = int(attributes["n_iterations"])
    return (
        f"{numbers}\nResidual degrees of freedom {float(fit['df_residual']):.1f}; "
        f"{count} iteration{'s' if count != 1 else ''}, {attributes['seconds']:.2f} s\nStatus: {attributes['status']}"
    )
