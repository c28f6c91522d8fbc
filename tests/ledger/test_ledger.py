import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from asyncval.core.errors import OutputUnavailable
from asyncval.core.types import Checkpoint, Result, State
from asyncval.ledger.sqlite import FILE_NAME, Ledger
from tests.clocks import FakeClock

PLAN = "plan"
RESULT = Result(
    metrics={"RR@10": 0.25, "nDCG@10": 1 / 3},
    seconds={"load": 0.5, "total": 2.0},
    num_texts=68,
    warnings=("Mind the gap.",),
)


def checkpoint(step, content="content", *, name=None):
    path = Path("/out") / (name or f"checkpoint-{step}")
    return Checkpoint(path=path, step=step, layout="huggingface", fingerprint=content)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def open_ledger(tmp_path, clock):
    """Return a function that opens the ledger of this test's folder, once more if it is open."""
    opened = []

    def call(**options):
        opened.append(Ledger(tmp_path, clock=clock, **options))
        return opened[-1]

    yield call
    for each in opened:
        each.close()


@pytest.fixture
def ledger(open_ledger):
    return open_ledger()


def enqueue(ledger, *checkpoints, state="state", plan=PLAN, pin_state="pinned", **fate):
    given = {"plan": plan, "folder_state": state, "pin_state": pin_state, **fate}
    return [ledger.enqueue(each, **given) for each in checkpoints]


def fail(ledger, job, reason="It is broken."):
    ledger.close_without_result(job.id, State.FAILED, reason)


def rows(ledger, plan=PLAN):
    return [
        (each.checkpoint.step, each.checkpoint.fingerprint, str(each.state))
        for each in ledger.validations(plan=plan)
    ]


def test_a_checkpoint_that_is_found_again_is_queued_once(ledger):
    assert enqueue(ledger, checkpoint(1), checkpoint(1)) == [True, False]
    assert rows(ledger) == [(1, "content", "queued")]


@pytest.mark.parametrize("end", ["running", "done", "failed"])
def test_content_that_was_dealt_with_is_not_queued_again(ledger, end):
    enqueue(ledger, checkpoint(1))
    job = ledger.claim(plan=PLAN)
    if end == "done":
        ledger.finish(job.id, RESULT)
    elif end == "failed":
        fail(ledger, job)
    assert enqueue(ledger, checkpoint(1), state="touched") == [False]
    assert rows(ledger) == [(1, "content", end)]
    assert ledger.claim(plan=PLAN) is None


def test_a_folder_that_was_touched_is_known_by_its_new_state(ledger):
    enqueue(ledger, checkpoint(1), state="before")
    enqueue(ledger, checkpoint(1), state="after")
    enqueue(ledger, checkpoint(2), state="other")
    assert ledger.folder_states(plan=PLAN) == {
        "/out/checkpoint-1": "after",
        "/out/checkpoint-2": "other",
    }


def test_content_that_was_written_over_is_superseded_while_it_waits(ledger):
    assert enqueue(ledger, checkpoint(1, "old"), checkpoint(1, "new")) == [True, True]
    assert rows(ledger) == [(1, "old", "superseded"), (1, "new", "queued")]
    assert ledger.validations(plan=PLAN)[0].reason == "The checkpoint was written again."
    assert ledger.claim(plan=PLAN).checkpoint == checkpoint(1, "new")
    assert ledger.claim(plan=PLAN) is None


def test_a_failure_is_superseded_too_and_a_result_stands(ledger):
    enqueue(ledger, checkpoint(1, "half"), fate=State.BROKEN, reason="It is not whole.")
    enqueue(ledger, checkpoint(1, "whole"))
    ledger.finish(ledger.claim(plan=PLAN).id, RESULT)
    enqueue(ledger, checkpoint(1, "again"))
    assert rows(ledger) == [
        (1, "half", "superseded"),
        (1, "whole", "done"),
        (1, "again", "queued"),
    ]


def test_content_that_comes_back_is_what_is_queued(ledger):
    enqueue(ledger, checkpoint(1, "a"), checkpoint(1, "b"), checkpoint(1, "a"))
    assert sorted(rows(ledger)) == [(1, "a", "queued"), (1, "b", "superseded")]
    assert ledger.claim(plan=PLAN).checkpoint.fingerprint == "a"


def test_content_that_comes_back_with_a_result_leaves_nothing_to_do(ledger):
    enqueue(ledger, checkpoint(1, "a"))
    ledger.finish(ledger.claim(plan=PLAN).id, RESULT)
    enqueue(ledger, checkpoint(1, "b"), checkpoint(1, "a"))
    assert ledger.claim(plan=PLAN) is None
    assert sorted(rows(ledger)) == [(1, "a", "done"), (1, "b", "superseded")]


def test_other_folders_are_not_concerned_by_a_rewritten_one(ledger):
    enqueue(ledger, checkpoint(1, "a"), checkpoint(2, "b"), checkpoint(2, "c"))
    assert rows(ledger) == [(1, "a", "queued"), (2, "b", "superseded"), (2, "c", "queued")]


@pytest.mark.parametrize("fate", [State.LOST, State.BROKEN, State.BLOCKED])
def test_content_that_could_not_be_had_before_is_queued_when_it_can(ledger, fate):
    enqueue(ledger, checkpoint(1), fate=fate, reason="It is not whole.")
    assert enqueue(ledger, checkpoint(1)) == [True]
    [row] = ledger.validations(plan=PLAN)
    assert (row.state, row.reason, row.finished_at) == (State.QUEUED, "", None)
    assert ledger.claim(plan=PLAN).attempts == 1


@pytest.mark.parametrize("fate", [State.LOST, State.BROKEN, State.BLOCKED, State.SKIPPED])
def test_a_checkpoint_that_cannot_be_had_is_recorded_with_its_reason_at_once(ledger, clock, fate):
    enqueue(ledger, checkpoint(1), fate=fate, reason="It is not whole.")
    [row] = ledger.validations(plan=PLAN)
    assert (row.state, row.reason) == (fate, "It is not whole.")
    assert row.found_at == row.finished_at == clock.time
    assert ledger.claim(plan=PLAN) is None


def test_jobs_are_claimed_in_step_order_and_those_without_a_step_last(ledger):
    final = checkpoint(None, name="final")
    enqueue(ledger, checkpoint(10), final, checkpoint(9), checkpoint(100), checkpoint(0))
    claimed = [ledger.claim(plan=PLAN).checkpoint.step for _ in range(5)]
    assert claimed == [0, 9, 10, 100, None]
    assert ledger.claim(plan=PLAN) is None


def test_plans_do_not_see_each_other(ledger):
    enqueue(ledger, checkpoint(1), plan="one")
    enqueue(ledger, checkpoint(1), plan="two")
    ledger.finish(ledger.claim(plan="one").id, RESULT)
    assert rows(ledger, "one") == [(1, "content", "done")]
    assert rows(ledger, "two") == [(1, "content", "queued")]
    assert ledger.undelivered("jsonl", plan="two") == set()


def test_the_newest_plan_is_that_which_was_used_last(ledger, clock):
    assert ledger.newest_plan() is None
    for plan in ("one", "two", "one"):
        clock.time += 1
        ledger.use_plan(plan, {"depth": 100})
    assert ledger.newest_plan() == "one"


def test_a_job_that_is_put_back_for_no_fault_of_its_own_keeps_its_attempts(ledger):
    enqueue(ledger, checkpoint(1))
    first = ledger.claim(plan=PLAN)
    ledger.requeue(first.id)
    again = ledger.claim(plan=PLAN)
    assert (first.id, first.attempts) == (again.id, again.attempts) == (again.id, 1)


def test_a_job_that_is_tried_again_counts_its_attempts(ledger):
    enqueue(ledger, checkpoint(1))
    attempts = []
    for _ in range(3):
        job = ledger.claim(plan=PLAN)
        attempts.append(job.attempts)
        ledger.retry(job.id)
    assert attempts == [1, 2, 3]


def test_a_job_that_must_wait_is_not_claimed_before_its_time_and_others_are(ledger, clock):
    enqueue(ledger, checkpoint(1), checkpoint(2))
    ledger.retry(ledger.claim(plan=PLAN).id, delay_seconds=30)
    assert ledger.claim(plan=PLAN).checkpoint.step == 2
    clock.time += 29
    assert ledger.claim(plan=PLAN) is None
    clock.time += 1
    assert ledger.claim(plan=PLAN).checkpoint.step == 1


def test_an_attempt_after_memory_ran_out_is_to_use_smaller_batches(ledger):
    enqueue(ledger, checkpoint(1))
    shrinks = []
    for shrink in (True, False, True):
        job = ledger.claim(plan=PLAN)
        shrinks.append(job.shrink)
        ledger.retry(job.id, shrink=shrink)
    assert [*shrinks, ledger.claim(plan=PLAN).shrink] == [0, 1, 1, 2]


def test_what_failed_or_was_skipped_is_queued_anew_when_asked_for(ledger):
    enqueue(ledger, checkpoint(1), checkpoint(2))
    enqueue(ledger, checkpoint(3), fate=State.SKIPPED, reason="Too many wait.")
    enqueue(ledger, checkpoint(4), fate=State.LOST, reason="It was deleted.")
    ledger.finish(ledger.claim(plan=PLAN).id, RESULT)
    fail(ledger, ledger.claim(plan=PLAN))
    assert ledger.retry_failed(plan=PLAN) == 2
    assert [state for _, _, state in rows(ledger)] == ["done", "queued", "queued", "lost"]
    assert ledger.claim(plan=PLAN).attempts == 1


def test_what_is_open_under_another_plan_leaves_the_queue(ledger):
    enqueue(ledger, checkpoint(1), checkpoint(2), plan="old")
    ledger.finish(ledger.claim(plan="old").id, RESULT)
    enqueue(ledger, checkpoint(1), plan="new")
    ledger.retire_other_plans("new")
    assert ledger.count_of_others("new") == 1
    assert ledger.count_of_others("old") == 0
    assert [state for _, _, state in rows(ledger, "old")] == ["done", "superseded"]
    assert [state for _, _, state in rows(ledger, "new")] == ["queued"]


def test_the_pins_of_open_jobs_are_known_by_their_folder_and_state(ledger):
    pinned = [replace(checkpoint(step), pin=Path(f"/pins/{step}")) for step in (1, 2, 3)]
    for each in pinned:
        enqueue(ledger, each, pin_state=f"state{each.step}")
    ledger.finish(ledger.claim(plan=PLAN).id, RESULT)
    job = ledger.claim(plan=PLAN)
    assert job.checkpoint == pinned[1]
    assert job.checkpoint.location == Path("/pins/2")
    assert job.pin_state == "state2"
    assert list(ledger.pins().values()) == [Path("/pins/2"), Path("/pins/3")]


def test_what_an_earlier_process_left_running_is_queued_again(open_ledger):
    ledger = open_ledger()
    enqueue(ledger, checkpoint(1), checkpoint(2), checkpoint(3))
    ledger.finish(ledger.claim(plan=PLAN).id, RESULT)
    ledger.claim(plan=PLAN)
    after_restart = open_ledger()
    assert after_restart.requeue_running(plan=PLAN) == 1
    assert [state for _, _, state in rows(after_restart)] == ["done", "queued", "queued"]


def test_a_result_comes_back_as_it_was_also_after_a_restart(open_ledger, clock):
    ledger = open_ledger()
    enqueue(ledger, checkpoint(5), checkpoint(8), checkpoint(9))
    job = ledger.claim(plan=PLAN)
    clock.time += 60
    ledger.finish(job.id, RESULT)
    row = open_ledger().validations(plan=PLAN)[0]
    assert row.result == RESULT
    assert row.checkpoint == checkpoint(5)
    assert (row.state, row.attempts) == (State.DONE, 1)
    assert (row.found_at, row.finished_at) == (1000.0, 1060.0)
    assert (row.queue_length, row.lag_steps) == (2, 4)


def test_a_failure_has_its_reason(ledger, clock):
    enqueue(ledger, checkpoint(1))
    job = ledger.claim(plan=PLAN)
    clock.time += 5
    fail(ledger, job, "16 tensors are missing.")
    [row] = ledger.validations(plan=PLAN)
    assert (row.state, row.reason) == (State.FAILED, "16 tensors are missing.")
    assert row.finished_at == 1005.0
    assert row.result is None


def test_result_and_state_are_recorded_together_or_not_at_all(open_ledger):
    ledger = open_ledger()
    enqueue(ledger, checkpoint(1))
    job = ledger.claim(plan=PLAN)
    with pytest.raises(TypeError):  # after the state was changed, before the result is there
        ledger.finish(job.id, Result(metrics={"RR@10": object()}))  # type: ignore[dict-item]
    assert rows(open_ledger()) == [(1, "content", "running")]
    ledger.finish(job.id, RESULT)
    assert rows(open_ledger()) == [(1, "content", "done")]


def test_a_late_message_does_not_change_what_was_recorded(ledger):
    enqueue(ledger, checkpoint(1))
    job = ledger.claim(plan=PLAN)
    ledger.finish(job.id, RESULT)
    fail(ledger, job, "too late")
    ledger.requeue(job.id)
    ledger.retry(job.id)
    assert rows(ledger) == [(1, "content", "done")]
    assert ledger.validations(plan=PLAN)[0].result == RESULT


def test_what_is_recorded_survives_a_crash_and_a_loss_of_power(ledger, tmp_path):
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    other = sqlite3.connect(tmp_path / FILE_NAME)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_each_reporter_has_its_own_results_to_deliver(ledger):
    enqueue(ledger, checkpoint(1), checkpoint(2), checkpoint(3))
    first, second = ledger.claim(plan=PLAN), ledger.claim(plan=PLAN)
    ledger.finish(first.id, RESULT)
    fail(ledger, second)
    assert ledger.undelivered("jsonl", plan=PLAN) == {first.id}
    ledger.mark_delivered("jsonl", [first.id])
    ledger.mark_delivered("jsonl", [first.id])
    assert ledger.undelivered("jsonl", plan=PLAN) == set()
    assert ledger.undelivered("tensorboard", plan=PLAN) == {first.id}


def test_others_read_while_one_writes(ledger, open_ledger):
    enqueue(ledger, checkpoint(1))
    reader = open_ledger(must_exist=True)
    assert rows(reader) == [(1, "content", "queued")]
    enqueue(ledger, checkpoint(2))
    assert [step for step, _, _ in rows(reader)] == [1, 2]


def test_reading_a_folder_without_a_ledger_is_refused_in_a_sentence_and_makes_none(tmp_path, clock):
    with pytest.raises(OutputUnavailable, match=r"There is no ledger in .* --output_dir"):
        Ledger(tmp_path, clock=clock, must_exist=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "must_exist"),
    [(b"This is no database. " * 100, False), (b"This is no database. " * 100, True), (b"", True)],
    ids=["text to write", "text to read", "empty to read"],
)
def test_a_file_that_is_no_ledger_is_refused_in_a_sentence(tmp_path, clock, content, must_exist):
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(OutputUnavailable, match=r"ledger\.sqlite' cannot be used"):
        Ledger(tmp_path, clock=clock, must_exist=must_exist)


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path, clock, open_ledger):
    open_ledger()
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(OutputUnavailable, match="the form 99"):
        Ledger(tmp_path, clock=clock)


def test_a_result_is_recorded_once(ledger):
    enqueue(ledger, checkpoint(1))
    job = ledger.claim(plan=PLAN)
    ledger.finish(job.id, RESULT)
    ledger.finish(job.id, replace(RESULT, metrics={"RR@10": 1.0}))
    [row] = ledger.validations(plan=PLAN)
    assert row.result.metrics == RESULT.metrics


@pytest.mark.parametrize("when", ["found", "closed"])
def test_a_reason_with_a_name_that_is_no_utf_8_can_be_recorded(ledger, when):
    reason = "model-\udcff.safetensors is missing."
    if when == "found":
        enqueue(ledger, checkpoint(1), fate=State.BROKEN, reason=reason)
    else:
        enqueue(ledger, checkpoint(1))
        fail(ledger, ledger.claim(plan=PLAN), reason)
    [row] = ledger.validations(plan=PLAN)
    assert row.reason == "model-\\udcff.safetensors is missing."


def test_two_contents_of_one_folder_are_never_claimed_at_a_time(ledger):
    """Their files in the output folder have one name."""
    enqueue(ledger, checkpoint(1, "old"))
    first = ledger.claim(plan=PLAN)
    enqueue(ledger, checkpoint(1, "new"), checkpoint(2))
    assert ledger.claim(plan=PLAN).checkpoint == checkpoint(2)
    assert ledger.claim(plan=PLAN) is None
    ledger.finish(first.id, RESULT)
    assert ledger.claim(plan=PLAN).checkpoint == checkpoint(1, "new")


def test_a_job_waits_no_longer_where_the_clock_was_set_back(ledger, clock):
    enqueue(ledger, checkpoint(1))
    ledger.retry(ledger.claim(plan=PLAN).id, delay_seconds=10)
    assert ledger.claim(plan=PLAN) is None
    clock.time -= 3600
    assert ledger.claim(plan=PLAN).checkpoint == checkpoint(1)


def test_the_newest_plan_is_that_which_was_used_last_also_where_the_clock_was_set_back(
    ledger, clock
):
    for plan in ("one", "two", "one", "one", "two"):
        ledger.use_plan(plan, {"depth": 100})
        assert ledger.newest_plan() == plan
        clock.time -= 500


def test_attempts_without_memory_and_those_that_the_end_cut_short_do_not_count(open_ledger):
    ledger = open_ledger()
    enqueue(ledger, checkpoint(1))
    ledger.retry(ledger.claim(plan=PLAN).id)
    for _ in range(2):
        ledger.retry(ledger.claim(plan=PLAN).id, shrink=True)
        ledger.claim(plan=PLAN)
        ledger = open_ledger()
        ledger.requeue_running(plan=PLAN)
    job = ledger.claim(plan=PLAN)
    assert (job.attempts, job.shrink) == (2, 2)


def test_what_is_of_a_later_step_than_the_last_is_not_claimed(ledger):
    final = checkpoint(None, name="final")
    enqueue(ledger, checkpoint(1), checkpoint(2), checkpoint(3), final)
    claimed = []
    while (job := ledger.claim(plan=PLAN, last_step=2)) is not None:
        claimed.append(job.checkpoint.step)
    assert claimed == [1, 2, None]
    assert ledger.claim(plan=PLAN).checkpoint.step == 3


def test_what_is_found_again_without_being_whole_has_its_new_state_and_reason(ledger, clock):
    finds = [
        (State.BROKEN, "config.json is missing."),
        (State.BROKEN, "config.json is missing."),
        (State.BROKEN, "It does not parse."),
        (State.LOST, "It does not parse."),
        (State.LOST, "It does not parse."),
    ]
    said = []
    for fate, reason in finds:
        said += enqueue(ledger, checkpoint(1), fate=fate, reason=reason)
        [row] = ledger.validations(plan=PLAN)
        assert (row.state, row.reason) == (fate, reason)
        if said[-1]:
            assert row.finished_at == clock.time
        clock.time += 1
    assert said == [True, False, True, True, False]


@pytest.mark.parametrize("end", ["queued", "running", "done"])
def test_what_was_kept_is_not_undone_by_its_folder_that_is_found_torn(ledger, end):
    enqueue(ledger, checkpoint(1))
    job = ledger.claim(plan=PLAN) if end != "queued" else None
    if job and end == "done":
        ledger.finish(job.id, RESULT)
    assert enqueue(ledger, checkpoint(1), fate=State.LOST, reason="It is gone.") == [False]
    [row] = ledger.validations(plan=PLAN)
    assert (row.state, row.reason) == (end, "")


@pytest.mark.parametrize("was_local", [False, True])
def test_on_a_remote_file_system_there_is_no_wal(open_ledger, was_local):
    """It needs memory that all who read it share; what was recorded in one stays."""
    if was_local:
        before = open_ledger()
        enqueue(before, checkpoint(1))
        assert journal(before) == ("wal", 2)
        before.close()
    ledger = open_ledger(is_remote=True)
    assert journal(ledger) == ("delete", 3)  # EXTRA
    enqueue(ledger, checkpoint(2))
    ledger.close()
    steps = [step for step, _, _ in rows(open_ledger(is_remote=True, must_exist=True))]
    assert steps == ([1, 2] if was_local else [2])


def journal(ledger):
    pragmas = [ledger._db.execute(f"PRAGMA {name}") for name in ("journal_mode", "synchronous")]
    return tuple(pragma.fetchone()[0] for pragma in pragmas)


def test_a_ledger_of_an_older_version_is_refused_to_readers_with_what_to_do(
    tmp_path, clock, open_ledger
):
    open_ledger().close()
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("PRAGMA user_version = 1")
    other.close()
    with pytest.raises(OutputUnavailable, match=r"form 1, .* a start of `asyncval watch` makes"):
        Ledger(tmp_path, clock=clock, must_exist=True)
