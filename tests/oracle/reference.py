"""The reference records of R hglm (../shared/reference/seeds) and the calls of the oracle that stand for them."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from .model import Spatial

SHARED = Path(__file__).resolve().parents[3] / "shared"
NORMAL, GAMMA, BETA = ("gaussian", "identity"), ("Gamma", "log"), ("Beta", "logit")


def _path(folder: str, name: str) -> Path:
    path = SHARED / folder / name
    if not path.exists():
        pytest.skip(f"no reference results: {folder}/{name} is not in the folder 'shared' beside the repository")
    return path


def record(name: str) -> dict:
    """What R gave: `published` (as printed), `got` and `got_at_paper_conv` (early stopping), `got_tight_conv`."""
    return json.loads(_path("reference/seeds", f"{name}.json").read_text())


def truth(name: str) -> dict:
    return json.loads(_path("reference/truth", f"{name}.json").read_text())


@cache
def data(name: str) -> pd.DataFrame:
    return pd.read_csv(_path("data", name))


def indicators(groups) -> np.ndarray:
    """One column per level, levels sorted as R's factor() sorts them."""
    groups = np.asarray(groups)
    return (groups[:, None] == np.unique(groups)[None, :]).astype(float)


def intercept(n: int) -> np.ndarray:
    return np.ones((n, 1))


def matrix_of_triplets(name: str, shape: tuple[int, int]) -> np.ndarray:
    triplets = data(name)
    matrix = np.zeros(shape)
    matrix[triplets["row"] - 1, triplets["col"] - 1] = triplets["value"]
    return matrix


# --- one function per data set: the arguments of `hglm` ---------------------------------------------------------------


def gaussian(y, X, Zs, **rest) -> dict:
    call = dict(y=y, X=X, Zs=Zs, family="gaussian", link="identity", rand_families=[NORMAL] * len(Zs))
    return call | rest


def example1() -> dict:
    d = data("rj_example1.csv")
    return gaussian(d["y"], intercept(100), [indicators(d["clus"])])


def example2(file="rj_example2.csv") -> dict:
    """log phi = 1 + x_d."""
    d = data(file)
    X_disp = np.column_stack([np.ones(100), d["x_d"]])
    return gaussian(d["y"], intercept(100), [indicators(d["clus"])], X_disp=X_disp)


def example3(file="rj_example3.csv", **rest) -> dict:
    """Poisson-Gamma; log phi = 1 + x_d unless phi is fixed."""
    call = example2(file) | dict(family="poisson", link="log", rand_families=[GAMMA]) | rest
    return call | dict(X_disp=None) if "fix_disp" in rest else call


def seeds(random) -> dict:
    """r/n ~ extract * (seed == O73) + (1 | plate), weights n, phi = 1."""
    d = data("seeds_crowder.csv")
    extract, seed = (d["extract"] == "Cucumber").astype(float), (d["seed"] == "O73").astype(float)
    return dict(
        y=d["r"] / d["n"],
        X=np.column_stack([np.ones(21), extract, seed, extract * seed]),
        Zs=[indicators(d["plate"])],
        family="binomial",
        link="logit",
        rand_families=[random],
        weights=d["n"],
        fix_disp=1.0,
    )


def bacteria(**rest) -> dict:
    """y ~ week + (1 | ID)."""
    d = data("bacteria.csv")
    X = np.column_stack([np.ones(220), d["week"]])
    binomial = dict(family="binomial", link="logit")
    return gaussian(d["y01"], X, [indicators(d["ID"])], **binomial) | rest


def bacteria_slopes() -> dict:
    """A second, independent term: slopes on the standardised week."""
    call = bacteria()
    week = call["X"][:, 1]
    Z = call["Zs"][0]
    slopes = Z * ((week - week.mean()) / week.std(ddof=1))[:, None]
    return call | dict(Zs=[Z, slopes], rand_families=[NORMAL, NORMAL])


def lip_cancer(random=NORMAL, **rest) -> dict:
    """O ~ Paff + offset(log E) + district effects, phi = 1."""
    d = data("lipcancer.csv")
    return (
        dict(
            y=d["O"],
            X=np.column_stack([np.ones(56), d["Paff"]]),
            Zs=[np.eye(56)],
            family="poisson",
            link="log",
            rand_families=[random],
            offset=np.log(d["E"]),
            fix_disp=1.0,
        )
        | rest
    )


def neighbours() -> np.ndarray:
    return matrix_of_triplets("lipcancer_nbr_triplets.csv", (56, 56))


def lip_cancer_car(**rest) -> dict:
    return lip_cancer(Spatial("CAR", neighbours()), **rest)


def lip_cancer_rotated(**rest) -> dict:
    """The CAR model written by hand in the eigen basis of the neighbour matrix."""
    d, G = Spatial("CAR", neighbours()).eigen
    X_rand_disp = [np.column_stack([np.ones(56), d])]
    return lip_cancer(Zs=[G], X_rand_disp=X_rand_disp, link_rand_disp=["inverse"], **rest)


def qtlmas() -> dict:
    """Animal model, n = 1000, q = 2025."""
    y = data("QTLMAS_y.csv")["P265"]
    return gaussian(y, intercept(1000), [matrix_of_triplets("QTLMAS_Z_triplets.csv.gz", (1000, 2025))])


def model_selection(second_term: bool) -> dict:
    d = data("tut_modelsel.csv")
    Zs = [indicators(d["ID"])] + ([data("tut_modelsel_Z2.csv").to_numpy()] if second_term else [])
    return gaussian(d["y"], intercept(500), Zs)


def double_hglm() -> dict:
    """The mean model of the double HGLM."""
    d = data("tut_dhglm.csv")
    return gaussian(d["y"], intercept(500), [indicators(d["ID"])])


def dispersion_by_id() -> dict:
    call = double_hglm()
    return call | dict(X_disp=call["Zs"][0])


CASES: dict[str, Callable[[], dict]] = {
    "rj_example1": example1,
    "rj_example2": example2,
    "rj_example2_noplot": lambda: example2("rj_example2_noplot.csv"),
    "rj_example3": example3,
    "rj_example3_noplot": lambda: example3("rj_example3_noplot.csv"),
    "rj_example3_fixdisp": lambda: example3(fix_disp=1.0),
    "rj_example3_noplot_fixdisp": lambda: example3("rj_example3_noplot.csv", fix_disp=1.0),
    "rj_example5_seeds_beta": lambda: seeds(BETA),
    "seeds_glmm_normal_hglm": lambda: seeds(NORMAL),
    "tut_g1_bacteria": bacteria,
    "tut_g1b_bacteria_fixdisp": lambda: bacteria(fix_disp=1.0),
    "tut_g2_bacteria_matrix": bacteria,
    "tut_g3_bacteria_slopes": bacteria_slopes,
    "bacteria_EQL1_fixdisp": lambda: bacteria(fix_disp=1.0, method="EQL1"),
    "lipcancer_iid_EQL": lip_cancer,
    "lipcancer_iid_EQL1": lambda: lip_cancer(method="EQL1"),
    "lipcancer_CAR_rotated_EQL": lip_cancer_rotated,
    "lipcancer_CAR_rotated_EQL1": lambda: lip_cancer_rotated(method="EQL1"),
    "tut_lipcancer_CAR_EQL": lip_cancer_car,
    "tut_lipcancer_CAR_HL11": lambda: lip_cancer_car(method="EQL1"),
    "tut_modelsel_hg1": lambda: model_selection(second_term=True),
    "tut_modelsel_hg2": lambda: model_selection(second_term=False),
    "tut_dhglm_fixed_Xdisp": dispersion_by_id,
    "tut_qtlmas": qtlmas,
}


def call_control(name: str) -> dict:
    """conv and maxit of the record `got`: the lip cancer runs used 1e-9 and 200, the others hglm's defaults."""
    return dict(conv=1e-9, maxit=200) if "lipcancer" in name else dict(conv=1e-6, maxit=50)


# --- records as vectors -----------------------------------------------------------------------------------------------


def coefficients(table) -> np.ndarray:
    """A dispersion model of a record, in any of its four forms, as rows (estimate, standard error)."""
    if isinstance(table, dict):
        table = table["values"] if "values" in table else [[table["Estimate"], table["Std. Error"]]]
    return np.atleast_2d(np.asarray(table, dtype=float))
