"""The README's examples are run, and what they print is compared with the block of text that follows.

All ```python blocks run in one namespace, in order. Where an example has changed,

    python -m tests.test_readme --overwrite

writes what the examples print now into the README; read the difference before you keep it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"

# ---------------------------------------------------------------- examples and what they print


@dataclass(frozen=True)
class Example:
    """A block of Python, the line it starts on, and the text the README shows as its output (None: nothing)."""

    code: str
    line: int
    expected: str | None
    where: tuple[int, int] | None  # of the expected text in the README, for `overwrite`


BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\s*^```text\n(?P<text>.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def examples(markdown: str) -> list[Example]:
    """Every ```python block, with the ```text block that stands next to it."""
    found = []
    for match in BLOCK.finditer(markdown):
        where = None if match["text"] is None else match.span("text")
        line = markdown.count("\n", 0, match.start("code")) + 1
        found.append(Example(match["code"], line, match["text"], where))
    return found


def printed(example: Example, namespace: dict[str, Any]) -> str:
    """Run one example; tracebacks have the README's line numbers."""
    output = io.StringIO()
    code = compile("\n" * (example.line - 1) + example.code, str(README), "exec")
    with contextlib.redirect_stdout(output):
        exec(code, namespace)
    return output.getvalue()


def failures(markdown: str) -> list[str]:
    """What the examples print otherwise than the README says; empty where all is well."""
    found, namespace = [], {"__name__": "readme"}
    for example in examples(markdown):
        output = printed(example, namespace)
        for difference in differences(example.expected or "", output):
            found.append(f"README.md, example at line {example.line}: {difference}")
    return found


# ---------------------------------------------------------------- comparing text with numbers in it

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
SECONDS = re.compile(r"\b\d+(?:\.\d+)? s\b")


def differences(expected: str, output: str) -> list[str]:
    """Line by line: words alike, whole numbers alike, others to one unit of the last printed digit.

    White space and times ("0.12 s") do not count.
    """
    left, right = (text.strip().splitlines() for text in (expected, output))
    found = [
        f"expected {a.strip()!r}, printed {b.strip()!r}" for a, b in zip(left, right, strict=False) if not same(a, b)
    ]
    if len(left) != len(right):
        found.append(f"expected {len(left)} lines, printed {len(right)}")
    return found


def same(a: str, b: str) -> bool:
    """Whether two lines say the same."""
    a, b = (SECONDS.sub("TIME", line) for line in (a, b))
    words = [NUMBER.sub("#", line).split() for line in (a, b)]
    numbers = [NUMBER.findall(line) for line in (a, b)]
    return words[0] == words[1] and all(close(x, y) for x, y in zip(*numbers, strict=True))


def close(a: str, b: str) -> bool:
    """Whole numbers must be equal; others may differ by one unit of the finer one's last digit."""
    if a == b:
        return True
    unit = min(last_digit(a), last_digit(b))
    if unit >= 1:
        return False
    return abs(float(a.replace(",", "")) - float(b.replace(",", ""))) <= 1.001 * unit


def last_digit(number: str) -> float:
    """The unit of the last digit: 0.001 for 1.234, 1e-6 for 1.23e-4, 1 for 12."""
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals)


def overwrite() -> None:
    """Write what the examples print into the README."""
    markdown = README.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "readme"}
    pieces, end = [], 0
    for example in examples(markdown):
        output = printed(example, namespace)
        if example.where is None:
            if output.strip():
                raise SystemExit(f"line {example.line}: the example prints, but no ```text block follows it")
            continue
        lines = [line.rstrip() for line in output.strip("\n").splitlines()]
        pieces += [markdown[end : example.where[0]], "\n".join(lines) + "\n"]
        end = example.where[1]
    README.write_text("".join(pieces) + markdown[end:], encoding="utf-8")


# ---------------------------------------------------------------- tests


@pytest.fixture(scope="module")
def readme() -> str:
    return README.read_text(encoding="utf-8")


def test_examples_print_what_the_readme_says(readme, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)  # examples write files
    assert len(examples(readme)) >= 5
    found = failures(readme)
    plt.close("all")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("expected", "output"),
    [
        ("beta 1.339", "beta 1.341"),  # two units of the last digit
        ("21 levels", "22 levels"),
        ("1.018e-76", "1.018e-75"),
        ("link logit", "link probit"),
        ("sigma 1.013 fixed effect", "sigma 1.013"),
        ("-0.25", "0.25"),
        ("one line", "one line\nand another"),
        ("something", ""),
        ("12 iterations, 0.1 s", "13 iterations, 0.1 s"),
    ],
)
def test_comparison_sees_differences(expected, output):
    assert differences(expected, output)


@pytest.mark.parametrize(
    ("expected", "output"),
    [
        ("beta  1.339\n", "\nbeta 1.340   "),  # rounding may go the other way on another machine
        ("beta 1.339", "beta 1.34"),
        ("1,000,000 rows in 0.25 s", "1,000,000 rows in 13 s"),
        ("lam 0.02435 0.01304", "lam 0.02435 0.01304"),
    ],
)
def test_comparison_allows_the_last_digit_and_times(expected, output):
    assert not differences(expected, output)


@pytest.mark.parametrize(
    "markdown",
    [
        "```python\nprint(0.5)\n```\n\n```text\n0.7\n```\n",
        "```python\nprint(0.5)\n```\n",  # prints where the README shows nothing
        "```python\nx = 1\n```\n\nWords.\n\n```python\nprint(x)\n```\n```text\n2\n```\n",
    ],
)
def test_wrong_readme_fails(markdown):
    assert failures(markdown)


def test_failing_example_fails():
    with pytest.raises(ZeroDivisionError):
        failures("```python\n1 / 0\n```\n")


# ---------------------------------------------------------------- numbers in the prose


def test_exact_maximum_likelihood_of_the_find_map_example(readme):
    """The README's "maximum likelihood: sigma = ..." by Gauss-Hermite quadrature with 60 nodes."""
    (data,) = [example.code for example in examples(readme) if "default_rng" in example.code]
    namespace: dict[str, Any] = {"np": np}
    exec(data.partition("def ")[0], namespace)
    stated = re.search(r"maximum likelihood is (\d\.\d+)", readme)
    assert stated is not None
    assert close(stated[1], f"{exact_sigma(namespace['group'], namespace['x'], namespace['y']):.4f}")


def exact_sigma(group: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Standard deviation of normal intercepts in a logit model with one covariate."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    first = np.flatnonzero(np.diff(group, prepend=-1))

    def negative(parameters: np.ndarray) -> float:
        intercept, slope, log_sigma = parameters
        eta = intercept + slope * x[:, None] + np.exp(log_sigma) * nodes
        given_u = np.add.reduceat(y[:, None] * eta - np.logaddexp(0, eta), first)
        return -float(np.sum(np.log(np.exp(given_u) @ (weights / np.sqrt(2 * np.pi)))))

    found = optimize.minimize(negative, np.zeros(3), method="BFGS", options={"gtol": 1e-6})
    return float(np.exp(found.x[2]))


def table_rows(readme: str, header: str) -> list[list[str]]:
    """Cells of the Markdown table whose header line starts with `header`."""
    lines = readme.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def eql_variances(model, *names: str) -> list[float]:
    """Squares of the standard deviations `names` by EQL."""
    import hlik

    estimates = hlik.fit(model, draws=0).estimates
    return [float(estimates[name]) ** 2 for name in names]


def squares(published: dict[str, Any], *names: str) -> list[float]:
    return [published[name] ** 2 for name in names]


def assert_bias_row(readme: str, data: str, eql: list[float], exact: list[float]) -> None:
    (row,) = [row for row in table_rows(readme, "| data ") if row[0] == f"`{data}`"]
    for cell, values in zip(row[2:], (eql, exact), strict=True):
        numbers = NUMBER.findall(cell)
        assert len(numbers) == len(values), row
        for number, value in zip(numbers, values, strict=True):
            assert abs(float(number) - value) <= 0.51 * last_digit(number), (row, number, value)


def test_bias_table(readme):
    """EQL's column from hlik, the other from the numbers kept in models/."""
    import hlik
    from models import bacteria, lip_cancer, seeds, sleepstudy

    model = bacteria.build(bacteria.load())
    assert_bias_row(readme, "bacteria", eql_variances(model, "sigma"), [bacteria.EXACT["sigma2"]])
    model = lip_cancer.build(lip_cancer.load())
    assert_bias_row(readme, "lip_cancer", eql_variances(model, "sigma"), [lip_cancer.EXACT["sigma2"]])
    lam = hlik.fit(seeds.build(seeds.load()), draws=0).estimates["lam"]
    assert_bias_row(readme, "seeds", [float(lam)], [seeds.EXACT_BETA["lam"]])
    names = ("sigma_intercept", "sigma_slope")
    eql = eql_variances(sleepstudy.build(sleepstudy.load()), *names)
    assert_bias_row(readme, "sleepstudy", eql, squares(sleepstudy.LME4_REML, *names))


def test_bias_table_salamander(readme, shared):
    from models import salamander

    model = salamander.build(salamander.load(shared / "data" / "salamander_mcemGLM.csv"))
    exact = [salamander.EXACT["sigma2_female"], salamander.EXACT["sigma2_male"]]
    assert_bias_row(readme, "salamander", eql_variances(model, "sigma_female", "sigma_male"), exact)


def test_result_table(readme):
    """Every group of a result is in the table, and nothing else; so are the scalars of the group `fit`."""
    import pymc as pm

    import hlik

    with pm.Model() as model:
        x = pm.Data("x", [0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
        beta, sigma = pm.Normal("beta", 0, 5), pm.HalfNormal("sigma", 1)
        u = pm.Normal("u", 0, sigma, shape=3)
        eta = beta * x + u[np.array([0, 0, 1, 1, 2, 2])]
        pm.Poisson("y", pm.math.exp(eta), observed=[1, 0, 2, 9, 6, 8])
    result = hlik.fit(model, random_seed=1)
    rows = table_rows(readme, "| group ")
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert named == set(result.groups())
    (fit,) = [row[1] for row in rows if row[0] == "`fit`"]
    missing = [name for name in (*result.fit.data_vars, *result.fit.attrs) if f"`{name}`" not in fit]
    assert not [name for name in missing if not name.startswith("inference_library")]


def test_files_that_the_readme_names_exist(readme):
    names = set(re.findall(r"\]\((?!https?:)([^)#]+)\)", readme))
    picture = readme.partition("```text\npm.Model")[2].partition("```")[0]
    assert picture, "the picture of the architecture starts with pm.Model"
    names |= set(re.findall(r"(?<![\w.])((?:hlik|models|tests|notebooks|benchmarks)/[\w./]*)", readme))
    names |= {f"hlik/{name}" for name in re.findall(r"(?<![\w/])((?:[a-z_]+/)?[a-z0-9_]+\.py)\b", picture)}
    missing = [name for name in sorted(names) if not (ROOT / name).exists()]
    assert missing == []


if __name__ == "__main__":
    if sys.argv[1:] != ["--overwrite"]:
        raise SystemExit(__doc__)
    os.environ.setdefault("MPLBACKEND", "Agg")
    import tempfile

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        overwrite()
