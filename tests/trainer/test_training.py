import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from trainer.arguments import parse_flags
from trainer.errors import InputError
from trainer.train import build_trainer


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
    shutil.copytree(halved / "checkpoint-4", halved / "checkpoint-best")
    train("halved", max_steps=6, resume_from_checkpoint="true")
    assert_same_bits(weights(whole), weights(halved / "checkpoint-6"))


def test_a_checkpoint_that_is_being_written_over_is_not_whole(train):
    output = train()
    shutil.rmtree(output / "checkpoint-4/1_Pooling")
    (output / "checkpoint-4/1_Pooling").touch()  # so that writing it anew breaks off
    with pytest.raises(FileExistsError):
        train()
    assert (output / "checkpoint-2/trainer_state.json").exists()
    assert not (output / "checkpoint-4/trainer_state.json").exists()


def test_a_training_that_starts_from_a_checkpoint_goes_on_with_its_projection(train):
    first = train("first", projection_dim=5)
    flags = {"model_name_or_path": first, "projection_dim": 5, "learning_rate": 0, "max_steps": 2}
    one, two = train("one", **flags), train("two", **flags, untie_encoder=True)
    projection = load_file(first / "2_Dense/model.safetensors")
    for path in (one / "2_Dense", two / "query_2_Dense", two / "document_2_Dense"):
        assert_same_bits(load_file(path / "model.safetensors"), projection)


def test_a_head_of_openmatchs_layout_is_trained_on_too(train, t5_folder):
    first = train("first", pooling="decoder", projection_dim=5)
    flags = {"model_name_or_path": first, "learning_rate": 0, "max_steps": 2}
    second = train("second", **flags, pooling="decoder", projection_dim=5)
    heads = [torch.load(folder / "linear.pt", weights_only=True) for folder in (first, second)]
    assert_same_bits(*heads)


@pytest.mark.parametrize("flags", [{}, {"projection_dim": 4}])
def test_a_projection_is_not_lost_without_a_word(train, flags):
    first = train("first", projection_dim=5, max_steps=2)
    with pytest.raises(InputError, match=r"of 5 dimensions\. Give --projection_dim 5 to train on"):
        train("second", model_name_or_path=first, **flags)


@pytest.mark.parametrize(
    "change", [{"bias": True}, {"activation_function": "torch.nn.modules.activation.Tanh"}]
)
def test_a_last_layer_that_cannot_be_trained_on_is_refused(train, change):
    first = train("first", projection_dim=5, max_steps=2)
    config = first / "2_Dense/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(InputError, match="ends in a linear layer with a bias or an activation"):
        train("second", model_name_or_path=first, projection_dim=5)


def test_a_last_layer_that_is_not_there_is_refused(train):
    first = train("first", projection_dim=5, max_steps=2)
    (first / "2_Dense/model.safetensors").unlink()
    with pytest.raises(InputError, match="the linear layer at its end cannot be read: "):
        train("second", model_name_or_path=first, projection_dim=5)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"lora": True, "lora_r": 2}, r"holds only adapters \(adapter_config\.json\), and a"),
        ({"untie_encoder": True}, r"has two towers \(router_config\.json\), and a training"),
    ],
)
def test_a_checkpoint_without_a_transformer_at_its_top_is_refused(train, flags, complaint):
    first = train("first", **flags, max_steps=2)
    with pytest.raises(InputError, match=complaint):
        train("second", model_name_or_path=first)


class FourGpus(nn.Module):
    """What DataParallel does: it splits plain dicts by the first axis and joins the outputs."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        assert all(type(tensors) is dict for tensors in inputs.values())
        split = {
            side: [
                dict(zip(tensors, part, strict=True))
                for part in zip(*(each.chunk(4) for each in tensors.values()), strict=True)
            ]
            for side, tensors in inputs.items()
        }
        # As many GPUs work as there are parts of both.
        parts = zip(split["query"], split["passage"], strict=False)
        outputs = [self.model(query=query, passage=passage) for query, passage in parts]
        return tuple(torch.cat(each) for each in zip(*outputs, strict=True))


def test_several_gpus_of_one_process_take_all_of_a_batch_that_they_cannot_share_evenly(
    model_folder, train_file, tmp_path
):
    flags = {
        "model_name_or_path": model_folder,
        "train_file": train_file,
        "output_dir": tmp_path / "training",
        "train_n_passages": 3,
        "per_device_train_batch_size": 5,
        "use_cpu": True,
    }
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    trainer = build_trainer(*parse_flags(words))
    trainer.model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    alone = trainer.compute_loss(trainer.model, batch)
    together = trainer.compute_loss(FourGpus(trainer.model), batch)
    assert together.item() == pytest.approx(alone.item(), rel=1e-5)


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
        (
            {"eval_strategy": "steps"},
            "--eval_strategy is steps. Leave it out: --asyncval validates",
        ),
        ({"label_smoothing_factor": 0.1}, "--label_smoothing_factor is 0.1. Leave it out: no obj"),
        ({"neftune_noise_alpha": 5}, "--neftune_noise_alpha is 5.0. Leave it out: noise on the"),
        ({"save_strategy": "epoch", "load_best_model_at_end": True}, "do not go together"),
    ],
)
def test_flags_that_cannot_work_are_refused_in_a_sentence(train, flags, complaint):
    with pytest.raises(InputError) as caught:
        train(**flags)
    assert complaint in str(caught.value)
