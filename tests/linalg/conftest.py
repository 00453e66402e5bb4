"""One BLAS thread for the dense reference computations: on busy cores two are many times slower than one."""

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_blas_thread(request):
    if request.module.__name__.endswith("test_threads"):
        yield
    else:
        with threadpool_limits(1, "blas"):
            yield
