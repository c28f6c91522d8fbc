"""Validates every checkpoint of a dense-retriever training while the training goes on."""

__version__ = "0.3.0"
