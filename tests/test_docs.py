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


R_ARGUMENTS = {
    # args(hglm:::hglm.default), hglm 2.2-1
    "hglm": "X y Z family rand.family method conv maxit startval fixed random X.disp disp link.disp X.rand.disp "
    "rand.disp data weights fix.disp offset RandC sparse vcovmat calc.like bigRR verbose",
    # args(mcemGLM::mcemGLMM) and its controlEM, mcemGLM 1.1.3
    "mcemGLM": "fixed random data family vcDist df controlEM EMit MCit MCf verb MCsd EMdelta EMepsilon utrust initial",
    # args(glmm::glmm), glmm 1.4.5
    "glmm": "fixed random varcomps.names data family.glmm m varcomps.equal weights doPQL debug p1 p2 p3 rmax iterlim "
    "par.init zeta cluster",
    # args(lme4::lmer), args(lme4::glmer), lme4 1.1-31
    "lme4": "data REML family control start verbose nAGQ subset weights na.action offset contrasts mustart etastart "
    "devFunOnly",
    # args(glmmTMB::glmmTMB), glmmTMB 1.1.5
    "glmmTMB": "data family ziformula dispformula weights offset contrasts na.action se verbose doFit control REML "
    "start map sparseX",
}


@pytest.mark.parametrize("package", list(R_ARGUMENTS))
def test_every_argument_of_the_r_functions_has_a_row(package):
    section = text("coming_from_r").split(f"\n## {package}\n")[1].split("\n## ")[0]
    theirs = " ".join(line.split(" | ")[0] for line in section.splitlines() if line.startswith("| "))
    words = set(re.findall(r"[A-Za-z][\w.]*", theirs))
    assert set(R_ARGUMENTS[package].split()) <= words


def test_what_the_tables_name_exists():
    """Functions, arguments of estimators."""
    import dataclasses

    page = text("coming_from_r") + text("chooser")
    for name in re.findall(r"hlik\.(\w+)", page):
        assert hasattr(hlik, name), name
    for estimator, arguments in re.findall(r"\b(EQL|Laplace|MCEM|MCLA|SAEM|AGQ|HL)\(([^()]*)\)", page):
        fields = {field.name for field in dataclasses.fields(getattr(hlik, estimator))}
        assert set(re.findall(r"(\w+)=", arguments)) <= fields, (estimator, arguments)
