"""Random effect or parameter: told from the graph, or asked for."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

from hlik import ModelError
from hlik.graph.roles import assign_roles
from hlik.graph.walk import Walker
from tests.graph.problems import GROUPS, N, X, counts, group, model_of, real, region, w, x


def roles_of(build, random=None, fixed=None):
    model = model_of(build)
    values = {name: np.asarray(value, float) for name, value in (fixed or {}).items()}
    return assign_roles(model, Walker(model, values), random)


def poisson(eta):
    pm.Poisson("y", pt.exp(eta), observed=counts)


def centred():
    b, s = pm.Normal("b", shape=3), pm.HalfNormal("s")
    poisson(X @ b + pm.Normal("u", 0, s, shape=GROUPS)[group])


def non_centred():
    b, s = pm.Normal("b", shape=3), pm.HalfNormal("s")
    poisson(X @ b + (s * pm.Normal("u", shape=GROUPS))[group])


@pytest.mark.parametrize("build", [centred, non_centred])
def test_centred_and_non_centred_effects(build):
    roles = roles_of(build)
    assert (roles.random_effects, roles.parameters, roles.unused) == (["u"], ["b", "s"], [])
    assert list(roles.scale_of) == (["u"] if build is non_centred else [])


@pytest.mark.parametrize("build", [centred, non_centred])
def test_random_overrides_the_graph(build):
    assert roles_of(build, random=[]).random_effects == []
    assert roles_of(build, random=["u"]).random_effects == ["u"]
    assert roles_of(build, random=["u", "b"]).random_effects == ["b", "u"]


def test_a_fixed_standard_deviation_keeps_the_effect_random():
    roles = roles_of(centred, fixed={"s": 1.0})
    assert (roles.random_effects, roles.parameters) == (["u"], ["b"])


def test_a_standard_normal_vector_without_a_scale_is_a_parameter():
    def build():
        poisson(pm.Normal("u", shape=GROUPS)[group])

    assert roles_of(build).parameters == ["u"]
    assert roles_of(build, random=["u"]).random_effects == ["u"]


def test_coefficients_under_a_common_scale_are_random():
    def build():
        poisson(X @ pm.Normal("b", 0, pm.HalfNormal("s"), shape=3))

    assert roles_of(build).random_effects == ["b"]


def test_levels_within_levels():
    def build():
        ur = pm.Normal("ur", pm.Normal("m"), pm.HalfNormal("sr"), shape=3)
        ug = pm.Normal("ug", ur[region], pm.HalfNormal("sg"), shape=GROUPS)
        pm.Normal("y", ug[group], pm.HalfNormal("s"), observed=real)

    roles = roles_of(build)
    assert (roles.random_effects, roles.parameters) == (["ur", "ug"], ["m", "sr", "sg", "s"])


def test_variables_that_no_response_depends_on_are_left_out():
    def build():
        centred()
        pm.Normal("prediction", 0, pm.HalfNormal("s2"), shape=5)

    assert roles_of(build).unused == ["s2", "prediction"]


def test_potentials_count():
    def build():
        centred()
        pm.Potential("p", -(pm.Normal("extra") ** 2))

    assert "extra" in roles_of(build).parameters


# ---------------------------------------------------------------- scales


def with_effect(term, shape=GROUPS, **normal):
    """A model with sigma, tau, a vector `each`, and a normal variable u that enters as `term` of all."""

    def build():
        sigma, tau = pm.HalfNormal("sigma"), pm.LogNormal("tau")
        each = pm.HalfNormal("each", shape=2)
        free = pm.Normal("free")
        u = pm.Normal("u", shape=shape, **normal)
        poisson(pm.Normal("b") + term(sigma, tau, each, free, u))

    return build


ARM = np.array([0, 1, 1, 0, 0, 1])

ONE_SCALE = {
    "scalar": lambda s, t, e, f, u: (s * u)[group],
    "two scalars": lambda s, t, e, f, u: (s * t * u)[group],
    "in two steps": lambda s, t, e, f, u: s * (t * u)[group],
    "quotient": lambda s, t, e, f, u: (u / t)[group],
    "minus": lambda s, t, e, f, u: -(s * u)[group],
    "times data": lambda s, t, e, f, u: x * s * u[group],
    "with data between": lambda s, t, e, f, u: (2 * s) * (x * u[group]),
    "after a sum": lambda s, t, e, f, u: s * (X[:, :1] * u[group][:, None]).sum(axis=1),
    "after a cumulative sum": lambda s, t, e, f, u: s * pt.cumsum(u)[group],
    "after reshape": lambda s, t, e, f, u: (s * u.reshape((2, 3))).flatten()[group],
    "by level": lambda s, t, e, f, u: (e[ARM] * u)[group],
    "by level, at the observations": lambda s, t, e, f, u: e[ARM[group]] * u[group],
    "function of two": lambda s, t, e, f, u: pt.sqrt(s * t) * u[group],
    "sum of two": lambda s, t, e, f, u: (s + t) * u[group],
    "positive function of a free one": lambda s, t, e, f, u: (pt.exp(f) * u)[group],
    "twice, the same": lambda s, t, e, f, u: (s * u)[group] + x * (s * u)[group],
    "twice, each with its own product": lambda s, t, e, f, u: (s * u)[group] + x * s * u[group],
}


@pytest.mark.parametrize("name", ONE_SCALE)
def test_one_positive_scale(name):
    roles = roles_of(with_effect(ONE_SCALE[name]))
    assert roles.random_effects == ["u"]
    assert list(roles.scale_of) == ["u"]


def test_a_known_standard_deviation_is_part_of_the_scale():
    roles = roles_of(with_effect(ONE_SCALE["scalar"], sigma=0.5))
    assert list(roles.scale_of) == ["u"]


NOT_ONE_SCALE = {
    "two different": (lambda s, t, e, f, u: (s * u)[group] + x * (t * u)[group], ("sigma", "tau")),
    "by observation": (lambda s, t, e, f, u: e[(x > 0).astype(int)] * u[group], ("each",)),
    "of both signs": (lambda s, t, e, f, u: (f * u)[group], ("free",)),
    "matrix of parameters": (lambda s, t, e, f, u: (pt.outer(e, e) @ u[:2])[ARM[group]], ("each",)),
}


@pytest.mark.parametrize("name", NOT_ONE_SCALE)
def test_other_multipliers_make_a_random_effect_with_loadings(name):
    term, multipliers = NOT_ONE_SCALE[name]
    roles = roles_of(with_effect(term))
    assert (roles.random_effects, dict(roles.multipliers_of)) == (["u"], {"u": multipliers})
    assert "u" in roles.loading_obstacle("u")


ENTERS_WITHOUT_SCALE = {
    "once without": lambda s, t, e, f, u: (s * u)[group] + u[group],
    "square": lambda s, t, e, f, u: (s * u * u)[group],
    "denominator": lambda s, t, e, f, u: (s / u)[group],
    "function": lambda s, t, e, f, u: s * pt.exp(u)[group],
    "shifted": lambda s, t, e, f, u: s * (u[group] + 1),
}


@pytest.mark.parametrize("name", ENTERS_WITHOUT_SCALE)
def test_what_enters_without_a_scale_is_a_parameter(name):
    assert "u" in roles_of(with_effect(ENTERS_WITHOUT_SCALE[name])).parameters


@pytest.mark.parametrize("term", [lambda s, u: (s * u)[group], lambda s, u: s * u[group], lambda s, u: X @ (s * u[:3])])
def test_a_scaled_zero_sum_normal_variable_is_a_random_effect(term):
    def build():
        u = pm.ZeroSumNormal("u", shape=GROUPS)
        poisson(pm.Normal("b") + term(pm.HalfNormal("sigma"), u))

    roles = roles_of(build)
    assert (roles.random_effects, roles.parameters) == (["u"], ["b", "sigma"])
    assert roles.multipliers_of == {"u": ("sigma",)}


def test_a_zero_sum_normal_variable_without_a_scale_is_a_parameter():
    assert "u" in roles_of(lambda: poisson(pm.ZeroSumNormal("u", sigma=2.0, shape=GROUPS)[group])).parameters


def test_a_normal_variable_with_a_mean_is_no_non_centred_effect():
    assert "u" in roles_of(with_effect(ONE_SCALE["scalar"], mu=1.0)).parameters


# ---------------------------------------------------------------- what cannot be told


def hyperprior(shape, use):
    def build():
        tau = pm.HalfNormal("tau")
        sd = pm.HalfNormal("sd", tau, **shape)
        use(sd)

    return build


CANNOT_TELL = {
    "standard deviation of an effect": hyperprior({}, lambda sd: poisson(pm.Normal("u", 0, sd, shape=GROUPS)[group])),
    "several standard deviations": hyperprior(
        {"shape": GROUPS}, lambda sd: poisson(pm.Normal("u", 0, sd, shape=GROUPS)[group])
    ),
    "scale of a non-centred effect": hyperprior({}, lambda sd: poisson((sd * pm.Normal("u", shape=GROUPS))[group])),
    "residual standard deviation": hyperprior(
        {}, lambda sd: pm.Normal("y", pm.Normal("u", 0, pm.HalfNormal("s"), shape=GROUPS)[group], sd, observed=real)
    ),
}


@pytest.mark.parametrize("name", CANNOT_TELL)
def test_roles_that_cannot_be_told_are_asked_for(name):
    build = CANNOT_TELL[name]
    message = r"Cannot tell whether 'sd'.*depends on 'tau'.*random=\['u'\] if .*random=\['u', 'sd'\] if"
    with pytest.raises(ModelError, match=message):
        roles_of(build)
    roles = roles_of(build, random=["u"])
    assert roles.random_effects == ["u"]
    assert "sd" in roles.parameters
    assert roles.unused == ["tau"]


def test_discrete_variables_are_refused():
    def build():
        k = pm.Bernoulli("k", 0.3, shape=GROUPS)
        poisson(pm.Normal("b") * k[group])

    with pytest.raises(ModelError, match=r"'k' is discrete.*fixed=\{'k'"):
        roles_of(build)
    assert roles_of(build, fixed={"k": np.ones(GROUPS)}).parameters == ["b"]


@pytest.mark.parametrize(
    ("random", "message"), [("u", r"write \['u'\]"), (["v"], r"names \['v'\].*It has \['b', 's', 'u'\]")]
)
def test_wrong_names_are_refused(random, message):
    with pytest.raises(ModelError, match=message):
        roles_of(centred, random=random)


def test_missing_responses_are_left_out():
    def build():
        values = np.ma.masked_array(real, mask=np.arange(N) < 2)
        pm.Normal("y", pm.Normal("m", 0, 1) + w[group], pm.HalfNormal("s"), observed=values)

    with pytest.warns(UserWarning, match="missing values"):
        roles = roles_of(build)
    assert (roles.missing, roles.unused, roles.random_effects) == (["y_unobserved"], ["y_unobserved"], [])
