"""A formula and the model written by hand give the same fit: the same numbers, to 1e-10."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest

import hlik
from models import epilepsy, lip_cancer, seeds, sleepstudy

pytestmark = pytest.mark.filterwarnings("ignore::hlik.ConvergenceWarning")  # a variance at zero compares as well

RNG = np.random.default_rng(5)
N, GROUPS = 120, 12
DATA = pd.DataFrame(
    {
        "x": RNG.normal(size=N),
        "g": np.arange(N) % GROUPS,
        "h": np.arange(N) // 15,
        "c": np.array(list("abcd"))[np.arange(N) // 12 % 4],
    }
)
DATA["place"] = DATA["g"] / 5.0
DATA["w"] = RNG.uniform(0.5, 2, N)
ETA = 1 + 0.5 * DATA["x"] + RNG.normal(0, 0.7, GROUPS)[DATA["g"]] + RNG.normal(0, 0.5, 8)[DATA["h"]]
DATA["y"] = ETA + RNG.normal(0, np.exp(0.3 * DATA["x"]))
DATA["count"] = RNG.poisson(np.exp(ETA))
DATA["positive"] = RNG.gamma(3, np.exp(ETA) / 3)
DATA["yes"] = np.where(RNG.uniform(size=N) < 1 / (1 + np.exp(-ETA)), "yes", "no")

x, g, h, w = (DATA[name].to_numpy() for name in ("x", "g", "h", "w"))
c = DATA["c"].to_numpy()


def normal(name, sigma, size):
    return pm.Normal(name, 0, pm.HalfNormal(sigma, 2), shape=size)


def seeds_by_hand():
    data = seeds.load()
    cucumber, o75 = (data["extract"] == "Cucumber").to_numpy(float), (data["seed"] == "O75").to_numpy(float)
    with pm.Model() as model:
        b = pm.Normal("b", 0, 5, shape=4)
        lam = pm.HalfNormal("lam", 1)
        u = pm.Beta("u", 1 / (2 * lam), 1 / (2 * lam), shape=21)
        eta = b[0] + b[1] * cucumber + b[2] * o75 + b[3] * cucumber * o75 + pm.math.logit(u)
        pm.Binomial("r", n=data["n"].to_numpy(), logit_p=eta, observed=data["r"].to_numpy())
    return model


def slopes_by_hand():
    data = sleepstudy.load()
    subject, days = pd.factorize(data["Subject"])[0], data["Days"].to_numpy(float)
    with pm.Model() as model:
        b = pm.Normal("b", 0, 5, shape=2)
        u, s = normal("u", "sigma_u", 18), normal("s", "sigma_s", 18)
        mu = b[0] + u[subject] + (b[1] + s[subject]) * days
        pm.Normal("Reaction", mu, pm.HalfNormal("sigma", 20), observed=data["Reaction"].to_numpy())
    return model


def lip_cancer_by_hand():
    data = lip_cancer.load()
    with pm.Model() as model:
        b = pm.Normal("b", 0, 5, shape=2)
        v = normal("v", "sigma", 56)
        mu = data["expected"].to_numpy() * pm.math.exp(b[0] + b[1] * data["aff"].to_numpy() + v)
        pm.Poisson("observed", mu, observed=data["observed"].to_numpy())
    return model


def epilepsy_data():
    data = epilepsy.load().assign(group=lambda d: (d["trt"] == "progabide").astype(float))
    return data.assign(visit=(data["period"] - 2.5) / 5)


def crossed_by_hand():
    with pm.Model() as model:
        b = pm.Normal("b", 0, 5, shape=2)
        eta = b[0] + b[1] * x + normal("ug", "sg", GROUPS)[g] + normal("uh", "sh", 8)[h]
        pm.Bernoulli("yes", p=pm.math.invprobit(eta), observed=(DATA["yes"] == "yes").to_numpy())
    return model


def gamma_by_hand():
    with pm.Model() as model:
        b = pm.Normal("b", 0, 5, shape=2)
        lam, alpha = pm.HalfNormal("lam", 1), pm.HalfNormal("alpha", 5)
        u = pm.Gamma("u", 1 / lam, 1 / lam, shape=GROUPS)
        mu = pm.math.exp(b[0] + b[1] * x) * u[g]
        shape = alpha * w
        pm.Gamma("positive", alpha=shape, beta=shape / mu, observed=DATA["positive"].to_numpy())
    return model


def dispersion_by_hand():
    with pm.Model() as model:
        b, d, r = (pm.Normal(name, 0, 5, shape=2) for name in "bdr")
        u = pm.Normal("u", 0, pm.math.exp(0.5 * (r[0] + r[1] * np.arange(GROUPS) / 5.0)), shape=GROUPS)
        pm.Normal("y", b[0] + b[1] * x + u[g], pm.math.exp(0.5 * (d[0] + d[1] * x)), observed=DATA["y"].to_numpy())
    return model


def nested_by_hand():
    inner, levels = pd.factorize(g * 1000 + h, sort=True)
    with pm.Model() as model:
        b = pm.Normal("b", 0, 5, shape=4)
        eta = b[0] + b[1] * (c == "b") + b[2] * (c == "c") + b[3] * (c == "d")
        eta += normal("ug", "sg", GROUPS)[g] + normal("uh", "sh", len(levels))[inner]
        pm.Normal("y", eta, pm.HalfNormal("sigma", 2), observed=DATA["y"].to_numpy())
    return model


def factor_slopes_by_hand():
    with pm.Model() as model:
        b = pm.Normal("b", 0, 5, shape=4)
        u = pm.Normal("u", 0, pm.HalfNormal("s", 2, shape=4)[:, None], shape=(4, GROUPS))
        level = pd.factorize(c, sort=True)[0]
        pm.Poisson("count", pm.math.exp(b[level] + u[level, g]), observed=DATA["count"].to_numpy())
    return model


def polynomial_by_hand():
    with pm.Model() as model:
        b = pm.Normal("b", 0, 5, shape=3)
        root = b[0] + b[1] * x + b[2] * x**2 + normal("u", "s", GROUPS)[g]
        mu = pm.math.exp(root)
        pm.Wald("positive", mu=mu, lam=pm.HalfNormal("lam", 5), observed=DATA["positive"].to_numpy())
    return model


CASES = {
    "beta effects": (
        lambda: hlik.from_formula(
            "r ~ extract * seed + (1 | plate)", seeds.load(), family="binomial", trials="n", random={"plate": "beta"}
        ),
        seeds_by_hand,
    ),
    "independent slopes": (
        lambda: hlik.from_formula("Reaction ~ Days + (Days || Subject)", sleepstudy.load()),
        slopes_by_hand,
    ),
    "offset": (
        lambda: hlik.from_formula(
            "observed ~ aff + offset(log(expected)) + (1 | district)", lip_cancer.load(), family="poisson"
        ),
        lip_cancer_by_hand,
    ),
    "transformations": (
        lambda: hlik.from_formula(
            "y ~ log(base / 4) * group + log(age) + visit + (1 | subject)", epilepsy_data(), family="poisson"
        ),
        lambda: epilepsy.build_poisson(epilepsy.load()),
    ),
    "crossed": (
        lambda: hlik.from_formula("yes ~ x + (1 | g) + (1 | h)", DATA, family="bernoulli", link="probit"),
        crossed_by_hand,
    ),
    "gamma effects, weights": (
        lambda: hlik.from_formula(
            "positive ~ x + (1 | g)", DATA, family="gamma", link="log", random={"1|g": "gamma"}, weights="w"
        ),
        gamma_by_hand,
    ),
    "dispersions": (
        lambda: hlik.from_formula(
            "y ~ x + (1 | g)", DATA, dispersion="~ x", random_dispersion={"g": "~ place"}
        ),
        dispersion_by_hand,
    ),
    "nested": (lambda: hlik.from_formula("y ~ c + (1 | g/h)", DATA), nested_by_hand),
    "slopes of a factor": (
        lambda: hlik.from_formula("count ~ 0 + c + (0 + c || g)", DATA, family="poisson"),
        factor_slopes_by_hand,
    ),
    "powers": (
        lambda: hlik.from_formula("positive ~ x + I(x**2) + (1 | g)", DATA, family="wald", link="log"),
        polynomial_by_hand,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_same_numbers(name):
    """1e-10 relative to the largest number of each kind: both run the same iteration on the same matrices."""
    by_formula, by_hand = (hlik.fit(make(), draws=0, progressbar=False) for make in CASES[name])
    for likelihood in ("h", "p_v_h", "p_bv_h"):
        one, other = float(by_formula.fit[likelihood]), float(by_hand.fit[likelihood])
        assert one == pytest.approx(other, rel=1e-10)
    for group in ("mean_vector", "covariance_matrix"):
        one, other = by_formula.fit[group].to_numpy(), by_hand.fit[group].to_numpy()
        order, other_order = (np.argsort(f.fit["mean_vector"].to_numpy()) for f in (by_formula, by_hand))
        if one.ndim == 1:
            one, other = one[order], other[other_order]
        else:
            one, other = one[np.ix_(order, order)], other[np.ix_(other_order, other_order)]
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10 * np.nanmax(np.abs(other)))
