"""What all tests share: the folder of reference results, plots without a display, Hypothesis's settings."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")  # before anything imports matplotlib

import pytest
from hypothesis import HealthCheck, settings

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Reference results and data that are not part of the repository: the folder ``shared`` beside it."""

# A first example may compile a PyTensor function for seconds, and machines are shared: no deadline. In
# continuous integration the examples are always the same, so that a failure there can be repeated.
settings.register_profile("hlik", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("hlik"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "hlik")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Give the folder of reference results; skip the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the reference results in ../shared, which are not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def reference(shared: Path) -> Callable[[str], dict[str, Any]]:
    """Give a reader of reference records: ``reference("seeds/rj_example1")`` is that JSON file."""

    def read(name: str) -> dict[str, Any]:
        return json.loads((shared / "reference" / f"{name}.json").read_text(encoding="utf-8"))

    return read
