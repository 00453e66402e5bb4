"""Models from matrices: equal to those from formulas; refusals; Z stays sparse."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import hlik
from hlik.graph.read import read_model

RNG = np.random.default_rng(8)
N = 48
g, h = np.arange(N) % 8, np.arange(N) // 8
DATA = pd.DataFrame({"x": RNG.normal(size=N), "g": g, "h": h, "z": RNG.normal(size=N), "place": g / 4.0})
ETA = 0.5 + DATA["x"] + RNG.normal(0, 0.8, 8)[g] + RNG.normal(0, 0.8, 6)[h]
DATA["y"] = RNG.poisson(np.exp(ETA))
DATA["t"] = ETA + RNG.normal(0, 0.5, N)
X = pd.DataFrame({"Intercept": 1.0, "x": DATA["x"]})
ZG, ZH = np.eye(8)[g], sp.csr_array(np.eye(6)[h])


def fits(*models):
    return [hlik.fit(model, draws=0, progressbar=False) for model in models]


def same(one, other, names):
    for name, other_name in names.items():
        np.testing.assert_allclose(
            one.estimates[name].to_numpy().ravel(),
            other.estimates[other_name].to_numpy().ravel(),
            rtol=1e-9,
            atol=1e-12,
        )
    assert float(one.fit["p_v_h"]) == pytest.approx(float(other.fit["p_v_h"]), rel=1e-10)


def test_several_matrices_dense_and_sparse():
    by_matrices, by_formula = fits(
        hlik.from_matrices(DATA["y"], X, {"g": ZG, "h": ZH}, family="poisson", random={"h": "gamma"}, offset=DATA["z"]),
        hlik.from_formula(
            "y ~ x + offset(z) + (1 | g) + (1 | h)", DATA, family="poisson", random={"h": "gamma"}
        ),
    )  # fmt: skip
    same(by_matrices, by_formula, {"g": "1|g", "h": "1|h", "g_sigma": "1|g_sigma", "h_lam": "1|h_lam"})
    beta = by_matrices.estimates["beta"]
    assert list(beta.coords["beta_dim"].values) == ["Intercept", "x"]
    assert float(beta[1]) == pytest.approx(float(by_formula.estimates["x"]), rel=1e-9)


def test_dispersions_and_weights():
    design = np.column_stack([np.ones(N), DATA["z"]])
    w = np.exp(DATA["x"])
    by_matrices, by_formula = fits(
        hlik.from_matrices(
            DATA["t"],
            X,
            {"g": ZG},
            dispersion=design,
            random_dispersion={"g": np.column_stack([np.ones(8), np.arange(8) / 4])},
            weights=w,
        ),
        hlik.from_formula(
            "t ~ x + (1 | g)", DATA, dispersion="~ z", random_dispersion={"g": "~ place"}, weights=w
        ),
    )  # fmt: skip
    same(by_matrices, by_formula, {"g": "1|g"})
    for ours, names in {
        "dispersion_beta": ["dispersion_Intercept", "dispersion_z"],
        "g_dispersion_beta": ["1|g_dispersion_Intercept", "1|g_dispersion_place"],
    }.items():
        theirs = [float(by_formula.estimates[name]) for name in names]
        np.testing.assert_allclose(by_matrices.estimates[ours], theirs, rtol=1e-7)


def test_effects_with_shared_columns():
    """A matrix with several entries a row: multiple membership, as of parents."""
    Z = sp.csr_array((np.full(2 * N, 0.5), (np.repeat(np.arange(N), 2), np.column_stack([g, (g + 1) % 8]).ravel())))
    read = read_model(hlik.from_matrices(DATA["t"], X, Z))
    assert [effect.name for effect in read.random_effects] == ["u"]
    np.testing.assert_allclose(read.Z.toarray(), Z.toarray())


def test_a_large_matrix_stays_sparse():
    n, q = 20_000, 10_000
    Z = sp.csr_array((np.ones(n), (np.arange(n), np.arange(n) % q)), shape=(n, q))
    model = hlik.from_matrices(RNG.normal(size=n), np.ones((n, 1)), [Z])
    assert sp.issparse(model["u1_Z"].get_value())
    assert read_model(model).Z.nnz == n


def test_a_full_matrix_stays_dense():
    markers = RNG.choice([-1.0, 1.0], (N, 200))
    model = hlik.from_matrices(DATA["t"], X, {"marker": markers})
    assert isinstance(model["marker_Z"].get_value(), np.ndarray)
    sparse = hlik.from_matrices(DATA["t"], X, {"marker": sp.csr_array(markers)})
    one, other = fits(model, sparse)
    assert float(one.fit["p_bv_h"]) == pytest.approx(float(other.fit["p_bv_h"]), abs=1e-6)


def test_names():
    model = hlik.from_matrices(DATA["t"].to_numpy(), X.to_numpy(), [ZG, ZH])
    assert [variable.name for variable in model.free_RVs] == ["beta", "u1_sigma", "u1", "u2_sigma", "u2", "sigma"]
    assert [variable.name for variable in model.observed_RVs] == ["y"]
    assert model.coords["beta_dim"] == ("0", "1")


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((np.ones((3, 1)), np.ones((3, 1))), {}, r"y must have shape \(n,\)"),
        (([1.0, np.nan], np.ones((2, 1))), {}, "not finite: leave those rows out"),
        (([1.0, 2.0], np.ones((3, 1))), {}, r"X must have shape \(2, p\).*got \(3, 1\)"),
        (([1.0, 2.0], [[1.0], [np.inf]]), {}, "X is not finite in row 1, column 0"),
        (([1.0, 2.0], np.ones((2, 1)), np.ones((3, 4))), {}, r"Z\['u'\] must have shape \(2, q\).*got \(3, 4\)"),
        (([1.0, 2.0], np.ones((2, 1)), [[[1, np.nan], [0, 1]]]), {}, r"Z\['u1'\] has entries that are not finite"),
        (([1.0, 2.0], np.ones((2, 1)), np.eye(2)), {"random": {"v": "beta"}}, "random= names .v., which is no"),
        (([1.0, 2.0], np.ones((2, 1))), {"offset": [1.0]}, r"offset must be a number or 2 finite numbers"),
        (([1, 2], np.ones((2, 1))), {"family": "binomial"}, "needs the numbers of trials"),
        (([1.0, 2.0], np.ones((2, 1))), {"dispersion": np.ones((3, 1))}, r"dispersion must have shape \(2, p\)"),
        (
            ([1.0, 2.0], np.ones((2, 1)), np.eye(2)),
            {"random_dispersion": {"u": np.ones((3, 1))}},
            r"random_dispersion\['u'\] must have shape \(2, p\)",
        ),
    ],
)  # fmt: skip
def test_refusals(arguments, settings, message):
    with pytest.raises(hlik.ModelError, match=message):
        hlik.from_matrices(*arguments, **settings)
