"""The oracle's fixed point: against `got_tight_conv`, and against theory, which needs no record."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

from .families import FAMILIES, LINKS, RANDOM_FAMILIES
from .hglm import Result, dispersion_step, hglm, mode
from .model import Spatial, build_model, deviances
from .reference import BETA, CASES, GAMMA, NORMAL, bacteria, coefficients, lip_cancer, qtlmas, record, truth

INVERSE_GAMMA = ("inverse.gamma", "inverse")

# Largest difference from `got_tight_conv`, relative to the largest element of each vector: 1e-5 but for these.
LAG = "hglm's last weights are those of the pass before, and each iteration starts far away (Xb + Zu for Xb + Zv)"
NOT_CONVERGED = "the record stopped at conv = 1e-12 before its fixed point"
EQL1_LAG = "only two corrected passes an iteration, the first from an uncorrected eta: leverages and SE lag"
TOLERANCES = {
    "rj_example3": (1e-4, LAG),
    "rj_example3_fixdisp": (1e-4, LAG),
    "tut_g1_bacteria": (2e-5, NOT_CONVERGED),
    "tut_g1b_bacteria_fixdisp": (3e-5, NOT_CONVERGED),
    "tut_g3_bacteria_slopes": (2e-4, NOT_CONVERGED),
    "lipcancer_CAR_rotated_EQL": (5e-5, NOT_CONVERGED),
    "tut_lipcancer_CAR_EQL": (5e-5, NOT_CONVERGED),
    "lipcancer_iid_EQL1": (1e-4, EQL1_LAG),
    "lipcancer_CAR_rotated_EQL1": (1e-4, EQL1_LAG),
    "bacteria_EQL1_fixdisp": (2e-2, EQL1_LAG),
}
# Left out: the same model twice; a variance whose fixed point is zero; a correction in two bases at once; too slow.
ELSEWHERE = {"tut_g2_bacteria_matrix", "tut_modelsel_hg1", "tut_lipcancer_CAR_HL11", "tut_qtlmas"}


def estimates(result: Result) -> dict[str, np.ndarray]:
    return {
        "fixef": result.fixef,
        "se_fixef": result.se_fixef,
        "ranef": np.abs(result.ranef),
        "se_ranef": result.se_v,
        "disp_model": np.zeros((1, 2)) if result.disp_model is None else result.disp_model,
        "ranef_disp_model": np.concatenate(result.ranef_disp_model),
    }


def recorded_estimates(expected: dict) -> dict[str, np.ndarray]:
    tables = [coefficients(table) for table in expected["ranef_disp_model"].values()]
    phi_is_fixed = expected["disp_model"] == [1]
    return {
        "fixef": np.array(list(expected["fixef"].values())),
        "se_fixef": np.array(expected["se_fixef"]),
        "ranef": np.abs(expected["ranef"]),  # eigenvectors have no sign
        "se_ranef": np.array(expected["se_ranef"]),
        "disp_model": np.zeros((1, 2)) if phi_is_fixed else coefficients(expected["disp_model"]),
        "ranef_disp_model": np.concatenate(tables),
    }


@pytest.mark.parametrize("name", [name for name in CASES if name not in ELSEWHERE])
def test_agrees_with_r_run_to_a_tight_stopping_rule(name):
    tolerance, _ = TOLERANCES.get(name, (1e-5, ""))
    result, expected = hglm(**CASES[name](), fixed_point=True), record(name)["got_tight_conv"]
    assert result.converged
    assert result.df == expected["df"]
    ours, theirs = estimates(result), recorded_estimates(expected)
    for field, values in theirs.items():
        assert_allclose(ours[field], values, rtol=0, atol=tolerance * np.max(np.abs(values)), err_msg=field)


def test_a_variance_goes_to_zero_where_r_stopped_on_the_way():
    """tut_modelsel_hg1: the second variance of the record is 1.3e-5; its fixed point is zero, so the model hg2."""
    result = hglm(**CASES["tut_modelsel_hg1"](), fixed_point=True, maxit=150)
    expected = record("tut_modelsel_hg1")["got_tight_conv"]
    without = hglm(**CASES["tut_modelsel_hg2"](), fixed_point=True)
    assert not result.converged
    assert result.var_ranef[1] < expected["varRanef"][1]
    assert_allclose(result.var_ranef[0], without.var_ranef[0], rtol=1e-4)
    assert_allclose(result.fixef, without.fixef, rtol=1e-6)


def test_car_by_hand_and_by_name_are_one_model():
    """Where hglm's HL11 differs (0.0812, 0.0409), since its correction mixes two bases."""
    for method in ("EQL", "EQL1"):
        by_name, by_hand = (
            hglm(**CASES[name](), method=method, fixed_point=True)
            for name in ("tut_lipcancer_CAR_EQL", "lipcancer_CAR_rotated_EQL")
        )
        for field in ("fixef", "se_fixef", "v", "se_v", "lam", "hatvalues"):
            assert_allclose(getattr(by_name, field), getattr(by_hand, field), rtol=1e-8, atol=1e-10, err_msg=field)


@pytest.mark.slow  # QR decompositions of a dense 3025 x 2026 matrix
def test_reml_is_the_fixed_point_of_the_animal_model():
    """One more iteration leaves the exact REML estimates where they are (1e-8), but not the record (1e-5)."""
    model, reml = build_model(**qtlmas()), truth("qtlmas_exact_reml")
    n, q = model.Z.shape
    recorded = record("tut_qtlmas")["got_tight_conv"]

    def relative_move(values: dict) -> float:
        phi, lam = np.full(n, values["varFix"]), np.full(q, np.ravel(values["varRanef"])[0])
        step = mode(model, np.zeros(n), np.zeros(q), phi, lam, None, tolerance=1e-20)
        d, h = deviances(model, step.eta, step.v, 0.0), np.minimum(step.leverage, 1 - 1e-14)
        after = dispersion_step(model, np.maximum(d, 1e-30), h)
        return max(abs(after.phi[0] / phi[0] - 1), abs(after.lam[0] / lam[0] - 1))

    assert relative_move(reml) < 1e-8
    assert relative_move(recorded) > 1e-6


# --- theory -----------------------------------------------------------------------------------------------------------

RESPONSES = [
    ("gaussian", "identity"),
    ("gaussian", "log"),
    ("binomial", "logit"),
    ("binomial", "probit"),
    ("binomial", "cloglog"),
    ("poisson", "log"),
    ("poisson", "sqrt"),
    ("Gamma", "log"),
    ("Gamma", "inverse"),
    ("inverse.gaussian", "log"),
    ("inverse.gaussian", "1/mu^2"),
    ("inverse.gaussian", "inverse"),
]
RANDOM = [NORMAL, GAMMA, BETA, INVERSE_GAMMA]


def draw_effects(rng, random, q, lam) -> np.ndarray:
    """v of q random effects with dispersion lam."""
    if random == NORMAL:
        return rng.normal(0, np.sqrt(lam), q)
    if random == GAMMA:
        return np.log(rng.gamma(1 / lam, lam, q))
    if random == INVERSE_GAMMA:
        return rng.gamma(1 + 1 / lam, lam, q)
    u = rng.beta(0.5 / lam, 0.5 / lam, q)
    return np.log(u / (1 - u))


def draw_response(rng, family, mu, phi) -> tuple[np.ndarray, np.ndarray | None]:
    """y and its prior weights."""
    if family == "gaussian":
        return rng.normal(mu, np.sqrt(phi)), None
    if family == "poisson":
        return rng.poisson(mu).astype(float), None
    if family == "Gamma":
        return rng.gamma(1 / phi, mu * phi), None
    if family == "inverse.gaussian":
        return rng.wald(mu, 1 / phi), None
    m = rng.integers(3, 12, len(mu))
    return rng.binomial(m, mu) / m, m.astype(float)


def draw_model(response, random, *, n=80, q=8, phi=0.3, lam=0.3, seed=0) -> dict:
    """One covariate, one grouping factor; phi fixed at 1 for binomial and Poisson."""
    rng, (family, link) = np.random.default_rng(seed), response
    Z = np.eye(q)[np.arange(n) % q]
    X = np.column_stack([np.ones(n), rng.uniform(-1, 1, n)])
    positive = LINKS[link].positive
    eta = X @ [3.0 if positive else 0.5, 0.4] + Z @ draw_effects(rng, random, q, lam)
    y, weights = draw_response(rng, family, LINKS[link].inverse(np.maximum(eta, 0.2) if positive else eta), phi)
    fix_disp = 1.0 if family in ("binomial", "poisson") else None
    return dict(y=y, X=X, Zs=[Z], family=family, link=link, rand_families=[random], weights=weights, fix_disp=fix_disp)


def h_likelihood(call, b, v, phi, lam) -> float:
    """log f(y | v) + log f(v), from densities alone."""
    family, random_family = FAMILIES[call["family"]], RANDOM_FAMILIES[call["rand_families"][0][0]]
    link, link_v = LINKS[call["link"]], LINKS[call["rand_families"][0][1]]
    weights = np.ones(len(phi)) if call.get("weights") is None else call["weights"]
    y, offset = np.asarray(call["y"], float), 0.0 if call.get("offset") is None else np.asarray(call["offset"])
    mu = link.inverse(call["X"] @ b + call["Zs"][0] @ v + offset)
    of_y = family.saturated(y, phi, weights) - family.deviance(y, mu, weights) / (2 * phi)
    of_v = random_family.log_density(link_v.inverse(v), lam) + np.log(np.abs(link_v.first(v)))
    return np.sum(of_y) + np.sum(of_v)


def gradient(function, x, step=1e-5) -> np.ndarray:
    """Central differences."""
    moves = step * np.eye(len(x))
    return np.array([(function(x + move) - function(x - move)) / (2 * step) for move in moves])


@pytest.mark.parametrize("random", RANDOM, ids=lambda x: x[0])
@pytest.mark.parametrize("response", RESPONSES, ids="-".join)
def test_b_and_v_maximise_the_h_likelihood(response, random):
    """True at any dispersions, so ten iterations do. These scales of v are canonical: h and the weights agree."""
    call = draw_model(response, random)
    result = hglm(**call, fixed_point=True, maxit=10)
    p = len(result.fixef)

    def h(x):
        return h_likelihood(call, x[:p], x[p:], result.phi, result.lam)

    assert_allclose(gradient(h, np.concatenate([result.fixef, result.v])), 0, atol=1e-5)


@pytest.mark.parametrize("random", RANDOM, ids=lambda x: x[0])
def test_dispersion_is_the_ratio_of_sums(random):
    """With a log link and an intercept only, phi = sum d / sum(1 - h), and so lam."""
    call = draw_model(("Gamma", "log"), random)
    result, n = hglm(**call, fixed_point=True), len(call["y"])
    ratios = [
        np.sum(result.deviances[part]) / np.sum(1 - result.hatvalues[part]) for part in (slice(n), slice(n, None))
    ]
    assert result.converged
    assert_allclose([result.phi[0], result.lam[0]], ratios, rtol=1e-9)


def reml_projection(X, V) -> np.ndarray:
    """P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1."""
    V_inverse = np.linalg.inv(V)
    return V_inverse - V_inverse @ X @ np.linalg.solve(X.T @ V_inverse @ X, X.T @ V_inverse)


def test_gaussian_models_are_reml():
    """Two crossed terms: REML scores y'P dV P y - tr(P dV) vanish, b is GLS; pvh and pbvh are ML and REML."""
    rng, n = np.random.default_rng(1), 90
    Zs = [np.eye(6)[np.arange(n) % 6], np.eye(15)[rng.permutation(np.arange(n) % 15)]]
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    y = X @ [1.0, -0.5] + Zs[0] @ rng.normal(0, 1, 6) + Zs[1] @ rng.normal(0, 0.7, 15) + rng.normal(0, 0.8, n)
    call = dict(family="gaussian", link="identity", rand_families=[NORMAL, NORMAL])
    fit = hglm(y, X, Zs, **call, fixed_point=True, calc_like=True)
    parts = [np.eye(n)] + [Z @ Z.T for Z in Zs]
    V = sum(s * part for s, part in zip([fit.var_fix, *fit.var_ranef], parts, strict=True))
    P, C = reml_projection(X, V), np.linalg.inv(X.T @ np.linalg.solve(V, X))
    assert fit.converged
    for part in parts:
        assert_allclose(y @ P @ part @ P @ y, np.trace(P @ part), rtol=1e-9)
    assert_allclose(fit.fixef, C @ X.T @ np.linalg.solve(V, y), rtol=1e-10)
    assert_allclose(fit.se_fixef, np.sqrt(np.diag(C)), rtol=1e-9)
    marginal = multivariate_normal.logpdf(y, X @ fit.fixef, V)
    assert_allclose(fit.likelihoods.pvh, marginal, rtol=1e-10)
    restricted = marginal + 0.5 * np.linalg.slogdet(2 * np.pi * C)[1]
    assert_allclose(fit.likelihoods.pbvh, restricted, rtol=1e-10)


@pytest.mark.parametrize("kind", ["CAR", "SAR"])
def test_gaussian_spatial_models_are_reml(kind):
    """V = phi I + tau Z S(rho) Z', S = (I - rho D)^-1 (CAR) or (I - rho D)^-1 (I - rho D)^-T (SAR)."""
    rng, q = np.random.default_rng(3), 40
    D = np.eye(q, k=1) + np.eye(q, k=-1)  # districts in a row
    Z = np.eye(q)[np.repeat(np.arange(q), 4)]
    X = np.ones((len(Z), 1))

    def V(phi, tau, rho):
        S = np.linalg.inv(np.eye(q) - rho * D)
        return phi * np.eye(len(Z)) + tau * Z @ (S if kind == "CAR" else S @ S.T) @ Z.T

    y = 1 + np.linalg.cholesky(V(0.5, 0.8, 0.35)) @ rng.normal(size=len(Z))
    call = dict(family="gaussian", link="identity", rand_families=[Spatial(kind, D)])
    fit = hglm(y, X, [Z], **call, fixed_point=True)
    theta = np.array([fit.var_fix, *fit.tau_rho])
    P = reml_projection(X, V(*theta))
    assert fit.converged
    for move in 1e-5 * np.eye(3):
        dV = (V(*(theta + move)) - V(*(theta - move))) / 2e-5
        assert_allclose(y @ P @ dV @ P @ y, np.trace(P @ dV), rtol=1e-6)
    assert_allclose(fit.ranef, np.linalg.eigh(D)[1][:, ::-1] @ fit.v, atol=1e-12)


def p_v_h(call, b, v, lam) -> float:
    """h - 1/2 log|H/2pi| at the mode of v given b; canonical link, phi = 1, normal effects."""
    family, link, Z, phi = FAMILIES[call["family"]], LINKS[call["link"]], call["Zs"][0], np.ones(len(call["y"]))
    weights = np.ones(len(phi)) if call.get("weights") is None else call["weights"]
    offset = 0.0 if call.get("offset") is None else np.asarray(call["offset"])
    for _ in range(20):
        mu = link.inverse(call["X"] @ b + Z @ v + offset)
        H = Z.T @ ((weights * family.variance(mu))[:, None] * Z) + np.diag(1 / lam)
        v = v + np.linalg.solve(H, Z.T @ (weights * (np.asarray(call["y"]) - mu)) - v / lam)
    return h_likelihood(call, b, v, phi, lam) - 0.5 * np.linalg.slogdet(H / (2 * np.pi))[1]


@pytest.mark.parametrize("data", ["bacteria", "lip cancer", "drawn, with weights"])
def test_eql1_maximises_the_laplace_approximation_in_b(data):
    """HL(1,1) with a canonical link: b has d p_v(h) / db = 0, prior weights included."""
    calls = {
        "bacteria": lambda: bacteria(fix_disp=1.0),
        "lip cancer": lip_cancer,
        "drawn, with weights": lambda: draw_model(("binomial", "logit"), NORMAL),
    }
    call = calls[data]()
    result = hglm(**call, method="EQL1", fixed_point=True)
    assert result.converged
    slope = gradient(lambda b: p_v_h(call, b, result.v, result.lam), result.fixef)
    assert_allclose(slope * result.se_fixef, 0, atol=1e-6)


@pytest.mark.parametrize("method", ["EQL", "EQL1"])
def test_binomial_counts_are_bernoulli_trials(method):
    call = draw_model(("binomial", "logit"), NORMAL)
    trials, successes = call["weights"].astype(int), np.round(call["weights"] * call["y"]).astype(int)
    y = np.concatenate([np.arange(m) < r for m, r in zip(trials, successes, strict=True)]).astype(float)
    rows = np.repeat(np.arange(len(trials)), trials)
    single = call | dict(y=y, X=call["X"][rows], Zs=[call["Zs"][0][rows]], weights=None)
    counts, bernoulli = (hglm(**c, method=method, fixed_point=True) for c in (call, single))
    for field in ("fixef", "se_fixef", "v", "se_v", "lam"):
        assert_allclose(getattr(counts, field), getattr(bernoulli, field), rtol=1e-8, atol=1e-10, err_msg=field)


def test_refuses_a_correction_it_does_not_know():
    with pytest.raises(ValueError, match="gaussian random effects only"):
        hglm(**draw_model(("poisson", "log"), GAMMA), method="EQL1", fixed_point=True)
