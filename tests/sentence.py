"""What an InputError says."""

import pytest


def one_sentence(error: pytest.ExceptionInfo) -> str:
    """The message, which is one sentence."""
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and ". " not in text and text[0].isupper(), text
    return text
