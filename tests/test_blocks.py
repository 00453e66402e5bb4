"""Independent blocks of random effects, found from the sparsity of the design."""

import numpy as np
import pymc as pm
import pytest

from hlik.blocks import Blocks
from hlik.graph.read import read_model
from hlik.hlikelihood import HLikelihood
from tests.likelihoods import GROUP, GROUPS, KINDS


def blocks_of(model):
    return Blocks.of(HLikelihood(read_model(model)))


def crossed(first, second):
    y = np.arange(len(first)) % 3
    with pm.Model() as model:
        mean, s, t = pm.Normal("mean"), pm.HalfNormal("s"), pm.HalfNormal("t")
        u = pm.Normal("u", 0, s, shape=max(first) + 1)
        w = pm.Normal("w", 0, t, shape=max(second) + 1)
        pm.Poisson("y", pm.math.exp(mean + u[np.array(first)] + w[np.array(second)]), observed=y)
    return model


def test_groups_are_blocks_of_one():
    blocks = blocks_of(KINDS["negative_binomial"].build())
    assert blocks.count == GROUPS
    assert blocks.largest == 1
    np.testing.assert_array_equal(blocks.member, np.arange(GROUPS))
    np.testing.assert_array_equal(blocks.case_member, GROUP)


def test_crossed_effects_split_where_nothing_links_them():
    # u0-w0, u0-w1 | u1-w2, u2-w2 | u3-w3
    blocks = blocks_of(crossed([0, 0, 1, 2, 3, 3], [0, 1, 2, 2, 3, 3]))
    np.testing.assert_array_equal(blocks.member, [0, 1, 1, 2, 0, 0, 1, 2])
    np.testing.assert_array_equal(blocks.size, [3, 3, 2])
    np.testing.assert_array_equal(blocks.case_member, [0, 0, 1, 1, 2, 2])
    (two, pairs), (three, triples) = blocks.by_size()
    np.testing.assert_array_equal(two, [2])
    np.testing.assert_array_equal(pairs, [[3, 7]])
    np.testing.assert_array_equal(three, [0, 1])
    np.testing.assert_array_equal(triples, [[0, 4, 5], [1, 2, 6]])
    np.testing.assert_array_equal(blocks.position[[0, 4, 5]], [0, 1, 2])
    np.testing.assert_array_equal(blocks.level_sums() @ np.ones(8), blocks.size)
    np.testing.assert_array_equal(blocks.case_sums() @ np.ones(6), [2, 2, 2])


def test_one_crossing_links_everything():
    assert blocks_of(crossed([0, 0, 1, 2, 3, 3, 0, 2], [0, 1, 2, 2, 3, 3, 2, 3])).count == 1


@pytest.mark.parametrize("kind", ["double_hglm", "growth_curve"])
def test_an_effect_of_each_predictor(kind):
    """Effects of the mean and of the dispersion of a group belong together: one observation has both."""
    likelihood = HLikelihood(read_model(KINDS[kind].build()))
    blocks = Blocks.of(likelihood)
    assert blocks.count == GROUPS
    assert set(blocks.size) == {likelihood.model.n_random // GROUPS}
    np.testing.assert_array_equal(blocks.case_member, GROUP)


def test_cases_without_effects_are_given_to_the_first_block():
    covered = np.array([0, 0, 1, 1])
    with pm.Model() as model:
        mean, s = pm.Normal("mean"), pm.HalfNormal("s")
        u = pm.Normal("u", 0, s, shape=2)
        pm.Poisson("y", pm.math.exp(mean + u[covered]), observed=[1, 2, 3, 4])
        pm.Poisson("z", pm.math.exp(mean + 0.5), shape=3, observed=[1, 2, 3])
    np.testing.assert_array_equal(blocks_of(model).case_member, [0, 0, 1, 1, 0, 0, 0])


def test_salamanders_are_six_blocks_of_twenty(shared):
    from models import salamander

    model = salamander.build(salamander.load(shared / "data" / "salamander_mcemGLM.csv"))
    blocks = blocks_of(model)
    np.testing.assert_array_equal(blocks.size, [20] * 6)


def test_one_block_of_all():
    blocks = Blocks.single(HLikelihood(read_model(KINDS["double_hglm"].build())))
    assert blocks.count == 1
    assert blocks.largest == 2 * GROUPS
