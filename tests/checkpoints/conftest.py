import pickle

import pytest
import torch

from tests.checkpoints.hostile import Touch


@pytest.fixture(params=["zip", "legacy", "bare pickle"])
def malicious(request, tmp_path):
    """Return a function that arms a file, and the canary that it would leave."""
    canary = tmp_path / "canary"

    def arm(path):
        content = {"embeddings.word_embeddings.weight": Touch(canary)}
        if request.param == "bare pickle":
            path.write_bytes(pickle.dumps(content, protocol=2))
            pickle.loads(path.read_bytes())
        else:
            torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
            torch.load(path, weights_only=False)
        canary.unlink()  # it is armed
        return canary

    return arm
