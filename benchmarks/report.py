"""`results/benchmarks.md`: tables of medians, estimates beside each other, settings, failures."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import CASES, Case
from benchmarks.startup import CASE as COLD_START
from benchmarks.summary import Summary, exponent, series
from benchmarks.systems import SYSTEMS

Summaries = dict[tuple[str, str], Summary]

INTRODUCTION = """\
Written by `make bench`; every process is in [runs.csv](runs.csv).

Each fit is a process of its own with one thread; systems take turns; medians over the repetitions. *time* is the
whole call of the fit after imports, data in memory (`hlik.fit(model)`, `glmer(...)`, `GPModel(...)` and its `fit`),
*CPU* its user and system time, *ratio* CPU against hlik's EQL. Where *time* is well above *CPU* the machine was busy
with other things. *read* is the part of hlik's time in which it reads the graph, *build* the time of `with pm.Model()`
before it. *peak* is the largest memory of the process, *start* its memory when the fit began (imports and data). Small
data are fitted several times in a process: *first* is the first fit, *time* the median of the others.
*EQL is another estimator than the Laplace approximation of the peers: look at the estimates.* For normal responses EQL
is REML. The log-likelihood is Laplace's approximation, at the estimates of each system; for normal responses the
restricted one, but GPBoost's is not restricted, and for binomial data GPBoost's lacks the binomial coefficients.
"""


def text(summaries: Summaries, figure: str | None) -> str:
    """The whole page."""
    parts = ["# Benchmarks", INTRODUCTION, _machine(), _cold_start(summaries), _growth(summaries, figure)]
    done = {case for case, _ in summaries}
    parts += [_case(case, summaries) for case in CASES.values() if case.name in done]
    parts.append(_settings(summaries))
    return "\n".join(part for part in parts if part)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def seconds(value: float) -> str:
    """Three digits, empty for NaN."""
    return "" if math.isnan(value) else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _megabytes(value: float) -> str:
    return "" if math.isnan(value) else f"{value:,.0f}"


def _case(case: Case, summaries: Summaries) -> str:
    found = [summaries[case.name, name] for name in SYSTEMS if (case.name, name) in summaries]
    dates = sorted({record.run for summary in found for record in summary.records})
    lines = [f"## {case.name}: {case.title}\n", f"`{case.formula}`; run of {', '.join(dates)}\n"]
    ours = summaries.get((case.name, "hlik"))
    base = ours.median("cpu") if ours else float("nan")
    warm = case.repeats > 1
    head = ["", "time, s", "CPU, s", "ratio", *(["first, s"] if warm else []), "read, s", "build, s", "peak, MB"]
    rows = []
    for s in found:
        row = [s.system, seconds(s.median("seconds")), seconds(s.median("cpu")), seconds(s.median("cpu") / base)]
        row += [seconds(s.median("first"))] if warm else []
        row += [seconds(s.median("reading")), seconds(s.median("building"))]
        row += [_megabytes(s.median("peak_mb")), _megabytes(s.median("before_mb")), _runs(s)]
        rows.append(row)
    lines.append(table([*head, "start, MB", "runs"], rows))
    lines.append(_estimates(case, found))
    notes = [f"* {name}: {reason}." for name, reason in _not_tried(case, found)]
    return "\n".join([*lines, *notes, ""])


def _runs(s: Summary) -> str:
    words = [str(s.runs)]
    if s.failures:
        words.append(f"{len(s.failures)} failed ({'; '.join(sorted(set(s.failures)))})".replace("|", "/"))
    if s.statuses:
        words.append(f"{len(s.statuses)} warned ({'; '.join(sorted(set(s.statuses)))[:90]})".replace("|", "/"))
    return ", ".join(words)


def _not_tried(case: Case, found: Sequence[Summary]) -> list[tuple[str, str]]:
    tried = {s.system for s in found}
    reasons = [(name, system.obstacle(case)) for name, system in SYSTEMS.items() if name not in tried]
    return [(name, reason) for name, reason in reasons if reason]


def _estimates(case: Case, found: Sequence[Summary]) -> str:
    rows = [(s.system, s.values, s.median("log_likelihood")) for s in found if s.values]
    truth = dict(case.truth)
    labels = list(dict.fromkeys([*truth, *(label for _, values, _ in rows for label in values)]))
    head = ["estimates", *labels, "log-likelihood"]
    body = [["(simulated with)", *(f"{truth[x]:g}" if x in truth else "" for x in labels), ""]] if truth else []
    for system, values, likelihood in rows:
        shown = [f"{values[x]:.4f}" if x in values else "" for x in labels]
        body.append([system, *shown, "" if math.isnan(likelihood) else f"{likelihood:.3f}"])
    return table(head, body)


def _growth(summaries: Summaries, figure: str | None) -> str:
    families = list(dict.fromkeys(case.growth for case in CASES.values() if case.growth))
    rows = []
    for family in families:
        cases = [case.name for case in CASES.values() if case.growth == family]
        for system in SYSTEMS:
            points = series(summaries, cases, system, "first_cpu")
            if len(points) > 1:
                sizes, values = zip(*points, strict=True)
                shown = [*(seconds(v) for v in values), *([""] * (len(cases) - len(values)))]
                slopes = [exponent(sizes, values), exponent(sizes[-2:], values[-2:])]
                rows.append([f"{family}, {system}", *shown, *(f"{slope:.2f}" for slope in slopes)])
    if not rows:
        return ""
    head = ["CPU of the first fit, s", "n = 10⁴", "10⁵", "10⁶", "exponent of n", "last decade"]
    picture = f"![time and memory against n]({figure})\n" if figure else ""
    return "\n".join(["## Growth with n: random intercept, ten rows a group\n", table(head, rows), picture])


def _cold_start(summaries: Summaries) -> str:
    plain, fit = (summaries.get((COLD_START, name)) for name in ("import pymc", "demo fit"))
    if plain is None or fit is None:
        return ""
    rows = [[s.system, seconds(s.median("process")), seconds(s.median("process_cpu")), _runs(s)] for s in (plain, fit)]
    differences = [seconds(fit.median(f) - plain.median(f)) for f in ("process", "process_cpu")]
    rows.append(["difference", *differences, ""])
    words = "Whole processes, empty numba cache: `python -c 'import pymc'`, and the fit of `make demo` (seeds).\n"
    return "\n".join(["## Cold start\n", words, table(["", "time, s", "CPU, s", "runs"], rows)])


def _settings(summaries: Summaries) -> str:
    versions = {system: r.version for (_, system), s in summaries.items() for r in s.records if r.version}
    rows = [[name, versions.get(name, ""), s.gaussian, s.other] for name, s in SYSTEMS.items()]
    head = "| system | version | normal responses | others |\n|---|---|---|---|\n"
    return "## Settings\n\n" + head + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _machine() -> str:
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = f"{names[0]}, {len(names)} cores" if names else name
    return f"Machine: {name}; Python {platform.python_version()}.\n"
