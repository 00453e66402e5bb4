"""Tasks on executors: the same numbers for any number of workers, and after a worker has died."""

import os
import signal
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import hlik
from hlik.executors import run_all
from tests.estimators.test_mcla import MODELS


def square(x):
    return x * x


def die_once(path, x):
    """Kill the process the first time it is called."""
    if not os.path.exists(path):
        with open(path, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


class Broken:
    """An executor that takes tasks but loses all of them."""

    def submit(self, function, *arguments):
        future = Future()
        future.set_exception(BrokenExecutor("a worker died"))
        return future


def test_results_in_order():
    assert list(run_all(None, square, [(k,) for k in range(5)])) == [0, 1, 4, 9, 16]


def test_lost_tasks_run_here():
    with pytest.warns(RuntimeWarning, match="Workers of the executor died"):
        assert list(run_all(Broken(), square, [(2,), (3,)])) == [4, 9]


def test_errors_of_the_function_are_raised():
    with pytest.raises(TypeError):
        list(run_all(None, square, [("a",)]))


def estimates(executor):
    """Tasks are groups of blocks in randomisations: the arrays are made so small that there are several groups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hlik.importance.CELLS", 1500)
        idata = hlik.fit(MODELS["poisson"](), hlik.MCLA(m=1024, executor=executor), random_seed=1, progressbar=False)
    return np.concatenate(
        [np.ravel(idata.estimates["beta"]), np.ravel(idata.estimates["sigma"]), [idata.fit.log_likelihood]]
    )


@pytest.mark.slow
def test_processes_give_the_same_numbers():
    alone = estimates(None)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        np.testing.assert_array_equal(estimates(pool), alone)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_dask_workers_one_of_which_is_killed():
    distributed = pytest.importorskip("distributed")
    alone = estimates(None)
    for workers in (1, 2, 4):
        with (
            distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):
            executor = client.get_executor()
            np.testing.assert_array_equal(estimates(executor), alone)
            if workers == 2:
                victim = next(iter(cluster.workers.values()))
                killed = []

                class Killing:
                    """Kills a worker of the cluster after twenty tasks."""

                    count = 0

                    def submit(self, function, *arguments):
                        Killing.count += 1
                        if Killing.count == 20:
                            os.kill(victim.pid, signal.SIGKILL)  # noqa: B023
                            killed.append(victim.pid)  # noqa: B023
                        return executor.submit(function, *arguments)  # noqa: B023

                np.testing.assert_array_equal(estimates(Killing()), alone)
                assert killed
