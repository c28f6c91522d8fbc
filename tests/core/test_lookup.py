import logging
import sys

import pytest

from asyncval.core.errors import InvalidOption
from asyncval.lookup import additions, look_up
from tests.packages import write_package

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


GROUP = "asyncval.reporters"
REPORTER = "class {}:\n    def publish(self, fresh, recorded): ...\n    def close(self): ...\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a package with entry points, as pip would leave it."""
    additions.cache_clear()
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name, code, **points):
        monkeypatch.delitem(sys.modules, name, raising=False)
        write_package(tmp_path, name, code, {GROUP: points})

    yield install
    additions.cache_clear()


def test_a_package_adds_to_a_table(install):
    install("parrots", REPORTER.format("Parrot"), parrot="Parrot")
    assert dict(additions(GROUP)) == {"parrot": "parrots:Parrot"}
    assert look_up("parrot", TABLE, option="--kind", group=GROUP).__name__ == "Parrot"
    with pytest.raises(InvalidOption, match="There are parrot, decimal, gone, wrong"):
        look_up("dog", TABLE, option="--kind", group=GROUP)


def test_a_name_of_the_table_is_not_taken_over(install):
    from decimal import Decimal

    install("thieves", REPORTER.format("Thief"), decimal="Thief")
    assert look_up("decimal", TABLE, option="--kind", group=GROUP) is Decimal


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemError('boom')", "SystemError: boom"),
        ("class Other: ...", "AttributeError: module 'wrecks' has no attribute 'Wreck'"),
        ("class Wreck:\n    def publish(self): ...", "it has no 'close'"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_one_warning(install, caplog, code, reason):
    install("wrecks", code, wreck="Wreck")
    install("good", REPORTER.format("Good"), good="Good")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert dict(additions(GROUP)) == {"good": "good:Good"}
    [record] = caplog.records
    assert record.getMessage() == f"{GROUP} 'wreck' of wrecks is left out: {reason}."


def test_two_packages_with_the_same_name_are_told(install, caplog):
    install("one", REPORTER.format("One"), same="One")
    install("two", REPORTER.format("Two"), same="Two")
    assert dict(additions(GROUP)) == {"same": "one:One"}
    assert "one:One has the same name" in caplog.text
