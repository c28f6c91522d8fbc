import pytest

from asyncval.core.errors import InvalidOption
from asyncval.lookup import look_up

TABLE = {"decimal": "decimal:Decimal", "gone": "no.such.module:Name", "wrong": "decimal:NoSuch"}


def test_a_name_of_the_table_or_a_place_of_ones_own_is_imported():
    from decimal import Decimal
    from fractions import Fraction

    assert look_up("decimal", TABLE, option="--kind") is Decimal
    assert look_up("fractions:Fraction", TABLE, option="--kind") is Fraction


def test_an_unknown_name_is_refused_with_the_nearest_and_all_that_there_are():
    with pytest.raises(InvalidOption) as caught:
        look_up("decimals", TABLE, option="--kind")
    message = str(caught.value)
    assert message.startswith("--kind: 'decimals' is not known. Did you mean 'decimal'?")
    assert "There are decimal, gone, wrong" in message


@pytest.mark.parametrize("name", ["gone", "wrong", "no_such_module:Name"])
def test_what_cannot_be_imported_is_refused_with_its_place(name):
    with pytest.raises(InvalidOption, match=r"--kind: '\S+:\w+' cannot be imported"):
        look_up(name, TABLE, option="--kind")
