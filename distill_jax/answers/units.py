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
_TABLE: list[tuple[str, str, Fraction | int]] = [
    ("m meter metre", "length", 1),
    ("km kilometer kilometre", "length", 1000),
    ("dm decimeter decimetre", "length", Fraction(1, 10)),
    ("cm centimeter centimetre", "length", Fraction(1, 100)),
    ("mm millimeter millimetre", "length", Fraction(1, 1000)),
    ("nm nanometer nanometre", "length", Fraction(1, 10**9)),
    ("in inch inches", "length", _INCH),
    ("ft foot feet", "length", 12 * _INCH),
    ("yd yds yard", "length", 36 * _INCH),
    ("mi mile", "length", 63_360 * _INCH),
    ("g gram gramme", "mass", 1),
    ("mg milligram", "mass", Fraction(1, 1000)),
    ("kg kilogram kilo", "mass", 1000),
    ("tonne", "mass", 10**6),
    ("lb lbs pound", "mass", 1000 * _POUND),
    ("oz ounce", "mass", 1000 * _POUND / 16),
    ("ton", "ton", 1),  # of three kinds: converted to nothing
    ("s sec second", "time", 1),
    ("ms millisecond", "time", Fraction(1, 1000)),
    ("min minute", "time", 60),
    ("h hr hrs hour", "time", 3600),
    ("day", "time", 86_400),
    ("week", "time", 604_800),
    ("month", "month", 1),
    ("yr year", "month", 12),
    ("decade", "month", 120),
    ("century centuries", "month", 1200),
    ("ml milliliter millilitre", "volume", Fraction(1, 10**6)),
    ("cl centiliter", "volume", Fraction(1, 10**5)),
    ("l liter litre", "volume", Fraction(1, 1000)),
    ("gal gallon", "volume", _GALLON),
    ("quart qt", "volume", _GALLON / 4),
    ("pint pt", "volume", _GALLON / 8),
    ("cup", "volume", _GALLON / 16),
    ("tablespoon tbsp", "volume", _GALLON / 256),
    ("teaspoon tsp", "volume", _GALLON / 768),
    ("acre", "area", Fraction(40_468_564_224, 10**7)),
    ("hectare ha", "area", 10_000),
    (f"{DOLLAR} dollar buck usd", "dollar", 1),
    ("cent", "dollar", Fraction(1, 100)),
    ("dime", "dollar", Fraction(1, 10)),
    ("euro eur", "euro", 1),
    ("pounds-sterling gbp", "sterling", 1),
    ("rupee inr rs", "rupee", 1),
    ("yen jpy", "yen", 1),
    ("yuan rmb cny", "yuan", 1),
    ("% percent percentage pct", PERCENT, 1),
    (r"^\circ degree deg", DEGREE, 1),
    ("radian rad", "radian", 1),
    ("fahrenheit", "fahrenheit", 1),
    ("celsius", "celsius", 1),
    ("kelvin", "kelvin", 1),
    ("newton", "newton", 1),
    ("joule", "joule", 1),
    ("watt", "watt", 1),
    ("hertz hz", "hertz", 1),
    ("volt", "volt", 1),
]  # fmt: skip
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
_UNITS: dict[str, tuple[str, Fraction]] = {}
for _names, _quantity, _factor in _TABLE:
    for _name in _names.split(" ") if "\\" not in _names else _names.split():
        _UNITS[_name] = (_quantity, Fraction(_factor))
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
