"""`inspect`: a small report in plain words, for models that can be fitted and for those that cannot."""

import re
import textwrap

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import hlik
from hlik import ModelError
from hlik.fit import ESTIMATORS
from hlik.inspection import Inspection
from tests.graph.problems import (
    GROUPS,
    N,
    X,
    binary,
    counts,
    exposure,
    group,
    model_of,
    positive,
    real,
    successes,
    trials,
    w,
    x,
)


def report(build, **arguments):
    return str(hlik.inspect(model_of(build), **arguments))


def block(text):
    return textwrap.dedent(text).strip()


def beta_binomial():
    beta, lam = pm.Normal("beta", shape=3), pm.HalfNormal("lam")
    u = pm.Beta("u", 1 / (2 * lam), 1 / (2 * lam), shape=GROUPS)
    pm.Binomial("y", n=trials, logit_p=X @ beta + pm.math.logit(u)[group], observed=successes)


def test_a_whole_report():
    assert report(beta_binomial) == block(
        """
        Responses
          y: Binomial, link logit, 24 observations
            predictor: beta + u
            dispersion: 1
        Random effects
          u: Beta, 6 levels, v = logit u (u_logodds__), 1 entries a row
            dispersion: log-linear in lam
        Parameters
          beta: fixed effect, shape (3,)
          lam: dispersion parameter, shape ()
        Estimators
        """
    ) + "".join(f"\n  {estimator().name}: applies" for estimator in ESTIMATORS.values())


def several_terms():
    a, b, g = pm.Normal("a"), pm.Normal("b"), pm.Normal("g", shape=2)
    mean = pm.Normal("u", a, pm.HalfNormal("s_u"), shape=GROUPS)
    z = pm.Normal("z", shape=GROUPS)
    eta = mean[group] + x * (pt.exp(g[0] + g[1] * w) * z)[group] + b * x + np.log(exposure)
    pm.Gamma("y", alpha=pm.HalfNormal("alpha"), beta=pm.modelcontext(None)["alpha"] / pt.exp(eta), observed=positive)
    pm.Normal("unrelated")


def test_terms_scales_and_dispersions():
    text = report(several_terms)
    for line in (
        "y: Gamma, link log, 24 observations",
        "predictor: a + b + u + z + offset",
        "dispersion: log-linear in alpha",
        "u: Normal, 6 levels, v = u - its mean (u), 1 entries a row",
        "z: Normal (non-centred), 6 levels, v = z * its scale (z), 1 entries a row",
        "dispersion: log-linear in g, one value each",
        "Left out (no observed value depends on them)\n  unrelated",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("sigma", "words"),
    [
        (lambda: 2.0, "dispersion: 4"),
        (lambda: np.exp(x), "dispersion: known, one value each"),
        (lambda: pm.HalfNormal("s"), "dispersion: log-linear in s"),
        (lambda: pt.sqrt(5 + pm.Normal("g") * x), "dispersion: linear in g, one value each"),
        (lambda: 1 / pt.sqrt(5 + pm.Normal("g") * x), "dispersion: linear on the inverse in g, one value each"),
        (lambda: pm.Flat("s"), "dispersion: linear on the sqrt link in s"),
        (lambda: pt.sqrt(pm.HalfNormal("a") * pm.Beta("b", 1, 1)), "dispersion: a function of a, b"),
    ],
)
def test_dispersions_in_words(sigma, words):
    assert words in report(lambda: pm.Normal("y", pm.Normal("m") * x, sigma(), observed=real))


def test_a_model_without_random_effects():
    text = report(lambda: pm.Poisson("y", pt.exp(X @ pm.Normal("beta", shape=3)), observed=counts))
    assert "Random effects\n  none\nParameters" in text


def test_fixed_values_and_roles_are_passed_on():
    model = model_of(beta_binomial)
    assert "dispersion: 0.2\n" in str(hlik.inspect(model, fixed={"lam": 0.2}))
    assert "Random effects\n  none" in str(hlik.inspect(model, random=[]))
    with pytest.raises(ModelError, match="random="):
        hlik.inspect(model, random="u")


# ---------------------------------------------------------------- models that EQL cannot serve


def eta():
    return X @ pm.Normal("beta", shape=3) + pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)[group]


def poisson_of(effect):
    return lambda: pm.Poisson("y", pt.exp(pm.Normal("b") + effect(pm.HalfNormal("s"))[group]), observed=counts)


def lkj():
    chol, *_ = pm.LKJCholeskyCov("chol", n=2, eta=2, sd_dist=pm.HalfNormal.dist())
    u = pm.MvNormal("u", np.zeros(2), chol=chol, shape=(GROUPS, 2))
    pm.Poisson("y", pt.exp((u[group] * X[:, :2]).sum(axis=1)), observed=counts)


def gaussian_process():
    ell = pm.Gamma("ell", 2, 1)
    f = pm.gp.Latent(cov_func=pm.gp.cov.ExpQuad(1, ell)).prior("f", X=x[:, None])
    pm.Poisson("y", pt.exp(f), observed=counts)


UNKNOWN = {
    "negative binomial": (
        lambda: pm.NegativeBinomial("y", mu=pt.exp(eta()), alpha=pm.HalfNormal("a"), observed=counts),
        "response 'y' is NegativeBinomial",
    ),
    "student response": (
        lambda: pm.StudentT("y", nu=4, mu=eta(), sigma=1.0, observed=real),
        "response 'y' is StudentT",
    ),
    "custom": (
        lambda: pm.CustomDist("y", eta(), logp=lambda value, mu: -((value - mu) ** 2), observed=real),
        "response 'y' is CustomDist",
    ),
    "ordered": (
        lambda: pm.OrderedLogistic("y", eta=eta(), cutpoints=np.array([-1.0, 1.0]), observed=np.arange(N) % 3),
        "response 'y' is Categorical",
    ),
    "student effect": (
        poisson_of(lambda s: pm.StudentT("u", nu=4, sigma=s, shape=GROUPS)),
        "random effect 'u' is StudentT",
    ),
    "multivariate t": (
        poisson_of(lambda s: pm.MvStudentT("u", nu=4, mu=np.zeros(GROUPS), scale=s**2 * np.eye(GROUPS))),
        "random effect 'u' is MvStudentT",
    ),
    "potential": (
        lambda: (pm.Bernoulli("y", logit_p=eta(), observed=binary), pm.Potential("soft", -(eta_of_model() ** 2))),
        "the potential 'soft' is a free term of the likelihood",
    ),
    "wrong scale": (
        poisson_of(lambda s: pm.Gamma("u", 1 / s, 1 / s, shape=GROUPS)),
        "random effect 'u' enters non-linearly: add pt.log(u)",
    ),
    "positive coefficient": (
        lambda: pm.Poisson("y", pt.exp(pm.HalfNormal("b") * x + pm.Normal("a")), observed=counts),
        "'b' is constrained (PyMC works with 'b_log__' = pt.log(b)): give it an unbounded prior",
    ),
    "bounded coefficients": (
        lambda: pm.Poisson("y", pt.exp(X @ pm.Uniform("b", -5, 5, shape=3)), observed=counts),
        "'b' is constrained (PyMC works with 'b_interval__'): give it an unbounded prior",
    ),
    "clipped": (
        lambda: pm.Bernoulli("y", p=pt.clip(pm.math.invlogit(eta()), 0.05, 0.95), observed=binary),
        "the function between them is no inverse link that hlik knows; write it plainly",
    ),
    "item response": (
        lambda: pm.Bernoulli(
            "y",
            logit_p=pm.LogNormal("a", shape=4) * (pm.Normal("th", shape=6)[:, None] - pm.Normal("d", shape=4)),
            observed=binary.reshape(6, 4),
        ),
        "it holds a product (or another nonlinear function) of some of 'a', 'd' and 'th'",
    ),
    "mean of an effect": (
        poisson_of(lambda s: pt.log(pm.Gamma("u", alpha=s, beta=3.0, shape=GROUPS))),
        "random effect 'u' is Gamma: EQL needs it as Gamma(alpha=1/lam, beta=1/lam)",
    ),
}


def car():
    tau = pm.HalfNormal("tau")
    u = pm.CAR("u", np.zeros(GROUPS), np.eye(GROUPS)[::-1], alpha=0.5, tau=tau, shape=GROUPS)
    pm.Poisson("y", pt.exp(pm.Normal("b") + u[group]), observed=counts)


@pytest.mark.parametrize(("build", "kind"), [(car, "CAR"), (lkj, "MvNormal"), (gaussian_process, "f_rotated_")])
def test_joint_normal_effects_suit_eql(build, kind):
    text = report(build)
    assert kind in text
    assert "EQL: applies" in text


def eta_of_model():
    return pm.modelcontext(None)["beta"].sum()


@pytest.mark.parametrize("name", UNKNOWN)
def test_why_eql_does_not_apply(name):
    build, reason = UNKNOWN[name]
    text = report(build)
    assert reason in re.sub(r"\s+", " ", text)
    assert "EQL: does not apply, because\n    - " in text
    assert "EQL: applies" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_what_to_do_when_only_some_estimators_apply():
    text = report(UNKNOWN["negative binomial"][0])
    assert "\n  Laplace: applies\n" in text
    assert text.endswith('\nTo fit the model as it is: hlik.fit(model, "laplace")')


def test_what_to_do_when_none_applies():
    text = str(Inspection((), (), (), {"EQL": ["of this"], "Laplace": ["of that"]}))
    assert "EQL: does not apply, because\n    - of this\n  Laplace: does not apply" in text
    assert text.endswith("Change what is said above; none of the estimators can fit the model as it is.")


def test_the_parts_are_data():
    found = hlik.inspect(model_of(UNKNOWN["negative binomial"][0]))
    assert found.responses[0]["distribution"] == "NegativeBinomial"
    assert found.responses[0]["link"] == "log"
    assert [e["name"] for e in found.random_effects] == ["u"]
    assert {p["name"]: p["role"] for p in found.parameters}["beta"] == "fixed effect"
    assert found.estimators["Laplace"] == []
    assert len(found.estimators["EQL"]) == 1
