"""Only plain data crosses, it crosses unchanged, and nothing that arrives can do more than be a value."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.sandbox.inside.serialization import NotPlainError, deserialize, serialize

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
TEXT = st.text(st.characters(codec=None), max_size=20)
HASHABLE = st.recursive(
    SCALARS | TEXT, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5
)
PLAIN = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
    ),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal and of exactly the same types throughout."""
    if type(left) is not type(right) or left != right:
        return False
    if isinstance(left, dict):
        return all(same(a, b) for a, b in zip(left.items(), right.items(), strict=True))
    if isinstance(left, list | tuple):
        return all(same(a, b) for a, b in zip(left, right, strict=True))
    return True


@given(PLAIN)
def test_plain_data_crosses_unchanged(value: Any) -> None:
    line = serialize(value)
    assert "\n" not in line
    assert same(deserialize(line), value)


@given(st.text(st.sampled_from("NTFifcsbarltdSzn0123456789abcdef-,. "), max_size=60) | st.text(max_size=30))
def test_any_line_is_a_value_or_refused(line: str) -> None:
    try:
        value = deserialize(line)
    except NotPlainError:
        return
    assert type(value).__module__ == "builtins"


def test_nan_crosses() -> None:
    assert math.isnan(deserialize(serialize(float("nan"))))


class Equal(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


def test_a_subclass_crosses_as_its_base() -> None:
    value = deserialize(serialize([Equal(7)]))
    assert type(value[0]) is int
    assert value != [3]


@pytest.mark.parametrize("value", [object(), len, Exception("x"), type, lambda: 1, [1, {2: print}]])
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(NotPlainError):
        serialize(value)


def test_what_has_no_end_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotPlainError):
        serialize(loop)
    with pytest.raises(NotPlainError):
        deserialize(" ".join(["l1"] * 100000))
    with pytest.raises(NotPlainError):
        deserialize("lfffffffffffffff i1")
