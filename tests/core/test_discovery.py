import pytest

from asyncval.core.discovery import Sighting, compile_pattern, step_in_name
from asyncval.core.errors import InvalidOption


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-500", 500),
        ("checkpoint_500", 500),
        ("step_3", 3),
        ("step-000500", 500),
        ("global_step12", 12),
        ("epoch-2", 2),
        ("iter_9", 9),
        ("7", 7),
        ("0", 0),
        ("checkpoint-007", 7),
    ],
)
def test_a_checkpoint_folders_name_tells_its_step(name, step):
    assert step_in_name(name) == step


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint-foo",
        "20261018123456123456",  # a date, larger than any step
        "checkpoint-",
        "checkpoint",
        "tmp-checkpoint-5",
        "checkpoint-10.pin",
        "checkpoint-10.tmp",
        "checkpoint-1-old",
        "checkpoint--5",
        "checkpoint-1.5",
        ".checkpoint-5",
        "checkpoint-٣",
        "checkpoint-5\n",
        "runs",
        "",
    ],
)
def test_a_name_that_is_no_checkpoints_tells_nothing(name):
    assert step_in_name(name) is None


def test_a_state_that_is_seen_again_has_been_quiet_since_it_was_seen_first():
    sighting = Sighting("state", 10.0).seen_again("state", 14.0).seen_again("state", 17.0)
    assert sighting.quiet_seconds(20.0) == 10.0


def test_a_change_starts_the_quiet_time_anew():
    sighting = Sighting("state", 10.0).seen_again("other", 14.0)
    assert sighting == Sighting("other", 14.0)
    assert sighting.quiet_seconds(15.0) == 1.0


def test_a_pattern_of_ones_own_says_the_step_with_its_last_group():
    pattern = compile_pattern(r"(run|try)_(\d+)(?:k|M)")
    assert step_in_name("run_50k", pattern) == 50
    assert step_in_name("my_run_50k", pattern) is None
    assert step_in_name("checkpoint-50", pattern) is None


def test_a_pattern_whose_group_is_no_number_tells_nothing():
    assert step_in_name("run_last", compile_pattern(r"run_(\w+)")) is None
    assert step_in_name("run_", compile_pattern(r"run_(\d+)?")) is None


@pytest.mark.parametrize("text", ["model_(", r"model_\d+"])
def test_a_pattern_that_cannot_tell_a_step_is_refused(text):
    with pytest.raises(InvalidOption, match="--ckpt_pattern: "):
        compile_pattern(text)
