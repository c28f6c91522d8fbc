import json
import logging

import pytest
import torch
from safetensors.torch import load_file

from trainer.errors import InputError


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same_bits(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_training_lowers_its_loss(train):
    output = train(max_steps=30, save_steps=30, logging_steps=10, normalize=True, temperature=0.05)
    state = json.loads((output / "checkpoint-30/trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("objective", ["margin_mse", "kl"])
def test_a_training_by_a_teacher_lowers_its_loss(train, scored_file, objective):
    output = train(
        train_file=scored_file, objective=objective, max_steps=30, save_steps=30, logging_steps=10
    )
    state = json.loads((output / "checkpoint-30/trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]


def test_a_share_of_the_contrastive_loss_can_be_added(train, scored_file):
    def loss(**flags):
        output = train(train_file=scored_file, max_steps=1, save_steps=1, logging_steps=1, **flags)
        state = json.loads((output / "checkpoint-1/trainer_state.json").read_text())
        return state["log_history"][0]["loss"]

    both = loss(objective="kl", contrastive_loss_weight=0.25)
    assert both == pytest.approx(loss(objective="kl") + 0.25 * loss(), rel=1e-5)


@pytest.mark.parametrize("stopped_at", [3, 5, 7])
def test_a_resumed_training_ends_with_the_weights_of_an_undisturbed_one(train, stopped_at):
    # 20 examples in batches of 4 are 5 steps: within, at the end of and after the first epoch.
    undisturbed = train("undisturbed", max_steps=9, save_steps=1)
    resumed = train(
        "resumed",
        max_steps=9,
        save_steps=9,
        resume_from_checkpoint=undisturbed / f"checkpoint-{stopped_at}",
        seed=42,
    )
    assert not torch.equal(
        weights(undisturbed)["embeddings.word_embeddings.weight"],
        weights(undisturbed / "checkpoint-3")["embeddings.word_embeddings.weight"],
    )
    assert_same_bits(weights(undisturbed), weights(resumed))


@pytest.mark.parametrize("lora", [False, True])
def test_projections_and_adapters_are_resumed_too(train, lora):
    flags = {"projection_dim": 5, "lora": lora, "max_steps": 6}
    whole = train("whole", **flags)
    resumed = train("resumed", **flags, resume_from_checkpoint=whole / "checkpoint-4")
    names = ["2_Dense/model.safetensors", "adapter_model.safetensors", "model.safetensors"]
    for name in names[:2] if lora else names[::2]:
        assert_same_bits(load_file(whole / name), load_file(resumed / name))


def test_two_towers_are_resumed_too(train):
    whole = train("whole", untie_encoder=True, max_steps=6)
    resumed = train(
        "resumed",
        untie_encoder=True,
        max_steps=6,
        resume_from_checkpoint=whole / "checkpoint-4",
    )
    for tower in ("query_0_Transformer", "document_0_Transformer"):
        assert_same_bits(weights(whole / tower), weights(resumed / tower))


def test_chunks_change_nothing_but_memory(train, model_folder):
    config = model_folder / "config.json"
    config.write_text(config.read_text().replace('_prob": 0.1', '_prob": 0.0'))
    plain, chunks = train("plain", optim="sgd"), train("chunks", optim="sgd", gc_chunk_size=3)
    for name, value in weights(plain).items():
        torch.testing.assert_close(value, weights(chunks)[name], atol=1e-6, rtol=1e-5)


def test_resuming_with_true_continues_from_the_last_checkpoint(train):
    whole = train("whole", max_steps=6)
    halved = train("halved", max_steps=6)
    (halved / "checkpoint-6" / "trainer_state.json").unlink()  # as if it had been killed
    train("halved", max_steps=6, resume_from_checkpoint="true")
    assert_same_bits(weights(whole), weights(halved / "checkpoint-6"))


def test_data_workers_change_nothing(train, monkeypatch):
    # Whoever wants the tokenizer's threads gets them where nothing is forked: there they hang.
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    alone = train("alone", max_steps=7, in_process=False)
    workers = train("workers", max_steps=7, dataloader_num_workers=2, in_process=False)
    assert_same_bits(weights(alone), weights(workers))


def test_gradient_checkpointing_changes_nothing_but_memory(train):
    plain = train("plain")
    checkpointed = train("checkpointed", activation_checkpointing=True)
    for name, value in weights(plain).items():
        torch.testing.assert_close(value, weights(checkpointed)[name], atol=1e-6, rtol=1e-5)


def test_bfloat16_training_keeps_float32_weights(train):
    output = train(bf16=True)
    assert {value.dtype for value in weights(output).values()} == {torch.float32}


def test_berts_own_pooler_is_left_as_it_was(train, model_folder):
    output = train(weight_decay=0.1)
    before, after = weights(model_folder), weights(output)
    assert torch.equal(before["pooler.dense.weight"], after["pooler.dense.weight"])
    name = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(before[name], after[name])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorBoard's, at its import
def test_tensorboard_gets_the_loss_at_the_trainers_steps(train):
    output = train(report_to="tensorboard", logging_steps=2)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [events] = output.glob("runs/*/events.*")
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars("train/loss")] == [2, 4]


def test_without_a_terminal_each_logging_step_is_one_line_and_stdout_is_empty(
    train, capsys, caplog
):
    caplog.set_level(logging.INFO)
    train(logging_steps=2)
    lines = [record.getMessage() for record in caplog.records if record.name == "trainer"]
    assert [line.split(":")[0] for line in lines] == ["Step 2 of 4", "Step 4 of 4"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"temperature": 0}, "--temperature is 0.0. It must be above 0."),
        ({"teacher_temp": -1}, "--teacher_temp is -1.0. It must be above 0."),
        ({"contrastive_loss_weight": -1}, "--contrastive_loss_weight is -1.0. It must be 0 or"),
        ({"objective": "kl", "train_n_passages": 1}, "--objective kl compares passages of one"),
        (
            {"negatives_x_device": True, "accelerator_config": '{"even_batches": false}'},
            "--negatives_x_device needs batches of one size",
        ),
        ({"objective": "kl"}, "line 1: no teacher scores, but --objective asks for them"),
        ({"projection_dim": 0}, "--projection_dim is 0. It must be at least 1."),
        ({"gc_chunk_size": -1}, "--gc_chunk_size is -1. It must be 0 or more."),
        ({"lora": True, "lora_target_modules": "nothing"}, "'nothing' does not fit the model"),
        ({"qrels_file": "/nowhere"}, "line 1: no ids, but --qrels_file asks for them. Give the"),
        ({"lora": True, "untie_encoder": True}, "--lora does not go with --untie_encoder"),
        ({"p_max_len": 129}, "--p_max_len is 129, but the model has positions for 128 tokens."),
        ({"q_max_len": 512}, "Use --q_max_len 128 or less."),
        ({"train_n_passages": 0}, "--train_n_passages is 0. It must be at least 1."),
        ({"model_name_or_path": "/nowhere"}, "Model '/nowhere' could not be loaded"),
        ({"tokenizer_name_or_path": "/nowhere"}, "Tokenizer '/nowhere' could not be loaded"),
        ({"resume_from_checkpoint": "/nowhere"}, "'/nowhere' has no trainer_state.json"),
        ({"resume_from_checkpoint": "true"}, "No checkpoint to resume from in"),
        ({"train_sampling_strategy": "sequential"}, "Only random is supported"),
        ({"save_strategy": "epoch", "load_best_model_at_end": True}, "do not go together"),
    ],
)
def test_flags_that_cannot_work_are_refused_in_a_sentence(train, flags, complaint):
    with pytest.raises(InputError) as caught:
        train(**flags)
    assert complaint in str(caught.value)
