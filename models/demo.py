"""The demonstration: fit the seed-germination data by extended quasi-likelihood and look at the result.

Run by ``make demo``, or by ``python -m models.demo`` from the folder that holds ``models``. Prints what hlik
read in the PyMC model, the table of estimates and the random effects, and writes the diagnostic plot to
``demo-output/seeds.png``.
"""

from pathlib import Path

import matplotlib
import numpy as np

import hlik
from models import seeds

OUTPUT = Path("demo-output")


def main() -> None:
    """Fit the seeds model, print its tables and write its diagnostic plot."""
    matplotlib.use("Agg")  # a file is written, no window opened: works without a display
    model = seeds.build(seeds.load())

    heading("How hlik reads the model")
    print(hlik.inspect(model))

    idata = hlik.fit(model, progressbar=False)

    heading("Estimates (EQL)")
    print(hlik.summary(idata))
    published = "  ".join(f"{value:.4f}" for value in seeds.HGLM_2010["beta"])
    print(f"\nR's hglm printed {published} in 2010 (it stopped a little early).")

    heading("Random effects: one per plate, on the logit scale (v) and as in the model (u)")
    print(hlik.ranef(idata))

    axes = hlik.plot_diagnostics(idata)
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / "seeds.png"
    np.ravel(axes)[0].figure.savefig(path, dpi=120)
    print(f"\nDiagnostic plot: {path.resolve()}")


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}\n{'-' * len(text)}")


if __name__ == "__main__":
    main()
