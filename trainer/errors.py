"""The one exception that means the user's input, and not the program, is wrong."""


class InputError(Exception):
    """A file, a flag or a folder cannot be used; the message says which and what to do."""
