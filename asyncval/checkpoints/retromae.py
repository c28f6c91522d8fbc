"""RetroMAE's bi-encoder: the files of Tevatron v1, whose pooling and length flags tell."""

from asyncval.checkpoints.description import SILENCE
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.tevatron import Tevatron, has_own_files


class RetroMAE(Tevatron):
    """What RetroMAE's `bi_encoder` writes, with its pooler or untied.

    `--pooling cls|mean` stands for its `--sentence_pooling_method`, `--normalize` for its
    `--normlized`.
    """

    name = "retromae"
    pooling = SILENCE

    def recognises(self, folder: Folder) -> bool:
        """Say whether there are two transformers or a pooler; Tevatron's come before."""
        return has_own_files(folder)
