"""What `top_k` finds, apart from jax: processes that only keep it do not load that."""

from typing import Any, NamedTuple


class TopK(NamedTuple):
    """The k largest of log softmax(logits/T) over the tokens that exist, not renormalised.

    Arrays of jax or numpy; the leading axes X are tokens [N], a response [R] or a batch [B, R].

    Attributes:
        ids_XK: int32; of equal log-probabilities the lower id first.
        logp_XK: float32, descending along K.
        log_tail_X: float32, log of the probability of all other tokens, summed over these; −1e30
            if there are none.
    """

    ids_XK: Any
    logp_XK: Any
    log_tail_X: Any
