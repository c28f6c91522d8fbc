"""A small, complete dense-retrieval trainer whose checkpoints any Sentence Transformers loads."""
