"""A reward of a user's own, as `rl.rewards.custom` names it."""


def brevity(
    prompts: list[str], completions: list[str], gold: list[str], **columns: object
) -> list[float | None]:
    """Less for more characters; does not apply to an empty completion."""
    return [-0.01 * len(text) if text else None for text in completions]
