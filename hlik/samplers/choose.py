"""Which sampler a name stands for."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from hlik.hlikelihood import HLikelihood
from hlik.model import HierarchicalModel
from hlik.samplers.base import Sampler
from hlik.samplers.importance import ImportanceSampler
from hlik.samplers.jax_kernels import KINDS, missing
from hlik.samplers.jax_sampler import JaxSampler
from hlik.samplers.nutpie import NutpieSampler
from hlik.samplers.steps import StepSampler

SAMPLERS = ("auto", "importance", "metropolis", "nutpie", "pymc", *KINDS)


def resolved(name: str) -> str:
    """The sampler that ``"auto"`` means here: nutpie where it is installed, else PyMC's NUTS."""
    if name != "auto":
        return name
    return "nutpie" if find_spec("nutpie") is not None else "pymc"


def obstacles(name: str, model: HierarchicalModel) -> list[str]:
    """Why a sampler cannot serve a model."""
    found = []
    if name == "nutpie" and find_spec("nutpie") is None:
        found.append("sampler='nutpie' needs the package nutpie: pip install nutpie, or sampler='pymc'")
    if name in KINDS and missing(name):
        found.append(
            f"sampler={name!r} needs the package{'s' if len(missing(name)) > 1 else ''} {' and '.join(missing(name))}: "
            "pip install 'hlik[jax]', or sampler='pymc'"
        )
    if resolved(name) != "importance" and model.source is not None and model.source.weighted:
        found.append("prior weights are not in PyMC's graph: use sampler='importance', which samples hlik's own h")
    return found


def sampler_for(name: str, likelihood: HLikelihood, first: np.ndarray, tune: int) -> Sampler:
    """The sampler of this name for a model, with first positions (chains, q)."""
    chosen = resolved(name)
    if chosen == "importance":
        return ImportanceSampler(likelihood, first[0], len(first))
    if chosen in KINDS:
        return JaxSampler(likelihood, first, tune, chosen)
    if chosen == "nutpie":
        return NutpieSampler(likelihood, first, tune)
    return StepSampler(likelihood, first, tune, chosen)
