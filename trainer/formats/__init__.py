"""Training data as each toolkit has it.

This is the one place where a form of it is added: a module with `recognises` and `open_source`.
"""

FORMATS = {
    "ids": "trainer.formats.json_ids",
    "gpl": "trainer.formats.gpl",
    "qrels": "trainer.formats.qrels",
    "texts": "trainer.formats.json_texts",
}
"""In auto, the first that recognises the first line of a file reads it, else the last."""
