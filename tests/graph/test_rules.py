"""Each Op's rule against PyTensor itself: the form of a node, evaluated, is the node's value."""

import numpy as np
import pymc as pm
import pytensor.sparse as ps
import pytensor.tensor as pt
import pytest
import scipy.sparse as sp
from pymc.logprob.utils import CheckParameterValue

import hlik
from hlik.graph import forms as fm
from hlik.graph.forms import Affine, Mapped, Opaque
from hlik.graph.numeric import Interpreter, numpy_function
from hlik.graph.walk import Walker
from tests.graph.problems import evaluate, model_of, plain_values, random_values

rng = np.random.default_rng(3)
D6, D34, D43, D234 = rng.normal(size=6), rng.normal(size=(3, 4)), rng.normal(size=(4, 3)), rng.normal(size=(2, 3, 4))
SPARSE = sp.random_array((5, 6), density=0.5, rng=rng)
INDEX = np.array([5, 0, 0, 3])
MASK = np.array([True, False, True, False, False, True])


def build():
    pm.Normal("v", shape=6)
    pm.Normal("M", shape=(3, 4))
    pm.Normal("c")
    pm.HalfNormal("s")
    pm.HalfNormal("t", shape=6)
    pm.Beta("p", 1, 1, shape=6)
    pm.Uniform("r", -1, 2)
    pm.InverseGamma("g", 3, 2, shape=6, default_transform=None, transform=hlik.reciprocal)
    pm.ZeroSumNormal("z", shape=6)
    pm.Normal("d", 0, 1, shape=6, observed=D6)


MODEL = model_of(build)
v, M, c, s, t, p, r, g, z, observed = (MODEL[name] for name in ("v", "M", "c", "s", "t", "p", "r", "g", "z", "d"))
DATA = pt.as_tensor_variable(D6)
SHARED = pm.Data("shared", D6, model=MODEL)
CSR, CSC = (ps.as_sparse_variable(matrix) for matrix in (sp.csr_matrix(SPARSE), sp.csc_matrix(SPARSE)))

AFFINE = {
    "variable": v,
    "zero-sum variable": z,
    "negative": -v,
    "plus data": v + D6,
    "data minus": D6 - v,
    "sum of three": pt.add(v, D6, c),
    "sum of variables": v + 2 * c - v[::-1],
    "times data": v * D6,
    "product of three": pt.mul(DATA, v, D6),
    "divided by data": v / 4,
    "scalar times data": c * D6,
    "observed values": v + observed,
    "shared data": v * SHARED,
    "slice": v[1:5:2],
    "reversed": v[::-1],
    "element": v[2],
    "index": v[INDEX],
    "matrix index": M[INDEX[:2] % 3, INDEX[:2] % 4],
    "row index": M[INDEX % 3],
    "index and slice": M[INDEX % 3, 1:3],
    "mask": v[MASK],
    "ellipsis": M[..., 1],
    "new axis": v[:, None] * D34[:1, :1],
    "transpose": M.T,
    "reshape": M.reshape((2, 6)),
    "flatten": M.flatten(),
    "squeeze": v[:1].squeeze(),
    "expand": pt.expand_dims(v, 0),
    "broadcast": pt.broadcast_to(c, (3, 2)),
    "repeat": pt.repeat(v, 2),
    "tile": pt.tile(v, 2),
    "diagonal": pt.diag(M[:3, :3]),
    "roll": pt.roll(v, 1),
    "join": pt.concatenate([v, D6, [0.0]]),
    "join columns": pt.concatenate([M, D34], axis=1),
    "stack": pt.stack([c, v[0], 3.0]),
    "stack rows": pt.stack([v, v * D6], axis=1),
    "make vector": pt.as_tensor_variable([c, 2 * c]),
    "set slice": pt.set_subtensor(pt.zeros(7)[1:], v),
    "set constant": v[0].set(0.0),
    "set index": v[INDEX[[0, 1, 3]]].set(D6[:3]),
    "set mask": pt.zeros(6)[MASK].set(v[:3]),
    "add to slice": pt.inc_subtensor(v[1:3], M[0, :2]),
    "split": pt.split(v, [2, 4], n_splits=2)[1],
    "sum": v.sum(),
    "sum over axis": M.sum(axis=0),
    "sum over axes": (M[None] * D234).sum(axis=(0, 2)),
    "sum kept": M.sum(axis=1, keepdims=True),
    "sum of length one": pt.expand_dims(v, 1).sum(axis=1),
    "mean": M.mean(axis=1),
    "zero-sum coding": pt.concatenate([v, -v.sum(keepdims=True)]),
    "cumulative sum": pt.cumsum(v),
    "cumulative sum over axis": pt.cumsum(M, axis=0),
    "cumulative sum, flat": pt.cumsum(M),
    "differences": pt.diff(v),
    "data dot variable": pt.dot(rng.normal(size=(2, 6)), v),
    "variable dot data": v @ rng.normal(size=(6, 2)),
    "inner product": pt.dot(v, D6),
    "matrix dot data": M @ D43,
    "data dot matrix": D43 @ M,
    "matrix dot vector": M @ D234[0, 0],
    "batched": D234 @ M.T,
    "batched stack": pt.matmul(D234, pt.stack([M.T, 2 * M.T])),
    "stack dot matrix": pt.stack([M, M]) @ D43,
    "tensordot": pt.tensordot(M, D43, axes=[[1], [0]]),
    "outer": pt.outer(v, DATA),
    "einsum": pt.einsum("ij,ij->i", M, D34),
    "einsum product": pt.einsum("ij,jk->ik", D43, M),
    "vecdot": pt.vecdot(M, D34),
    "sparse dot": ps.dot(CSR, v),
    "sparse dot column": ps.dot(CSC, v[:, None])[:, 0],
    "structured dot": ps.structured_dot(CSR, v[:, None]),
    "identity": pt.tensor_copy(v),
    "cast": pt.cast(v, "float64"),
    "specified shape": pt.specify_shape(v, (6,)),
    "full like": pt.full_like(D34[0], c),
    "chosen by data": pt.where(MASK, v, D6),
    "chosen between variables": pt.switch(MASK, v, v * D6),
    "chosen always": pt.switch(np.array(True), v, pt.exp(v)),
    "log of positive": pt.log(t),
    "logit": pm.math.logit(p),
    "log odds": pt.log(p) - pt.log1p(-p),
    "log ratio": pt.log(p / (1 - p)),
    "probit back and forth": pm.math.probit(pm.math.invprobit(v)),
    "log of product": pt.log(t * s * pt.exp(v)),
    "reciprocal scale": 1 / g,
    "square of root": pt.sqr(pt.sqrt(pt.exp(pt.log(t)))) / t + v,
    "quotient cancels": (v * s) / s,
    "power cancels": (v**2) / v,
    "shape as number": v / v.shape[0],
    "checked": CheckParameterValue("s > 0")(v, pt.gt(s, -1)),
}

MAPPED = {
    "log transform": t,
    "log-odds transform": p,
    "interval transform": r,
    "reciprocal transform": g,
    "exponential": pt.exp(v),
    "exponential product": pt.exp(v) * t[INDEX[[0, 1, 2, 3, 0, 1]]] * s,
    "exponential times positive data": pt.exp(v) * np.abs(D6),
    "square": v**2,
    "square root": pt.sqrt(t),
    "sigmoid": pm.math.invlogit(v),
    "inverse probit": pm.math.invprobit(v),
    "complementary log-log": 1 - pt.exp(-pt.exp(v)),
    "frailty": 1 - pt.exp(-pt.exp(v) * t),
    "softplus": pm.math.log1pexp(v),
    "tanh": pt.tanh(v),
    "two terms of one form": pt.exp(v) / (1 + pt.exp(v)),
    "uniform coefficients": 0.2 + 0.8 * pm.math.invlogit(2 * v - 1),
    "indexed": pm.math.invlogit(v)[INDEX],
    "transposed": pm.math.invlogit(M).T,
    "reshaped": pt.exp(M).reshape((4, 3)),
    "joined exponentials": pt.concatenate([t, [1.0], pt.exp(c)[None]]),
    "stacked scales": pt.stack([s, 2 * s]),
    "joined functions": pt.concatenate([pm.math.invlogit(v), pm.math.invlogit(M[0])]),
    "chosen exponentials": pt.where(MASK, t, 1.0),
    "sum of length one": pm.math.invlogit(v)[:, None].sum(axis=1),
    "clipped": pt.clip(pm.math.invlogit(v), 0.1, 0.9),
    "maximum": pt.maximum(v, 0.3),
    "absolute": pt.abs(D6 * s),
}

PRODUCT = {
    "signed exponential": D6 * s,
    "bilinear": v * c,
    "rate": s / pm.math.invlogit(v),
    "squared rate": (s / (1 + v**2)) ** 2,
    "root of a product": pt.sqrt(s * p),
    "indexed": (s * p)[INDEX],
    "broadcast": pt.broadcast_to(s * p, (2, 6)),
}

OPAQUE = {
    "sum of functions": pt.exp(v) + pm.math.invlogit(c),
    "sum of exponentials": pt.exp(v).sum(),
    "unequal coefficients": pt.exp(v) + D6,
    "live index": v[pt.cast(c, "int64")],
    "live condition": pt.switch(v > c, v, c),
    "truncation": pt.cast(v, "int64"),
    "determinant": pt.linalg.det(M[:3, :3]),
    "product of variables": M @ M.T,
    "softmax": pm.math.softmax(v),
    "singular values": pt.linalg.svd(M, compute_uv=False),
    "met twice": pt.inc_subtensor(v[np.array([0, 0])], c),
    "mixed join": pt.concatenate([pt.exp(v), v]),
    "product of elements": pt.prod(v),
}


@pytest.fixture(scope="module")
def values():
    return random_values(MODEL)


@pytest.fixture(scope="module")
def expected(values):
    nodes = {
        **AFFINE,
        **{f"mapped {k}": n for k, n in MAPPED.items()},
        **{f"product {k}": n for k, n in PRODUCT.items()},
    }
    return dict(zip(nodes, plain_values(MODEL, list(nodes.values()), values), strict=True))


def assert_form(name, node, kind, values, expected):
    form = Walker(MODEL).form(node)
    assert isinstance(form, kind), getattr(form, "reason", form)
    assert form.shape == expected.shape
    tolerance = 1e-7 if "probit" in name else 1e-12  # PyMC's sqrt(2.0) there has seven digits, hlik's sixteen
    np.testing.assert_allclose(evaluate(form, values), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", AFFINE)
def test_affine(name, values, expected):
    assert_form(name, AFFINE[name], Affine, values, expected[name])


@pytest.mark.parametrize("name", MAPPED)
def test_mapped(name, values, expected):
    assert_form(name, MAPPED[name], Mapped, values, expected[f"mapped {name}"])


@pytest.mark.parametrize("name", PRODUCT)
def test_product(name, values, expected):
    assert_form(name, PRODUCT[name], fm.Product, values, expected[f"product {name}"])


@pytest.mark.parametrize("name", OPAQUE)
def test_opaque(name):
    form = Walker(MODEL).form(OPAQUE[name])
    assert isinstance(form, Opaque)
    assert form.reason
    assert form.inputs


def test_data_are_evaluated_at_once():
    node = pt.log(pt.as_tensor_variable(np.abs(D34))).sum(axis=0)[None, :] @ pt.as_tensor_variable(D43)
    form = Walker(MODEL).form(node)
    np.testing.assert_allclose(form, np.log(np.abs(D34)).sum(axis=0)[None] @ D43)


def test_shapes_are_data():
    assert Walker(MODEL).form(pt.exp(M).shape[1]) == 4
    assert Walker(MODEL).form((M @ M.T).shape[0]) == 3


def test_fixed_variables_are_data():
    walker = Walker(MODEL, {"s": np.array(2.0), "v": np.array(1.0)})
    np.testing.assert_allclose(walker.form(s * v + D6), 2 + D6)
    assert isinstance(walker.form(s * M), Affine)


def test_sums_and_products_of_many_data_do_not_write_into_them():
    """NumPy's add(a, b, c) would write into c."""
    arrays = [np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([5.0, 6.0])]
    copies = [array.copy() for array in arrays]
    variables = [pt.constant(array) for array in arrays]
    walker = Walker(MODEL)
    np.testing.assert_array_equal(walker.form(pt.add(*variables)), [9.0, 12.0])
    np.testing.assert_array_equal(walker.form(pt.mul(*variables)), [15.0, 48.0])
    np.testing.assert_array_equal(numpy_function(pt.add(*variables).owner.op.scalar_op)(*arrays), [9.0, 12.0])
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_interpreter_runs_graphs_with_inner_graphs():
    a, b = pt.dmatrix("a"), pt.dmatrix("b")
    outputs = [pt.einsum("ij,jk->ik", a, b), pt.linalg.kron(a, b), pm.math.softmax(a, axis=1)]
    run = Interpreter([a, b], outputs)
    left, right = rng.normal(size=(2, 3)), rng.normal(size=(3, 2))
    product, kron, softmax = run(left, right)
    np.testing.assert_allclose(product, left @ right)
    np.testing.assert_allclose(kron, np.kron(left, right))
    np.testing.assert_allclose(softmax, np.exp(left) / np.exp(left).sum(axis=1, keepdims=True))
