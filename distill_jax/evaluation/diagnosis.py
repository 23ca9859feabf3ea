"""Known troubles of training on the student's own samples in a stage's records, each with settings
to try: of reinforcement learning, and as far as they apply of on-policy distillation.

The limits are rules of thumb, not statistical tests: "look" asks for a closer look, "bad" marks
runs that rarely end well. They judge the last fifth of the rows and its trend (`trends`).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distill_jax.evaluation import hacking
from distill_jax.evaluation.findings import BAD, LOOK, NOT_RECORDED, OK, TOO_FEW, Finding, Rows
from distill_jax.evaluation.trends import MIN_ROWS, Trend, of_points, trend, values

MIN_COMPLETIONS = 16
# In suggestions: the stage of the rows, and the stage that it started from.
STAGE, START = "rl", "start"
_MEAN = "mean, which pays nothing for length"
_LONG = "above 0: long answers cost"
_STEP_SIZE = {
    "rl.optimizer.learning_rate": "lower, by half or more",
    "rl.optimizer.max_grad_norm": "lower",
}


def on_own_samples(metrics: Rows) -> bool:
    """Whether these are rows of training on the student's samples, with rewards or by a teacher."""
    return any("reward" in row or "student/mass" in row for row in metrics)


def diagnose(
    metrics: Rows,
    completions: Rows = (),
    *,
    stage: str = "rl",
    start: str = "",
    first: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """The findings on every known trouble.

    Args:
        metrics, completions: rows of the stage's metrics.jsonl and completions.jsonl.
        stage: name of the stage, whose settings are suggested.
        start: the stage that it started from; "" or base has no settings.
        first: figures of the first rollout; None: they are not judged.
    """
    distilled = _is_distillation(metrics)
    rules = {what: RULES[what] for what in OF_DISTILLATION} if distilled else RULES
    found = [dataclasses.replace(rule(metrics), what=what) for what, rule in rules.items()]
    if first is not None:
        found.insert(0, _first_rollout(first))
    out = []
    for finding in [*found, *([] if distilled else _of_completions(completions))]:
        suggestions = {}
        for name, how in finding.suggestions.items():
            group, _, setting = name.partition(".")
            if group == START and start in ("", "base"):
                continue
            group = {STAGE: stage, START: start}.get(group, group)
            suggestions[f"{group}.{setting}"] = how
        out.append(dataclasses.replace(finding, suggestions=suggestions))
    return out


def _of_completions(rows: Rows) -> list[Finding]:
    """Of the later half of the sampled completions: reward by length, hedged answers."""
    names = ("reward pays for length", "several answers")
    texts = [r for r in rows if isinstance(r.get("completion"), str)]
    if not texts:
        return [Finding(name, NOT_RECORDED, "no completions were written") for name in names]
    late = texts[len(texts) // 2 :]
    if len(late) < MIN_COMPLETIONS:
        said = f"{len(late)} completions in the later half, {MIN_COMPLETIONS} wanted"
        return [Finding(name, TOO_FEW, said) for name in names]
    rewarded = [r for r in late if isinstance(r.get("reward"), int | float)]
    r = hacking.correlation(
        np.array([len(row["completion"]) for row in rewarded], float),
        np.array([row["reward"] for row in rewarded], float),
    )
    said = "reward or length is constant" if r is None else f"correlation {r:.2f}"
    length = Finding(names[0], OK, said)
    if r is not None and r > 0.6:
        said = f"reward and characters correlate by {r:.2f} in {len(rewarded)} completions"
        length = Finding(names[0], LOOK, said, None, {"rl.rewards.sequence": _MEAN})
    share = float(np.mean([hacking.several_answers(row["completion"]) for row in late]))
    status = BAD if share > 0.5 else LOOK if share > 0.2 else OK
    said = f"{100 * share:.0f}% of {len(late)} completions state different answers"
    tries = {
        "rl.rewards.wrong": "below 0: guessing costs",
        "rl.rewards.intrinsic_weight": "higher",
    }
    return [length, Finding(names[1], status, said, None, {} if status == OK else tries)]


def _reward(metrics: Rows) -> Finding:
    """Accuracy and the unscaled intrinsic reward: `reward` changes with the running scale.

    With credit=exact the KL to the teacher, which should fall, is in the intrinsic reward's place.
    """
    names = ("accuracy", "rewards/intrinsic/mean")
    gap = trend(metrics, "teacher/kl")
    known = [found for name in names if (found := trend(metrics, name)) is not None]
    if not known and (found := trend(metrics, "reward")) is not None:
        known = [found]
    if not known:
        return Finding("", NOT_RECORDED, "no accuracy and no reward in the rows")
    first, last = known[0], known[-1]
    if (short := _too_short(first)) is not None:
        return short
    tries = dict(_STEP_SIZE)
    if gap is None:
        tries["rl.rewards.intrinsic_weight"] = "another; 0 is correctness alone"
    if first.direction < 0:
        return Finding("", BAD, f"{first.name} falls", first, tries)
    if max(first.direction, last.direction) > 0:
        return Finding("", OK, trend=first)
    if gap is not None and gap.direction < 0:
        return Finding("", OK, f"{gap.name} falls, {first.name} does not move yet", gap)
    if first.name == "accuracy" and min(first.first, first.last) >= 0.95:
        return Finding("", OK, "solved from the start", first)
    if last.direction < 0:
        return Finding("", LOOK, f"{last.name} falls, {first.name} does not move", last, tries)
    tries = {"rl.optimizer.learning_rate": "higher, if KL and clip fraction are small"}
    if gap is None:
        tries["rl.samples_per_prompt"] = "more, so that a group differs"
    tries |= {
        "rl.steps": "more",
        "start.steps": "more, if nothing is right at the start",
    }
    if first.name == "accuracy" and first.first == first.last == 0:
        return Finding("", BAD, "nothing is ever right", first, tries)
    return Finding("", LOOK, f"no trend in {' or '.join(f.name for f in known)}", first, tries)


def _kl(metrics: Rows) -> Finding:
    """KL to the reference in nats a token; PPO records the sum over a completion."""
    weight = "rl.ppo.kl_coef" if _is_ppo(metrics) else "rl.group.beta"
    found = trend(metrics, "kl")
    if found is None:
        lengths = dict(values(metrics, "completions/mean_length"))
        points = [
            (step, value / max(lengths[step], 1.0))
            for step, value in values(metrics, "objective/kl")
            if step in lengths
        ]
        found = of_points("objective/kl a token", np.array(points).reshape(-1, 2))
    if found is None:
        return Finding("", NOT_RECORDED, f"no reference: {weight} is 0")
    tries = {weight: "higher", "rl.optimizer.learning_rate": "lower"}
    if found.direction <= 0 or found.last < 0.05:
        return _too_short(found) or Finding("", OK, trend=found)
    said = "the student leaves its reference, in nats a token"
    return Finding("", BAD if found.last > 0.5 else LOOK, said, found, tries)


def _entropy(metrics: Rows) -> Finding:
    found = trend(metrics, "entropy")
    if found is None:
        return Finding("", NOT_RECORDED)
    bonus = "rl.ppo.entropy_coef" if _is_ppo(metrics) else "rl.group.entropy_coef"
    wider = "rl.ppo.clip_high" if _is_ppo(metrics) else "rl.group.clip.clip_high"
    if found.direction < 0 and found.ratio < 0.5:
        # A student that learns to be right becomes sure of itself: that alone is no collapse.
        status = LOOK if found.ratio >= 0.2 or _learns(metrics) else BAD
        tries = {
            bonus: "above 0",
            wider: "higher, e.g. 0.28 as dapo",
            "rl.optimizer.learning_rate": "lower",
        }
        said = "entropy falls while accuracy rises: look whether samples still differ"
        if not _learns(metrics):
            said = "entropy collapses: samples become equal"
        return Finding("", status, said, found, tries)
    if found.direction > 0 and found.ratio > 2.0:
        tries = {bonus: "lower, or 0", **_STEP_SIZE}
        return Finding("", LOOK, "entropy grows: text turns to noise", found, tries)
    return _too_short(found) or Finding("", OK, trend=found)


def _length(metrics: Rows) -> Finding:
    found = trend(metrics, "completions/mean_length")
    if found is None:
        return Finding("", NOT_RECORDED)
    grows = found.direction > 0 and found.ratio > 1.5
    shrinks = found.direction < 0 and found.ratio < 1 / 1.5
    if not (grows or shrinks):
        return _too_short(found) or Finding("", OK, trend=found)
    said, tries = "completions grow longer", {"rl.rewards.overlong_buffer": _LONG}
    if shrinks:
        said = "completions grow shorter"
        tries = {"rl.rewards.intrinsic_weight": "lower: short answers have little to lose"}
    learns, far = _learns(metrics), found.ratio > 2.0 or found.ratio < 0.5
    said += ", and accuracy rises" if learns else ""
    tries = {"rl.rewards.sequence": _MEAN, **tries}
    return Finding("", BAD if far and not learns else LOOK, said, found, tries)


def _value(metrics: Rows) -> Finding:
    explained, loss = trend(metrics, "critic/vf_explained_var"), trend(metrics, "loss/value_avg")
    found = explained or loss
    if found is None:
        return Finding("", NOT_RECORDED, "only ppo has values")
    tries = {
        "rl.ppo.value_coef": "higher",
        "rl.ppo.value_clip": "higher, or 0 for none",
        "rl.ppo.lam": "nearer to 1, so that advantages depend less on the values",
        "rl.minibatches": "more updates a rollout",
    }
    if (short := _too_short(found)) is not None:
        return short
    if explained is not None and explained.last <= 0.0:
        said = "values explain nothing of the returns: worse than their mean"
        return Finding("", BAD, said, explained, tries)
    if loss is not None and loss.direction > 0 and loss.ratio > 1.2:
        return Finding("", LOOK, "the value loss rises", loss, tries)
    if explained is None and loss is not None and loss.direction == 0:
        return Finding("", LOOK, "the value loss does not fall", loss, tries)
    return Finding("", OK, trend=found)


def _groups(metrics: Rows) -> Finding:
    wrong, accuracy = trend(metrics, "frac_groups_all_wrong"), trend(metrics, "accuracy")
    easy = accuracy is not None and accuracy.last > 0.9
    tries = {
        "rl.dynamic_sampling": "1 or 2: other prompts instead of such groups",
        "rl.replay.groups": "64: earlier groups instead, if verdicts alone are paid",
        "rl.samples_per_prompt": "more",
        "sampling.temperature": "higher" if easy else "1",
        "data.source": "harder problems" if easy else "easier problems, or more sft first",
    }
    said = "groups without variance teach nothing"
    level = _share(metrics, "frac_reward_zero_std", 0.5, 0.8, said, tries)
    if level.status == OK and wrong is not None and wrong.long_enough and wrong.last > 0.8:
        said = "in most groups every answer is wrong: correctness teaches nothing"
        return Finding("", LOOK, said, wrong, tries)
    return level


def _first_rollout(first: Mapping[str, Any]) -> Finding:
    """How the student's answers ended before its first update."""
    what, cut = "first rollout", first["completions/clipped_ratio"]
    other, mass = first.get("completions/other_end_ratio", 0.0), first.get("teacher/mass_at_end")
    said = f"{100 * cut:.0f}% of {first['completions']} completions cut off"
    if mass is not None:
        said += f"; where the student ends, the teacher's probability of the end is {mass:.2f}"
    tries = {}
    if cut > 0.2:
        tries["sampling.max_new_tokens"] = "higher"
    if other > 0.1:
        said += f"; {100 * other:.0f}% contain another end token, which ends nothing here"
    if cut > 0.2 or other > 0.1:
        tries["rl.start"] = "a student of stage sft, which teaches it to end"
    if (without := first.get("completions/no_answer_ratio", 0.0)) > 1 / 3:
        said += f"; {100 * without:.0f}% state no answer that is found"
        tries["data.chat.instruction"] = "one that asks for a form, e.g. \\boxed{}"
    if mass is not None and mass < 0.1:
        tries["teacher.path"] = "a teacher that ends with the student's token (instruct, not base)"
    if not tries:
        return Finding(what, OK, said)
    return Finding(what, BAD if cut > 0.5 else LOOK, said, None, tries)


def _teacher_mass(metrics: Rows) -> Finding:
    """The teacher's mean probability of the student's tokens."""
    found = trend(metrics, "teacher/mass")
    if found is None:
        return Finding("", NOT_RECORDED, "no teacher's probabilities of the student's tokens")
    if found.last >= 0.3 or not found.long_enough:
        return _too_short(found) or Finding("", OK, trend=found)
    tries = {
        "rl.start": "a student of stage sft on the teacher's samples",
        "start.steps": "more, of the teacher's samples",
        "rl.teacher.prompt": "one for which the teacher writes as the student does",
        "teacher.path": "a teacher of the student's family",
    }
    said = "the teacher would hardly write the student's tokens: it says little of what to do there"
    return Finding("", BAD if found.last < 0.1 else LOOK, said, found, tries)


def _truncated(metrics: Rows) -> Finding:
    tries = {"sampling.max_new_tokens": "higher"}
    if not _is_distillation(metrics):
        tries |= {
            "rl.mask_truncated": "True: leave them out of the loss",
            "rl.rewards.overlong_buffer": _LONG,
        }
    tries["start.steps"] = "more, if the student never learnt to end"
    said = "completions are cut off before they end"
    return _share(metrics, "completions/clipped_ratio", 0.2, 0.5, said, tries)


def _skipped(metrics: Rows) -> Finding:
    """Logged steps only; one is enough to look, whatever the number of rows."""
    found = trend(metrics, "skipped")
    if found is None:
        return Finding("", NOT_RECORDED)
    count = int(np.sum(values(metrics, "skipped")[:, 1] > 0))
    tries = {**_STEP_SIZE, "rl.optimizer.warmup_steps": "some"}
    if count:
        status = BAD if count > 0.1 * found.rows else LOOK
        said = f"{count} of {found.rows} logged steps skipped an update that was not finite"
        return Finding("", status, said, found, tries)
    return Finding("", OK, trend=found)


def _opposed(metrics: Rows) -> Finding:
    accuracy, intrinsic = trend(metrics, "accuracy"), trend(metrics, "rewards/intrinsic/mean")
    if accuracy is None or intrinsic is None:
        return Finding("", NOT_RECORDED, "needs accuracy and the intrinsic reward")
    if accuracy.direction * intrinsic.direction >= 0:
        return _too_short(intrinsic) or Finding("", OK, trend=intrinsic)
    if intrinsic.direction > 0:
        said, status = "intrinsic reward rises while accuracy falls: it is being gamed", BAD
    else:
        said, status = "accuracy rises while the teacher likes the answers less", LOOK
    tries = {
        "rl.rewards.intrinsic_weight": "lower" if status == BAD else "0 as a control",
        "rl.rewards.correctness_weight": "higher" if status == BAD else "as it is",
        "rl.rewards.sequence": "the other of mean and sum",
    }
    return Finding("", status, said, intrinsic, tries)


def _share(
    metrics: Rows, name: str, look: float, bad: float, said: str, tries: Mapping[str, str]
) -> Finding:
    """Judges a share by its last fifth's mean: above `look`, above `bad`."""
    found = trend(metrics, name)
    if found is None:
        return Finding("", NOT_RECORDED)
    if found.last <= look or not found.long_enough:
        return _too_short(found) or Finding("", OK, trend=found)
    return Finding("", BAD if found.last > bad else LOOK, said, found, tries)


def _too_short(found: Trend) -> Finding | None:
    if found.long_enough:
        return None
    return Finding("", TOO_FEW, f"{found.rows} rows, {MIN_ROWS} wanted", found)


def _learns(metrics: Rows) -> bool:
    accuracy = trend(metrics, "accuracy")
    return accuracy is not None and accuracy.direction > 0


def _is_distillation(metrics: Rows) -> bool:
    return on_own_samples(metrics) and not any("reward" in row for row in metrics)


def _is_ppo(metrics: Rows) -> bool:
    return any("loss/value_avg" in row for row in metrics)


RULES: Mapping[str, Callable[[Rows], Finding]] = {
    "reward": _reward,
    "KL to the reference": _kl,
    "entropy": _entropy,
    "clip fraction": lambda rows: _share(
        rows,
        "clip_ratio/region_mean",
        look=0.1,
        bad=0.3,
        said="many tokens are clipped: updates are too large",
        tries={
            "rl.optimizer.learning_rate": "lower",
            "rl.num_iterations": "fewer",
            "rl.minibatches": "fewer",
        },
    ),
    "length": _length,
    "value function": _value,
    "groups without variance": _groups,
    "teacher mass": _teacher_mass,
    "truncated": _truncated,
    "skipped updates": _skipped,
    "accuracy and intrinsic reward": _opposed,
}
# Those that read no reward and no policy.
OF_DISTILLATION = ("teacher mass", "truncated", "skipped updates")
