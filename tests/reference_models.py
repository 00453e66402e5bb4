"""PyMC models of the reference records: what R fitted, written as a user of hlik would write it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import scipy.sparse as sp

import hlik


@dataclass(frozen=True)
class ReferenceModel:
    """A model, the estimator that corresponds to R's call, and where R's numbers are in hlik's result."""

    build: Callable[[Path], pm.Model]
    estimator: hlik.EQL = field(default_factory=hlik.EQL)
    effects: tuple[str, ...] = ("u",)
    variances: tuple[str, ...] = ("sigma_u",)  # standard deviations, or dispersions where `squared` is false
    squared: bool = True
    residual: str | None = None  # a residual sd, or the quasi-dispersion
    dispersion_coefficients: str | None = None


def _index(values: Any) -> np.ndarray:
    return pd.factorize(np.asarray(values), sort=True)[0]


def example1(data: Path, file: str = "rj_example1") -> pm.Model:
    """R Journal example 1: Gaussian, five clusters."""
    frame = pd.read_csv(data / f"{file}.csv")
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 10)
        sigma_u, sigma = pm.HalfNormal("sigma_u", 1), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma_u, shape=5)
        pm.Normal("y", beta + u[_index(frame.clus)], sigma, observed=frame.y.to_numpy())
    return model


def example2(file: str) -> Callable[[Path], pm.Model]:
    """R Journal example 2: the residual variance is log-linear in x_d."""

    def build(data: Path) -> pm.Model:
        frame = pd.read_csv(data / f"{file}.csv")
        design = np.column_stack([np.ones(len(frame)), frame.x_d])
        with pm.Model() as model:
            beta = pm.Normal("beta", 0, 10)
            sigma_u, gamma = pm.HalfNormal("sigma_u", 1), pm.Normal("gamma", 0, 1, shape=2)
            u = pm.Normal("u", 0, sigma_u, shape=5)
            sigma = pt.exp(0.5 * (design @ gamma))
            pm.Normal("y", beta + u[_index(frame.clus)], sigma, observed=frame.y.to_numpy())
        return model

    return build


def example3(file: str) -> Callable[[Path], pm.Model]:
    """R Journal example 3: Poisson with gamma effects, log links."""

    def build(data: Path) -> pm.Model:
        frame = pd.read_csv(data / f"{file}.csv")
        with pm.Model() as model:
            beta, lam = pm.Normal("beta", 0, 10), pm.HalfNormal("lam", 1)
            u = pm.Gamma("u", 1 / lam, 1 / lam, shape=5)
            pm.Poisson("y", pt.exp(beta) * u[_index(frame.clus)], observed=frame.y.to_numpy())
        return model

    return build


def example3_design(data: Path, file: str) -> np.ndarray:
    """The dispersion covariates of example 3."""
    frame = pd.read_csv(data / f"{file}.csv")
    return np.column_stack([np.ones(len(frame)), frame.x_d])


def seeds(family: str) -> Callable[[Path], pm.Model]:
    """Crowder's seeds with beta or normal plate effects."""

    def build(data: Path) -> pm.Model:
        frame = pd.read_csv(data / "seeds_crowder.csv")
        cucumber, o73 = (frame.extract == "Cucumber").to_numpy(float), (frame.seed == "O73").to_numpy(float)
        X = np.column_stack([np.ones(21), cucumber, o73, cucumber * o73])
        plate = np.arange(21)
        with pm.Model() as model:
            beta = pm.Normal("beta", 0, 10, shape=4)
            if family == "beta":
                lam = pm.HalfNormal("lam", 1)
                u = pm.Beta("u", 1 / (2 * lam), 1 / (2 * lam), shape=21)
                eta = X @ beta + pm.math.logit(u)[plate]
            else:
                eta = X @ beta + pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=21)[plate]
            pm.Binomial("r", n=frame.n.to_numpy(), logit_p=eta, observed=frame.r.to_numpy())
        return model

    return build


def bacteria(data: Path, slopes: bool = False) -> pm.Model:
    """MASS bacteria: binary, normal child effects; `slopes` adds independent slopes on standardised week."""
    frame = pd.read_csv(data / "bacteria.csv")
    child, week = _index(frame.ID), frame.week.to_numpy(float)
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 10, shape=2)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=50)
        eta = beta[0] + beta[1] * week + u[child]
        if slopes:
            standard = (week - week.mean()) / week.std(ddof=1)
            eta += pm.Normal("u_week", 0, pm.HalfNormal("sigma_week", 1), shape=50)[child] * standard
        pm.Bernoulli("y", logit_p=eta, observed=frame.y01.to_numpy())
    return model


def lip_cancer(data: Path) -> pm.Model:
    """Scottish lip cancer with independent normal district effects."""
    frame = pd.read_csv(data / "lipcancer.csv")
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 10, shape=2)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=56)
        eta = np.log(frame.E.to_numpy()) + beta[0] + beta[1] * frame.Paff.to_numpy() + u
        pm.Poisson("y", pt.exp(eta), observed=frame.O.to_numpy())
    return model


def lip_cancer_rotated(data: Path) -> pm.Model:
    """CAR effects written in the eigenbasis of D: independent, with 1/lam_i = b0 + b1 d_i."""
    frame = pd.read_csv(data / "lipcancer.csv")
    values, vectors = lip_cancer_eigen(data)
    with pm.Model() as model:
        beta, b = pm.Normal("beta", 0, 10, shape=2), pm.Normal("b", 0, 1, shape=2)
        u = pm.Normal("u", 0, 1 / pt.sqrt(b[0] + b[1] * values), shape=56)
        eta = np.log(frame.E.to_numpy()) + beta[0] + beta[1] * frame.Paff.to_numpy() + vectors @ u
        pm.Poisson("y", pt.exp(eta), observed=frame.O.to_numpy())
    return model


def lip_cancer_eigen(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (descending, as R gives them) and eigenvectors of the neighbour matrix."""
    triplets = pd.read_csv(data / "lipcancer_nbr_triplets.csv")
    D = np.zeros((56, 56))
    D[triplets.row - 1, triplets.col - 1] = triplets.value
    values, vectors = np.linalg.eigh(D)
    return values[::-1], vectors[:, ::-1]


def tutorial_residual_by_group(data: Path) -> pm.Model:
    """hglm tutorial, DHGLM data: a residual variance for each of ten groups."""
    frame = pd.read_csv(data / "tut_dhglm.csv")
    group = _index(frame.ID)
    with pm.Model() as model:
        beta, gamma = pm.Normal("beta", 0, 10), pm.Normal("gamma", 0, 1, shape=10)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=10)
        pm.Normal("y", beta + u[group], pt.exp(0.5 * gamma)[group], observed=frame.y.to_numpy())
    return model


def tutorial_selection(second: bool) -> Callable[[Path], pm.Model]:
    """hglm tutorial 3.3: group effects, and twenty effects of a random matrix."""

    def build(data: Path) -> pm.Model:
        frame = pd.read_csv(data / "tut_modelsel.csv")
        group = _index(frame.ID)
        with pm.Model() as model:
            beta, sigma = pm.Normal("beta", 0, 10), pm.HalfNormal("sigma", 1)
            u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=10)
            eta = beta + u[group]
            if second:
                Z2 = pd.read_csv(data / "tut_modelsel_Z2.csv").to_numpy()
                eta += Z2 @ pm.Normal("w", 0, pm.HalfNormal("sigma_w", 1), shape=20)
            pm.Normal("y", eta, sigma, observed=frame.y.to_numpy())
        return model

    return build


def animal_matrix(data: Path) -> sp.csr_array:
    """Z = Z0 L of the QTLMAS animal model, 1000 x 2025."""
    with gzip.open(data / "QTLMAS_Z_triplets.csv.gz") as file:
        triplets = pd.read_csv(file)
    return sp.csr_array((triplets.value, (triplets.row - 1, triplets.col - 1)), shape=(1000, 2025))


def animal(data: Path) -> pm.Model:
    """QTLMAS animal model, the relationship in Z."""
    import pytensor.sparse as ps

    y = pd.read_csv(data / "QTLMAS_y.csv").P265.to_numpy()
    Z = ps.as_sparse_variable(sp.csr_matrix(animal_matrix(data)))
    with pm.Model() as model:
        beta, sigma = pm.Normal("beta", 0, 10), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, pm.HalfNormal("sigma_u", 1), shape=2025)
        pm.Normal("y", beta + ps.structured_dot(Z, u[:, None])[:, 0], sigma, observed=y)
    return model


ESTIMATE, HL11 = hlik.EQL(dispersion="estimate"), hlik.EQL(correction="HL11")
LAM = {"variances": ("lam",), "squared": False}

REFERENCE_MODELS: dict[str, ReferenceModel] = {
    "rj_example1": ReferenceModel(example1, residual="sigma"),
    "rj_example2": ReferenceModel(example2("rj_example2"), dispersion_coefficients="gamma"),
    "rj_example2_noplot": ReferenceModel(example2("rj_example2_noplot"), dispersion_coefficients="gamma"),
    "rj_example3": ReferenceModel(example3("rj_example3"), dispersion_coefficients="y_dispersion", **LAM),
    "rj_example3_noplot": ReferenceModel(example3("rj_example3_noplot"), dispersion_coefficients="y_dispersion", **LAM),
    "rj_example3_fixdisp": ReferenceModel(example3("rj_example3"), **LAM),
    "rj_example3_noplot_fixdisp": ReferenceModel(example3("rj_example3_noplot"), **LAM),
    "rj_example5_seeds_beta": ReferenceModel(seeds("beta"), **LAM),
    "seeds_glmm_normal_hglm": ReferenceModel(seeds("normal")),
    "tut_g1_bacteria": ReferenceModel(bacteria, ESTIMATE, residual="y_dispersion"),
    "tut_g2_bacteria_matrix": ReferenceModel(bacteria, ESTIMATE, residual="y_dispersion"),
    "tut_g1b_bacteria_fixdisp": ReferenceModel(bacteria),
    "bacteria_EQL1_fixdisp": ReferenceModel(bacteria, HL11),
    "tut_g3_bacteria_slopes": ReferenceModel(
        lambda data: bacteria(data, slopes=True),
        ESTIMATE,
        effects=("u", "u_week"),
        variances=("sigma_u", "sigma_week"),
        residual="y_dispersion",
    ),
    "lipcancer_iid_EQL": ReferenceModel(lip_cancer),
    "lipcancer_iid_EQL1": ReferenceModel(lip_cancer, HL11),
    "lipcancer_CAR_rotated_EQL": ReferenceModel(lip_cancer_rotated, variances=()),
    "lipcancer_CAR_rotated_EQL1": ReferenceModel(lip_cancer_rotated, HL11, variances=()),
    "tut_dhglm_fixed_Xdisp": ReferenceModel(tutorial_residual_by_group, dispersion_coefficients="gamma"),
    "tut_modelsel_hg1": ReferenceModel(
        tutorial_selection(True), effects=("u", "w"), variances=("sigma_u", "sigma_w"), residual="sigma"
    ),
    "tut_modelsel_hg2": ReferenceModel(tutorial_selection(False), residual="sigma"),
    "tut_qtlmas": ReferenceModel(animal, residual="sigma"),
}
