"""Models from formulas and from matrices: everything here ends in an ordinary `pymc.Model`."""
