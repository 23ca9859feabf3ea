"""What stage dpo learns on: pairs of completions as token ids, and the reference's scores."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core import digest
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data import batching, chat, pair_rows
from distill_jax.data.chat import Example
from distill_jax.data.pair_rows import Completion, Pair
from distill_jax.data.problem import Problem
from distill_jax.data.tokenizer import eos_id
from distill_jax.run.run import Run, Stage
from distill_jax.stages.dpo_settings import OF_SOLUTIONS, DPOSettings
from distill_jax.stages.supervised import MULTIPLE


class Two(NamedTuple):
    """Token ids of a prompt and of its two completions, EOS included."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


class Rows:
    """The pairs of a stage dpo.

    Args:
        run, stage: settings; the rows' file must be there.

    Attributes:
        pairs: as token ids.
        reference: f32 [N, 2], log-probabilities of the completions under the reference; None until
            they are set, and where the loss has no reference.
        figures: numbers of rows and pairs, for done.json and for people.

    Raises:
        DataError: of the file; or no pair is left; or tokens of another tokenizer.
        ConfigError: a setting that these rows do not read.
    """

    def __init__(self, run: Run, stage: Stage[DPOSettings]):
        s = stage.settings
        self.seed, self.pad_id = run.seed(stage), run.data.pad_id
        self.reference: np.ndarray | None = None
        path = run.rows(s.data)
        found, self.figures = _read(run, stage)
        kept, dropped = _as_tokens(run, found, s.longest(run.config))
        if s.most and len(kept) > s.most:
            drawn = np.random.default_rng(self.seed).permutation(len(kept))[: s.most]
            kept = [kept[i] for i in sorted(drawn)]
        self.pairs = kept
        self.figures |= {**dropped, "pairs": len(kept)}
        run.say(f"{stage.name}: " + ", ".join(f"{k} {v}" for k, v in self.figures.items()))
        if not kept:
            raise DataError(
                f"{path}: no pair is left of {len(found)}",
                wanted="two different completions of a prompt, both within "
                f"{s.longest(run.config)} tokens",
                fix=f"give other rows, or raise {stage.name}.max_length",
            )
        if s.prefer == "short" and s.loss in ("sigmoid", "robust", "hinge") and not s.sft_weight:
            run.say(
                f"{stage.name}: loss={s.loss} sums over tokens: with prefer=short it is lowered by "
                "making every token less likely; see logps/chosen_per_token, or set "
                f"{stage.name}.loss=sigmoid_norm, beta=5, sft_weight=0.2"
            )

    @property
    def digest(self) -> str:
        """Digest of the pairs' tokens."""
        parts = (part for pair in self.pairs for part in pair)
        return digest.of_all(np.array([len(ids), *ids], np.int32).tobytes() for ids in parts)

    def batch(self, step: int, size: int) -> dict[str, np.ndarray]:
        """Batch `step`, as `training.preference.preference` wants it."""
        index = batching.batch_indices(self.seed, step, size, len(self.pairs))
        out = self.pack(index)
        return out if self.reference is None else {**out, "reference_BC": self.reference[index]}

    def pack(self, index: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """These pairs as tokens_BCT, targets_BCR, prompt_len_BC, response_len_BC int32 and
        loss_mask_BCR f32; C = 2: chosen, rejected."""
        twos = [self.pairs[i] for i in index]
        flat = [Example(two.prompt, ids) for two in twos for ids in (two.chosen, two.rejected)]
        packed = batching.pack_examples(flat, pad_id=self.pad_id, multiple=MULTIPLE)
        return {
            name.replace("_B", "_BC"): rows.reshape(-1, 2, *rows.shape[1:])
            for name, rows in packed.items()
        }

    def sizes(self) -> np.ndarray:
        """Tokens of the longer side of each pair, prompt included."""
        return np.array([len(p) + max(len(c), len(r)) for p, c, r in self.pairs])


def _read(run: Run, stage: Stage[DPOSettings]) -> tuple[list[Pair], dict[str, int]]:
    s, path = stage.settings, run.rows(stage.settings.data)
    rows = pair_rows.read(path)
    solutions = [row for row in rows if isinstance(row, pair_rows.Solution)]
    if solutions:
        _refuse_other_tokens(run, solutions)
        return pair_rows.of_solutions(
            solutions,
            prefer=s.prefer,
            per_problem=s.pairs_per_problem,
            length_ratio=s.length_ratio,
            seed=run.seed(stage),
        )
    plain = DPOSettings()
    for name in OF_SOLUTIONS:
        if getattr(s, name) != getattr(plain, name):
            raise ConfigError(
                f"{stage.name}.{name}={getattr(s, name)} with the pairs of {path}",
                wanted="its default: rows of solutions alone read it",
            )
    return [row for row in rows if isinstance(row, Pair)], {"rows": len(rows)}


def _refuse_other_tokens(run: Run, solutions: Sequence[pair_rows.Solution]) -> None:
    """Token ids that stand for another text are another tokenizer's."""
    tok = run.data.tokenizer
    for one in solutions:
        known = all(0 <= index < run.data.vocab for index in one.tokens)
        if not known or chat.decode(tok, one.tokens) != one.completion:
            raise DataError(
                f"{one.where}: its tokens are not those of its completion",
                wanted="tokens of the run's tokenizer",
                fix="draw the solutions with this student's tokenizer",
            )


def _as_tokens(run: Run, found: Sequence[Pair], longest: int) -> tuple[list[Two], dict[str, int]]:
    """Pairs that fit as token ids, and how many were dropped, by reason."""
    problems = {pair.question: Problem(pair.where, pair.question, "", "") for pair in found}
    fitting = run.data.task.prompts(list(problems.values()))
    prompts = dict(zip([p.question for p in fitting.problems], fitting.prompts, strict=True))
    sides = [_responses(run, found, name) for name in ("chosen", "rejected")]
    counts = dict.fromkeys(("dropped_empty", "dropped_identical", "dropped_truncated"), 0)
    kept = []
    for pair, chosen, rejected in zip(found, *sides, strict=True):
        prompt = prompts.get(pair.question)
        if not pair.chosen.text.strip() or not pair.rejected.text.strip():
            counts["dropped_empty"] += 1
        elif chosen == rejected:
            counts["dropped_identical"] += 1
        elif prompt is None or len(prompt) + max(len(chosen), len(rejected)) > longest:
            counts["dropped_truncated"] += 1
        else:
            kept.append(Two(prompt, chosen, rejected))
    return kept, counts


def _responses(run: Run, found: Sequence[Pair], side: str) -> list[list[int]]:
    """Token ids of a side of each pair: those that were drawn, else the text's and EOS."""
    completions: list[Completion] = [getattr(pair, side) for pair in found]
    problems = [Problem(pair.where, pair.question, "", "") for pair in found]
    tok, end = run.data.tokenizer, eos_id(run.data.tokenizer)
    texts = [c.text for c in completions]
    written = [i for i, c in enumerate(completions) if c.tokens is None and c.text.strip()]
    rendered: dict[int, Any] = {}
    if written:
        # The prompts do not matter here.
        examples = chat.render_examples(
            tok,
            [problems[i] for i in written],
            [texts[i] for i in written],
            run.config.data.chat,
            [[end]] * len(written),
        )
        rendered = dict(zip(written, (e.response for e in examples), strict=True))
    return [rendered.get(i, c.tokens or []) for i, c in enumerate(completions)]
