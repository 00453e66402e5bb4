"""The documentation names everything: public names, estimators, families, notebooks."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import hlik

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def api():
    spec = importlib.util.spec_from_file_location("api_pages", DOCS / "api_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(name):
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def test_every_public_name_has_a_place_in_the_reference(api):
    paths = [path for page in api.entries().values() for path in page]
    names = [name for name in hlik.__all__ if not name.startswith("__") and not inspect.ismodule(getattr(hlik, name))]
    assert {path.split(".")[-1] for path in paths} >= set(names)
    assert len(paths) == len(set(paths))
    for path in paths:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
    assert all(api.entries().values())


def test_the_chooser_names_every_estimator():
    estimators = [n for n in hlik.__all__ if getattr(getattr(hlik, n), "__module__", "").startswith("hlik.estimators")]
    assert len(estimators) >= 4
    for name in estimators:
        assert f"{name}(" in text("chooser"), name


def test_the_families_are_those_of_the_code():
    from hlik.formula.families import FAMILIES, INVERSE_LINKS

    section = text("formulas").split("## Families of formulas")[1].split("## Matrices")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `") and "family" not in line]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert documented == set(FAMILIES)
    for row in rows:
        for name in re.findall(r"`(\w+)`", row.split("|")[1]):
            assert FAMILIES[name].link == row.split("|")[2].strip()
            assert bool(FAMILIES[name].dispersion) == bool(row.split("|")[3].strip())
    assert all(link in section for link in INVERSE_LINKS)


def test_the_bambi_table_is_complete():
    from tests.formula.test_bambi_families import EXPONENTIAL, KINKED, RESPONSES

    section = text("formulas").split("## Bambi")[1]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    found = {name: (row[2].strip(), row[3].strip()) for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    expected = {name: ("yes" if name in EXPONENTIAL else "", "yes") for name in RESPONSES}
    assert found == expected | dict.fromkeys(KINKED, ("", "no"))


def test_the_notebooks_are_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{path.name}" in navigation


def test_notebooks_are_stored_without_outputs():
    import json

    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path.name
