"""What a checkpoint can look like on disk.

This is the one place where a checkpoint layout is added. The order is that of recognition:
the most particular first.
"""

LAYOUTS = {
    "sentence-transformers": "asyncval.checkpoints.sentence_transformers:SentenceTransformers",
    "openmatch": "asyncval.checkpoints.openmatch:OpenMatch",
    "disentangled-adapter": "asyncval.checkpoints.disentangled_adapter:DisentangledAdapter",
    "peft": "asyncval.checkpoints.peft:Peft",
    "distributed": "asyncval.checkpoints.distributed:Distributed",
    "tevatron": "asyncval.checkpoints.tevatron:Tevatron",
    "retromae": "asyncval.checkpoints.retromae:RetroMAE",
    "disentangled-retriever": "asyncval.checkpoints.disentangled:DisentangledRetriever",
    "huggingface": "asyncval.checkpoints.huggingface:HuggingFace",
}
LAYOUT_GROUP = "asyncval.layouts"
"""Entry points of installed packages, which are asked before this table."""
