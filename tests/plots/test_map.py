"""Maps: the right value at the right place, matched by label, from centroids and from polygons."""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytest

import hlik
from hlik.distributions import CAR

SIDE = 5
PLACES = np.column_stack(np.divmod(np.arange(SIDE * SIDE), SIDE))
NAMES = [f"area {k}" for k in range(SIDE * SIDE)]


@pytest.fixture(scope="module")
def idata():
    near = (np.abs(PLACES[:, None] - PLACES).sum(axis=2) == 1).astype(float)
    rng = np.random.default_rng(1)
    with pm.Model(coords={"area": NAMES}) as model:
        b, tau = pm.Normal("b", 0, 5), pm.HalfNormal("tau", 1)
        u = CAR("u", D=near, rho=0.2, tau=tau, dims="area")
        pm.Poisson("y", pm.math.exp(b + u), observed=rng.poisson(np.exp(1 + 0.5 * rng.normal(size=SIDE * SIDE))))
    return hlik.fit(model, "laplace", progressbar=False, draws=0)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_centroids(idata):
    axes = hlik.plot_map(idata, "u", PLACES)
    assert [ax.get_title() for ax in axes] == ["u: estimate", "u: standard error"]
    for ax, group in zip(axes, ("estimates", "standard_errors"), strict=True):
        (dots,) = ax.collections
        np.testing.assert_array_equal(dots.get_offsets(), PLACES)
        np.testing.assert_array_equal(dots.get_array(), idata[group]["u"].values)
    low, high = axes[0].collections[0].get_clim()
    assert low == -high


def test_labels_are_matched(idata, tmp_path):
    idata.to_netcdf(tmp_path / "fit.nc")
    order = np.random.default_rng(2).permutation(len(NAMES))
    frame = pd.DataFrame(PLACES, index=NAMES).iloc[order]
    (ax,) = hlik.plot_map(az.from_netcdf(tmp_path / "fit.nc"), "u", frame, show=("estimate",))
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), PLACES)


def test_polygons(idata):
    geopandas = pytest.importorskip("geopandas", reason="GeoPandas draws polygons")
    from shapely.geometry import box

    squares = geopandas.GeoDataFrame(geometry=[box(x, y, x + 1, y + 1) for x, y in PLACES], index=NAMES)
    axes = hlik.plot_map(idata, "u", squares)
    np.testing.assert_allclose(axes[0].collections[0].get_array(), idata.estimates["u"].values)


@pytest.mark.parametrize(
    ("name", "areas", "message"),
    [
        ("v", PLACES, "no variable 'v'"),
        ("b", PLACES, "one element an area"),
        ("u", PLACES[:3], "3 rows for 25 effects"),
        ("u", PLACES[:, :1], "finite centroids"),
    ],
)
def test_wrong_arguments(idata, name, areas, message):
    with pytest.raises(hlik.ModelError, match=message):
        hlik.plot_map(idata, name, areas)
