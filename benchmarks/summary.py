"""Medians of the records: what the report and the figures are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.records import Record


@dataclass(frozen=True)
class Summary:
    """The repetitions of a (case, system)."""

    case: str
    system: str
    n: int
    runs: int
    failures: tuple[str, ...]
    statuses: tuple[str, ...]  # of the runs that are not failures and say that they have not converged
    records: tuple[Record, ...]  # those that are not failures

    def median(self, field: str) -> float:
        """The median of a field over the runs that are not failures; NaN without any."""
        values = [getattr(record, field) for record in self.records]
        values = [value for value in values if not math.isnan(value)]
        return median(values) if values else float("nan")

    @property
    def values(self) -> dict[str, float]:
        """The estimates: those of the last run, all being the same up to rounding."""
        return self.records[-1].values if self.records else {}


def summarise(records: Iterable[Record]) -> dict[tuple[str, str], Summary]:
    """By case and system."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.case, record.system), []).append(record)
    return {key: _summary(*key, group) for key, group in groups.items()}


def _summary(case: str, system: str, group: Sequence[Record]) -> Summary:
    good = tuple(record for record in group if not record.failure)
    return Summary(
        case,
        system,
        group[0].n,
        len(group),
        tuple(record.failure for record in group if record.failure),
        tuple(record.status for record in good if record.status not in ("", "converged")),
        good,
    )


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Least-squares slope of log value on log size."""
    x, y = [math.log(s) for s in sizes], [math.log(v) for v in values]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def series(
    summaries: dict[tuple[str, str], Summary], cases: Sequence[str], system: str, field: str
) -> list[tuple[int, float]]:
    """(n, median of a field) of a system over cases of growing size, those without a result left out."""
    found = [summaries[case, system] for case in cases if (case, system) in summaries]
    return sorted((s.n, s.median(field)) for s in found if not math.isnan(s.median(field)))
