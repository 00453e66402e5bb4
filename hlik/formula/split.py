"""The text of a formula taken apart: response, fixed effects, and what stands in brackets with a bar.

``formulae`` evaluates fixed effects and the left sides of bars; it knows neither ``(x || g)`` nor that the terms of
``(x | g)`` belong together, so brackets with bars are found here, in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hlik.errors import ModelError

NAME = re.compile(r"[^\W\d]\w*|`[^`]+`")


@dataclass(frozen=True)
class GroupBlock:
    """One ``(effects | factor)``: `correlated` where the bar is single."""

    effects: str
    factor: tuple[str, ...]
    correlated: bool

    @property
    def group(self) -> str:
        """Name of the grouping factor: its columns joined by colons."""
        return ":".join(self.factor)


@dataclass(frozen=True)
class ParsedFormula:
    """A formula in pieces; `response` is empty for a one-sided formula."""

    response: str
    fixed: str
    blocks: tuple[GroupBlock, ...]


def parse(formula: str, argument: str = "formula", one_sided: bool = False) -> ParsedFormula:
    """Take a formula apart.

    Parameters
    ----------
    formula : str
        ``response ~ fixed effects + (effects | factor) + ...``.
    argument : str
        Name of the argument, for messages.
    one_sided : bool
        Whether the formula must have no response (dispersions) or must have one.

    Raises
    ------
    ModelError
        For text that is no such formula, with the piece in question.
    """
    if not isinstance(formula, str):
        raise ModelError(f"{argument} must be a string such as 'y ~ x + (1 | g)'; got {type(formula).__name__}.")
    sides = [formula[start:end] for start, end in _pieces(formula, "~", argument)]
    if len(sides) != 2 or bool(sides[0].strip()) == one_sided:
        wanted = "'~ x + (1 | g)', without a response" if one_sided else "'y ~ x + (1 | g)', with a response"
        raise ModelError(f"{argument}={formula!r}: expected a formula such as {wanted}.")
    fixed, blocks = [], []
    for sign, term in _terms(sides[1], argument):
        inside = _bracketed(term)
        bars = [] if inside is None else list(_positions(inside, "|", argument))
        if inside is not None and bars:
            if sign == "-":
                raise ModelError(f"{argument}={formula!r}: a term with a bar cannot be taken away: {term}.")
            blocks += _blocks(inside, bars, formula, argument)
        elif list(_positions(term, "|", argument)):
            raise ModelError(f"{argument}={formula!r}: put terms with a bar in brackets, as in ({term}).")
        else:
            fixed.append(f"{sign} {term}")
    text = " ".join(fixed).removeprefix("+ ").strip()
    return ParsedFormula(sides[0].strip(), text or "1", tuple(blocks))


def _terms(text: str, argument: str) -> Iterator[tuple[str, str]]:
    """The terms of a sum at the outermost level, each with its sign."""
    sign = "+"
    for start, end in _pieces(text, "+-", argument):
        term = text[start:end].strip()
        if term:
            yield sign, term
        elif start > 0 or end == len(text):
            raise ModelError(f"{argument}: nothing stands between two signs, or at the end, of {text!r}.")
        sign = text[end] if end < len(text) else "+"


def _blocks(inside: str, bars: list[int], formula: str, argument: str) -> list[GroupBlock]:
    """The blocks of what stands in one pair of brackets: several for ``g / h`` and ``g + h``."""
    double = len(bars) == 2 and bars[1] == bars[0] + 1
    if len(bars) > 1 and not double:
        raise ModelError(f"{argument}={formula!r}: expected one bar, | or ||, in ({inside}).")
    effects, factors = inside[: bars[0]].strip(), inside[bars[-1] + 1 :].strip()
    if not effects:
        raise ModelError(f"{argument}={formula!r}: nothing stands before the bar of ({inside}); for intercepts, 1.")
    return [GroupBlock(effects, factor, not double) for factor in _factors(factors, inside, argument)]


def _factors(text: str, inside: str, argument: str) -> list[tuple[str, ...]]:
    """``g``, ``g:h``, ``g/h`` (which is g + g:h), ``g + h`` as tuples of columns."""
    found: list[tuple[str, ...]] = []
    for part in text.split("+"):
        nested: tuple[str, ...] = ()
        for step in part.split("/"):
            names = tuple(name.strip() for name in step.split(":"))
            if not all(NAME.fullmatch(name) for name in names):
                raise ModelError(
                    f"{argument}: the grouping factor in ({inside}) must be a column, g, or columns as in g:h, g/h or "
                    f"g + h; got {text!r}. Make other factors a column of the data first."
                )
            nested += tuple(name.strip("`") for name in names)
            found.append(nested)
    return found


def _bracketed(term: str) -> str | None:
    """What stands inside, for a term that is one pair of brackets; else None."""
    if not term.startswith("("):
        return None
    depth = 0
    for position, character in enumerate(term):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            inside = term[1:position]
            return (_bracketed(inside.strip()) or inside) if position == len(term) - 1 else None
    return None


def _pieces(text: str, separators: str, argument: str) -> Iterator[tuple[int, int]]:
    """Start and end of the pieces between separators at the outermost level."""
    start = 0
    for position in _positions(text, separators, argument):
        yield start, position
        start = position + 1
    yield start, len(text)


def _positions(text: str, characters: str, argument: str) -> Iterator[int]:
    """Where one of the characters stands outside brackets and quotes."""
    depth, quote = 0, ""
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"`":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif depth == 0 and character in characters:
            yield position
    if depth or quote:
        raise ModelError(f"{argument}: brackets or quotes are not closed in {text!r}.")
