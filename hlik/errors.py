"""What hlik raises and warns with: every message names the variable, what was expected, what came, the way out."""


class ModelError(ValueError):
    """The model, its data or an argument cannot be fitted as asked; nothing long has run yet."""


class ConvergenceWarning(UserWarning):
    """A fit ended without converging, or at a boundary; the result carries the same words as its status."""


class DataWarning(UserWarning):
    """The data make an estimate ill-determined (separation, nearly collinear columns)."""
