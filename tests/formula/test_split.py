"""Formulas as text."""

import pytest

from hlik.errors import ModelError
from hlik.formula.split import GroupBlock, parse


def block(effects, *factor, correlated=True):
    return GroupBlock(effects, factor, correlated)


@pytest.mark.parametrize(
    ("formula", "response", "fixed", "blocks"),
    [
        ("y ~ x", "y", "x", ()),
        ("y ~ 1", "y", "1", ()),
        ("y ~ (1 | g)", "y", "1", (block("1", "g"),)),
        ("y~x+(x|g)-1", "y", "x - 1", (block("x", "g"),)),
        ("y ~ 0 + a*b + (x || g)", "y", "0 + a*b", (block("x", "g", correlated=False),)),
        ("log(y) ~ I(x + 1) + (0 + x | g)", "log(y)", "I(x + 1)", (block("0 + x", "g"),)),
        ("y ~ (a + b) * c + ((1 | g))", "y", "(a + b) * c", (block("1", "g"),)),
        ("y ~ (1 | g/h)", "y", "1", (block("1", "g"), block("1", "g", "h"))),
        ("y ~ (1 | g:h)", "y", "1", (block("1", "g", "h"),)),
        ("y ~ (x | g + h)", "y", "1", (block("x", "g"), block("x", "h"))),
        ("p(r, n) ~ C(x, levels=['a|b', 'c+d'])", "p(r, n)", "C(x, levels=['a|b', 'c+d'])", ()),
        ("y ~ -1 + x", "y", "- 1 + x", ()),
        ("y ~ `a column` + (1 | `a group`)", "y", "`a column`", (block("1", "a group"),)),
    ],
)
def test_pieces(formula, response, fixed, blocks):
    parsed = parse(formula)
    assert (parsed.response, parsed.fixed, parsed.blocks) == (response, fixed, blocks)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y + x", "expected a formula such as"),
        ("~ x", "with a response"),
        ("y ~ x ~ z", "expected a formula such as"),
        ("y ~ x | g", r"put terms with a bar in brackets, as in \(x | g\)"),
        ("y ~ x + (1 | g", "brackets or quotes are not closed"),
        ("y ~ x - (1 | g)", "cannot be taken away"),
        ("y ~ (1 | g | h)", "expected one bar"),
        ("y ~ ( | g)", "nothing stands before the bar"),
        ("y ~ (1 | log(g))", "must be a column"),
        ("y ~ (1 | )", "must be a column"),
        ("y ~ x + ", "nothing stands between two signs, or at the end"),
        (3, "must be a string"),
    ],
)
def test_refusals(formula, message):
    with pytest.raises(ModelError, match=message):
        parse(formula)


def test_one_sided():
    assert parse("~ x + (1 | g)", "dispersion", one_sided=True).blocks == (block("1", "g"),)
    with pytest.raises(ModelError, match=r"dispersion='y ~ x'.*without a response"):
        parse("y ~ x", "dispersion", one_sided=True)
