"""Bytes in main memory, of programs written by hand."""

import pytest

from distill_jax.forecast import hlo_text, hlo_traffic

PARTS = """
%sum (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add.9 = f32[] add(%x, %y)
}

%looked_up (table: bf16[1000,8], at: s32[4]) -> bf16[4,8] {
  %table = bf16[1000,8]{1,0} parameter(0)
  %at = s32[4]{0} parameter(1)
  %doubled = bf16[1000,8]{1,0} add(%table, %table)
  ROOT %rows = bf16[4,8]{1,0} gather(%doubled, %at), offset_dims={1}, slice_sizes={1,8}
}

%updated (cache: bf16[4,100], new: bf16[4,1], place: s32[]) -> bf16[4,100] {
  %cache = bf16[4,100]{1,0} parameter(0)
  %new = bf16[4,1]{1,0} parameter(1)
  %place = s32[] parameter(2)
  ROOT %in = bf16[4,100]{1,0} dynamic-update-slice(%cache, %new, %place, %place)
}

%both (z: f32[64]) -> (f32[64], f32[]) {
  %z = f32[64]{0} parameter(0)
  %zero = f32[] constant(0)
  %total = f32[] reduce(%z, %zero), dimensions={0}, to_apply=%sum
  %more = f32[64]{0} exponential(%z)
  ROOT %two = (f32[64]{0}, f32[]) tuple(%more, %total)
}

%goes_on (state: (f32[64])) -> pred[] {
  %state = (f32[64]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

%step (before: (f32[64])) -> (f32[64]) {
  %before = (f32[64]{0}) parameter(0)
  %old = f32[64]{0} get-tuple-element(%before), index=0
  %new.2 = f32[64]{0} exponential(%old)
  ROOT %after = (f32[64]{0}) tuple(%new.2)
}
"""


def traffic(entry: str, cached: int = 0) -> int:
    lines = "\n".join(f"  {line}" for line in entry.strip().splitlines())
    module = hlo_text.parse(f"{PARTS}\nENTRY %main (a: f32[]) -> f32[] {{\n{lines}\n}}\n")
    return hlo_traffic.traffic(module, cached)


@pytest.mark.parametrize(
    ("entry", "bytes_"),
    [
        # Reads two vectors, writes one; the tuple moves nothing.
        ("""%p.1 = f32[64]{0} parameter(0)
            ROOT %s.1 = f32[64]{0} add(%p.1, %p.1)""", 3 * 256),
        # Four rows of eight, their four places, and the result.
        ("""%p.1 = bf16[1000,8]{1,0} parameter(0)
            %p.2 = s32[4]{0} parameter(1)
            ROOT %f.1 = bf16[4,8]{1,0} fusion(%p.1, %p.2), kind=kLoop, calls=%looked_up""",
         64 + 16 + 64),
        # The new entries and their place are read, the new entries written.
        ("""%p.1 = bf16[4,100]{1,0} parameter(0)
            %p.2 = bf16[4,1]{1,0} parameter(1)
            %p.3 = s32[] parameter(2)
            ROOT %f.1 = bf16[4,100]{1,0} fusion(%p.1, %p.2, %p.3), kind=kLoop, calls=%updated""",
         8 + 4 + 8),
        ("""%p.1 = bf16[4,100]{1,0} parameter(0)
            %p.2 = bf16[4,1]{1,0} parameter(1)
            %p.3 = s32[] parameter(2)
            ROOT %u.1 = bf16[4,100]{1,0} dynamic-update-slice(%p.1, %p.2, %p.3, %p.3)""",
         8 + 2 * 4 + 8),
        # A product reads all of both, whatever the size of its result.
        ("""%p.1 = f32[8,16]{1,0} parameter(0)
            %p.2 = f32[16,2]{1,0} parameter(1)
            ROOT %d.1 = f32[8,2]{1,0} dot(%p.1, %p.2), lhs_contracting_dims={1}""",
         512 + 128 + 64),
        # Four places and four rows of eight are read, the rows written.
        ("""%p.1 = f32[100,8]{1,0} parameter(0)
            %p.2 = s32[4,1]{1,0} parameter(1)
            %p.3 = f32[4,8]{1,0} parameter(2)
            ROOT %c.1 = f32[100,8]{1,0} scatter(%p.1, %p.2, %p.3), to_apply=%sum""",
         16 + 128 + 128),
        # Five times a vector read and one written.
        ("""%p.1 = f32[64]{0} parameter(0)
            %t.1 = (f32[64]{0}) tuple(%p.1)
            ROOT %w.1 = (f32[64]{0}) while(%t.1), condition=%goes_on, body=%step,"""
         """ backend_config={"known_trip_count":{"n":"5"}}""",
         5 * 512),
        # Two results of one reading, of which one stays on the chip.
        ("""%p.1 = f32[64]{0} parameter(0)
            ROOT %f.1 = (f32[64]{0:S(1)}, f32[]) fusion(%p.1), kind=kLoop, calls=%both""", 256 + 4),
        # Fetched to the chip, then read there.
        ("""%p.1 = f32[64]{0} parameter(0)
            %c.1 = (f32[64]{0:S(1)}, f32[64]{0}, u32[]) copy-start(%p.1)
            %c.2 = f32[64]{0:S(1)} copy-done(%c.1)
            ROOT %s.1 = f32[64]{0:S(1)} add(%c.2, %c.2)""", 256),
    ],
)  # fmt: skip
def test_an_operation(entry: str, bytes_: int) -> None:
    assert traffic(entry) == bytes_


def test_a_cache_on_the_chip_holds_what_is_made_but_no_arguments() -> None:
    entry = """%p.1 = bf16[4,100]{1,0} parameter(0)
        %p.2 = bf16[4,1]{1,0} parameter(1)
        %p.3 = s32[] parameter(2)
        %n.1 = bf16[4,1]{1,0} negate(%p.2)
        %f.1 = bf16[4,100]{1,0} fusion(%p.1, %n.1, %p.3), kind=kLoop, calls=%updated
        %b.1 = bf16[2,200]{1,0} bitcast(%f.1)
        %s.1 = bf16[2,200]{1,0} negate(%b.1)
        ROOT %s.2 = bf16[2,200]{1,0} negate(%s.1)"""
    # Read: 8, 8 + 4, 800, 800; written: 8, 8, 800, 800.
    assert traffic(entry) == 8 + 12 + 1600 + 8 + 8 + 1600
    # Not the new entries between two operations, and not the last two results.
    assert traffic(entry, cached=800) == 8 + 4 + 800 + 8
