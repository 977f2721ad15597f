"""The errors that a user meets. Each message is one sentence that names the culprit and what is allowed."""


class InputError(ValueError):
    """Bad input (a key, a value, a file): the command line prints the message and exits with 2."""


class RunError(RuntimeError):
    """A run could not go on: the command line prints the message and exits with 1."""
