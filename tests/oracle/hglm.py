"""R hglm's algorithm (EQL and EQL1), slips included, in plain dense NumPy.

Notation: n observations, p fixed effects, q random effects, T = [X Z; 0 I_q], phi_i mean dispersions,
lam_j random-effect dispersions, v = random effects on the scale of the linear predictor, u = the same on the
scale of their density, psi = E(u).
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import stats
from scipy.linalg import solve_triangular

from .families import FAMILIES, LINKS, RANDOM_FAMILIES, Array
from .glm import GLM, glm

INNER_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Model:
    """The problem as numbers: one entry of `terms` (a slice of the q columns of Z) per random-effect term."""

    y: Array
    X: Array
    Z: Array
    weights: Array
    offset: Array
    family: str
    link: str
    terms: list
    rand: list
    X_disp: Array
    X_rand_disp: list
    link_disp: str
    link_rand_disp: list
    T: Array = field(init=False)

    def __post_init__(self):
        n, q, p = len(self.y), self.Z.shape[1], self.X.shape[1]
        T = np.block([[self.X, self.Z], [np.zeros((q, p)), np.eye(q)]])
        object.__setattr__(self, "T", T)

    def by_term(self, function, *arrays):
        """Concatenate function(family, link, *parts of arrays) over the terms."""
        parts = [
            function(RANDOM_FAMILIES[family], LINKS[link], *(a[term] for a in arrays))
            for term, (family, link) in zip(self.terms, self.rand, strict=True)
        ]
        return np.concatenate(parts)


def weights_of(model, eta, v, phi, lam, start=False):
    fam, link = FAMILIES[model.family], LINKS[model.link]
    w1 = model.weights * link.first(eta)**2 / (fam.variance(link.inverse(eta)) * phi)
    w2 = model.by_term(lambda f, g, v, lam: g.first(v) ** 2 / (f.variance(v if start else g.inverse(v)) * lam), v, lam)
    return w1, w2


def responses_of(model, eta, v, first=False):
    fam, link = FAMILIES[model.family], LINKS[model.link]
    mu, m = link.inverse(eta), link.first(eta)
    z1 = eta - model.offset + (model.y - mu) / m
    z2 = model.by_term(lambda f, g, v: v + (f.psi - g.inverse(v)) / g.first(g.inverse(v) if first else v), v)
    return z1, z2


@dataclass
class Step:
    delta: Array
    eta: Array
    v: Array
    Q: Array
    R: Array
    w: Array


def inner(model, eta, v, phi, lam, c, maxit, tol, w1, w2):
    n, p = model.X.shape
    for k in range(maxit):
        if k: w1, w2 = weights_of(model, eta, v, phi, lam)
        z1, z2 = responses_of(model, eta, v, k == 0)
        if c is not None:
            z1 = z1 - c
            z2 = z2 + model.Z.T @ (w1 * c) / w2
        w = np.concatenate([w1, w2])
        sw = np.sqrt(w)
        Q, R = np.linalg.qr(model.T * sw[:, None])
        delta = solve_triangular(R, Q.T @ (sw * np.concatenate([z1, z2])))
        old = eta
        eta = model.T[:n] @ delta + model.offset
        v = delta[p:]
        if np.sum((old - eta) ** 2) < tol * np.sum(eta**2):
            break
    return Step(delta, eta, v, Q, R, w)


def correction(model, eta, v, phi, lam, Z=None):
    Z = model.Z if Z is None else Z
    fam, link = FAMILIES[model.family], LINKS[model.link]
    mu, m, m2 = link.inverse(eta), link.first(eta), link.second(eta)
    V = fam.variance(mu)
    W1 = m**2 / (V * phi)
    w2 = model.by_term(lambda f, g, v, lam: g.first(v) ** 2 / (f.variance(g.inverse(v)) * lam), v, lam)
    K = Z @ np.linalg.solve(Z.T @ (W1[:, None] * Z) + np.diag(w2), Z.T)
    P = np.diag(K) * W1
    D = (2 * m2 / V - fam.variance_slope(mu) * m**2 / V**2) / phi
    return 0.5 * (P * D * m / W1**2 - K @ (P * D * m / W1))


def fit(model, *, fix_disp=None, method="EQL", conv=1e-6, maxit=50, k_order=0, Zc=None):
    n, p = model.X.shape
    g1 = glm(model.y, model.X, family=model.family, link=model.link, weights=model.weights, offset=model.offset)
    phi0 = 0.6 * g1.deviance.sum() / (n - p)
    K = len(model.terms)
    lam0 = 0.66 * phi0 / (K if K > 1 else 1)
    if fix_disp is not None:
        phi0 = fix_disp
        if k_order: lam0 = 0.66 * phi0 / (K if K > 1 else 1)
    q = model.Z.shape[1]
    phi, lam = np.full(n, phi0), np.full(q, lam0)
    with np.errstate(all='ignore'):
        v = model.by_term(lambda f, g, u: g.inverse(u), np.zeros(q))
        eta = model.X @ g1.coef + model.offset
    eta_old = eta
    b = g1.coef
    c = None
    conved = False
    for it in range(1, maxit + 1):
        if method == "EQL1" and ((fix_disp is not None) or it > 2):
            c = correction(model, eta, v, phi, lam, Zc)
        start = model.X @ b + model.offset + model.Z @ model.by_term(lambda f, g, v: g.inverse(v), v)
        s = inner(model, start, v, phi, lam, c, maxit if c is None else 3, INNER_TOLERANCE, *weights_of(model, eta, v, phi, lam, it==1))
        eta, v, b = s.eta, s.v, s.delta[:p]
        h = np.minimum(np.sum(s.Q**2, axis=1), 1 - 1e-8)
        fam, link = FAMILIES[model.family], LINKS[model.link]
        mu = link.inverse(eta)
        d = np.concatenate([fam.deviance(model.y, mu, model.weights),
                            model.by_term(lambda f, g, v: f.deviance(g.inverse(v)), v)])
        d = np.maximum(d, 1e-8)
        gs = []
        if fix_disp is None:
            g11 = glm(d[:n] / (1 - h[:n]), model.X_disp, family="Gamma", link=model.link_disp, weights=(1 - h[:n]) / 2)
            phi = g11.fitted
        lams = []
        for term, XR, lk in zip(model.terms, model.X_rand_disp, model.link_rand_disp):
            hh, dd = h[n:][term], d[n:][term]
            g = glm(dd / (1 - hh), XR, family="Gamma", link=lk, weights=(1 - hh) / 2)
            gs.append(g)
            lams.append(g.fitted)
        lam = np.concatenate(lams)
        if np.sum((eta_old - eta) ** 2) < conv * np.sum(eta**2) and it > 1:
            conved = True
            break
        eta_old = eta
    Ri = solve_triangular(s.R, np.eye(p + q))
    C = Ri @ Ri.T
    se = np.sqrt(np.diag(C))
    T1 = model.T[:n]
    df = n - np.sum(C * (T1.T @ (s.w[:n, None] * T1)))
    return dict(it=it, conv=conved, beta=s.delta[:p], se=se[:p], v=v, sev=se[p:], phi=phi, lam=lam, df=df, h=h, d=d, gs=gs,
                g11=None if fix_disp is not None else g11)
