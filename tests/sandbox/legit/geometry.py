"""Triangles, circles, polygons, lattice points; by hand and with sympy.geometry."""

from tests.sandbox.legit.program import Program

PROGRAMS = [
    Program(
        "heron",
        r"""
import math
a, b, c = 13, 14, 15
s = (a + b + c) / 2
print(math.sqrt(s * (s - a) * (s - b) * (s - c)))
""",
        "84.0\n",
    ),
    Program(
        "shoelace",
        r"""
points = [(0, 0), (4, 0), (5, 3), (2, 6), (-1, 3)]
area = 0
for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1]):
    area += x1 * y2 - x2 * y1
print(abs(area) / 2)
""",
        "24.0\n",
    ),
    Program(
        "distance-midpoint",
        r"""
from math import dist, hypot
a, b = (1, 2), (4, 6)
print(dist(a, b), hypot(3, 4), tuple((u + v) / 2 for u, v in zip(a, b)))
""",
        "5.0 5.0 (2.5, 4.0)\n",
    ),
    Program(
        "circle-area",
        r"""
import math
r = 7
print(f"{math.pi * r**2:.3f} {2 * math.pi * r:.3f}")
""",
        "153.938 43.982\n",
    ),
    Program(
        "sympy-triangle",
        r"""
from sympy import Point, Triangle
t = Triangle(Point(0, 0), Point(4, 0), Point(0, 3))
print(t.area, t.perimeter, t.incenter, t.inradius, t.circumradius)
""",
        "6 12 Point2D(1, 1) 1 5/2\n",
    ),
    Program(
        "sympy-triangle-centres",
        r"""
from sympy.geometry import Triangle, Point
t = Triangle(Point(0, 0), Point(6, 0), Point(2, 4))
print(t.centroid, t.orthocenter, t.circumcenter)
""",
        "Point2D(8/3, 4/3) Point2D(2, 2) Point2D(3, 1)\n",
    ),
    Program(
        "line-intersection",
        r"""
from sympy import Point, Line
l1 = Line(Point(0, 0), Point(2, 2))
l2 = Line(Point(0, 4), Point(4, 0))
print(l1.intersection(l2), l1.is_perpendicular(l2), l1.slope)
""",
        "[Point2D(2, 2)] True 1\n",
    ),
    Program(
        "circle-line",
        r"""
from sympy import Circle, Line, Point
c = Circle(Point(0, 0), 5)
print(c.intersection(Line(Point(0, 3), slope=0)), c.area, c.circumference)
""",
        "[Point2D(-4, 3), Point2D(4, 3)] 25*pi 10*pi\n",
    ),
    Program(
        "polygon-regular",
        r"""
from sympy import RegularPolygon, Point, simplify
h = RegularPolygon(Point(0, 0), 2, 6)
print(simplify(h.area), h.length, h.interior_angle, h.apothem)
""",
        "6*sqrt(3) 2 2*pi/3 sqrt(3)\n",
    ),
    Program(
        "polygon-area-sympy",
        r"""
from sympy import Polygon
p = Polygon((0, 0), (4, 0), (4, 3), (0, 3))
print(p.area, p.perimeter, p.is_convex(), p.centroid)
""",
        "12 14 True Point2D(2, 3/2)\n",
    ),
    Program(
        "point-line-distance",
        r"""
from sympy import Point, Line
print(Line(Point(0, 0), Point(3, 4)).distance(Point(5, 0)))
""",
        "4\n",
    ),
    Program(
        "ellipse",
        r"""
from sympy import Ellipse, Point
e = Ellipse(Point(0, 0), 5, 3)
print(e.area, e.eccentricity, e.foci)
""",
        "15*pi 4/5 (Point2D(-4, 0), Point2D(4, 0))\n",
    ),
    Program(
        "law-of-cosines",
        r"""
from sympy import sqrt, cos, pi, acos, deg
a, b = 5, 8
print(sqrt(a**2 + b**2 - 2*a*b*cos(pi/3)), deg(acos(-sqrt(3)/2)))
""",
        "7 150\n",
    ),
    Program(
        "exact-trig",
        r"""
from sympy import sin, cos, tan, pi, sqrt, simplify
print(sin(pi/12), cos(pi/5), tan(pi/8), simplify(sin(pi/12) - (sqrt(6) - sqrt(2))/4))
""",
        "-sqrt(2)/4 + sqrt(6)/4 1/4 + sqrt(5)/4 -1 + sqrt(2) 0\n",
    ),
    Program(
        "degrees-radians",
        r"""
import math
print(math.degrees(math.pi / 4), round(math.sin(math.radians(30)), 12), math.atan2(1, -1) / math.pi)
""",
        "45.0 0.5 0.75\n",
    ),
    Program(
        "lattice-points",
        r"""
print(sum(1 for x in range(-5, 6) for y in range(-5, 6) if x*x + y*y <= 25))
""",
        "81\n",
    ),
    Program(
        "picks-theorem",
        r"""
from math import gcd
pts = [(0, 0), (7, 0), (7, 5), (0, 3)]
twice = b = 0
for (x1, y1), (x2, y2) in zip(pts, pts[1:] + pts[:1]):
    twice += x1 * y2 - x2 * y1
    b += gcd(abs(x2 - x1), abs(y2 - y1))
print((twice - b + 2) // 2, "inside", b, "on the boundary")
""",
        "21 inside 16 on the boundary\n",
    ),
    Program(
        "three-dimensions",
        r"""
from sympy import Point3D, Plane
p = Plane(Point3D(1, 0, 0), Point3D(0, 2, 0), Point3D(0, 0, 3))
print(p.equation(), p.distance(Point3D(0, 0, 0)))
""",
        "6*x + 3*y + 2*z - 6 6/7\n",
    ),
    Program(
        "cross-and-dot",
        r"""
def cross(u, v):
    return (u[1]*v[2] - u[2]*v[1], u[2]*v[0] - u[0]*v[2], u[0]*v[1] - u[1]*v[0])
u, v = (1, 2, 3), (4, 5, 6)
print(cross(u, v), sum(a * b for a, b in zip(u, v)))
""",
        "(-3, 6, -3) 32\n",
    ),
    Program(
        "rotate-complex",
        r"""
z = 3 + 1j
for _ in range(4):
    z *= 1j
    print(int(z.real), int(z.imag))
""",
        "-1 3\n-3 -1\n1 -3\n3 1\n",
    ),
    Program(
        "cone-volume",
        r"""
from sympy import pi, Rational, sqrt
r, h = 6, 8
print(Rational(1, 3) * pi * r**2 * h, pi * r * (r + sqrt(r**2 + h**2)))
""",
        "96*pi 96*pi\n",
    ),
    Program(
        "inscribed-angles",
        r"""
angles = {"A": 3, "B": 4, "C": 5}
unit = 180 / sum(angles.values())
print({k: v * unit for k, v in angles.items()}, (12 - 2) * 180 / 12)
""",
        "{'A': 45.0, 'B': 60.0, 'C': 75.0} 150.0\n",
    ),
    Program(
        "similar-triangles",
        r"""
from fractions import Fraction
height = Fraction(6) * 15 / 4
print(height, float(height))
""",
        "45/2 22.5\n",
    ),
    Program(
        "convex-hull",
        r"""
from sympy import convex_hull, Point
h = convex_hull(Point(0, 0), Point(2, 0), Point(1, 1), Point(2, 2), Point(0, 2))
print(h.area, len(h.vertices))
""",
        "4 4\n",
    ),
    Program(
        "coordinate-classes",
        r"""
class Vec:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __add__(self, o):
        return Vec(self.x + o.x, self.y + o.y)
    def __sub__(self, o):
        return Vec(self.x - o.x, self.y - o.y)
    def __mul__(self, k):
        return Vec(self.x * k, self.y * k)
    def __abs__(self):
        return (self.x**2 + self.y**2) ** 0.5
    def __repr__(self):
        return f"Vec({self.x}, {self.y})"
a, b = Vec(1, 2), Vec(4, 6)
print(a + b, b - a, abs(b - a), a * 3)
""",
        "Vec(5, 8) Vec(3, 4) 5.0 Vec(3, 6)\n",
    ),
]
