"""Text that any tokenizer and any file takes."""


def encodable(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair: JSON can hold one, UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
