"""While one checkpoint is searched, the next one's files are asked for."""

from pathlib import Path

from asyncval.execution.local import Message
from tests.reliability.station import DEVICE, measured


def test_the_next_checkpoint_is_read_while_one_is_searched(put, station, monkeypatch):
    asked = []

    def note(descriptor, *rest):
        asked.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    def evaluate(job):
        for phase in ("encode passages", "search", "encode passages", "search"):
            values = {"phase": phase, "done": 0, "total": 1}
            here.inbox.put(Message(DEVICE, "progress", values))
        return measured(job)

    monkeypatch.setattr("os.posix_fadvise", note)
    monkeypatch.setattr("asyncval.checkpoints.pins.Thread", AtOnce)
    here = station(evaluate=evaluate)
    put(1)
    put(2)
    here.look()
    here.work()
    assert [state for _, state in here.states()] == ["done", "done"]
    assert {path.name for path in asked} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert len({path.parent for path in asked}) == 1  # nothing comes after the second one
    assert len(asked) == len(set(asked))


class AtOnce:
    """A thread that is done when it was started."""

    def __init__(self, *, target, args, daemon):
        self.start = lambda: target(*args)
