import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from trainer.checkpoint import TextSettings, load_weights
from trainer.data import Collator
from trainer.examples import Passage, Sample
from trainer.model import BiEncoder, Tower, add_lora, load_transformer


def read_json(path):
    return json.loads(path.read_text())


def test_a_checkpoint_has_the_sentence_transformers_layout_and_nothing_else(train):
    folder = train(pooling="mean", normalize=True, query_prefix="q: ") / "checkpoint-2"

    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) == [
        "1_Pooling",
        "1_Pooling/config.json",
        "2_Normalize",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "trainer_state.json",
    ]
    assert [(m["path"], m["type"]) for m in read_json(folder / "modules.json")] == [
        ("", "sentence_transformers.models.Transformer"),
        ("1_Pooling", "sentence_transformers.models.Pooling"),
        ("2_Normalize", "sentence_transformers.models.Normalize"),
    ]
    assert read_json(folder / "1_Pooling/config.json") == {
        "word_embedding_dimension": 16,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    assert read_json(folder / "sentence_bert_config.json") == {
        "max_seq_length": 12,
        "do_lower_case": False,
    }
    assert read_json(folder / "config_sentence_transformers.json") == {
        "prompts": {"query": "q: ", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
        "max_lengths": {"query": 8, "document": 12},
    }


@pytest.mark.parametrize(
    ("template", "prompt", "kept"),
    [
        ("Instruct: find it\\nQuery: <query>", "q: Instruct: find it\nQuery: ", {}),
        ("<query> <query>", "q: ", {"query": "<query> <query>"}),
    ],
)
def test_a_template_that_is_more_than_a_prefix_is_recorded(train, template, prompt, kept):
    passages = "Text: <text>"
    flags = {"query_prefix": "q: ", "query_template": template, "doc_template": passages}
    folder = train(**flags, max_steps=2) / "checkpoint-2"
    config = read_json(folder / "config_sentence_transformers.json")
    assert config["prompts"] == {"query": prompt, "document": ""}
    assert config["templates"] == {**kept, "document": passages}


def test_without_normalisation_there_is_no_such_module_and_similarity_is_the_dot_product(train):
    folder = train(pooling="last", max_steps=2) / "checkpoint-2"
    assert len(read_json(folder / "modules.json")) == 2
    assert not (folder / "2_Normalize").exists()
    assert read_json(folder / "1_Pooling/config.json")["pooling_mode_lasttoken"] is True
    similarity = read_json(folder / "config_sentence_transformers.json")["similarity_fn_name"]
    assert similarity == "dot"


def test_the_weights_are_those_of_the_bare_transformer(train, model_folder):
    folder = train(max_steps=2) / "checkpoint-2"
    saved = load_file(folder / "model.safetensors")
    started_from = load_file(model_folder / "model.safetensors")
    assert saved.keys() == started_from.keys()
    _, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_the_trainers_state_is_the_last_file_of_every_checkpoint(train):
    output = train()
    for step in (2, 4):
        folder = output / f"checkpoint-{step}"
        state = folder / "trainer_state.json"
        assert read_json(state)["global_step"] == step
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert all(path.stat().st_mtime_ns <= state.stat().st_mtime_ns for path in files)


def test_the_final_model_has_the_layout_too_and_the_weights_of_the_last_step(train):
    output = train()
    for name in ("modules.json", "1_Pooling/config.json", "tokenizer.json", "model.safetensors"):
        assert (output / name).read_bytes() == (output / "checkpoint-4" / name).read_bytes()
    assert not (output / "trainer_state.json").exists()


def test_old_checkpoints_are_rotated_away_and_the_rest_is_left_as_it_was_written(train):
    output = train(max_steps=6, save_total_limit=2)
    assert sorted(path.name for path in output.glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
    ]


def test_a_projection_is_a_dense_module_without_activation_between_pooling_and_norm(train):
    folder = train(projection_dim=5, normalize=True, max_steps=2) / "checkpoint-2"
    assert [m["path"] for m in read_json(folder / "modules.json")] == [
        "",
        "1_Pooling",
        "2_Dense",
        "3_Normalize",
    ]
    assert read_json(folder / "2_Dense/config.json") == {
        "in_features": 16,
        "out_features": 5,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    assert load_file(folder / "2_Dense/model.safetensors")["linear.weight"].shape == (5, 16)
    assert read_json(folder / "1_Pooling/config.json")["word_embedding_dimension"] == 16


def test_of_an_encoder_decoder_only_the_encoder_is_kept(train, t5_folder):
    folder = train(pooling="mean", max_steps=2) / "checkpoint-2"
    assert read_json(folder / "config.json")["architectures"] == ["T5EncoderModel"]
    assert not [name for name in load_file(folder / "model.safetensors") if "decoder" in name]


def test_a_decoder_pads_right_with_its_end_of_text(train, decoder_folder):
    folder = train(pooling="last", max_steps=2) / "checkpoint-2"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("right", "[SEP]")


def test_a_checkpoint_of_adapters_holds_them_and_names_its_base(train, model_folder):
    folder = train(lora=True, lora_r=2, projection_dim=5, max_steps=2) / "checkpoint-2"
    assert not (folder / "model.safetensors").exists()
    config = read_json(folder / "adapter_config.json")
    assert config["base_model_name_or_path"] == str(model_folder)
    assert (config["r"], config["lora_alpha"]) == (2, 64)
    adapters = load_file(folder / "adapter_model.safetensors")
    assert {name.rpartition(".lora_")[2] for name in adapters} == {"A.weight", "B.weight"}
    # B begins with zeros: what is not zero was trained.
    assert any(value.abs().max() > 0 for name, value in adapters.items() if "lora_B" in name)


QUERIES = ["word1 word2", "word5"]
PASSAGES = ["word7 word8 word9", "word4 word4", "word2"]


def assert_sentence_transformers_agrees(folder, *, base=None, untied=False, **settings):
    """Embed some texts by our own code and by the library."""
    library = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    start = base or (folder / "query_0_Transformer" if untied else folder)
    transformer = load_transformer(str(start))
    if base:
        add_lora(transformer, rank=2, alpha=64, dropout=0.1, target_modules="all-linear")
    encoder = BiEncoder(Tower(transformer, **settings), untied=untied).eval()
    load_weights(folder, model=encoder, texts=TextSettings(q_max_len=12, p_max_len=12))
    collate = Collator(
        tokenizer=AutoTokenizer.from_pretrained(
            folder / "query_0_Transformer" if untied else folder
        ),
        q_max_len=12,
        p_max_len=12,
        query_prefix="word3: ",
    )
    batch = collate(
        [
            Sample(QUERIES[0], [Passage(text) for text in PASSAGES[:2]]),
            Sample(QUERIES[1], [Passage(text) for text in PASSAGES[2:]]),
        ]
    )
    with torch.no_grad():
        ours = encoder(**batch)

    theirs = library.SentenceTransformer(str(folder), device="cpu")

    assert theirs.similarity_fn_name == ("cosine" if encoder.query_tower.normalize else "dot")
    for embeddings, texts, encode in zip(
        ours, (QUERIES, PASSAGES), (theirs.encode_query, theirs.encode_document), strict=True
    ):
        expected = encode(texts, convert_to_tensor=True)
        torch.testing.assert_close(embeddings, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.filterwarnings("ignore")  # of a foreign library, which must not fail our tests
def test_sentence_transformers_gives_the_same_embeddings(train, pooling, normalize):
    output = train(pooling=pooling, normalize=normalize, query_prefix="word3: ", max_steps=2)
    assert_sentence_transformers_agrees(
        output / "checkpoint-2", pooling=pooling, normalize=normalize
    )


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("model_folder", "cls"), ("decoder_folder", "last"), ("t5_folder", "mean")],
)
@pytest.mark.filterwarnings("ignore")  # of a foreign library, which must not fail our tests
def test_sentence_transformers_reads_projections_adapters_and_other_transformers(
    request, train, kind, pooling, lora
):
    base = request.getfixturevalue(kind)
    output = train(
        pooling=pooling,
        projection_dim=5,
        lora=lora,
        lora_r=2,
        query_prefix="word3: ",
        max_steps=2,
    )
    assert_sentence_transformers_agrees(
        output / "checkpoint-2", base=base if lora else None, pooling=pooling, projection_dim=5
    )


@pytest.mark.filterwarnings("ignore")  # of a foreign library, which must not fail our tests
def test_sentence_transformers_routes_queries_and_passages_to_their_towers(train):
    settings = {"pooling": "mean", "projection_dim": 5, "normalize": True}
    output = train(
        **settings, untie_encoder=True, query_prefix="word3: ", q_max_len=12, max_steps=2
    )
    assert_sentence_transformers_agrees(output / "checkpoint-2", untied=True, **settings)


def test_two_towers_are_two_routes_with_their_own_weights_and_lengths(train):
    folder = train(untie_encoder=True, projection_dim=5, max_steps=2) / "checkpoint-2"
    assert [m["type"] for m in read_json(folder / "modules.json")] == [
        "sentence_transformers.models.Router"
    ]
    assert read_json(folder / "router_config.json")["structure"] == {
        "query": ["query_0_Transformer", "query_1_Pooling", "query_2_Dense"],
        "document": ["document_0_Transformer", "document_1_Pooling", "document_2_Dense"],
    }
    for route, length in (("query", 8), ("document", 12)):
        settings = read_json(folder / f"{route}_0_Transformer/sentence_bert_config.json")
        assert settings["max_seq_length"] == length
    for name in ("0_Transformer", "2_Dense"):
        query, document = (
            load_file(folder / f"{route}_{name}/model.safetensors")
            for route in ("query", "document")
        )
        assert query.keys() == document.keys()
        assert any(not torch.equal(query[key], document[key]) for key in query)
