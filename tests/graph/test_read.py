"""Whole models: from `pm.Model` to numbers."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.sparse as sp

import hlik
from hlik.links import LINKS
from tests.graph.problems import (
    GROUPS,
    N,
    X,
    Z,
    binary,
    counts,
    crossed,
    exposure,
    group,
    model_of,
    positive,
    read,
    real,
    region,
    successes,
    trials,
    w,
    x,
)


def test_matrices_offset_and_names():
    model = read(crossed)
    np.testing.assert_array_equal(model.X, np.hstack([X[:, 1:], np.eye(3)[region[group]]]))
    expected = np.hstack([Z, np.eye(3)[np.arange(N) % 3] * x[:, None]])
    np.testing.assert_array_equal(model.Z.toarray(), expected)
    np.testing.assert_allclose(model.offset, np.log(exposure))
    assert model.X_names == ("beta[0]", "beta[1]", "by_region[0]", "by_region[1]", "by_region[2]")
    assert [(e.name, e.index) for e in model.random_effects] == [("u", slice(0, 6)), ("v", slice(6, 9))]
    assert [p.role for p in model.parameters] == ["fixed effect"] * 2 + ["dispersion parameter"] * 2
    (response,) = model.responses
    assert (response.distribution, response.link, response.size) == ("Poisson", LINKS["log"], N)
    np.testing.assert_array_equal(response.y, counts)


def test_labels_come_from_coords():
    def build():
        pm.modelcontext(None).add_coords({"coef": ["one", "x", "z"], "place": list("abcdef")})
        beta = pm.Normal("beta", dims="coef")
        u = pm.Normal("u", 0, pm.HalfNormal("s"), dims="place")
        pm.Poisson("y", pt.exp(X @ beta + u[group]), observed=counts)

    model = read(build)
    assert model.X_names == ("beta[one]", "beta[x]", "beta[z]")
    assert model.random_effects[0].variable.dims == ("place",)
    assert list(model.coords["place"]) == list("abcdef")


def test_binomial_responses_are_proportions_with_trials():
    model = read(lambda: pm.Binomial("y", n=trials, logit_p=pm.Normal("b") * x, observed=successes))
    (response,) = model.responses
    np.testing.assert_allclose(response.y, successes / trials)
    np.testing.assert_array_equal(response.weight, trials)
    np.testing.assert_array_equal(response.trials, trials)


def test_weights_multiply_trials():
    model = read(
        lambda: pm.Binomial("y", n=trials, logit_p=pm.Normal("b") * x, observed=successes),
        weights={"y": np.full(N, 2.0)},
    )
    np.testing.assert_array_equal(model.responses[0].weight, 2 * trials)


def test_several_responses_share_parameters_and_effects():
    def build():
        beta = pm.Normal("beta", shape=3)
        u = pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)
        eta = X @ beta + u[group]
        pm.Poisson("y", pt.exp(eta), observed=counts)
        pm.Bernoulli("z", logit_p=eta[:9] + pm.Normal("shift"), observed=binary[:9])

    model = read(build)
    assert [r.rows for r in model.responses] == [slice(0, N), slice(N, N + 9)]
    np.testing.assert_array_equal(model.Z.toarray(), np.vstack([Z, Z[:9]]))
    shift = np.r_[np.zeros(N), np.ones(9)]
    np.testing.assert_array_equal(model.X, np.column_stack([np.vstack([X, X[:9]]), shift]))


def test_responses_of_several_dimensions_are_read_in_c_order():
    wide = real.reshape(8, 3)

    def build():
        beta, u = pm.Normal("beta", shape=(2, 3)), pm.Normal("u", 0, pm.HalfNormal("s"), shape=8)
        pm.Normal("y", X[:8, :2] @ beta + u[:, None], pm.HalfNormal("sigma", shape=3), observed=wide)

    model = read(build)
    np.testing.assert_array_equal(model.responses[0].y, wide.ravel())
    np.testing.assert_array_equal(model.X, np.kron(X[:8, :2], np.eye(3)))
    np.testing.assert_array_equal(model.Z.toarray(), np.kron(np.eye(8), np.ones((3, 1))))
    theta = np.array([9.0, 0.1, 0.2, 0.3])  # s, sigma
    np.testing.assert_allclose(model.responses[0].dispersion.value(theta), np.tile(np.exp(2 * theta[1:]), 8))


def test_missing_responses_are_left_out():
    mask = np.arange(N) % 5 == 2

    def build():
        u = pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)
        eta = pm.Deterministic("eta", X @ pm.Normal("beta", shape=3) + u[group])
        pm.Normal("y", eta, pm.HalfNormal("sigma"), observed=np.ma.masked_array(real, mask=mask))

    with pytest.warns(UserWarning, match="missing values"):
        model = read(build)
    np.testing.assert_array_equal(model.X, X[~mask])
    np.testing.assert_array_equal(model.Z.toarray(), Z[~mask])
    np.testing.assert_array_equal(model.responses[0].y, real[~mask])
    assert model.left_out == ("y_unobserved",)
    assert [d.name for d in model.deterministics] == ["eta"]


def test_zero_sum_parameters_are_coefficients_of_contrasts():
    def build():
        b = pm.ZeroSumNormal("b", shape=3)
        u = pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)
        pm.Poisson("y", pt.exp(pm.Normal("a") + b[region[group]] + u[group]), observed=counts)

    model = read(build)
    assert not model.obstacles
    contrasts = model.X[:, :2]
    assert model.X.shape == (N, 3)
    by_region = np.array([contrasts[np.flatnonzero(region[group] == k)[0]] for k in range(3)])
    np.testing.assert_allclose(by_region.sum(axis=0), 0, atol=1e-15)


@pytest.mark.filterwarnings("ignore::hlik.ConvergenceWarning")
def test_zero_sum_parameters_are_reported_in_full():
    def build():
        b = pm.ZeroSumNormal("b", shape=3)
        u = pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)
        pm.Poisson("y", pt.exp(pm.Normal("a") + b[region[group]] + u[group]), observed=counts)

    idata = hlik.fit(model_of(build), progressbar=False, draws=8)
    for values in (idata.estimates["b"], idata.posterior["b"][0, 0]):
        assert values.shape == (3,)
        assert abs(float(values.sum())) < 1e-12
    assert idata.unconstrained_estimates["b_zerosum__"].shape == (2,)


def test_random_walks_by_cumulative_sums():
    def build():
        steps = pm.HalfNormal("s") * pm.Normal("z", shape=N)
        pm.Poisson("y", pt.exp(pm.Normal("b") + pt.cumsum(steps)), observed=counts)

    np.testing.assert_array_equal(read(build).Z.toarray(), np.tril(np.ones((N, N))))


@pytest.mark.parametrize(
    ("response", "family", "link"),
    [
        (lambda eta: pm.Exponential("y", scale=pt.exp(eta), observed=positive), "gamma", "log"),
        (lambda eta: pm.Exponential("y", lam=pt.exp(-eta), observed=positive), "gamma", "log"),
        (lambda eta: pm.Poisson("y", eta**2, observed=counts), "poisson", "sqrt"),
        (
            lambda eta: pm.Wald("y", mu=1 / pt.sqrt(eta), lam=2.0, observed=positive),
            "inverse_gaussian",
            "inverse_squared",
        ),
        (lambda eta: pm.Bernoulli("y", p=0.5 + pt.arctan(eta) / np.pi, observed=binary), "bernoulli", "cauchit"),
        (lambda eta: pm.Bernoulli("y", p=pt.exp(-pt.exp(-eta)), observed=binary), "bernoulli", "loglog"),
    ],
)
def test_families_and_links(response, family, link):
    def build():
        response(X @ pm.Normal("beta", shape=3) + pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)[group])

    model = read(build)
    assert not model.obstacles
    assert (model.responses[0].family.name, model.responses[0].link.name) == (family, link)
    np.testing.assert_allclose(model.X, X)


def test_log_normal_effects_are_normal_on_the_log_scale():
    def build():
        u = pm.LogNormal("u", 0, pm.HalfNormal("s"), shape=GROUPS)
        pm.Poisson("y", pt.exp(X @ pm.Normal("beta", shape=3)) * u[group], observed=counts)

    model = read(build)
    assert not model.obstacles
    assert model.random_effects[0].family.name == "normal"
    np.testing.assert_array_equal(model.Z.toarray(), Z)


def test_effects_take_the_shape_of_their_parameters():
    def build():
        mean = pm.Normal("g") * pm.Data("w", w)
        pm.Poisson("y", pt.exp(pm.Normal("u", mean, pm.HalfNormal("s"))[group]), observed=counts)

    np.testing.assert_array_equal(read(build).Z.toarray(), Z)


def test_shapes_may_be_symbolic():
    def build():
        index = pm.Data("index", group)
        u = pm.Normal("u", 0, pm.HalfNormal("s"), shape=index.max() + 1)
        pm.Poisson("y", pt.exp(pm.Normal("b") + u[index]), observed=counts)

    np.testing.assert_array_equal(read(build).Z.toarray(), Z)


def test_one_response_may_be_the_covariate_of_another():
    def build():
        first = pm.Normal("first", pm.Normal("b") * x, 1.0, observed=real)
        pm.Poisson("second", pt.exp(pm.Normal("c") * first), observed=counts)

    zeros = np.zeros(N)
    np.testing.assert_array_equal(read(build).X, np.column_stack([np.r_[x, zeros], np.r_[zeros, real]]))


@pytest.mark.parametrize("dtype", ["float32", "int64", "int8"])
def test_data_of_other_types_become_double(dtype):
    design, cells = np.round(X).astype(dtype), sp.csr_matrix(Z.astype(dtype))

    def build():
        u = pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)
        eta = design @ pm.Normal("beta", shape=3) + pytensor.sparse.dot(pytensor.sparse.as_sparse_variable(cells), u)
        pm.Poisson("y", pt.exp(eta), observed=counts)

    model = read(build)
    np.testing.assert_array_equal(model.X, design)
    np.testing.assert_array_equal(model.Z.toarray(), Z)
    assert model.X.dtype == model.Z.dtype == np.float64


def test_fixed_values_become_data():
    model = read(crossed, fixed={"beta": [1.0, 2.0], "s_u": 0.5})
    np.testing.assert_allclose(model.offset, np.log(exposure) + X[:, 1:] @ [1.0, 2.0])
    np.testing.assert_allclose(model.random_effects[0].dispersion.value(np.zeros(model.n_theta)), 0.25)
    assert [p.name for p in model.parameters] == ["by_region", "s_v"]


DETERMINISTICS = {
    "centred": lambda b, s, z: b + s * z,
    "written twice": lambda b, s, z: z * s + b,
    "itself": lambda b, s, z: 2 * z,
    "both": lambda b, s, z: s * z - z,
    "function": lambda b, s, z: pt.exp(s * z) + pt.exp(b),
    "summary": lambda b, s, z: (s * z).mean(),
    "product": lambda b, s, z: s * b,
    "held": lambda b, s, z: s**2 + b,
}


@pytest.mark.filterwarnings("ignore::hlik.ConvergenceWarning")
@pytest.mark.parametrize("fixed", [None, {"s": 0.7}])
def test_deterministics_have_the_value_of_their_graph(fixed):
    """In forms the name of a non-centred effect stands for its centred self: not in what uses it otherwise."""

    def build():
        b, s, z = pm.Normal("b"), pm.HalfNormal("s"), pm.Normal("z", shape=GROUPS)
        for name, make in DETERMINISTICS.items():
            pm.Deterministic(name, make(b, s, z))
        pm.Poisson("y", pt.exp(b + (s * z)[group]), observed=np.exp(1 + w[group]).astype(int))

    found = hlik.fit(model_of(build), progressbar=False, draws=0, fixed=fixed).estimates
    b, z = float(found["b"]), found["z"].values
    s = fixed["s"] if fixed else float(found["s"])
    for name, make in DETERMINISTICS.items():
        expected = make(*(pt.as_tensor_variable(value) for value in (b, s, z))).eval()
        np.testing.assert_allclose(found[name].values, expected, rtol=1e-10, err_msg=name)


# ---------------------------------------------------------------- what EQL cannot serve


OTHERS = {
    "NegativeBinomial": lambda eta, s: pm.NegativeBinomial("y", mu=pt.exp(eta), alpha=s, observed=counts),
    "StudentT": lambda eta, s: pm.StudentT("y", nu=4, mu=eta, sigma=s, observed=real),
    "Censored": lambda eta, s: pm.Censored("y", pm.Normal.dist(eta, s), lower=None, upper=5, observed=real),
    "Mixture": lambda eta, s: pm.ZeroInflatedPoisson("y", psi=0.7, mu=pt.exp(eta) * s, observed=counts),
    "Beta": lambda eta, s: pm.Beta("y", mu=pm.math.invlogit(eta), nu=s, observed=positive / 20),
    "Weibull": lambda eta, s: pm.Weibull("y", alpha=s, beta=pt.exp(eta), observed=positive),
    "LogNormal": lambda eta, s: pm.LogNormal("y", eta, s, observed=positive),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_distributions_keep_their_predictor_and_say_why(name):
    def build():
        eta = X @ pm.Normal("beta", shape=3) + pm.Normal("u", 0, pm.HalfNormal("s_u"), shape=GROUPS)[group]
        OTHERS[name](eta, pm.HalfNormal("s"))

    model = read(build)
    assert any(f"response 'y' is {name}" in obstacle for obstacle in model.obstacles)
    assert "beta" in [p.name for p in model.fixed_effects]
    if name != "Mixture":  # its density is written in y * eta
        np.testing.assert_allclose(np.abs(model.X[:N, :3]), np.abs(X))


EFFECTS = {
    "StudentT": lambda s: pm.StudentT("u", nu=4, sigma=s, shape=GROUPS),
    "ZeroSumNormal": lambda s: pm.ZeroSumNormal("u", sigma=s, shape=GROUPS),
    "RandomWalk": lambda s: pm.GaussianRandomWalk("u", sigma=s, steps=GROUPS - 1, init_dist=pm.StudentT.dist(4)),
    "Gamma": lambda s: pt.log(pm.Gamma("u", alpha=s, beta=2.0, shape=GROUPS)),
    "InverseGamma": lambda s: 1 / pm.InverseGamma("u", alpha=1 + 1 / s, beta=1 / s, shape=GROUPS),
}


@pytest.mark.parametrize("name", EFFECTS)
def test_other_effects_say_why(name):
    def build():
        pm.Poisson("y", pt.exp(pm.Normal("b") + EFFECTS[name](pm.HalfNormal("s"))[group]), observed=counts)

    model = read(build)
    assert any(f"'u' is {name}" in obstacle or f"'u' ({name})" in obstacle for obstacle in model.obstacles)


def test_correlated_slopes_are_read_as_their_centred_selves():
    def build():
        chol, *_ = pm.LKJCholeskyCov("chol", n=2, eta=2, sd_dist=pm.HalfNormal.dist())
        z = pm.Normal("z", shape=(2, GROUPS))
        u = (chol @ z).T
        pm.Poisson("y", pt.exp(X @ pm.Normal("beta", shape=3) + (u[group] * X[:, :2]).sum(axis=1)), observed=counts)

    model = read(build)
    assert [e.name for e in model.random_effects] == ["z"]
    assert not model.obstacles
    assert model.random_effects[0].precision.pattern.nnz == 3 * GROUPS
