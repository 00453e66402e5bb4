"""The augmented model of an HGLM and its pieces: weights, working responses, least squares, dispersion GLMs.

Notation: n observations, p fixed effects, q random effects in k terms, T = [X Z; 0 I_q]; eta = Xb + Zv + offset;
phi_i dispersion of observation i, lam_j that of random effect j; v random effects on the scale on which they enter
eta, u = inverse link of v: the same on the scale of their density; psi = E(u); m = dmu/deta, r = du/dv.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.linalg import solve_triangular

from .families import FAMILIES, LINKS, RANDOM_FAMILIES, Array
from .glm import GLM, glm

LINK_OF_SPATIAL = {"CAR": "inverse", "SAR": "1/sqrt"}


class Diverged(ArithmeticError):
    """hglm's error "GLM.MME diverged": weights or working responses are not finite."""


@dataclass(frozen=True, eq=False)
class Spatial:
    """Gaussian effects, v ~ N(0, tau (I - rho D)^-1) if `kind` is "CAR",
    v ~ N(0, tau (I - rho D)^-1 (I - rho D)^-T) if it is "SAR"; D symmetric."""

    kind: str
    D: Array

    @cached_property
    def eigen(self) -> tuple[Array, Array]:
        """d and G, with D = G diag(d) G', d decreasing."""
        d, G = np.linalg.eigh(self.D)
        return d[::-1], G[:, ::-1]

    def tau_rho(self, b: Array) -> tuple[float, float]:
        """From the dispersion model 1/lam = b0 + b1 d (CAR) or lam^-1/2 = b0 + b1 d (SAR)."""
        return (1 / b[0] if self.kind == "CAR" else 1 / b[0] ** 2), -b[1] / b[0]


@dataclass(frozen=True)
class Model:
    """An HGLM as numbers. One entry per term in `terms` (its slice of the columns of Z) and in the lists after it."""

    y: Array
    X: Array
    Z: Array
    weights: Array
    offset: Array
    family: str
    link: str
    X_disp: Array
    link_disp: str
    terms: list
    rand_families: list
    X_rand_disp: list
    link_rand_disp: list
    Z_correction: Array

    @cached_property
    def T(self) -> Array:
        q, p = self.Z.shape[1], self.X.shape[1]
        return np.block([[self.X, self.Z], [np.zeros((q, p)), np.eye(q)]])

    def by_term(self, function, *arrays) -> Array:
        """function(random family, link of v, *parts of the arrays) term by term, joined into one vector."""
        pairs = zip(self.terms, self.rand_families, strict=True)
        return np.concatenate(
            [function(RANDOM_FAMILIES[f], LINKS[g], *(a[term] for a in arrays)) for term, (f, g) in pairs]
        )

    def u(self, v: Array) -> Array:
        return self.by_term(lambda f, g, v: g.inverse(v), v)

    def eta(self, b: Array, v: Array) -> Array:
        return self.X @ b + self.Z @ v + self.offset


def observation_weights(model, eta, phi) -> Array:
    """W1 = prior weight m^2 / (V(mu) phi)."""
    family, link = FAMILIES[model.family], LINKS[model.link]
    return model.weights * link.first(eta) ** 2 / (family.variance(link.inverse(eta)) * phi)


def random_weights(model, v, u, lam, variance=None) -> Array:
    """W2 = r^2 / (V_M(u) lam); `variance` in place of each term's V_M if given."""
    return model.by_term(lambda f, g, v, u, lam: g.first(v) ** 2 / ((variance or f.variance)(u) * lam), v, u, lam)


def working_responses(model, eta, v, *, slope_at=None) -> tuple[Array, Array]:
    """z1 = eta - offset + (y - mu)/m and z2 = v + (psi - u)/r, with r at `slope_at` instead of v if given."""
    link = LINKS[model.link]
    z1 = eta - model.offset + (model.y - link.inverse(eta)) / link.first(eta)
    slope_at = v if slope_at is None else slope_at
    z2 = model.by_term(lambda f, g, v, s: v + (f.psi - g.inverse(v)) / g.first(s), v, slope_at)
    return z1, z2


@dataclass(frozen=True)
class Step:
    """Weighted least squares of (z1, z2) on T: the coefficients, W^1/2 T = QR, and the weights."""

    b: Array
    v: Array
    eta: Array
    w: Array
    Q: Array
    R: Array

    @cached_property
    def leverage(self) -> Array:
        """Row sums of Q^2."""
        return np.sum(self.Q**2, axis=1)

    @cached_property
    def covariance(self) -> Array:
        """(T'WT)^-1."""
        R_inverse = solve_triangular(self.R, np.eye(self.R.shape[0]))
        return R_inverse @ R_inverse.T

    def effective_parameters(self, model) -> float:
        """trace[(T'WT)^-1 T1'W1 T1], T1 the first n rows of T."""
        n = len(model.y)
        T1 = model.T[:n]
        return np.sum(self.covariance * (T1.T @ (self.w[:n, None] * T1)))


def least_squares(model, w1, w2, z1, z2) -> Step:
    if not np.isfinite(np.concatenate([w1, w2, z1, z2])).all():
        raise Diverged("GLM.MME diverged")
    p = model.X.shape[1]
    w = np.concatenate([w1, w2])
    Q, R = np.linalg.qr(model.T * np.sqrt(w)[:, None])
    delta = solve_triangular(R, Q.T @ (np.sqrt(w) * np.concatenate([z1, z2])), check_finite=False)
    b, v = delta[:p], delta[p:]
    return Step(b, v, model.eta(b, v), w, Q, R)


def first_order_correction(model, eta, v, phi, lam, prior_weights) -> Array:
    """The shift c of the observations' working responses (EQL1 = HL11), Gaussian random effects.

    K = Z (Z'W1 Z + W2)^-1 Z', P_i = K_ii W1_i, D_i = dW1_i/dmu_i = prior_i (2 m'/V - V' m^2 / V^2) / phi_i,
    m' = d2mu/deta2;   c_i = 1/2 [P_i D_i m_i / W1_i^2 - sum_j K_ij P_j D_j m_j / W1_j].
    It makes X'W1(z1 - c - eta + offset) the derivative of p_v(h) with respect to b.
    """
    family, link, Z = FAMILIES[model.family], LINKS[model.link], model.Z_correction
    mu, m = link.inverse(eta), link.first(eta)
    V = family.variance(mu)
    W1 = prior_weights * m**2 / (V * phi)
    W2 = random_weights(model, v, model.u(v), lam)
    K = Z @ np.linalg.solve(Z.T @ (W1[:, None] * Z) + np.diag(W2), Z.T)
    D = prior_weights * (2 * link.second(eta) / V - family.slope(mu) * m**2 / V**2) / phi
    s = np.diag(K) * D * m
    return 0.5 * (s / W1 - K @ s)


def corrected(model, w1, w2, z1, z2, c) -> tuple[Array, Array]:
    """z1 - c and z2 + W2^-1 Z'W1 c: the correction moves b only, v stays the mode of h given b."""
    return z1 - c, z2 + model.Z.T @ (w1 * c) / w2


def deviances(model, eta, v, floor) -> Array:
    """Deviance components of the observations (times prior weight) and of the random effects, at least `floor`."""
    family, mu = FAMILIES[model.family], LINKS[model.link].inverse(eta)
    d1 = family.deviance(model.y, mu, model.weights)
    d2 = model.by_term(lambda f, g, v: f.deviance(g.inverse(v)), v)
    return np.maximum(np.concatenate([d1, d2]), floor)


def dispersion_glm(d, h, X, link, **control) -> GLM:
    """Gamma GLM of d/(1 - h), prior weights (1 - h)/2."""
    return glm(d / (1 - h), X, family="Gamma", link=link, weights=(1 - h) / 2, **control)


def build_model(
    y,
    X,
    Zs,
    *,
    family,
    link,
    rand_families,
    weights=None,
    offset=None,
    X_disp=None,
    X_rand_disp=None,
    link_disp="log",
    link_rand_disp=None,
    rotate=True,
) -> Model:
    """Arrays, defaults, and the eigen basis of a spatial term: Z becomes ZG, with lam_j a function of d_j.

    `rotate`: whether the first-order correction uses ZG too (hglm leaves it at Z).
    """
    y, X = np.asarray(y, float), np.asarray(X, float)
    Zs = [np.asarray(Z, float) for Z in Zs]
    Z_correction = np.hstack(Zs)
    X_rand_disp = list(X_rand_disp) if X_rand_disp is not None else [np.ones((Z.shape[1], 1)) for Z in Zs]
    link_rand_disp = list(link_rand_disp) if link_rand_disp is not None else ["log"] * len(Zs)
    rand_families = list(rand_families)
    for k, term in enumerate(rand_families):
        if isinstance(term, Spatial):
            d, G = term.eigen
            Zs[k] = Zs[k] @ G
            X_rand_disp[k] = np.column_stack([np.ones_like(d), d])
            link_rand_disp[k] = LINK_OF_SPATIAL[term.kind]
            rand_families[k] = ("gaussian", "identity")
    ends = np.cumsum([0] + [Z.shape[1] for Z in Zs])
    return Model(
        y=y,
        X=X,
        Z=np.hstack(Zs),
        weights=np.ones_like(y) if weights is None else np.asarray(weights, float),
        offset=np.zeros_like(y) if offset is None else np.asarray(offset, float),
        family=family,
        link=link,
        X_disp=np.ones((len(y), 1)) if X_disp is None else np.asarray(X_disp, float),
        link_disp=link_disp,
        terms=[slice(a, b) for a, b in pairwise(ends)],
        rand_families=rand_families,
        X_rand_disp=X_rand_disp,
        link_rand_disp=link_rand_disp,
        Z_correction=np.hstack(Zs) if rotate else Z_correction,
    )
