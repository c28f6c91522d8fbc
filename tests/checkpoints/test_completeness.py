import itertools
import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from asyncval.checkpoints.completeness import STALE_FACTOR, examine, inventory_of
from asyncval.checkpoints.folder import Folder, fingerprint
from asyncval.core.errors import CheckpointError, CheckpointIncomplete, CheckpointUnsupported
from tests.checkpoints.recipes import disentangled, openmatch, tevatron
from tests.models import save_huggingface, save_sentence_transformers

STEP = 4
TRAINING = ["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
SIDES = ("query", "passage")
LAYER_NORM = ("layernorm.pt", "layernorm_config.json")
TOKENIZER = ["tokenizer_config.json", "tokenizer.json"]
HUGGINGFACE = ["config.json", "model.safetensors", *TOKENIZER, *TRAINING, "trainer_state.json"]
SHARDED = [
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    *TOKENIZER,
    *TRAINING,
    "trainer_state.json",
]
SENTENCE_TRANSFORMERS = [
    "config_sentence_transformers.json",
    "config.json",
    "model.safetensors",
    *TOKENIZER,
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "modules.json",
    "README.md",
    *TOKENIZER,  # its trainer writes them a second time
    *TRAINING,
    "trainer_state.json",
]


TEVATRON = [
    "query_model/config.json",
    "query_model/model.safetensors",
    "passage_model/config.json",
    "passage_model/pytorch_model.bin",
    "pooler.pt",
    "pooler_config.json",
    *TRAINING[1:],  # it does not write its arguments
    "trainer_state.json",
]
OPENMATCH = [
    *(f"{side}_model/{name}" for side in SIDES for name in ("config.json", "model.safetensors")),
    *(f"{side}_head/{name}" for side in SIDES for name in ("linear.pt", "head_config.json")),
    *(f"{side}_layernorm/{name}" for side in SIDES for name in LAYER_NORM),
    "openmatch_config.json",
    *TOKENIZER,
    *TRAINING,
    "trainer_state.json",
]
DISENTANGLED = [
    "dense/adapter_config.json",
    "dense/pytorch_adapter.bin",
    *TOKENIZER,
    *TRAINING,
    "trainer_state.json",
]


def calm_down(folder: Path) -> None:
    """Give folders an old time, as if their entries had long been there."""
    for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        os.utime(each, ns=(0, 0))


def add_training_files(folder: Path) -> Path:
    for name in TRAINING:
        torch.save({"a": torch.ones(3)}, folder / name)
    (folder / "README.md").write_text("A model.\n")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": STEP, "epoch": 0.5}))
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Whole checkpoints, by kind, whose files the replays copy."""
    root = tmp_path_factory.mktemp("sources")
    plain = add_training_files(save_huggingface(root / "plain"))
    sharded = add_training_files(save_huggingface(root / "sharded"))
    from transformers import BertModel

    model = BertModel.from_pretrained(sharded)
    (sharded / "model.safetensors").unlink()
    size = sum(tensor.numel() for tensor in model.state_dict().values()) * 4
    model.save_pretrained(sharded, max_shard_size=size * 2 // 3)
    sentence = save_sentence_transformers(
        root / "sentence",
        kinds=("Transformer", "Pooling", "Dense"),
        model_config={"similarity_fn_name": "dot"},
        bert_values={"max_seq_length": 32},
    )
    toolkits = {
        "tevatron": tevatron.untied_pooler(root / "tevatron"),
        "openmatch": openmatch.untied_heads(root / "openmatch"),
        "disentangled": disentangled.union(root / "disentangled"),
    }
    return {
        "plain": plain,
        "sharded": sharded,
        "sentence": add_training_files(sentence),
        **{kind: add_training_files(made.folder) for kind, made in toolkits.items()},
    }


ORDERS = {
    "plain": HUGGINGFACE,
    "sharded": SHARDED,
    "sentence": SENTENCE_TRANSFORMERS,
    "tevatron": TEVATRON,
    "openmatch": OPENMATCH,
    "disentangled": DISENTANGLED,
}


class Writer:
    """Writes files at times that go up by a millisecond, as a slow trainer would.

    As a file system does, it gives a folder the time at which an entry came or went.
    """

    def __init__(self) -> None:
        self._times = itertools.count(1_700_000_000_000, 1)

    def write(self, path: Path, content: bytes) -> None:
        time = next(self._times) * 1_000_000
        touched = {path}
        for each in (path, path.parent):
            if not each.exists():
                touched |= {each, each.parent}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        for each in touched:
            os.utime(each, ns=(time, time))

    def rename(self, path: Path, target: Path) -> None:
        path.rename(target)
        time = next(self._times) * 1_000_000
        os.utime(path.parent, ns=(time, time))


def replay(writer, source, names, target, *, aside=False):
    """Write the files in their order; stop after every half and every whole one."""
    target.mkdir(exist_ok=True)
    yield "nothing"
    for name in names:
        content = (source / name).read_bytes()
        if aside and name.endswith(".safetensors"):
            temporary = target / Path(name).parent / ".tmpAbCdEf"
            writer.write(temporary, content[: len(content) // 2])
            yield f"half of {temporary.name}"
            writer.write(temporary, content)
            yield f"all of {temporary.name}"
            writer.rename(temporary, target / name)
        else:
            writer.write(target / name, b"")
            yield f"empty {name}"
            writer.write(target / name, content[: len(content) // 2])
            yield f"half of {name}"
            writer.write(target / name, content)
        yield f"all of {name}"


def is_final(folder, **known):
    try:
        return examine(Folder.listing(folder), step=STEP, **known).quiet_factor == 0
    except CheckpointError:
        return False


def finals(states, target):
    """Return all states, and those in which the folder was taken to be finally complete."""
    seen = [(state, is_final(target)) for state in states]
    return [state for state, _ in seen], [state for state, final in seen if final]


@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("aside", [False, True], ids=["in place", "aside"])
def test_a_checkpoint_that_is_written_over_is_final_only_at_the_end(sources, tmp_path, kind, aside):
    target, writer = tmp_path / "checkpoint-4", Writer()
    for _ in replay(writer, sources[kind], ORDERS[kind], target):
        pass
    states = replay(writer, sources[kind], ORDERS[kind], target, aside=aside)
    assert next(states) == "nothing"
    _, final = finals(states, target)
    assert final == ["all of trainer_state.json"]


@pytest.mark.parametrize("kind", ORDERS)
def test_what_trainers_leave_out_of_a_model_is_not_waited_for(sources, tmp_path, kind):
    target = tmp_path / "checkpoint-4"
    names = [name for name in ORDERS[kind] if name not in TRAINING]
    for _ in replay(Writer(), sources[kind], names, target):
        pass
    whole = examine(Folder.listing(target), step=STEP)
    assert whole.quiet_factor == 0
    assert "trainer_state.json" not in whole.model_files


@pytest.fixture
def complete(sources, tmp_path):
    """Return a whole checkpoint of a kind, written in its order."""

    def make(kind="plain"):
        target = tmp_path / "checkpoint-4"
        for _ in replay(Writer(), sources[kind], ORDERS[kind], target):
            pass
        return target

    return make


def test_the_model_files_of_each_kind_are_those_that_the_evaluation_needs(complete, tmp_path):
    needed = {
        "plain": {"config.json", "model.safetensors", *TOKENIZER},
        "sharded": {*SHARDED} - {*TRAINING, "trainer_state.json"},
        "sentence": {*SENTENCE_TRANSFORMERS} - {*TRAINING, "trainer_state.json", "README.md"},
    }
    for kind, names in needed.items():
        assert set(examine(Folder.listing(complete(kind)), step=STEP).model_files) == names
        shutil.rmtree(tmp_path / "checkpoint-4")


@pytest.mark.parametrize("kind", ORDERS)
def test_without_any_of_its_model_files_it_is_not_whole(complete, kind):
    target = complete(kind)
    optional = {*TOKENIZER, "config_sentence_transformers.json", "sentence_bert_config.json"}
    for name in examine(Folder.listing(target), step=STEP).model_files:
        if name in optional:
            continue
        (target / name).rename(target / "away")
        calm_down(target)
        assert not is_final(target), name
        (target / "away").rename(target / name)
    calm_down(target)
    assert is_final(target)


def test_a_model_file_newer_than_the_trainers_last_must_have_been_quiet_for_long(complete):
    target = complete()
    later = (target / "trainer_state.json").stat().st_mtime_ns + 1
    os.utime(target / "model.safetensors", ns=(later, later))
    assert examine(Folder.listing(target), step=STEP).quiet_factor == STALE_FACTOR


def test_a_model_file_of_the_same_tick_as_the_trainers_last_is_not_newer(complete):
    target = complete()
    same = (target / "trainer_state.json").stat().st_mtime_ns
    os.utime(target / "model.safetensors", ns=(same, same))
    assert is_final(target)


def test_without_the_trainers_last_file_a_whole_folder_must_have_been_quiet(complete):
    target = complete()
    (target / "trainer_state.json").unlink()
    assert examine(Folder.listing(target), step=STEP).quiet_factor == 1


@pytest.mark.parametrize("content", ['{"global_step": 3}', "{}", "[]"])
def test_a_last_file_of_another_step_does_not_vouch_for_the_folder(complete, content):
    target = complete()
    (target / "trainer_state.json").write_text(content)
    assert examine(Folder.listing(target), step=STEP).quiet_factor == 1


@pytest.mark.parametrize("content", ["", '{"global_step": 4'])
def test_a_half_written_last_file_means_incomplete(complete, content):
    target = complete()
    (target / "trainer_state.json").write_text(content)
    with pytest.raises(CheckpointIncomplete, match=r"trainer_state\.json"):
        examine(Folder.listing(target), step=STEP)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ORDERS)
def test_a_checkpoint_that_is_being_deleted_is_not_final(complete, kind, seed):
    target = complete(kind)
    inventory = inventory_of(examine(Folder.listing(target), step=STEP).model_files)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    random.Random(seed).shuffle(files)
    model_files = set(examine(Folder.listing(target), step=STEP).model_files)
    lacks_something = False
    for path in files:
        path.unlink()
        lacks_something |= path.relative_to(target).as_posix() in model_files
        assert not is_final(target)
        assert is_final(target, inventory=inventory) <= (not lacks_something)


def test_a_folder_with_all_that_an_earlier_checkpoint_had_is_not_being_deleted(complete):
    target = complete("sharded")
    whole = examine(Folder.listing(target), step=STEP).model_files
    (target / "rng_state_1.pth").write_bytes(b"of another rank")
    assert not is_final(target)
    assert is_final(target, inventory=inventory_of(whole))
    assert not is_final(target, inventory=inventory_of([*whole, "vocab.txt"]))


def test_an_inventory_does_not_count_shards():
    two = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    three = ["config.json", *(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))]
    assert inventory_of(two) == inventory_of(three)


def test_another_last_file_may_be_named(complete):
    target = complete()
    (target / "trainer_state.json").unlink()
    (target / "done").write_text("")
    calm_down(target)
    assert not is_final(target)
    assert is_final(target, sentinel_name="done")


def test_a_folder_that_says_it_is_incomplete_is_believed(complete):
    target = complete()
    (target / "checkpoint-is-incomplete.txt").write_text("")
    with pytest.raises(CheckpointIncomplete, match=r"checkpoint-is-incomplete\.txt"):
        examine(Folder.listing(target), step=STEP)


@pytest.mark.parametrize("name", [".tmpAbCdEf", ".~model.safetensors", "2_Dense/.tmpAbCdEf"])
def test_a_temporary_file_newer_than_the_last_means_incomplete_and_an_older_one_nothing(
    complete, name
):
    target = complete("sentence")
    (target / name).write_bytes(b"half")
    with pytest.raises(CheckpointIncomplete, match=name):
        examine(Folder.listing(target), step=STEP)
    os.utime(target / name, ns=(0, 0))
    calm_down(target)
    assert is_final(target)


def test_a_temporary_file_means_incomplete_where_there_is_no_last_file(complete):
    target = complete()
    (target / "trainer_state.json").unlink()
    (target / ".tmpAbCdEf").write_bytes(b"half")
    with pytest.raises(CheckpointIncomplete, match=r"\.tmpAbCdEf"):
        examine(Folder.listing(target), step=STEP)


def test_a_folder_without_any_model_is_unsupported(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointUnsupported, match="no checkpoint of a known layout"):
        examine(Folder.listing(tmp_path), step=None)


def test_a_module_of_an_unknown_kind_is_unsupported_by_name(complete):
    target = complete("sentence")
    modules = json.loads((target / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.LSTM"
    (target / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointUnsupported, match="LSTM is not read"):
        examine(Folder.listing(target), step=STEP)


def test_the_state_of_a_folder_changes_with_every_write_and_only_then(complete):
    target = complete()
    before = Folder.listing(target).state
    assert Folder.listing(target).state == before
    stat = (target / "model.safetensors").stat()
    content = (target / "model.safetensors").read_bytes()
    (target / "model.safetensors").write_bytes(content)
    os.utime(target / "model.safetensors", ns=(stat.st_mtime_ns + 1, stat.st_mtime_ns + 1))
    assert Folder.listing(target).state != before


def test_a_file_that_comes_or_goes_in_a_folder_below_changes_the_state(complete):
    target = complete("sentence")
    states = {Folder.listing(target).state}
    (target / "2_Dense" / "new").write_text("")
    states.add(Folder.listing(target).state)
    (target / "2_Dense" / "new").unlink()
    states.add(Folder.listing(target).state)
    assert len(states) == 3  # the folder's own time has changed


def test_a_folder_that_vanished_is_incomplete(tmp_path):
    with pytest.raises(CheckpointIncomplete):
        Folder.listing(tmp_path / "gone")


def test_the_fingerprint_is_that_of_content_and_names_and_not_of_place_or_time(complete, tmp_path):
    target = complete()
    names = ["config.json", "model.safetensors"]
    digest = fingerprint(target, names)
    copy = shutil.copytree(target, tmp_path / "copy")
    os.utime(copy / "config.json", ns=(0, 0))
    assert fingerprint(copy, reversed(names)) == digest
    assert fingerprint(copy, names[:1]) != digest
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    assert fingerprint(copy, names) != digest


def test_a_fingerprint_of_a_file_that_vanished_is_incomplete(tmp_path):
    with pytest.raises(CheckpointIncomplete):
        fingerprint(tmp_path, ["config.json"])
