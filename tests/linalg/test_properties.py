"""Random sparse patterns of all shapes, drawn by Hypothesis: every kernel agrees with dense linear algebra."""

import numpy as np
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from hlik.linalg import BorderedSystem, analyze, lower_values

from .problems import with_random_values


@st.composite
def definite_matrices(draw):
    """A sparse symmetric positive definite matrix of up to 40 columns."""
    size = draw(st.integers(1, 40))
    node = st.integers(0, size - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=120))
    rows, columns = (np.array([edge[k] for edge in edges], dtype=int) for k in (0, 1))
    upper = sp.coo_array((np.ones(len(edges)), (rows, columns)), shape=(size, size))
    pattern = sp.csc_array(upper + upper.T + sp.eye_array(size))
    return with_random_values(pattern, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))


@settings(max_examples=150)
@given(
    A=definite_matrices(),
    kernel=st.sampled_from(["dense", "simplicial", "supernodal"]),
    ordering=st.sampled_from(["auto", "natural", "largest_first", "amd_dense_last", "amd"]),
)
def test_kernels_on_random_patterns(A, kernel, ordering):
    symbolic = analyze(A, ordering, kernel)
    factor = symbolic.factor(lower_values(A))
    inverse = np.linalg.inv(A.toarray())
    scale = np.abs(inverse).max()
    b = np.arange(1.0, A.shape[0] + 1)
    np.testing.assert_allclose(factor.solve(b), inverse @ b, rtol=1e-12, atol=1e-12 * scale * b.sum())
    np.testing.assert_allclose(factor.logdet(), np.linalg.slogdet(A.toarray())[1], rtol=1e-12, atol=1e-11)
    expected = inverse[symbolic.indices, symbolic.pattern.columns()]
    np.testing.assert_allclose(factor.selected_inverse(), expected, rtol=0, atol=1e-12 * scale)


@settings(max_examples=60)
@given(
    A=definite_matrices(),
    n=st.integers(0, 30),
    p=st.integers(0, 3),
    density=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32 - 1),
    kernel=st.sampled_from(["auto", "simplicial", "supernodal"]),
)
def test_bordered_systems_on_random_designs(A, n, p, density, seed, kernel):
    rng = np.random.default_rng(seed)
    X, w = rng.normal(size=(n, p)), rng.gamma(2.0, size=n)
    Z = sp.random_array((n, A.shape[0]), density=density, rng=rng, format="csr")
    prior_x = np.full(p, 0.5)
    system = BorderedSystem(X, Z, A, kernel=kernel)
    bordered = system.factor(w, lower_values(A), prior_x)
    T = np.hstack([X, Z.toarray()])
    H = T.T @ (w[:, None] * T)
    H[:p, :p] += np.diag(prior_x)
    H[p:, p:] += A.toarray()
    inverse = np.linalg.inv(H)
    tolerance = 1e-12 * np.abs(inverse).max() * max(1.0, np.abs(H).max())
    np.testing.assert_allclose(bordered.logdet(), np.linalg.slogdet(H)[1], rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(
        np.concatenate(bordered.inverse_diagonal()), inverse.diagonal(), rtol=1e-11, atol=tolerance
    )
    leverages = w * np.einsum("ij,jk,ik->i", T, inverse, T)
    np.testing.assert_allclose(bordered.leverages(), leverages, rtol=1e-10, atol=10 * tolerance)
    # The leverages and the prior's share of H^-1 make up all columns: tr(H^-1 H) = p + q.
    prior_share = prior_x @ bordered.inverse_diagonal()[0] + on_lower(A) @ bordered.inverse_prior_pattern()
    np.testing.assert_allclose(bordered.leverages().sum() + prior_share, p + A.shape[0], rtol=1e-10)


def on_lower(A):
    """Values of the lower triangle, off-diagonal ones doubled."""
    return lower_values(sp.csc_array(2 * A - sp.diags_array(A.diagonal())))
