"""The cases: what is fitted, to which data, and why it is here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks import real, simulate
from benchmarks.simulate import Columns


@dataclass(frozen=True)
class Term:
    """A random term: normal effects of the levels of `factor`, times the covariate `slope` where there is one.

    `structure` says how the levels are related: ``grid`` (neighbours on a square grid, a conditional autoregression) or
    ``pedigree`` (parents in the columns sire and dam); None: not at all.
    """

    factor: str
    slope: str | None = None
    structure: str | None = None

    @property
    def label(self) -> str:
        """How tables name its standard deviation."""
        return f"sd {self.factor}" if self.slope is None else f"sd {self.factor}:{self.slope}"

    @property
    def formula(self) -> str:
        """In the notation of lme4; independent of all other terms."""
        return f"(1 | {self.factor})" if self.slope is None else f"(0 + {self.slope} | {self.factor})"


@dataclass(frozen=True)
class Case:
    """A generalised linear mixed model with an intercept, `fixed` covariates and independent random terms."""

    name: str
    title: str
    family: str  # gaussian, poisson or logit
    terms: tuple[Term, ...]
    columns: Callable[[], Columns]  # float columns are covariates, integer columns levels from 0; the response is y
    fixed: tuple[str, ...] = ("x",)
    truth: tuple[tuple[str, float], ...] = ()  # what the data were simulated with, under the tables' labels
    trials: str | None = None  # binomial: the column of the numbers of trials
    repeats: int = 1  # fits in one process: the first is reported, and the median of the others
    growth: str | None = None  # the series of cases with one shape and growing n that it belongs to
    quick: bool = False
    slow: bool = False

    @property
    def formula(self) -> str:
        """In the notation of lme4."""
        response = f"cbind(y, {self.trials} - y)" if self.trials else "y"
        return f"{response} ~ " + " + ".join(("1", *self.fixed, *(term.formula for term in self.terms)))


def _truth(columns: dict[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(columns.items())


def _intercepts(family: str, n: int, q: int, name: str, **options: object) -> Case:
    return Case(
        name=name,
        title=f"{family}, random intercept, {n:,} rows, {q:,} groups",
        family=family,
        terms=(Term("g"),),
        columns=partial(simulate.intercepts, family, n, q),
        truth=_truth(simulate.truth(family, ("g",))),
        **options,  # type: ignore[arg-type]
    )


def _size_cases() -> list[Case]:
    """Random intercepts with n = 10^4, 10^5, 10^6 and ten rows a group."""
    sizes = {"1e4": 10**4, "1e5": 10**5, "1e6": 10**6}
    return [
        _intercepts(
            family, n, n // 10, f"{family}-{tag}", growth=family, quick=n == 10**4, repeats=4 if n == 10**4 else 1
        )
        for family in ("poisson", "logit")
        for tag, n in sizes.items()
    ]


def _shape_cases() -> list[Case]:
    """Other shapes of Z."""
    return [
        _intercepts("logit", 200_000, 10_000, "logit-200k"),
        _intercepts("poisson", 200_000, 10_000, "poisson-200k"),
        Case(
            name="nested-1e5",
            title="poisson, 10,000 classes in 1,000 schools, 100,000 rows",
            family="poisson",
            terms=(Term("school"), Term("class")),
            columns=partial(simulate.nested, "poisson", 1000, 10, 10),
            truth=_truth(simulate.truth("poisson", ("school", "class"))),
        ),
        Case(
            name="slopes-1e5",
            title="gaussian, random intercepts and slopes of 10,000 groups, 100,000 rows",
            family="gaussian",
            terms=(Term("g"), Term("g", "x")),
            columns=partial(simulate.slopes, "gaussian", 10**5, 10**4),
            truth=_truth(simulate.truth("gaussian", ("g", "g:x"))),
        ),
        Case(
            name="insteval",
            title="gaussian, InstEval: 2,972 students crossed with 1,128 lecturers, 73,421 ratings",
            family="gaussian",
            terms=(Term("s"), Term("d")),
            fixed=("service",),
            columns=real.insteval,
        ),
        Case(
            name="sire-dam-1e5",
            title="gaussian, 100,000 animals of 20,000 dams and 2,000 sires in 100 herds, parents unrelated",
            family="gaussian",
            terms=(Term("sire"), Term("dam")),
            columns=partial(simulate.sires_and_dams, 100, 20, 200, 5),
            truth=_truth(simulate.truth("gaussian", ("sire", "dam"))),
        ),
        Case(
            name="verbagg",
            title="logit, VerbAgg: 316 subjects crossed with 24 items, 7,584 answers",
            family="logit",
            terms=(Term("id"), Term("item")),
            fixed=("anger", "male", "scold", "shout", "self"),
            columns=real.verbagg,
        ),
        Case(
            name="pedigree-1e5",
            title="gaussian, 100,000 animals with a record each and their pedigree of 20 generations",
            family="gaussian",
            terms=(Term("animal", structure="pedigree"),),
            columns=partial(simulate.pedigree, 20, 5000),
            truth=_truth(simulate.truth("gaussian", ("animal",))),
        ),
        *(
            Case(
                name=f"car-{side}x{side}",
                title=f"poisson, conditional autoregression on a {side} x {side} grid",
                family="poisson",
                terms=(Term("area", structure="grid"),),
                columns=partial(simulate.grid, side),
                truth=(("intercept", 0.5), ("x", 0.3), ("tau area", simulate.TAU), ("rho area", simulate.RHO)),
                slow=side > 200,
            )
            for side in (200, 500)
        ),
        Case(
            name="movies-1e6",
            title="gaussian, 6,000 users crossed with 4,000 films, 1,000,000 ratings",
            family="gaussian",
            terms=(Term("user"), Term("film")),
            columns=partial(simulate.ratings, 10**6, 6000, 4000),
            truth=_truth(simulate.truth("gaussian", ("user", "film"))),
            slow=True,
        ),
    ]


def _small_cases() -> list[Case]:
    """Published data: what a first fit costs, and a second."""
    return [
        Case(
            name="seeds",
            title="binomial, seeds: 21 plates",
            family="logit",
            terms=(Term("plate"),),
            fixed=("cucumber", "o73", "both"),
            columns=real.seeds,
            trials="trials",
            repeats=6,
            quick=True,
        ),
        Case(
            name="bacteria",
            title="logit, bacteria: 220 answers of 50 children",
            family="logit",
            terms=(Term("child"),),
            fixed=("week",),
            columns=real.bacteria,
            repeats=6,
            quick=True,
        ),
        Case(
            name="epilepsy",
            title="poisson, epilepsy: 236 counts of 59 patients",
            family="poisson",
            terms=(Term("patient"),),
            fixed=("base", "group", "age", "visit", "both"),
            columns=real.epilepsy,
            repeats=6,
            quick=True,
        ),
    ]


CASES: dict[str, Case] = {c.name: c for c in (*_small_cases(), *_size_cases(), *_shape_cases())}


def rows(columns: Columns) -> int:
    """Number of observations."""
    return len(np.asarray(columns["y"]))
