"""How a summary prints: model, fixed effects, dispersions, random effects, likelihoods, status."""

from __future__ import annotations

import json
from html import escape
from typing import Any, ClassVar

import arviz as az
import numpy as np
import pandas as pd

from hlik.inference.averages import variance_of_v
from hlik.inference.tables import model_of, response_label
from hlik.random_families import RANDOM_FAMILIES


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


def heading_text(idata: az.InferenceData, described: dict[str, Any]) -> str:
    """Estimator, responses, parameters that are held."""
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


def effects_text(idata: az.InferenceData) -> str:
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


def closing_text(idata: az.InferenceData) -> str:
    """Likelihoods, degrees of freedom, iterations, time, status."""
    fit = idata["fit"]
    attributes = fit.attrs
    names = {"h": "h", "p_v_h": "p_v(h)", "p_bv_h": "p_bv(h)", "caic": "cAIC"}
    if attributes["likelihood"] not in names:
        names = {"log_likelihood": "log-likelihood", **names}
    numbers = ", ".join(f"{label} = {float(fit[key]):.3f}" for key, label in names.items() if key in fit)
    count = int(attributes["n_iterations"])
    story = f"\nChosen by estimator='auto': {attributes['auto']}" if "auto" in attributes else ""
    return (
        f"{numbers}\nResidual degrees of freedom {float(fit['df_residual']):.1f}; "
        f"{count} iteration{'s' if count != 1 else ''}, {attributes['seconds']:.2f} s\nStatus: {attributes['status']}"
        f"{story}"
    )
