"""How time and memory grow with n at fixed shape, on two logarithmic axes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.summary import Summary, series
from benchmarks.systems import SYSTEMS

MARKERS = dict(zip(SYSTEMS, "osD^vP", strict=True))
QUANTITIES = {"first_cpu": "CPU time of the first fit, s", "peak_mb": "peak memory of the process, MB"}


def growth(summaries: dict[tuple[str, str], Summary], path: Path) -> bool:
    """Draw the series of random-intercept models; False where there is nothing to draw."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    families = list(dict.fromkeys(case.growth for case in CASES.values() if case.growth))
    figure, axes = plt.subplots(
        len(QUANTITIES), len(families), figsize=(9, 7), sharex=True, sharey="row", squeeze=False
    )
    drawn = False
    for column, family in enumerate(families):
        cases = [case.name for case in CASES.values() if case.growth == family]
        for row, (field, label) in enumerate(QUANTITIES.items()):
            axis = axes[row, column]
            for colour, system in enumerate(SYSTEMS):
                points = series(summaries, cases, system, field)
                if points:
                    drawn = True
                    axis.loglog(*zip(*points, strict=True), f"-{MARKERS[system]}", color=f"C{colour}", label=system)
            if column == 0:
                axis.set_ylabel(label)
            axis.grid(alpha=0.3)
        axes[0, column].set_title(f"{family}, random intercept, 10 rows a group")
        axes[-1, column].set_xlabel("observations n")
    handles = {label: h for axis in axes.flat for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if drawn:
        axes[0, 0].legend(handles.values(), handles.keys())
        figure.tight_layout()
        figure.savefig(path, dpi=110)
    plt.close(figure)
    return drawn
