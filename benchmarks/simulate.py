"""Simulated data, the same on every machine: float64 columns are covariates, int32 columns levels from 0."""

from __future__ import annotations

import numpy as np
from scipy import fft

Columns = dict[str, np.ndarray]

SEED = 20240501
INTERCEPT, SLOPE, RESIDUAL = 0.5, 0.3, 1.0
SDS = (0.6, 0.4)  # of the first and the second random term
TAU, RHO = 0.3, 0.24  # of a conditional autoregression on a grid, whose rho is below 1/4


def truth(family: str, terms: tuple[str, ...]) -> dict[str, float]:
    """What the data are made with, under the labels of the tables."""
    found = {"intercept": INTERCEPT, "x": SLOPE}
    found |= {f"sd {term}": sd for term, sd in zip(terms, SDS, strict=False)}
    return found | ({"sigma": RESIDUAL} if family == "gaussian" else {})


def intercepts(family: str, n: int, q: int) -> Columns:
    """Groups of n / q rows."""
    rng = np.random.default_rng(SEED)
    g = np.repeat(np.arange(q, dtype=np.int32), n // q)
    x = rng.normal(size=n)
    return _respond(family, rng, {"x": x, "g": g}, rng.normal(0, SDS[0], q)[g])


def nested(family: str, schools: int, classes: int, pupils: int) -> Columns:
    """Classes in schools, numbered through."""
    rng = np.random.default_rng(SEED)
    label = np.repeat(np.arange(schools * classes, dtype=np.int32), pupils)
    school = (label // classes).astype(np.int32)
    u = rng.normal(0, SDS[0], schools)[school] + rng.normal(0, SDS[1], schools * classes)[label]
    return _respond(family, rng, {"x": rng.normal(size=len(label)), "school": school, "class": label}, u)


def slopes(family: str, n: int, q: int) -> Columns:
    """Groups with an intercept and a slope of their own, independent."""
    rng = np.random.default_rng(SEED)
    g = np.repeat(np.arange(q, dtype=np.int32), n // q)
    x = rng.normal(size=n)
    u = rng.normal(0, SDS[0], q)[g] + rng.normal(0, SDS[1], q)[g] * x
    return _respond(family, rng, {"x": x, "g": g}, u)


def sires_and_dams(herds: int, sires: int, dams: int, litter: int) -> Columns:
    """Animals whose dam and sire are of one herd; every animal of a dam may have another sire."""
    rng = np.random.default_rng(SEED)
    dam = np.repeat(np.arange(herds * dams, dtype=np.int32), litter)
    sire = (dam // dams * sires + rng.integers(0, sires, len(dam))).astype(np.int32)
    u = rng.normal(0, SDS[0], herds * sires)[sire] + rng.normal(0, SDS[1], herds * dams)[dam]
    return _respond("gaussian", rng, {"x": rng.normal(size=len(dam)), "sire": sire, "dam": dam}, u)


def ratings(n: int, users: int, films: int) -> Columns:
    """Ratings of films by users, a few of both much busier than the rest; every level occurs."""
    rng = np.random.default_rng(SEED)
    user, film = _busy(rng, n, users), _busy(rng, n, films)
    u = rng.normal(0, SDS[0], users)[user] + rng.normal(0, SDS[1], films)[film]
    return _respond("gaussian", rng, {"x": rng.normal(size=n), "user": user, "film": film}, u)


def pedigree(generations: int, size: int) -> Columns:
    """Animals of 100 sires and half of the females of the generation before; parents -1 for the first one.

    The columns sire and dam have one row an animal, as y has.
    """
    rng = np.random.default_rng(SEED)
    sire, dam = np.full((2, generations, size), -1, dtype=np.int32)
    value = np.empty((generations, size))
    value[0] = rng.normal(0, SDS[0], size)
    for k in range(1, generations):
        first = (k - 1) * size
        fathers, mothers = rng.choice(size // 2, 100, replace=False), rng.choice(size // 2, size // 4, replace=False)
        father, mother = rng.choice(fathers, size), size // 2 + rng.choice(mothers, size)
        sire[k], dam[k] = first + father, first + mother
        mendel = rng.normal(0, SDS[0] * np.sqrt(0.5), size)
        value[k] = 0.5 * (value[k - 1, father] + value[k - 1, mother]) + mendel
    animal = np.arange(generations * size, dtype=np.int32)
    columns = {"x": rng.normal(size=animal.size), "animal": animal, "sire": sire.ravel(), "dam": dam.ravel()}
    return _respond("gaussian", rng, columns, value.ravel())


def grid(side: int) -> Columns:
    """One count an area of a square grid, whose field is drawn in the sine basis of its neighbour matrix."""
    rng = np.random.default_rng(SEED)
    path = 2 * np.cos(np.pi * np.arange(1, side + 1) / (side + 1))
    spread = np.sqrt(TAU / (1 - RHO * (path[:, None] + path)))
    field = fft.dstn(spread * rng.normal(size=(side, side)), type=1, norm="ortho").ravel()
    area = np.arange(side * side, dtype=np.int32)
    return _respond("poisson", rng, {"x": rng.normal(size=area.size), "area": area}, field)


def _busy(rng: np.random.Generator, n: int, levels: int) -> np.ndarray:
    share = rng.gamma(0.7, size=levels)
    drawn = rng.choice(levels, size=n - levels, p=share / share.sum())
    return rng.permutation(np.concatenate([np.arange(levels), drawn])).astype(np.int32)


def _respond(family: str, rng: np.random.Generator, columns: Columns, u: np.ndarray) -> Columns:
    eta = INTERCEPT + SLOPE * columns["x"] + u
    if family == "poisson":
        y = rng.poisson(np.exp(eta))
    elif family == "logit":
        y = rng.random(len(eta)) < 1 / (1 + np.exp(-eta))
    else:
        y = eta + rng.normal(0, RESIDUAL, len(eta))
    return columns | {"y": y.astype(np.float64)}
