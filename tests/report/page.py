"""A report page made from figures given by hand, and its parser."""

from html.parser import HTMLParser

from distill_jax.evaluation import intervals
from distill_jax.report import html, run_report, tokens

EVIL = "<script src='http://x.test/a.js'>alert(1)</script> & \"<img src=//x.test/b onerror=c>'"


VOID = {"meta", "img", "br", "link", "input", "hr"}


START = {
    "time": "2026-01-02T03:04:05+00:00",
    "command": ["main.py", EVIL],
    "python": "3.11.7",
    "platform": EVIL,
    "versions": {"jax": "0.10.2"},
    "devices": {"platform": "cpu", "kind": "cpu", "count": 1, "processes": 1},
    "git": {"commit": "c0ffee", "changed_files": True},
}


def render(data):
    return html.render(run_report.build(data))


class Page(HTMLParser):
    """Elements with their attributes and text; asserts that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        element = {"tag": tag, "text": "", "inside": [e["tag"] for e in self.open], **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, of_class=None):
        found = [e for e in self.elements if e["tag"] == tag]
        return [e for e in found if of_class is None or of_class in e.get("class", "").split()]

    def text_of(self, id):
        (section,) = [e for e in self.elements if e.get("id") == id]
        return section["text"]


def result(name, right, levels=(1, 2)):
    estimate = intervals.wilson(sum(right), len(right))._asdict()
    shares = {"mean_length": 7.25, "terminated": 0.9, "undecided": 0.05}
    by_level = {str(level): estimate for level in levels}
    return {
        "made_from": {"adapter": f"digest of {name}"},
        "num_problems": len(right),
        "samples": 2,
        "temperature": 1.0,
        "greedy": {"accuracy": estimate, "levels": by_level, **shares},
        "sampled": {"pass@1": estimate, "levels": by_level, **shares},
        "problems": [
            {
                "id": f"p{i}",
                "question": f"What is {i}? {EVIL}",
                "level": levels[i % len(levels)] if levels else None,
                "answer": f"{i} {EVIL}",
                "greedy": f"{name} says {EVIL}",
                "greedy_right": yes,
                "sampled": ["a", "b"],
                "sampled_right": [yes, False],
            }
            for i, yes in enumerate(right)
        ],
    }


RESULTS = {
    "teacher": result("teacher", [True, True, True, True]),
    "sft": result("sft", [False, True, False, True]),
    "rl": result("rl", [True, False, False, True]),
}


PIECES = [b"<script>", b"\n", b"</span>", b"\xe2\x82", b"\xac", b'"&', b"<|im_end|>"]


TOKENS = [
    {
        "id": i,
        **tokens.stored_text(raw),
        "reward": -0.9 * i,
        "q": 1.5,
        "value": 1.5 + 0.9 * i,
        "logp": -0.125 * i,
    }
    for i, raw in enumerate(PIECES)
]


METRICS = {
    "sft": [{"step": i, "loss": 2.0 / i, "grad_norm": None} for i in range(1, 5)],
    "rl": [{"step": 0, "eval/accuracy": 0.25}]
    + [
        {
            "step": i,
            "reward": i / 30,
            "accuracy": i / 30,
            "entropy": 1.0,
            "kl": 0.01 * i,
            "completions/mean_length": 20.0,
            "completions/clipped_ratio": 0.9,
            "clip_ratio/region_mean": 0.1,
            "rewards/intrinsic/mean": -1.0 * i,
            "rewards/intrinsic/std": 0.5,
            "rewards/intrinsic/weight": 1.25,
            "rewards/intrinsic/scale": 2.0,
            "rewards/format/mean": 0.5,
            "rewards/format/std": None if i == 3 else 0.25,
        }
        for i in range(1, 31)
    ],
}


def shown(name, verdict, tokens=TOKENS):
    text = f"{name} says {EVIL}"
    return {"text": text, "verdict": verdict, "ended": name == "teacher", "tokens": tokens}


def tokens_of(names=("sft", "rl", "teacher"), verdict="wrong"):
    problem = {
        "id": "p0",
        "question": f"Why? {EVIL}",
        "level": 1,
        "gold": EVIL,
        "kind": "became right",
    }
    return {
        "made_from": {
            "subjects": {name: RESULTS[name]["made_from"] for name in names},
            "problems": ["p0"],
            "alpha": 1.0,
        },
        "problems": [{**problem, "responses": {name: shown(name, verdict) for name in names}}],
    }
