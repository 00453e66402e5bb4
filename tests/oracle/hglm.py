"""R hglm's algorithm (EQL and EQL1) in plain dense NumPy.

`hglm(...)` follows the R package step by step, its slips and its early stopping included; `hglm(..., fixed_point=True)`
solves the same estimating equations to the end. Symbols: see `model.py`.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .families import LINKS, RANDOM_FAMILIES, Array
from .glm import GLM, glm
from .likelihood import Likelihoods, likelihoods
from .model import (
    Diverged,
    Spatial,
    Step,
    build_model,
    corrected,
    deviances,
    dispersion_glm,
    first_order_correction,
    least_squares,
    observation_weights,
    random_weights,
    working_responses,
)

HGLM_FLOOR = 1e-8  # of a deviance component and of 1 - leverage
FIXED_POINT_FLOOR = 1e-30, 1e-14  # the same, out of the way of a result


@dataclass(frozen=True)
class Dispersions:
    """The dispersion GLMs and their fitted values; `mean_glm` is None where phi is fixed."""

    phi: Array
    lam: Array
    mean_glm: GLM | None
    random_glms: list

    @property
    def first_coefficients(self) -> Array:
        """exp(first coefficient) of each random term: what hglm calls varRanef, whatever the link."""
        return np.exp([g.coef[0] for g in self.random_glms])


@dataclass(frozen=True)
class Fit:
    step: Step
    d: Array
    h: Array
    dispersions: Dispersions
    iterations: int
    converged: bool


@dataclass(frozen=True)
class Result:
    """`ranef` is u, rotated back for CAR and SAR; `v` and `se_v` stay on the scale of the fit (eigen basis).

    Without convergence hglm gives no standard error: they are NaN then.
    """

    fixef: Array
    se_fixef: Array
    t: Array
    p: Array
    df: float  # rounded (half to even) as hglm does; `df_exact` is not
    df_exact: float
    ranef: Array
    v: Array
    se_v: Array
    phi: Array
    lam: Array
    var_fix: float | None  # None with covariates for phi
    var_ranef: Array  # exp(first coefficient): right for a log link and an intercept only
    disp_model: Array | None  # columns: estimate, standard error
    ranef_disp_model: list
    tau_rho: tuple[float, float] | None
    hatvalues: Array
    deviances: Array
    fitted: Array
    resid: Array
    disp_resid: Array | None
    iterations: int
    converged: bool
    likelihoods: Likelihoods | None


def hglm(
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
    fix_disp=None,
    method="EQL",
    conv=None,
    maxit=None,
    fixed_point=False,
    calc_like=False,
) -> Result:
    """Fit an HGLM.

    Zs: one matrix per random-effect term; rand_families: one (family, link of v) or `Spatial` per term. Equal
    entries stand for hglm's one `rand.family` with RandC, different ones for its list of families: then hglm
    drops X_rand_disp and the EQL1 correction without a word, and so does this, unless `fixed_point`.
    A `Spatial` term must be the only one. conv, maxit: 1e-6 and 50 as in hglm; with `fixed_point` 1e-22 and 5000.
    calc_like: also for quasi-models, where hglm's matrix call refuses it. Left out: hglm's `startval`.
    """
    if len(rand_families) > 1 and any(isinstance(term, Spatial) for term in rand_families):
        raise ValueError("a CAR or SAR term must be the only one")
    if not fixed_point and any(term != rand_families[0] for term in rand_families):
        X_rand_disp, method = None, "EQL"
    model = build_model(
        y,
        X,
        Zs,
        family=family,
        link=link,
        rand_families=rand_families,
        weights=weights,
        offset=offset,
        X_disp=X_disp,
        X_rand_disp=X_rand_disp,
        link_disp=link_disp,
        link_rand_disp=link_rand_disp,
        rotate=fixed_point,
    )
    if any(term != ("gaussian", "identity") for term in model.rand_families):
        if fixed_point and method == "EQL1":
            raise ValueError("EQL1 is for gaussian random effects only")
        method = "EQL"
    iterate = iterate_to_fixed_point if fixed_point else iterate_as_hglm
    defaults = (1e-22, 5000) if fixed_point else (1e-6, 50)
    conv, maxit = (default if x is None else x for x, default in zip((conv, maxit), defaults, strict=True))
    with np.errstate(all="ignore"):
        fit = iterate(model, fix_disp=fix_disp, method=method, conv=conv, maxit=maxit)
    return _result(model, fit, rand_families, fix_disp, calc_like)


# --- as hglm does it ------------------------------------------------------------------------------------------------


def iterate_as_hglm(model, *, fix_disp, method, conv, maxit) -> Fit:
    """
    0) b from the GLM without random effects; phi0 = .6 deviance/df, lam0 = .66 phi0 / k (before fix_disp replaces
       phi0); v0 = linkinv(0); weights at eta = Xb + offset and v0. Slips: v0, and V_M at v0 instead of u0, of the
       last term's family for all terms.
    1) b, v by `inner_loop_as_hglm`.
    2) Deviance components and leverages; the dispersion GLMs; weights with their phi, lam.
    3) Stop if ||eta - eta_old||^2 < conv ||eta||^2 and this is not the first iteration.
    4) EQL1: the correction for the next iteration; from the 2nd iteration on if phi is fixed, else from the 3rd.
    """
    control = dict(family=model.family, link=model.link, weights=model.weights, offset=model.offset)
    start = glm(model.y, model.X, **control)
    phi, lam = _starting_dispersions(model, start.deviance.sum(), fix_disp)
    b, v, eta = start.coef, model.u(np.zeros_like(lam)), start.eta
    last_variance = RANDOM_FAMILIES[model.rand_families[-1][0]].variance
    w1, w2 = observation_weights(model, eta, phi), random_weights(model, v, v, lam, last_variance)
    c, stopped = None, False
    for iteration in range(1, maxit + 1):
        step = inner_loop_as_hglm(model, b, v, phi, lam, w1, w2, c, maxit=maxit if c is None else 3)
        b, v, eta_old, eta = step.b, step.v, eta, step.eta
        d, h = deviances(model, eta, v, HGLM_FLOOR), np.minimum(step.leverage, 1 - HGLM_FLOOR)
        dispersions = dispersion_step(model, d, h, phi if fix_disp is not None else None)
        phi, lam = dispersions.phi, dispersions.lam
        w1, w2 = observation_weights(model, eta, phi), random_weights(model, v, model.u(v), lam)
        stopped = iteration > 1 and np.sum((eta - eta_old) ** 2) < conv * np.sum(eta**2)
        if stopped:
            break
        if method == "EQL1" and iteration >= (2 if fix_disp is None else 1):
            c = first_order_correction(model, eta, v, phi, lam, prior_weights=1.0)
    sigma2 = dispersions.first_coefficients
    below_bound = sigma2.max() / (sigma2.sum() + phi) < 1 - 1e-4
    return Fit(step, d, h, dispersions, iteration, bool(stopped and iteration < maxit and below_bound.all()))


def inner_loop_as_hglm(model, b, v, phi, lam, w1, w2, c, *, maxit, tolerance=1e-7) -> Step:
    """Iterated least squares until ||eta - eta_old||^2 < tolerance ||eta||^2.

    The weights of the first pass are those of the step before. Its responses have two slips: eta = Xb + Zu instead
    of Xb + Zv, and r = du/dv at u instead of v; they are harmless for gaussian effects, where u = v. The
    correction c is missing from the first pass (so EQL1 has two corrected passes, and its last weights lag).
    """
    eta, slope_at = model.eta(b, model.u(v)), model.u(v)
    for k in range(maxit):
        z1, z2 = working_responses(model, eta, v, slope_at=slope_at)
        if c is not None and k > 0:
            z1, z2 = corrected(model, w1, w2, z1, z2, c)
        step = least_squares(model, w1, w2, z1, z2)
        eta_old, eta, v, slope_at = eta, step.eta, step.v, None
        if np.sum((eta - eta_old) ** 2) < tolerance * np.sum(eta**2):
            break
        w1, w2 = observation_weights(model, eta, phi), random_weights(model, v, model.u(v), lam)
    return step


def _starting_dispersions(model, deviance, fix_disp) -> tuple[Array, Array]:
    n, p = model.X.shape
    phi0 = 0.6 * deviance / (n - p)
    lam0 = 0.66 * phi0 / len(model.terms)
    return np.full(n, phi0 if fix_disp is None else fix_disp), np.full(model.Z.shape[1], lam0)


def dispersion_step(model, d, h, phi=None, coefs=None, **control) -> Dispersions:
    """One Gamma GLM for the observations (unless phi is given) and one for each random term."""
    n = len(model.y)
    coefs = [None] * (1 + len(model.terms)) if coefs is None else coefs
    mean_glm = None
    if phi is None:
        mean_glm = dispersion_glm(d[:n], h[:n], model.X_disp, model.link_disp, coef=coefs[0], **control)
        phi = mean_glm.fitted
    parts = zip(model.terms, model.X_rand_disp, model.link_rand_disp, coefs[1:], strict=True)
    random_glms = [dispersion_glm(d[n:][t], h[n:][t], X, g, coef=b, **control) for t, X, g, b in parts]
    return Dispersions(phi, np.concatenate([g.fitted for g in random_glms]), mean_glm, random_glms)


# --- to the fixed point ---------------------------------------------------------------------------------------------


def iterate_to_fixed_point(model, *, fix_disp, method, conv, maxit) -> Fit:
    """The same equations without slips: b, v solved to rounding error at each step, no lag anywhere.

    Stops when the sum of squares of the changes of log phi and log lam is below conv. Differences from
    `iterate_as_hglm` in what is solved: no floor of 1e-8 under deviances and 1 - leverage; EQL1 corrects every
    pass, uses the prior weights and, for CAR and SAR, one basis throughout. Standard errors and leverages belong to
    the final phi, lam. A dispersion whose fixed point is zero shrinks for ever (a log link ends at 2e-16).
    """
    level = np.average(model.y, weights=model.weights)
    eta = model.X @ _constant(model.X, model.link, level) + model.offset - np.mean(model.offset)
    v, c = model.by_term(lambda f, g, x: g.link(x + f.psi), np.zeros(model.Z.shape[1])), None
    d = deviances(model, eta, v, 0.0)[: len(model.y)]
    phi, lam = _starting_dispersions(model, d.sum(), fix_disp)
    Xs, links = [model.X_disp, *model.X_rand_disp], [model.link_disp, *model.link_rand_disp]
    levels = [phi[0]] + [lam[0]] * len(model.terms)
    coefs = [_constant(*x) for x in zip(Xs, links, levels, strict=True)]
    converged = False
    for iteration in range(1, maxit + 1):
        step = mode(model, eta, v, phi, lam, c, tolerance=1e-20)
        eta, v = step.eta, step.v
        if method == "EQL1":
            c = first_order_correction(model, eta, v, phi, lam, model.weights)
        d, h = _components_and_leverages(model, step)
        dispersions = dispersion_step(model, d, h, phi if fix_disp is not None else None, coefs, epsilon=1e-15)
        coefs = [g.coef if g else None for g in (dispersions.mean_glm, *dispersions.random_glms)]
        change = np.log(np.concatenate([dispersions.phi / phi, dispersions.lam / lam]))
        phi, lam = dispersions.phi, dispersions.lam
        converged = iteration > 2 and np.sum(change**2) < conv
        if converged:
            break
    step = mode(model, eta, v, phi, lam, c, tolerance=1e-24)
    d, h = _components_and_leverages(model, step)
    return Fit(step, d, h, dispersions, iteration, bool(converged))


def mode(model, eta, v, phi, lam, c, *, maxit=200, tolerance) -> Step:
    """b and v that solve the estimating equations given phi, lam and the correction c.

    A step that turns back on the one before (ratio r < 0) is shortened: the factor that would cancel a linear
    oscillation. It is then halved while inadmissible or, without a correction, while the objective
    sum(d_i/phi_i) + sum(d_j/lam_j) rises.
    """
    objective, x, move, factor = np.inf, np.concatenate([eta, v]), None, 1.0
    for _ in range(maxit):
        eta, v = x[: len(eta)], x[len(eta) :]
        w1, w2 = observation_weights(model, eta, phi), random_weights(model, v, model.u(v), lam)
        z1, z2 = working_responses(model, eta, v)
        if c is not None:
            z1, z2 = corrected(model, w1, w2, z1, z2, c)
        step = least_squares(model, w1, w2, z1, z2)
        move_old, move = move, np.concatenate([step.eta, step.v]) - x
        if move @ move < tolerance * (1 + x @ x):
            return step
        r = 0.0 if move_old is None else move @ move_old / (move_old @ move_old)
        factor = min(1.0, factor / (1 - min(r, 0.99)))
        x, objective = _halve_until_lower(model, x, factor * move, phi, lam, objective if c is None else np.inf)
    raise Diverged(f"no mode after {maxit} steps")


def _halve_until_lower(model, x, move, phi, lam, objective, *, rounding=1e-9) -> tuple[Array, float]:
    n = len(model.y)
    for part in 0.5 ** np.arange(50):
        x_new = x + part * move
        objective_new = _penalised_deviance(model, x_new[:n], x_new[n:], phi, lam)
        if np.isfinite(objective_new) and objective_new <= objective + rounding * abs(objective_new):
            return x_new, objective_new
    raise Diverged("no admissible step")


def _penalised_deviance(model, eta, v, phi, lam) -> float:
    """sum(d_i/phi_i) + sum(d_j/lam_j), infinite where eta or v is inadmissible."""
    pairs = zip(model.terms, model.rand_families, strict=True)
    if not (LINKS[model.link].admits(eta) and all(LINKS[g].admits(v[term]) for term, (_, g) in pairs)):
        return np.inf
    return np.sum(deviances(model, eta, v, 0.0) / np.concatenate([phi, lam]))


def _components_and_leverages(model, step) -> tuple[Array, Array]:
    d_floor, h_floor = FIXED_POINT_FLOOR
    return deviances(model, step.eta, step.v, d_floor), np.minimum(step.leverage, 1 - h_floor)


def _constant(X, link, value) -> Array:
    """Coefficients of a fit that is constant: link(value) projected on X."""
    return np.linalg.lstsq(X, np.full(len(X), LINKS[link].link(np.asarray(float(value)))))[0]


# --- the result -----------------------------------------------------------------------------------------------------


def _result(model, fit, rand_families, fix_disp, calc_like) -> Result:
    n, p = model.X.shape
    step, dispersions = fit.step, fit.dispersions
    se = np.sqrt(np.diag(step.covariance)) if fit.converged else np.full(len(step.covariance), np.nan)
    df_exact = n - step.effective_parameters(model)
    df = np.round(df_exact)
    t = step.b / se[:p]
    fitted = LINKS[model.link].inverse(step.eta)
    spatial = rand_families[0] if isinstance(rand_families[0], Spatial) else None
    u = model.u(step.v)
    return Result(
        fixef=step.b,
        se_fixef=se[:p],
        t=t,
        p=2 * stats.t.sf(np.abs(t), df),
        df=df,
        df_exact=df_exact,
        ranef=u if spatial is None else spatial.eigen[1] @ u,
        v=step.v,
        se_v=se[p:],
        phi=dispersions.phi,
        lam=dispersions.lam,
        var_fix=dispersions.phi[0] if np.ptp(model.X_disp, axis=0).max() == 0 else None,
        var_ranef=dispersions.first_coefficients,
        disp_model=_table(dispersions.mean_glm) if dispersions.mean_glm else None,
        ranef_disp_model=[_table(g) for g in dispersions.random_glms],
        tau_rho=spatial.tau_rho(dispersions.random_glms[0].coef) if spatial else None,
        hatvalues=fit.h,
        deviances=fit.d,
        fitted=fitted,
        resid=(model.y - fitted) / np.sqrt(fit.d.sum() / (n - p)) / np.sqrt(1 - fit.h[:n]),
        disp_resid=_deviance_residuals(fit, n) if dispersions.mean_glm else None,
        iterations=fit.iterations,
        converged=fit.converged,
        likelihoods=likelihoods(model, fit) if calc_like else None,
    )


def _table(g: GLM) -> Array:
    return np.column_stack([g.coef, g.se])


def _deviance_residuals(fit, n) -> Array:
    """Of the dispersion GLM of the observations, over sqrt(1 - its leverage)."""
    g = fit.dispersions.mean_glm
    sign = np.sign(fit.d[:n] / (1 - fit.h[:n]) - g.fitted)
    return sign * np.sqrt(g.deviance) / np.sqrt(1 - g.leverage)
