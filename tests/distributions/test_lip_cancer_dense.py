"""Lip cancer with a SAR field, and with CAR and independent effects: Laplace's approximation by dense algebra."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import special

import hlik
from hlik.distributions import CAR, SAR, rho_range


@pytest.fixture(scope="module")
def data(shared):
    frame = pd.read_csv(shared / "data" / "lipcancer.csv")
    row, column, value = pd.read_csv(shared / "data" / "lipcancer_nbr_triplets.csv").to_numpy().T
    W = np.zeros((56, 56))
    W[row.astype(int) - 1, column.astype(int) - 1] = value
    return W, np.column_stack([np.ones(56), frame["Paff"]]), np.log(frame["E"].to_numpy()), frame["O"].to_numpy()


def model_of(data, kind):
    W, X, offset, y = data
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5, shape=2)
        tau, rho = pm.HalfNormal("tau", 1), pm.Uniform("rho", *rho_range(W))
        v = (SAR if kind == "SAR" else CAR)("v", D=W, rho=rho, tau=tau)
        eta = X @ beta + v + offset
        if kind == "CAR and independent":
            eta = eta + pm.Normal("u", 0, pm.HalfNormal("sigma", 1), shape=56)
        pm.Poisson("y", pm.math.exp(eta), observed=y)
    return model


def covariance(W, kind, estimates):
    tau, rho = float(estimates["tau"]), float(estimates["rho"])
    inverse = np.linalg.inv(np.eye(56) - rho * W)
    if kind == "SAR":
        return tau * inverse @ inverse.T
    extra = float(estimates["sigma"]) ** 2 * np.eye(56) if kind == "CAR and independent" else 0.0
    return tau * inverse + extra


def dense_laplace(data, kind, estimates, shift, integrate_beta):
    """p_v(h) or p_bv(h) of the sum of the effects, which is normal with covariance S; `shift` moves the parameters."""
    W, X, offset, y = data
    moved = {
        name: float(estimates[name]) + shift.get(name, 0.0) for name in ("tau", "rho", "sigma") if name in estimates
    }
    S = covariance(W, kind, moved)
    Q = np.linalg.inv(S)
    beta = np.asarray(estimates["beta"]) + shift.get("beta", 0.0)
    v = np.zeros(56)
    for _ in range(60):
        mu = np.exp(X @ beta + v + offset)
        score, H = y - mu - Q @ v, np.diag(mu) + Q
        if integrate_beta:
            full = np.block([[X.T @ (mu[:, None] * X), (mu[:, None] * X).T], [mu[:, None] * X, H]])
            step = np.linalg.solve(full, np.concatenate([X.T @ (y - mu), score]))
            beta, v = beta + step[:2], v + step[2:]
        else:
            v = v + np.linalg.solve(H, score)
    mu = np.exp(X @ beta + v + offset)
    H = np.diag(mu) + Q
    if integrate_beta:
        H = np.block([[X.T @ (mu[:, None] * X), (mu[:, None] * X).T], [mu[:, None] * X, H]])
    h = np.sum(y * np.log(mu) - mu - special.gammaln(y + 1)) - 0.5 * v @ Q @ v
    h += 0.5 * np.linalg.slogdet(Q)[1] - 28 * np.log(2 * np.pi)
    return h - 0.5 * np.linalg.slogdet(H)[1] + 0.5 * len(H) * np.log(2 * np.pi)


@pytest.mark.filterwarnings("ignore:Laplace. boundary:hlik.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["SAR", "CAR and independent"])
@pytest.mark.parametrize("reml", [False, True], ids=["ML", "REML"])
def test_laplace(data, kind, reml):
    """The value at the estimate, and that it is a maximum: each parameter either way lowers it."""
    idata = hlik.fit(model_of(data, kind), hlik.Laplace(reml=reml), progressbar=False, draws=0)
    value = dense_laplace(data, kind, idata.estimates, {}, reml)
    np.testing.assert_allclose(float(idata.fit["log_likelihood"]), value, atol=1e-7)
    on_boundary = "boundary" in idata.fit.attrs["status"]  # the districts differ no more than their neighbours do
    assert on_boundary == (kind == "CAR and independent")
    if on_boundary:
        assert dense_laplace(data, kind, idata.estimates, {"sigma": 0.1}, reml) < value
    for name in ("tau", "rho", "sigma"):
        if name not in idata.estimates or (on_boundary and name == "sigma"):
            continue
        scale = float(idata.estimates[name])
        if name == "rho":
            scale = rho_range(data[0])[1] - scale  # the likelihood bends where it comes near the end of its range
        step = 1e-3 * abs(scale)
        up, down = (dense_laplace(data, kind, idata.estimates, {name: s}, reml) for s in (step, -step))
        slope = (up - down) / (2 * step)
        assert abs(slope) * step < 1e-6, name  # of the value, over a thousandth of the parameter
    if not reml:
        up, down = (dense_laplace(data, kind, idata.estimates, {"beta": np.array([s, 0])}, reml) for s in (1e-3, -1e-3))
        assert abs(up - down) < 1e-6


def test_sar_by_eql(data):
    """The dispersion equations with dense matrices: tr(Q^-1 dQ) - v'dQ v - tr(H^-1 dQ) = 0 for tau and rho."""
    idata = hlik.fit(model_of(data, "SAR"), progressbar=False, draws=0)
    W, X, offset, y = data
    beta, v = np.asarray(idata.estimates["beta"]), np.asarray(idata.estimates["v"])
    mu = np.exp(X @ beta + v + offset)

    def precision(tau, rho):
        root = np.eye(56) - rho * W
        return root.T @ root / tau

    tau, rho = float(idata.estimates["tau"]), float(idata.estimates["rho"])
    Q = precision(tau, rho)
    np.testing.assert_allclose(X.T @ (y - mu), 0, atol=1e-6)
    np.testing.assert_allclose(y - mu - Q @ v, 0, atol=1e-6)
    full = np.block([[X.T @ (mu[:, None] * X), (mu[:, None] * X).T], [mu[:, None] * X, np.diag(mu) + Q]])
    inverse_v, S = np.linalg.inv(full)[2:, 2:], np.linalg.inv(Q)
    for dQ in (
        (precision(tau * 1.001, rho) - precision(tau * 0.999, rho)) / 0.002,
        precision(tau, rho + 0.5) - precision(tau, rho - 0.5),
    ):
        terms = np.sum(S * dQ), v @ dQ @ v, np.sum(inverse_v * dQ)
        assert abs(terms[0] - terms[1] - terms[2]) < 2e-6 * sum(map(abs, terms))  # of the difference in tau


def test_hl_takes_fields(data):
    """HL(0,1) is restricted Laplace for any density."""
    model = model_of(data, "SAR")
    hl = hlik.fit(model, hlik.HL(0, 1), progressbar=False, draws=0).estimates
    reml = hlik.fit(model, hlik.Laplace(reml=True), progressbar=False, draws=0).estimates
    for name in ("tau", "rho"):
        np.testing.assert_allclose(float(hl[name]), float(reml[name]), rtol=1e-4)
