"""Units of measure, money, percent and degrees: what a unit measures and how much of it.

A unit is a product of powers of base quantities with an exact factor, so 1 m = 100 cm and 36 km/h =
10 m/s. Nouns of counted things (apples) are no units.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from distill_jax.answers.spelling import DOLLAR

PERCENT, DEGREE = "percent", "degree"


class Unit(NamedTuple):
    """Sorted (quantity, power) pairs and the factor to their base units."""

    powers: tuple[tuple[str, int], ...]
    factor: Fraction

    @property
    def is_percent(self) -> bool:
        """Whether it is the percent sign alone."""
        return self.powers == ((PERCENT, 1),)


_INCH, _POUND = Fraction(254, 10_000), Fraction(45_359_237, 100_000_000)
_GALLON = Fraction(3_785_411_784, 10**12)
_THOUSANDTH = Fraction(1, 1000)
_TABLE: dict[str, dict[str, Fraction | int]] = {
    "length": {
        "m meter metre": 1, "km kilometer kilometre": 1000,
        "dm decimeter decimetre": Fraction(1, 10), "cm centimeter centimetre": Fraction(1, 100),
        "mm millimeter millimetre": _THOUSANDTH, "nm nanometer nanometre": Fraction(1, 10**9),
        "in inch inches": _INCH,
        "ft foot feet": 12 * _INCH, "yd yds yard": 36 * _INCH, "mi mile": 63_360 * _INCH,
    },
    "mass": {
        "g gram gramme": 1, "mg milligram": _THOUSANDTH, "kg kilogram kilo": 1000, "tonne": 10**6,
        "lb lbs pound": 1000 * _POUND, "oz ounce": 1000 * _POUND / 16,
    },
    "ton": {"ton": 1},  # of three kinds: converted to nothing
    "time": {
        "s sec second": 1, "ms millisecond": _THOUSANDTH, "min minute": 60, "h hr hrs hour": 3600,
        "day": 86_400, "week": 604_800,
    },
    "month": {"month": 1, "yr year": 12, "decade": 120, "century centuries": 1200},
    "volume": {
        "ml milliliter millilitre": Fraction(1, 10**6), "cl centiliter": Fraction(1, 10**5),
        "l liter litre": _THOUSANDTH, "gal gallon": _GALLON, "quart qt": _GALLON / 4,
        "pint pt": _GALLON / 8, "cup": _GALLON / 16, "tablespoon tbsp": _GALLON / 256,
        "teaspoon tsp": _GALLON / 768,
    },
    "area": {"acre": Fraction(40_468_564_224, 10**7), "hectare ha": 10_000},
    "dollar": {f"{DOLLAR} dollar buck usd": 1, "cent": Fraction(1, 100), "dime": Fraction(1, 10)},
    "sterling": {"pounds-sterling gbp": 1}, PERCENT: {"% percent percentage pct": 1},
    DEGREE: {r"^\circ degree deg": 1},
}  # fmt: skip
# Quantities with one unit, which names them.
_TABLE |= {
    names.split()[0]: {names: 1}
    for names in (
        "euro eur", "rupee inr rs", "yen jpy", "yuan rmb cny", "radian rad", "fahrenheit",
        "celsius", "kelvin", "newton", "joule", "watt", "hertz hz", "volt",
    )
}  # fmt: skip
_WHOLE = {
    "mph": "mile/hour", "kph": "km/hour", "kmph": "km/hour", "kmh": "km/hour", "fps": "foot/second",
    "sqft": "foot^2", "sqin": "inch^2", "sqm": "m^2", "cc": "cm^3",
    r"^\circ c": "celsius", r"^\circ f": "fahrenheit", "degrees celsius": "celsius",
    "degrees fahrenheit": "fahrenheit", "degree celsius": "celsius",
    "degree fahrenheit": "fahrenheit", "cubic foot": "foot^3",
    "pounds sterling": "pounds-sterling", "percentage points": "percent", "n m": "newton m",
}  # fmt: skip
_SI: dict[str, tuple[str, Fraction | int]] = {
    "N": ("newton", 1), "kN": ("newton", 1000), "J": ("joule", 1), "kJ": ("joule", 1000),
    "W": ("watt", 1), "kW": ("watt", 1000), "V": ("volt", 1), "mV": ("volt", Fraction(1, 1000)),
    "kV": ("volt", 1000), "A": ("ampere", 1), "mA": ("ampere", Fraction(1, 1000)),
    "Hz": ("hertz", 1), "kHz": ("hertz", 1000), "MHz": ("hertz", 10**6), "Pa": ("pascal", 1),
    "kPa": ("pascal", 1000),
}  # fmt: skip
# Volume and area as powers of length, so that a litre is 1000 cubic centimetres.
_AS_LENGTH = {"volume": 3, "area": 2}
_UNITS = {
    name: (quantity, Fraction(factor))
    for quantity, units in _TABLE.items()
    for names, factor in units.items()
    for name in names.split(" ")
}
# One letter is a unit only where it stands apart ("3 m"); attached ("3m") it is algebra.
SHORT = {"m", "g", "s", "h", "l", "n", "j", "w", "v", "a"}
_FACTOR = re.compile(
    r"(?:(?P<power>square|sq|cubic|cu)\.?\s+)?"
    r"(?P<name>\^\\circ|%|\x01|[a-z-]+)\.?"
    r"(?:\s*\^\s*\{?\s*(?P<exponent>-?\d)\s*\}?|\s+(?P<after>squared|cubed))?"
)
_POWER = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_BETWEEN = re.compile(r"\s*(?:\\cdot|\*|-|\s)\s*")


@lru_cache(maxsize=4096)
def read_unit(text: str) -> Unit | None:
    """The unit that a phrase names ("cm", "square feet", "miles per hour"), or None."""
    if text in _SI:  # one letter more or less means something else in small letters
        quantity, size = _SI[text]
        return Unit(((quantity, 1),), Fraction(size))
    text = " ".join(text.lower().replace("{", " ").replace("}", " ").split())
    text = re.sub(r"\^ (?=[-\d])", "^", text)
    if not text or len(text) > 60:
        return None
    text = _WHOLE.get(text, text)
    above, *below = re.split(r"\s*/\s*|\s+per\s+|\s+an?\s+(?=hour|minute|second|day|week)", text)
    powers: dict[str, int] = {}
    factor = Fraction(1)
    for part, sign in [(above, 1), *((part, -1) for part in below)]:
        place = 0
        while place < len(part):
            match = _FACTOR.match(part, place)
            found = _lookup(match["name"]) if match else None
            if match is None or found is None:
                return None
            quantity, size = found
            power = sign * int(match["exponent"] or 1)
            power *= _POWER.get(match["power"] or match["after"] or "", 1)
            factor *= size**power
            base = _AS_LENGTH.get(quantity)
            quantity, power = ("length", power * base) if base else (quantity, power)
            powers[quantity] = powers.get(quantity, 0) + power
            between = _BETWEEN.match(part, match.end())
            place = between.end() if between else match.end()
            if place == match.start():
                return None
    kept = tuple(sorted((name, power) for name, power in powers.items() if power))
    return Unit(kept, factor) if kept else None


def _lookup(name: str) -> tuple[str, Fraction] | None:
    if name in _UNITS:
        return _UNITS[name]
    return _UNITS.get(name[:-1]) if name.endswith("s") and len(name) > 3 else None
