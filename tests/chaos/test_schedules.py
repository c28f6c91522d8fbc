"""A few schedules; `python -m tests.chaos` runs more of them, and many at a time."""

import os

import pytest

from tests.chaos.pool import make_pool
from tests.chaos.runner import can_mount, run_schedule
from tests.chaos.schedules import SOURCES, make_schedule
from tests.reliability.saving import KINDS

SEEDS = range(int(os.environ.get("CHAOS_SCHEDULES", "3")))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return make_pool(tmp_path_factory.mktemp("chaos"), real=True)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_each_checkpoint_is_validated_once(seed, sources, tmp_path):
    schedule = make_schedule(seed, can_fill_disk=can_mount())
    evaluator = "light" if seed else "real"
    report = run_schedule(schedule, sources, tmp_path / "run", evaluator=evaluator)
    assert report.violations == ()
    assert report.counts["rows done"] > 0


def test_the_same_seed_gives_the_same_schedule():
    assert make_schedule(7, can_fill_disk=True) == make_schedule(7, can_fill_disk=True)
    assert make_schedule(7, can_fill_disk=True) != make_schedule(8, can_fill_disk=True)


def test_every_kind_of_thing_happens_in_some_schedule():
    many = [make_schedule(seed, can_fill_disk=True) for seed in range(200)]
    deeds = {action.deed for each in many for action in each.actions}
    assert deeds == {
        "save", "pause", "wait", "kill daemon", "kill worker", "recreate root", "fill disk",
    }  # fmt: skip
    for each in many:
        saves = [action for action in each.actions if action.deed == "save"]
        assert len(saves) >= 4
        assert all(action.source < SOURCES for action in saves)
        assert 1 <= each.count("kill daemon") + each.count("kill worker") <= 3
    assert {each.kind for each in many} == set(KINDS)
    assert {each.limit for each in many} == {1, 2}
