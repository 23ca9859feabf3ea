"""Loops, arrays and collectives are found in HLO text, these with bytes and largest array."""

from distill_jax.forecast import hlo_collectives, hlo_text
from distill_jax.forecast.hlo_collectives import Collective
from distill_jax.forecast.hlo_text import Array

# As the TPU compiler writes: tiles in layouts, untyped operands, no known_trip_count.
LOOP = """\
HloModule jit_f, is_scheduled=true, num_partitions=8

FileNames
1 "f.py"

%body.1 (p: (s32[], bf16[8,256], bf16[32,256])) -> (s32[], bf16[8,256], bf16[32,256]) {
  %p = (s32[]{:T(128)}, bf16[8,256]{1,0:T(8,128)(2,1)}, /*index=2*/bf16[32,256]{1,0}) parameter(0)
  %w = bf16[32,256]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=2
  %all-gather.8 = bf16[256,256]{1,0:S(1)} all-gather(%w), metadata={op_name="jit(f)/while/body/dot"}
  ROOT %t = (s32[]{:T(128)}, bf16[8,256]{1,0}, bf16[32,256]{1,0}) tuple(%p, %all-gather.8, %w)
}

%cond.1 (p.1: (s32[], bf16[8,256], bf16[32,256])) -> pred[] {
  %bound = s32[]{:T(128)} constant(5), metadata={op_name="jit(f)/while/cond/lt"}
  %p.1 = (s32[]{:T(128)}, bf16[8,256]{1,0}, bf16[32,256]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

%fused.1 (q: f32[16,4]) -> f32[4] {
  %q = f32[16,4]{1,0} parameter(0)
  %sum = f32[4]{0} reduce(%q, %q), dimensions={0}, to_apply=%add.1
  ROOT %all-reduce.2 = f32[4]{0} all-reduce(%sum), to_apply=%add.1
}

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

ENTRY %main (x: f32[16,4]) -> f32[4] {
  %x = f32[16,4]{1,0} parameter(0)
  %state = (s32[], bf16[8,256]{1,0}, bf16[32,256]{1,0}) tuple(%x, %x, %x)
  %loop = (s32[], bf16[8,256], bf16[32,256]) while(%state), condition=%cond.1, body=%body.1, m={}
  %reduce-scatter.1 = f32[2,4]{1,0} reduce-scatter(%x), dimensions={0}, to_apply=%add.1
  ROOT %fusion.1 = f32[4]{0} fusion(%x), kind=kCustom, calls=%fused.1
}
"""


def collectives(text: str) -> list[Collective]:
    return hlo_collectives.collectives(hlo_text.parse(text))


def test_a_collective_in_a_loop_runs_at_each_turn() -> None:
    inside = next(one for one in collectives(LOOP) if one.loops)
    assert (inside.kind, inside.loops, inside.times) == ("all-gather", 1, 5)
    assert inside.bytes == 256 * 256 * 2
    assert inside.largest == Array("bf16", (256, 256))
    assert inside.op_name == "jit(f)/while/body/dot"


def test_collectives_outside_of_loops_also_in_fusions() -> None:
    outside = [one for one in collectives(LOOP) if not one.loops]
    assert [one.kind for one in outside] == ["reduce-scatter", "all-reduce"]
    # The result of a reduce-scatter is a part of its operand, whose type is given by name.
    assert outside[0].bytes == 2 * 4 * 4
    assert str(outside[0].largest) == "f32[16,4]"
    assert outside[1].bytes == 16 and outside[1].times == 1


def test_a_known_trip_count_is_taken() -> None:
    known = 'body=%body.1, backend_config={"known_trip_count":{"n":"7"}}'
    found = collectives(LOOP.replace("body=%body.1", known))
    assert [one.times for one in found if one.loops] == [7]


def test_a_loop_of_unknown_length_counts_once() -> None:
    found = collectives(LOOP.replace("direction=LT", "direction=NE"))
    assert [one.times for one in found if one.loops] == [1]


def test_a_loop_in_a_loop_multiplies() -> None:
    outer = """\
%outer (p.2: (s32[], bf16[8,256], bf16[32,256])) -> (s32[], bf16[8,256], bf16[32,256]) {
  %p.2 = (s32[], bf16[8,256]{1,0}, bf16[32,256]{1,0}) parameter(0)
  ROOT %l = (s32[], bf16[8,256], bf16[32,256]) while(%p.2), condition=%cond.1, body=%body.1
}

ENTRY"""
    text = LOOP.replace("body=%body.1, m=", "body=%outer, m=").replace("ENTRY", outer)
    (inside,) = [one for one in collectives(text) if one.loops]
    assert (inside.loops, inside.times) == (2, 25)


def test_trip_counts_are_known_or_none() -> None:
    assert hlo_text.trip_counts(hlo_text.parse(LOOP)) == [5]
    unknown = hlo_text.parse(LOOP.replace("constant(5)", "parameter(1)"))
    assert hlo_text.trip_counts(unknown) == [None]


def test_what_a_fusion_computes_inside_is_not_in_memory() -> None:
    found = hlo_text.in_memory(hlo_text.parse(LOOP))
    assert {Array("bf16", (256, 256)), Array("f32", (16, 4)), Array("f32", (2, 4))} <= found
    inside = LOOP.replace("%sum = f32[4]{0}", "%r = f32[7]{0} negate(%q)\n  %sum = f32[4]{0}")
    found = hlo_text.in_memory(hlo_text.parse(inside))
    assert Array("f32", (4,)) in found and Array("f32", (7,)) not in found


def entry(*lines: str) -> str:
    body = "\n".join(f"  {line}" for line in lines)
    return f"HloModule m\n\nENTRY %main (x: bf16[4,2]) -> bf16[32,2] {{\n{body}\n}}\n"


def test_asynchronous_collectives_are_counted_once_by_their_result() -> None:
    # As XLA:GPU writes: operand types are given, too.
    text = entry(
        "%x = bf16[4,2]{1,0} parameter(0)",
        "%g = (bf16[4,2]{1,0}, bf16[32,2]{1,0}) all-gather-start(bf16[4,2]{1,0} %x)",
        "%d = bf16[32,2]{1,0} all-gather-done((bf16[4,2]{1,0}, bf16[32,2]{1,0}) %g)",
        "%p = (bf16[4,2]{1,0}, bf16[4,2]{1,0}, u32[], u32[]) collective-permute-start(%x)",
        "%q = bf16[4,2]{1,0} collective-permute-done(%p)",
        "%r = (f32[3]{0}, f32[5]{0}) all-reduce-start(%x, %x), to_apply=%add",
        "ROOT %s = (f32[3]{0}, f32[5]{0}) all-reduce-done(%r)",
    )
    found = {one.kind: one for one in collectives(text)}
    assert len(collectives(text)) == 3
    assert found["all-gather"].bytes == 32 * 2 * 2
    assert found["collective-permute"].bytes == 4 * 2 * 2
    assert found["all-reduce"].bytes == (3 + 5) * 4
    assert all(one.loops == 0 for one in found.values())


def test_an_asynchronous_gather_is_counted_where_it_starts() -> None:
    # As the TPU compiler writes; the loop's body calls %fused.1 at each turn.
    start = """\
%start.1 (s: f32[4,2]) -> (f32[4,2], f32[4,16]) {
  %s = f32[4,2]{1,0} parameter(0)
  %g = f32[4,16]{1,0} all-gather(%s), channel_id=54, dimensions={1}
  ROOT %c = (f32[4,2], f32[4,16]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

ENTRY"""
    going = "%g.1 = f32[4,16]{1,0} all-gather(%q), channel_id=54\n  %sum = f32[4]{0}"
    call = "%a = (f32[4,2], f32[4,16]) fusion(%x), kind=kCustom, calls=%start.1\n  %loop ="
    text = LOOP.replace("%sum = f32[4]{0}", going).replace("ENTRY", start).replace("%loop =", call)

    def gathers(text: str) -> list[str]:
        found = [x for x in collectives(text) if not x.loops and x.kind == "all-gather"]
        return [str(x.result[0]) for x in found]

    assert gathers(text) == ["f32[4,16]"]
    assert len(gathers(text.replace("=54", "=55", 1))) == 2


def test_several_arrays_in_one_gather() -> None:
    text = entry(
        "%x = s8[4]{0} parameter(0)",
        "ROOT %g = ((s8[4]{0}, pred[2]{0}), (s8[32]{0}, pred[16]{0})) all-gather-start(%x, %x)",
    )
    (found,) = collectives(text)
    assert found.bytes == 32 + 16
    assert found.result == (Array("s8", (32,)), Array("pred", (16,)))


def test_bytes_by_element_type() -> None:
    wanted = {"f32": 4, "bf16": 2, "f16": 2, "s8": 1, "pred": 1, "f8e4m3fn": 1, "u64": 8, "c64": 8}
    assert {name: Array(name, (3, 1)).bytes // 3 for name in wanted} == wanted
    assert Array("f32", ()).bytes == 4


def test_a_module_without_collectives() -> None:
    assert collectives(entry("ROOT %x = bf16[4,2]{1,0} parameter(0)")) == []
