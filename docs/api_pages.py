"""MkDocs hook: the pages of the API reference, made from what `hlik` exports, so that none of it can be forgotten."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import hlik
import hlik.distributions

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

PAGES = {
    "models": ("Models", "What makes or describes a PyMC model."),
    "estimators": ("Estimators", "Settings objects for `hlik.fit`; which one when: [the chooser](../chooser.md)."),
    "fits": ("Fits", "From a model to a result."),
    "inference": ("Inference", "Tables, tests and predictions from a result."),
    "plots": ("Plots", "Pictures of a result: they take `ax=` or return their axes, and compute nothing."),
    "distributions": ("Distributions", "PyMC distributions for random effects, in `hlik.distributions`."),
    "errors": ("Errors and warnings", "What hlik raises and warns with."),
}
MODELS = {"from_formula", "from_matrices", "inspect", "Pedigree", "reciprocal"}
FITS = {"fit", "hglm", "hem", "bootstrap"}


def page_of(name: str, thing: object) -> str:
    """Which page a public name belongs to."""
    if name in MODELS:
        return "models"
    if name in FITS:
        return "fits"
    if name.startswith("plot_"):
        return "plots"
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return "errors"
    if inspect.isclass(thing) and thing.__module__.startswith("hlik.estimators"):
        return "estimators"
    return "inference"


def path_of(name: str, thing: object) -> str:
    """Where a public name is defined: what mkdocstrings reads."""
    if hasattr(thing, "__qualname__"):
        return f"{thing.__module__}.{thing.__qualname__}"
    return f"{type(thing).__module__}.{name}"  # an object, beside its class


def entries() -> dict[str, list[str]]:
    """The paths of every page, in the order of `hlik.__all__`."""
    found: dict[str, list[str]] = {page: [] for page in PAGES}
    for name in hlik.__all__:
        thing = getattr(hlik, name)
        if not name.startswith("__") and not inspect.ismodule(thing):
            found[page_of(name, thing)].append(path_of(name, thing))
    for name in hlik.distributions.__all__:
        found["distributions"].append(path_of(name, getattr(hlik.distributions, name)))
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    from mkdocs.structure.files import File

    for page, paths in entries().items():
        title, text = PAGES[page]
        parts = [f"# {title}", text, *(f"::: {path}" for path in paths)]
        files.append(File.generated(config, f"api/{page}.md", content="\n\n".join(parts) + "\n"))
    return files
