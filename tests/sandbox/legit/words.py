"""Word problems as in GSM8K: a few steps of arithmetic and a printed answer."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "clips-sold",
        r"""
april = 48
may = april / 2
total = april + may
print(int(total))
""",
        "72\n",
    ),
    Program(
        "hourly-pay",
        r"""
rate_per_minute = 12 / 60
print(rate_per_minute * 50)
""",
        "10.0\n",
    ),
    Program(
        "wallet-savings",
        r"""
price = 100
have = price / 2
parents = 15
grandparents = parents * 2
need = price - have - parents - grandparents
print(f"Betty needs ${need:.0f} more")
""",
        "Betty needs $5 more\n",
    ),
    Program(
        "pages-left",
        r"""
pages = 120
yesterday = 12
today = yesterday * 2
left = pages - yesterday - today
print(left // 2)
""",
        "42\n",
    ),
    Program(
        "letters-per-year",
        r"""
def letters(friends, pages, times_a_week, weeks=52):
    return friends * pages * times_a_week * weeks
print(letters(2, 3, 2))
""",
        "624\n",
    ),
    Program(
        "flowers",
        r"""
yellow = 10
purple = yellow + yellow * 80 // 100
green = (yellow + purple) * 25 // 100
print(yellow + purple + green)
""",
        "35\n",
    ),
    Program(
        "pizza-slices",
        r"""
slices = {"large": 16, "small": 8}
eaten = 0
for size, count in [("large", 2), ("small", 2)]:
    eaten += slices[size] * count
print(eaten)
""",
        "48\n",
    ),
    Program(
        "weight-of-box",
        r"""
w = 2
w *= 3
w += 2
w *= 2
print("final weight:", w, "pounds")
""",
        "final weight: 16 pounds\n",
    ),
    Program(
        "discount-chain",
        r"""
price = 80.0
for cut in (0.25, 0.10):
    price *= 1 - cut
print(f"{price:.2f}")
""",
        "54.00\n",
    ),
    Program(
        "profit-percent",
        r"""
cost, repairs, growth = 80_000, 50_000, 1.5
new_value = cost + cost * growth
print(new_value - cost - repairs)
""",
        "70000.0\n",
    ),
    Program(
        "eggs-market",
        r"""
eggs_per_day = 16
eaten = 3
baked = 4
print(f"${(eggs_per_day - eaten - baked) * 2} every day")
""",
        "$18 every day\n",
    ),
    Program(
        "robe-bolts",
        r"""
blue = 2
white = blue / 2
print(blue + white)
""",
        "3.0\n",
    ),
    Program(
        "sprints",
        r"""
print(3 * 3 * 60)
""",
        "540\n",
    ),
    Program(
        "feed-cups",
        r"""
chickens = 20
print(3 * chickens - 15 - 25)
""",
        "20\n",
    ),
    Program(
        "glasses-discount",
        r"""
total = 0
for n in range(1, 17):
    total += 5 if n % 2 else 5 * 0.6
print(total)
""",
        "64.0\n",
    ),
    Program(
        "sheep",
        r"""
seattle = 20
charleston = 4 * seattle
toulouse = 2 * charleston
print(sum([seattle, charleston, toulouse]))
""",
        "260\n",
    ),
    Program(
        "download-restart",
        r"""
size, speed = 200, 2
minutes = size * 0.4 / speed + 20 + size / speed
print(minutes)
""",
        "160.0\n",
    ),
    Program(
        "drive-home",
        r"""
distance_out = 3 * 60
back = 0
hours_left = 4
hours_left -= 2
back += 0.5 * 30
hours_left -= 0.5
back += hours_left * 80
print(distance_out - back)
""",
        "45.0\n",
    ),
    Program(
        "overtime",
        r"""
hours, rate = 45, 10
regular = min(hours, 40) * rate
overtime = max(0, hours - 40) * rate * 1.2
print(regular + overtime)
""",
        "460.0\n",
    ),
    Program(
        "downloads-three-months",
        r"""
first = 60
second = 3 * first
third = int(second - second * 0.3)
print(first, second, third, first + second + third)
""",
        "60 180 126 366\n",
    ),
    Program(
        "lemon-tree-years",
        r"""
cost, fruit, upkeep = 90, 7 * 1.5, 3
year = 0
while cost >= 0:
    year += 1
    cost -= fruit - upkeep
print(year)
""",
        "13\n",
    ),
    Program(
        "ages",
        r"""
for emma in range(1, 100):
    father = emma + 28
    if father + 10 == 2 * (emma + 10) + 3:
        print(emma, father)
        break
""",
        "15 43\n",
    ),
    Program(
        "change-due",
        r"""
items = [("bread", 2.35, 2), ("milk", 1.15, 3), ("cheese", 7.80, 1)]
bill = round(sum(price * count for _, price, count in items), 2)
print("bill", bill)
print("change", round(20 - bill, 2))
""",
        "bill 15.95\nchange 4.05\n",
    ),
    Program(
        "mean-speed",
        r"""
legs = [(60, 40), (60, 60)]
total_distance = sum(d for d, _ in legs)
total_time = sum(d / v for d, v in legs)
print(total_distance / total_time)
""",
        "48.0\n",
    ),
    Program(
        "compound-interest",
        r"""
amount = 1000
for year in range(1, 6):
    amount *= 1.05
    print(year, round(amount, 2))
""",
        "1 1050.0\n2 1102.5\n3 1157.62\n4 1215.51\n5 1276.28\n",
    ),
    Program(
        "train-meeting",
        r"""
a, b, gap = 60, 40, 250
t = gap / (a + b)
print(f"They meet after {t} hours, {a * t:g} km from A")
""",
        "They meet after 2.5 hours, 150 km from A\n",
    ),
    Program(
        "tank-filling",
        r"""
from fractions import Fraction
rate = Fraction(1, 6) + Fraction(1, 4) - Fraction(1, 12)
print(1 / rate, "hours")
""",
        "3 hours\n",
    ),
    Program(
        "ratio-share",
        r"""
parts = {"Ann": 2, "Ben": 3, "Cy": 5}
unit = 350 / sum(parts.values())
for name, part in sorted(parts.items()):
    print(f"{name}: {part * unit:.0f}")
""",
        "Ann: 70\nBen: 105\nCy: 175\n",
    ),
    Program(
        "coins-dollar",
        r"""
count = 0
for q in range(5):
    for d in range(11):
        for n in range(21):
            rest = 100 - 25 * q - 10 * d - 5 * n
            if rest >= 0:
                count += 1
print(count)
""",
        "242\n",
    ),
    Program(
        "clock-angle",
        r"""
hour, minute = 3, 40
angle = abs(30 * hour - 5.5 * minute) % 360
print(min(angle, 360 - angle))
""",
        "130.0\n",
    ),
    Program(
        "leap-years",
        r"""
years = [y for y in range(1896, 2025) if y % 4 == 0 and (y % 100 != 0 or y % 400 == 0)]
print(len(years), years[0], years[-1])
""",
        "32 1896 2024\n",
    ),
    Program(
        "weekday",
        r"""
def weekday(y, m, d):
    shift = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4]
    if m < 3:
        y -= 1
    return (y + y // 4 - y // 100 + y // 400 + shift[m - 1] + d) % 7
names = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split()
print(names[weekday(2000, 1, 1)], names[weekday(1969, 7, 20)])
""",
        "Saturday Sunday\n",
    ),
]
