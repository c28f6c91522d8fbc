"""What looks like a checkpoint, but has no single vector for a text: refused by name."""

from asyncval.checkpoints.description import architecture_of, read_config
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import (
    ENCODER_HALF,
    refuse_architecture,
    refuse_encoder_decoder,
)
from asyncval.core.errors import CheckpointUnsupported

JAX_WEIGHTS = "flax_model.msgpack"
JAX_TOWERS = ("", "query_encoder/", "passage_encoder/")
QUANTISERS = ("pq.pt", "pq_config.json")
NOT_OF_TEXT = ("vision_config", "audio_config")


def refuse_others(folder: Folder) -> None:
    """Refuse a folder that a trainer of retrieval writes, but not of a dense bi-encoder.

    Raises:
        CheckpointUnsupported: It is one; the message says of what kind.
        CheckpointIncomplete: A file that tells it is half-written.
    """
    openmatch = read_config(folder, "openmatch_config.json")
    if {"pos_token", "neg_token"} & openmatch.keys() and "tied" not in openmatch:
        raise CheckpointUnsupported(
            "openmatch_config.json has pos_token and neg_token, so OpenMatch's re-ranker wrote it: "
            "it has no vectors to search with."
        )
    quantiser = next((name for name in QUANTISERS if name in folder), None)
    if quantiser:
        raise CheckpointUnsupported(
            f"{quantiser} is of RetroMAE's ColBERT-lite, which has a vector for every token: only "
            "one vector a text can be searched."
        )
    pooler = read_config(folder, "pooler_config.json")
    if pooler and "output_dim" not in pooler:
        raise CheckpointUnsupported(
            "pooler_config.json has no output_dim, so Tevatron's uniCOIL wrote it: it has a weight "
            "for every token and no vector for a text."
        )
    _refuse_jax(folder)
    _refuse_architectures(folder)


def _refuse_jax(folder: Folder) -> None:
    for prefix in JAX_TOWERS:
        if prefix + JAX_WEIGHTS in folder:
            raise CheckpointUnsupported(
                f"{prefix}{JAX_WEIGHTS} holds weights of Flax (Tevatron's JAX trainer), which "
                "transformers 5 cannot read: convert it with from_flax=True of transformers 4."
            )


def _refuse_architectures(folder: Folder) -> None:
    config = read_config(folder)
    architecture = architecture_of(config)
    refuse_architecture(architecture)
    if "openmatch_config.json" in folder:
        return
    if config.get("is_encoder_decoder") and not architecture.endswith(ENCODER_HALF):
        refuse_encoder_decoder(architecture or str(config.get("model_type")))
    other = next((key for key in NOT_OF_TEXT if key in config), None)
    if other:
        raise CheckpointUnsupported(
            f"config.json has a {other}: {architecture or 'the model'} is not of text alone."
        )
