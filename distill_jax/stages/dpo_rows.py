"""What stage dpo learns on: pairs of completions as token ids, and the reference's scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from distill_jax.core import digest
from distill_jax.core.errors import ConfigError, DataError
from distill_jax.data import batching, chat, padding, pair_rows
from distill_jax.data.chat import Example
from distill_jax.data.padding import PaddedLengths
from distill_jax.data.pair_rows import Completion, Pair
from distill_jax.data.problem import Problem
from distill_jax.data.tokenizer import eos_id
from distill_jax.data.trace_rows import Trace
from distill_jax.run.run import Run, Stage
from distill_jax.stages.dpo_settings import OF_TRACES, DPOSettings
from distill_jax.stages.supervised import MULTIPLE
from distill_jax.stages.traces import reads_as_completion


class PairTokens(NamedTuple):
    """Token ids of a prompt and of its two completions, EOS included."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


class PairRows:
    """The pairs of a stage dpo.

    Args:
        run, stage: settings; the rows' file must be there.

    Attributes:
        pairs: as token ids.
        reference: f32 [N, 2], log-probabilities of the completions under the reference; None until
            the stage sets them, and where the loss has no reference.
        figures: numbers of rows and pairs, for done.json and for people.
        chosen: what the stage's batches are padded to.

    Raises:
        DataError: the file cannot be read, no pair is left, or tokens are of another tokenizer.
        ConfigError: a setting that these rows do not read.
    """

    def __init__(self, run: Run, stage: Stage[DPOSettings]):
        s = stage.settings
        self.seed, self.pad_id = run.seed(stage), run.data.pad_id
        self.reference: np.ndarray | None = None
        path = run.rows(s.data)
        given, self.figures = _read(run, stage)
        held_out = run.data.held_out([pair.question for pair in given], str(path))
        found = [pair for pair, drop in zip(given, held_out, strict=True) if not drop]
        self.figures["dropped_held_out"] = len(given) - len(found)
        kept, dropped = _as_tokens(run, found, s.longest(run.config))
        if s.most and len(kept) > s.most:
            drawn = np.random.default_rng(self.seed).permutation(len(kept))[: s.most]
            kept = [kept[i] for i in sorted(drawn)]
        self.pairs = kept
        self.figures |= {**dropped, "pairs": len(kept)}
        run.say(f"{stage.name}: " + ", ".join(f"{k} {v}" for k, v in self.figures.items()))
        if not kept:
            without = self.figures.get("problems_without_pair", 0)
            _refuse_none(stage, path, len(given), without, s.longest(run.config))
        steps = (self._index(step, s.batch_size) for step in range(s.steps))
        self.chosen = padding.plan(self.lengths(), steps, multiple=MULTIPLE).chosen
        run.say(f"{stage.name}: pairs are padded to rows/responses of {padding.said(self.chosen)}")
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
        index = self._index(step, size)
        out = self.pack(index, self.chosen)
        return out if self.reference is None else {**out, "reference_BC": self.reference[index]}

    def pack(
        self, index: Sequence[int] | np.ndarray, chosen: Sequence[PaddedLengths]
    ) -> dict[str, np.ndarray]:
        """These pairs as tokens_BCT, targets_BCR, prompt_len_BC, response_len_BC int32 and
        loss_mask_BCR f32, in one of the chosen lengths; C = 2: chosen, rejected."""
        pairs = [self.pairs[i] for i in index]
        flat = [Example(one.prompt, ids) for one in pairs for ids in (one.chosen, one.rejected)]
        packed = batching.pack_examples(flat, pad_id=self.pad_id, multiple=MULTIPLE, chosen=chosen)
        return {
            name.replace("_B", "_BC"): rows.reshape(-1, 2, *rows.shape[1:])
            for name, rows in packed.items()
        }

    def reference_per_token(self, step: int, size: int) -> float:
        """Mean log-probability of a token of the batch's chosen completions under the reference."""
        assert self.reference is not None
        index = self._index(step, size)
        tokens = sum(len(self.pairs[i].chosen) for i in index)
        return float(self.reference[index, 0].sum(dtype=np.float64)) / tokens

    def lengths(self) -> np.ndarray:
        """Tokens of the longer side of each pair, with its prompt and without, int64 [N, 2]."""
        longer = [max(len(c), len(r)) for _, c, r in self.pairs]
        return np.array([(len(x.prompt) + n, n) for x, n in zip(self.pairs, longer, strict=True)])

    def _index(self, step: int, size: int) -> np.ndarray:
        return batching.batch_indices(self.seed, step, size, len(self.pairs))


def _refuse_none(
    stage: Stage[DPOSettings], path: Path, given: int, without: int, longest: int
) -> NoReturn:
    """Raises DataError: no pair is left; without: problems whose traces make no pair."""
    prefer = stage.settings.prefer
    if without and not given:
        kinds = "right and wrong ones" if prefer == "right" else "two right ones"
        raise DataError(
            f"{path}: none of {without} problems has two solutions to prefer one of",
            wanted=f"traces for prefer={prefer} that ended, {kinds}",
            fix=f"draw more samples, or set {stage.name}.data to pairs",
        )
    raise DataError(
        f"{path}: no pair is left of {given}",
        wanted="two different completions of a prompt that is in no held-out split, both within "
        f"{longest} tokens",
        fix=f"give other rows, or raise {stage.name}.max_length",
    )


def _read(run: Run, stage: Stage[DPOSettings]) -> tuple[list[Pair], dict[str, int]]:
    s, path = stage.settings, run.rows(stage.settings.data)
    rows = pair_rows.read(path)
    pairs = [row for row in rows if isinstance(row, Pair)]
    traces = [row for row in rows if isinstance(row, Trace)]
    if traces:
        _refuse_other_tokens(run, path, traces)
        return pair_rows.of_traces(
            traces,
            prefer=s.prefer,
            per_problem=s.pairs_per_problem,
            length_ratio=s.length_ratio,
            seed=run.seed(stage),
        )
    plain = DPOSettings()
    for name in OF_TRACES:
        if getattr(s, name) != getattr(plain, name):
            raise ConfigError(
                f"{stage.name}.{name}={getattr(s, name)} with the pairs of {path}",
                wanted="its default: rows of stage traces alone read it",
            )
    return pairs, {"rows": len(pairs)}


def _refuse_other_tokens(run: Run, path: Path, found: Sequence[Trace]) -> None:
    """Raises DataError where the token ids of a trace do not decode to its completion."""
    for one in found:
        if not reads_as_completion(run, one):
            raise DataError(
                f"{path}: problem {one.id}, sample {one.sample}: its tokens are not those of its "
                "completion",
                wanted="tokens of the run's tokenizer",
                fix="draw the completions with this student's tokenizer",
            )


def _as_tokens(
    run: Run, found: Sequence[Pair], longest: int
) -> tuple[list[PairTokens], dict[str, int]]:
    """Pairs that fit as token ids, and how many were dropped, by reason."""
    problems = {pair.question: Problem(pair.where, pair.question, "", "") for pair in found}
    fitting = run.data.task.prompts(list(problems.values()))
    prompts = dict(zip([p.question for p in fitting.problems], fitting.prompts, strict=True))
    full = [p for p in found if p.chosen.text.strip() and p.rejected.text.strip()]
    counts = {"dropped_empty": len(found) - len(full), "dropped_identical": 0}
    counts["dropped_truncated"] = 0
    kept = []
    chosen_N = _responses(run, full, [pair.chosen for pair in full])
    rejected_N = _responses(run, full, [pair.rejected for pair in full])
    for pair, chosen, rejected in zip(full, chosen_N, rejected_N, strict=True):
        prompt = prompts.get(pair.question)
        if chosen == rejected:
            counts["dropped_identical"] += 1
        elif prompt is None or len(prompt) + max(len(chosen), len(rejected)) > longest:
            counts["dropped_truncated"] += 1
        else:
            kept.append(PairTokens(prompt, chosen, rejected))
    return kept, counts


def _responses(
    run: Run, pairs: Sequence[Pair], completions: Sequence[Completion]
) -> list[list[int]]:
    """Token ids of one side of all pairs: as drawn, or those of the text and EOS.

    Either all completions have drawn tokens, or none has.
    """
    drawn = [c.tokens for c in completions if c.tokens is not None]
    if drawn:
        return drawn
    tok, end = run.data.tokenizer, eos_id(run.data.tokenizer)
    problems = [Problem(pair.where, pair.question, "", "") for pair in pairs]
    texts = [c.text for c in completions]
    any_prompts = [[end]] * len(texts)  # not read: responses are tokenised apart from prompts
    examples = chat.render_examples(tok, problems, texts, run.data.task.chat, any_prompts)
    return [example.response for example in examples]
