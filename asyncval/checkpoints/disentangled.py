"""Disentangled-Retriever: a transformer whose configuration says pooling and similarity."""

from asyncval.checkpoints.description import ITSELF, Description, Fact, describe, read_config
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.huggingface import HuggingFace
from asyncval.core.errors import CheckpointUnsupported
from asyncval.core.types import EncoderOptions

POOLINGS = {"average": "mean", "cls": "cls"}
SIMILARITIES = ("ip", "cos")
CONFIG = "config.json"


class DisentangledRetriever(HuggingFace):
    """What its training without adapters writes."""

    name = "disentangled-retriever"

    def recognises(self, folder: Folder) -> bool:
        """Say whether the configuration has both of its own keys."""
        return {"pooling", "similarity_metric"} <= read_config(folder).keys()

    def describe(self, folder: Folder, options: EncoderOptions) -> Description:
        """Read pooling and similarity; the cosine brings vectors to unit length."""
        pooling, similarity = recorded(read_config(folder), CONFIG)
        return describe(folder, options, towers=ITSELF, pooling=pooling, similarity=similarity)


def recorded(config: dict[str, object], source: str) -> tuple[Fact, Fact]:
    """Return what a configuration of this toolkit says of pooling and similarity.

    Raises:
        CheckpointUnsupported: It names one that is not known.
    """
    pooling, similarity = config.get("pooling"), config.get("similarity_metric")
    if pooling not in (None, *POOLINGS) or similarity not in (None, *SIMILARITIES):
        raise CheckpointUnsupported(
            f"{source} has the pooling {pooling!r} and the similarity {similarity!r}; known are "
            f"{', '.join(POOLINGS)} and {', '.join(SIMILARITIES)}."
        )
    return Fact(POOLINGS.get(str(pooling)), source), Fact(similarity, source)
