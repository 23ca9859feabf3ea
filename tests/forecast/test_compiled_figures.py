"""The forecast, compared with what compilers report of the presets' programs (docs/benchmarks.md).

These programs take minutes to compile, so their figures are kept here: GB of arguments and of
arguments with live arrays at the fullest moment, on each device.
"""

import pytest

from configs import presets
from distill_jax.forecast.parts import Forecast
from distill_jax.models import response
from launch import forecast

# (preset, devices, phase): GB of arguments that stay, and at the peak.
FOUND = {
    ("qwen_1_5b", 1, "rollout"): (0, 5.876),  # one H100
    ("qwen_1_5b", 1, "student scoring"): (3.125, 15.278),  # one H100
    ("qwen_1_5b", 8, "rollout"): (0, 3.888),  # v5e:2x4
    ("qwen_1_5b", 8, "teacher scoring"): (1.905, 4.524),  # v5e:2x4
    ("qwen_1_5b", 8, "student scoring"): (0.415, 2.793),  # v5e:2x4
    ("qwen_7b", 8, "rollout"): (0, 15.800),  # eight H100
    ("qwen_7b", 8, "teacher scoring"): (8.193, 12.819),  # eight H100
    ("qwen_7b", 8, "student scoring"): (1.966, 6.142),  # eight H100
    ("qwen_7b", 8, "update"): (2.088, 5.552),  # eight H100
}


def of_rl(preset: str, devices: int) -> Forecast:
    # Updates were compiled in four microbatches.
    found = forecast.run(getattr(presets, preset)().replace("rl", accumulate=4), devices)
    return next(one for one in found if one.stage == "rl")


@pytest.mark.parametrize(("program", "figures"), FOUND.items(), ids=lambda x: "-".join(map(str, x)))
def test_a_phase(
    program: tuple[str, int, str], figures: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    # They were compiled when a call scored all its rows at once.
    monkeypatch.setattr(response, "PART_TOKENS", 2**30)
    preset, devices, phase = program
    arguments, peak = figures
    part = next(x for x in of_rl(preset, devices).parts if x.name.startswith(phase))
    assert part.bytes / 1e9 + arguments == pytest.approx(peak, rel=0.15)
