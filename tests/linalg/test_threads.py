"""Factorisations in several Python threads, and BLAS's own threads before and after."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from hlik.linalg import BorderedSystem, analyze, lower_values, set_blas_threads, threads
from hlik.linalg.threads import limited_blas, one_thread_by_environment

from .problems import DESIGNS, PATTERNS, with_random_values


@pytest.fixture(autouse=True)
def threads_by_environment(monkeypatch):
    """As where no variable of the environment says anything."""
    monkeypatch.setattr(threads, "one_thread_by_environment", lambda: False)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OMP_NUM_THREADS": "1"}, True),
        ({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "4"}, False),
        ({"OPENBLAS_NUM_THREADS": "1"}, False),
        ({"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}, True),
    ],
)
def test_environment(monkeypatch, variables, expected):
    for name in ("OMP", "OPENBLAS", "MKL"):
        monkeypatch.delenv(f"{name}_NUM_THREADS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert one_thread_by_environment.__wrapped__() is expected


def test_nothing_is_looked_for_where_the_environment_says_one(monkeypatch):
    monkeypatch.setattr(threads, "one_thread_by_environment", lambda: True)
    monkeypatch.setattr(threads, "_blas_libraries", lambda: pytest.fail("looked for libraries"))
    limit = threads._BlasLimit()
    with limit, limit:
        assert limit._threads_inside == 0


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("kernel", ["dense", "simplicial", "supernodal"])
def test_one_analysis_many_threads(kernel):
    rng = np.random.default_rng(0)
    matrices = [with_random_values(PATTERNS["grid"](), rng) for _ in range(16)]
    symbolic = analyze(matrices[0], kernel=kernel)

    def everything(A):
        factor = symbolic.factor(lower_values(A))
        return factor.solve(np.ones(symbolic.size)), factor.selected_inverse(), factor.logdet()

    expected = [everything(A) for A in matrices]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, single in zip(pool.map(everything, matrices), expected, strict=True):
                for a, b in zip(found, single, strict=True):
                    np.testing.assert_array_equal(a, b)


def test_one_system_many_threads():
    rng = np.random.default_rng(0)
    X, Z, _ = DESIGNS["crossed"](rng)
    system = BorderedSystem(X, Z, kernel="supernodal")
    weights = [rng.gamma(2.0, size=len(X)) for _ in range(12)]

    def leverages(w):
        return system.factor(w, np.ones(system.q)).leverages()

    expected = [leverages(w) for w in weights]
    with ThreadPoolExecutor(4) as pool:
        for found, single in zip(pool.map(leverages, weights), expected, strict=True):
            np.testing.assert_array_equal(found, single)


def test_threads_of_blas_are_limited_within_and_restored_after():
    before = blas_threads()
    with limited_blas:
        assert set(blas_threads()) == {1}
        with limited_blas:
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_restored_when_threads_overlap():
    """A thread enters first and leaves first, another stays inside: a plain save and restore would go wrong twice."""
    before = blas_threads()
    second_inside, first_left, counts = threading.Event(), threading.Event(), []

    def second():
        with limited_blas:
            second_inside.set()
            first_left.wait(10)
            counts.append(blas_threads())

    with limited_blas:
        thread = threading.Thread(target=second)
        thread.start()
        second_inside.wait(10)
    first_left.set()
    thread.join()
    assert set(counts[0]) == {1}
    assert blas_threads() == before


def test_a_thread_that_is_not_the_main_one_limits_and_restores():
    before = blas_threads()
    with limited_blas:
        pass

    def inside():
        with limited_blas:
            return blas_threads()

    with ThreadPoolExecutor(1) as pool:
        assert set(pool.submit(inside).result()) == {1}
    assert blas_threads() == before
    with threadpool_limits(1):  # others can still set limits
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_the_limit_can_be_changed():
    before = blas_threads()
    try:
        set_blas_threads(None)
        with limited_blas:
            assert blas_threads() == before
    finally:
        set_blas_threads(1)
    with pytest.raises(ValueError, match="positive number of threads or None, got 0"):
        set_blas_threads(0)
