"""What a checkpoint can look like on disk.

This is the one place where a checkpoint layout is added. The order is that of recognition:
the most particular first.
"""

LAYOUTS = {
    "sentence-transformers": "asyncval.checkpoints.sentence_transformers:SentenceTransformers",
    "peft": "asyncval.checkpoints.peft:Peft",
    "distributed": "asyncval.checkpoints.distributed:Distributed",
    "huggingface": "asyncval.checkpoints.huggingface:HuggingFace",
}
