"""What is drawn; `python -m tests.chaos` runs it."""

from tests.chaos.schedules import SOURCES, make_schedule
from tests.reliability.saving import KINDS


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
