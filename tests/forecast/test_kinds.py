"""What the kinds of stages declare: how many rows of which length, of which model."""

import dataclasses
from typing import Any

import jax
import pytest

from distill_jax.core import sharding
from distill_jax.core.batching import round_up
from distill_jax.evaluation.solve_settings import SolveSettings
from distill_jax.forecast import activations, memory
from distill_jax.forecast.memory import Job
from distill_jax.inference import step_batches
from distill_jax.models.qwen_config import QwenConfig
from distill_jax.run.settings import StageSettings
from distill_jax.stages.evolve_settings import EvolveSettings
from distill_jax.stages.kinds import KINDS
from distill_jax.stages.prm_settings import PRMSettings
from distill_jax.stages.step_bench import StepBenchSettings
from distill_jax.stages.step_judge import StepJudgeSettings
from distill_jax.stages.step_labels import StepLabelSettings
from distill_jax.stages.traces import TraceSettings
from distill_jax.training import replay
from tests.stages.small import small

PROMPT, NEW = 64, 24
# Width, feed-forward, layers, heads, kv heads, their width.
STUDENT = QwenConfig("qwen2", 512, 64, 160, 2, 4, 2, 16, max_position_embeddings=600)
# Bytes of a slot of its cache: 2 layers, keys and values of 2 heads of 16, 4 bytes.
SLOT = 2 * 2 * 2 * 16 * 4
TEACHER = QwenConfig("qwen2", 2048, 128, 512, 3, 4, 1, 32)


def job(**changes: Any) -> Job:
    lengths = {"sampling__max_new_tokens": NEW, "data__max_prompt_tokens": PROMPT}
    config = small(**lengths, **changes)
    return Job(config, TEACHER, STUDENT, sharding.abstract_mesh(config.mesh, 1))


def parts(settings: StageSettings, **changes: Any) -> dict[str, int]:
    found = KINDS[settings.kind].forecast
    assert found is not None
    return {part.name: part.bytes for part in found(job(**changes), settings)}


@pytest.mark.parametrize(
    ("settings", "rows", "prompts", "longest", "new"),
    [
        (TraceSettings(samples=8, batch=32), 32, 4, PROMPT, NEW),
        (TraceSettings(samples=8, batch=32, problems=2), 16, 2, PROMPT, NEW),
        (TraceSettings(samples=64, batch=32), 64, 1, PROMPT, NEW),
        # The prompt and the solution before it; or the setting, where that is less.
        (StepLabelSettings(n=8, batch=32), 32, 4, PROMPT + NEW, NEW),
        (StepLabelSettings(n=8, batch=32, max_prompt_tokens=40), 32, 4, 40, NEW),
        # A judge is asked in about 256 more; 600 positions leave 200 beside a critique of 400.
        # A quarter of the rows is read at a time.
        (StepJudgeSettings(samples=1, batch=32, max_new_tokens=99), 32, 8, 88 + 256, 99),
        (StepJudgeSettings(samples=1, batch=32, max_new_tokens=400), 32, 8, 200, 400),
    ],
)  # fmt: skip
def test_stages_that_write(settings: Any, rows: int, prompts: int, longest: int, new: int) -> None:
    # A segment as long as a solution: of those no row leaves early.
    found = parts(settings, sampling__segment=NEW)
    (_, weights), (decoding, held), (reading, read) = found.items()
    made = job()
    assert weights == made.base_part("student").bytes
    assert decoding.startswith(f"{rows} ") and reading.startswith(f"{prompts} prompts of ")
    T = round_up(longest, made.config.sampling.prompt_multiple)
    cache = SLOT * rows * (T + new)
    program, copy = made.program("student"), made.decode_weights("student")
    # Two problems are one batch: no prompt waits, and samples share theirs.
    refilled = getattr(settings, "problems", 0) != 2
    waiting = refilled * (SLOT * prompts * T + 4 * 64 * prompts)
    shared = SLOT * (rows * new + prompts * T)
    decoded = (cache if refilled else shared) + waiting + activations.decoding(program, rows)
    # A draw of unknown size may be one of batches: critiques have several checks for ends, where
    # half of the rows leave, each with its prompt. From 128 slots on a cache grows, when one of
    # the two layers is held twice: as much, but with logits.
    both = cache * 3 // 2 * (new > NEW)
    if new > 128:
        both += activations.decoding(program, rows)
    assert held == copy + max(decoded, both)
    reading = activations.scoring(program, made.rows(prompts, T, 1))
    assert read == copy + reading + waiting + refilled * cache


def test_rows_are_refilled_where_the_draw_is_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(problems: int, **changes: Any) -> tuple[int, int]:
        settings = SolveSettings(batch=8, problems=problems, attempts=4)
        found = parts(settings, sampling__segment=NEW, **changes)
        decoding, reading = list(found.values())[1:3]
        return decoding, reading

    one = {"sampling__row_counts": 1}  # from four batches of two problems on
    few, many = drawn(6, **one), drawn(7, **one)
    # Two prompts that wait and eight rows with a prompt each, in place of two shared prompts.
    waiting = SLOT * 2 * PROMPT + 4 * 64 * 2
    assert many[0] - few[0] == SLOT * 8 * PROMPT + 4 * 64 * 2
    assert many[1] - few[1] == waiting + SLOT * 8 * (PROMPT + NEW)
    assert drawn(7, sampling__row_counts=0) == few  # sixteen, where batches have more sizes
    assert drawn(31, sampling__row_counts=0) == many
    with monkeypatch.context() as patch:
        patch.setattr(sharding, "processes", lambda mesh: 2)
        assert drawn(31, **one) == few
    turns = one | {"sampling__rounds": 3, "sampling__output_tokens": 64}
    assert drawn(31, **turns) == drawn(6, **turns)
    # Over eight devices: rows and prompts are rounded up to one on each.
    config = small(sampling__max_new_tokens=NEW, data__max_prompt_tokens=PROMPT, **one)
    eight = Job(config, TEACHER, STUDENT, sharding.abstract_mesh(config.mesh, 8))
    decoding = eight.writing("student", "solutions", 8, 2, problems=999)[1]
    copy, program = eight.decode_weights("student"), eight.program("student")
    held = SLOT * (PROMPT + NEW) + SLOT * PROMPT + 4 * 64
    assert decoding.bytes == copy + held + activations.decoding(program, 1)


def test_the_largest_call_of_a_teacher_in_calls() -> None:
    # Prompts and completions of 88 tokens. Packed, a call is one row of at most 96.
    found = parts(small(rl__buckets__lengths=2, rl__buckets__packed=True).plan["rl"])
    teacher = job().program("teacher")

    def call(rows: int, T: int, R: int) -> int:
        return activations.scoring_in_parts(teacher, activations.Rows(rows, T, R))

    # All positions of a packed row may be of responses; one more value is of an end.
    packed = call(1, 96, 96 + 1)
    assert found["teacher scoring: activations"] == packed
    assert found == parts(small(rl__buckets__packed=True).plan["rl"])
    apart = parts(small(rl__buckets__lengths=2, rl__buckets__rows=5).plan["rl"])
    assert apart["teacher scoring: activations"] == call(5, 96, 24 + 1) > packed


def test_a_teacher_behind_a_cache_shares_no_prompts() -> None:
    rl, cached = (small(rl__cache__megabytes=x).plan["rl"] for x in (0.0, 1.0))
    grouped, whole = (parts(one)["teacher scoring: activations"] for one in (rl, cached))
    # A batch of four prompts of 64 with four responses of 24 each; sixteen rows of 96.
    made, teacher = job(), job().program("teacher")
    assert grouped == made.scoring(teacher, made.groups(4, 4, 64, 24, ends=1)) < whole
    assert whole == made.scoring(teacher, made.rows(16, 96, 24 + 1))


def test_rows_of_groups_by_hand() -> None:
    # Prompts of 64 tokens with four responses of 24; a token attends to 88 at most.
    made = job()
    assert made.groups(4, 4, 64, 24) == activations.Rows(4, 160, 96, most_keys=88)
    # Four responses have four ends.
    assert made.groups(4, 4, 64, 24, ends=1) == activations.Rows(4, 160, 100, most_keys=88)
    config = small(mesh__fsdp=2)
    two = Job(config, TEACHER, STUDENT, sharding.abstract_mesh(config.mesh, 2))
    assert two.groups(4, 4, 64, 24) == activations.Rows(2, 160, 96, most_keys=88)


def test_groups_hold_a_state_and_logits_of_each_token_and_end_of_a_response() -> None:
    # The head of so large a vocabulary needs more than any layer.
    V = 8192
    teacher, student = (dataclasses.replace(one, vocab_size=V) for one in (TEACHER, STUDENT))

    def held(**changes: Any) -> tuple[int, ...]:
        config = small(sampling__max_new_tokens=NEW, data__max_prompt_tokens=PROMPT, **changes)
        made = Job(config, teacher, student, sharding.abstract_mesh(config.mesh, 1))
        found = {part.name: part.bytes for part in made.reinforcement(config.plan["rl"])}
        names = ("teacher scoring", "student scoring", "update")
        return tuple(found[f"{name}: activations"] for name in names)

    # 16 responses have 384 tokens and 16 ends. States are 128 and 64 wide, in float32. The teacher
    # scores ends; the student does where it has values, also in whole rows.
    by_teacher, scored, update = held()
    assert by_teacher == 400 * (4 * V + 4 * 128)
    assert scored == 384 * (4 * V + 4 * 64)
    ppo = held(rl__algorithm="ppo")
    assert ppo == (by_teacher, 400 * (4 * V + 4 * 64), update)
    assert held(rl__algorithm="ppo", rl__minibatches=8)[1] == ppo[1]
    # An update has no ends. With two microbatches it has two of the four prompts at a time.
    program = dataclasses.replace(job().program("student"), geometry=student)
    rows = activations.Rows(4, 160, 96, most_keys=88)
    assert update == activations.update(program, rows)
    assert held(rl__accumulate=2)[2] == activations.update(program, rows._replace(rows=2))
    # Another response token in each of the four rows: its logits, their gradient, its state.
    more = activations.update(program, rows._replace(R=97))
    assert more - update == 4 * (2 * 4 * V + 4 * 64)


def test_the_teacher_writes() -> None:
    student = parts(TraceSettings(samples=8, batch=32))
    teacher = parts(TraceSettings(samples=8, batch=32, teacher=True))
    assert [name.split()[0] for name in (*student, *teacher)][::3] == ["student", "teacher"]
    assert all(b > a for a, b in zip(student.values(), teacher.values(), strict=True))


def test_rl_of_all_weights_has_moments_and_gradients_of_all_and_a_reference_with_a_kl() -> None:
    adapter = small().plan["rl"]
    full = dataclasses.replace(adapter, trainable="full")
    found, before = parts(full), parts(adapter)
    base = found["student weights (float32)"]
    assert before.keys() - found.keys() == {"adapter"}
    assert 2 * base <= found["optimiser state"] < 2 * base + 100
    assert found["update: activations"] == before["update: activations"] + base
    with_kl = dataclasses.replace(full, group=dataclasses.replace(full.group, beta=0.1))
    assert parts(with_kl)["reference"] == base
    ppo = dataclasses.replace(full, algorithm="ppo")
    head = STUDENT.hidden_size * 4 + 4
    assert parts(ppo)["reference, value head"] == base + head


def test_a_start_that_is_the_teacher_is_a_copy_of_what_is_trained_where_no_reference_is() -> None:
    rl = small(rl__teacher__source="start").plan["rl"]
    full = dataclasses.replace(rl, trainable="full")
    found = parts(full)
    assert found["start as teacher"] == found["student weights (float32)"]
    assert parts(rl)["adapter, its start as teacher"] == 2 * parts(small().plan["rl"])["adapter"]
    for one in (rl, full):
        with_kl = dataclasses.replace(one, group=dataclasses.replace(one.group, beta=0.1))
        assert not any("as teacher" in name for name in parts(with_kl))


@pytest.mark.parametrize("more", [{}, {"beta": 0.1, "top_entropy": 0.8}])
def test_the_replay_buffer_is_what_the_state_holds(more: dict[str, float]) -> None:
    how = {f"rl__group__{name}": value for name, value in more.items()}
    rl = small(rl__replay__groups=5, rl__rewards__intrinsic_weight=0.0, **how).plan["rl"]
    T, R = (round_up(length, rl.batch_multiple) for length in (PROMPT + NEW, NEW))
    buffer = replay.fresh(
        rl.replay, rl.samples_per_prompt, T, R, reference=bool(more), top_entropy=bool(more)
    )[replay.KEY]
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(buffer.rows))
    # Lengths, scores and steps are less than a hundredth of it, and not counted.
    assert held == parts(rl)["replay buffer"] + buffer.rows.prompt_len_B.nbytes


@pytest.mark.parametrize("source", ["model", "start"])
def test_an_exact_divergence_runs_the_teacher_in_the_update_alone(source: str) -> None:
    how = {"rl__teacher__source": source, "rl__accumulate": 2, "rl__rewards__student_weight": 1.0}
    before = parts(small(**how).plan["rl"])
    rl = small(rl__rewards__credit="exact", **how).plan["rl"]
    found = parts(rl)
    assert before.keys() - found.keys() == {"teacher scoring: activations"}
    assert ("teacher weights (float32)" in found) == (source == "model")
    made, prompts = job(), rl.prompts_per_step // 2
    role = "teacher" if source == "model" else "student"
    placed = made.groups(prompts, rl.samples_per_prompt, round_up(PROMPT, rl.batch_multiple), NEW)
    read = made.scoring(made.program(role), placed)
    changed = {name for name in found if found[name] != before[name]}
    assert changed == {"update: activations"}
    assert found["update: activations"] == before["update: activations"] + read


def test_rounds_of_self_evolution_write_and_train() -> None:
    found = parts(EvolveSettings(samples=8, batch=32))
    trained, drawn = parts(small().plan["sft"]), parts(TraceSettings(samples=8, batch=32))
    assert set(found) == set(trained) | set(drawn)
    assert list(found.values()).count(found["student weights (float32)"]) == 1
    scored = parts(EvolveSettings(samples=8, batch=32, reward_model="./x"))
    assert any("reward model" in name for name in scored.keys() - found.keys())


def test_later_turns_read_their_prefixes_again() -> None:
    turns = {"sampling__rounds": 3, "sampling__output_tokens": 64}
    rl, made = small().plan["rl"], job(**turns)
    one, three = parts(rl), parts(rl, **turns)
    (later,) = three.keys() - one.keys()
    # 64 + 24 + 2·64 tokens, of which one at least is left to draw: 215, read in rows of 256.
    B, T = 16, 256
    slots = 2 * 2 * 2 * 16 * 4 * B  # bytes a slot, as above
    program, copy = made.program("student"), made.decode_weights("student")
    # Half of the rows leave while both caches are there.
    rollout = copy + slots * (T + NEW) * 3 // 2
    assert rollout > copy + slots * (T + NEW) + activations.decoding(program, B)
    assert three["rollout: decode weights, cache, logits"] == rollout
    read = activations.scoring(program, made.rows(B, T, 1))
    assert read > slots * (T + NEW)  # the two caches next to each other
    assert three[later] == copy + slots * T + read > rollout
    # The model has 600 positions, and a turn begins at the last one at the latest.
    assert job(**turns | {"sampling__output_tokens": 900}).drawing._prefix(0) == 1024
    # Solutions that are written down have one turn; candidates have as many as those of rl.
    assert parts(TraceSettings(), **turns) == parts(TraceSettings())
    solve = SolveSettings(batch=8, problems=9, attempts=4)
    assert len(parts(solve, **turns).keys() - parts(solve).keys()) == 1


def test_a_reward_model_that_rl_reads_is_counted() -> None:
    plan = small().plan
    plain = parts(plan["rl"])
    more = parts(small(rl__process__reward_model="./x").plan["rl"])
    added = {name: more[name] for name in more.keys() - plain.keys()}
    assert set(added) == {"reward model weights", "reward model scoring: activations"}
    assert added["reward model weights"] == plain["student weights (float32)"]
    assert memory.SCORED == step_batches.BATCH
    # 88 tokens of a prompt and a completion are read in rows of 128.
    made = job()
    assert memory.SCORED_LENGTH == step_batches.TOKENS
    wanted = activations.scoring(made.program("student"), made.rows(16, 128, 1), shards=1)
    assert added["reward model scoring: activations"] == wanted


def test_reward_models_read_rows() -> None:
    def held(**how: Any) -> list[int]:
        found = parts(PRMSettings(max_length=64, **how))
        return [size for name, size in found.items() if name.startswith("held-out")]

    assert held(eval_batch=64)[0] > held(eval_batch=32)[0] == held(eval_problems=32)[0] > 0
    assert held(validation_share=0.0) == []
    few, many = (list(parts(StepBenchSettings(batch=n)).values()) for n in (8, 64))
    assert few[0] == many[0] and few[1] < many[1]


def test_solve_takes_candidates_at_a_time() -> None:
    def held(**settings: Any) -> dict[str, int]:
        return parts(SolveSettings(batch=8, problems=9, **settings))

    few, more = held(attempts=4), held(attempts=64)
    assert [n.split(":")[0] for n in few][1:] == ["8 candidates", "2 prompts of candidates"]
    assert [n.split(":")[0] for n in more][1:] == ["64 candidates", "1 prompts of candidates"]
    assert list(more.values())[1] > list(few.values())[1]
    # Agents draw one after another.
    assert held(attempts=4, agents="x.jsonl") == few
    full = held(attempts=4, reward_model="x", verify=1)
    assert list(full)[1].startswith("reward model weights") and any("8 reviews" in n for n in full)
    # A beam is a prompt and what was written: more cache than a candidate, and each its own prompt.
    both = {"reward_model": "x", "attempts": 4}
    beams = held(**both, search="beam")
    assert [n.split(":")[0] for n in beams][-2:] == ["8 beams", "8 prompts of beams"]
    assert list(beams.values())[-2] > list(held(**both).values())[-2]
