"""The LM head applied to tokens in chunks, so that no array has all tokens and the vocabulary.

`chunks` splits and joins; `scores` returns log-probabilities, soft values and entropies with
gradients; `loss` sums weighted terms and their gradient in one pass; `terms` defines these terms;
`top_k` and `comparison` measure, without gradients.
"""
