"""The page as a browser's parser sees it: whole, escaped, alone, and with every figure in it."""

import base64
import dataclasses
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from distill_jax.core.errors import CheckpointError, DataError
from distill_jax.evaluation import intervals
from distill_jax.report import figures, panels, plots, run_data, run_report, tokens, view
from distill_jax.report.run_data import RunData, StageRecord
from distill_jax.run.config import to_dict
from tests.report.page import (
    EVIL,
    METRICS,
    PIECES,
    RESULTS,
    START,
    TOKENS,
    Page,
    render,
    result,
    tokens_of,
)
from tests.report.views import RUN


@pytest.fixture(scope="module")
def config():
    # The settings of all stages are composed above this layer; the page reads them as plain values.
    from configs import presets

    return json.loads(json.dumps(to_dict(presets.smoke())))


@pytest.fixture(scope="module")
def data(config):
    stages = [StageRecord("sft", [START], 61.0), StageRecord("rl", [START, START])]
    completions = {"rl": [{"step": 1, "completion": EVIL, "reward": 1.0}] * 40}
    return RunData(EVIL, RUN, config, stages, METRICS, completions, RESULTS, tokens_of())


@pytest.fixture(scope="module")
def answers_only(data):
    """Without curves, which take the time."""
    return dataclasses.replace(data, metrics={}, completions={})


@pytest.fixture(scope="module")
def page(data):
    return Page(render(data))


def check_alone(page):
    """No element can fetch or run anything; ids are unique and links find them."""
    ids = [e["id"] for e in page.elements if "id" in e]
    assert len(set(ids)) == len(ids)
    for element in page.elements:
        assert element["tag"] not in {"script", "link", "iframe", "object", "base", "form"}
        for name, value in element.items():
            assert not name.startswith("on"), element
            if name in {"src", "srcset", "data", "action", "poster", "background"}:
                assert value.startswith("data:image/svg+xml;base64,")
            if name == "href":
                assert value[0] == "#" and value[1:] in ids
            assert name != "style"
    (style,) = page.all("style")
    assert not {"url(", "@import", "http", "expression"} & {
        word for word in ("url(", "@import", "http", "expression") if word in style["text"]
    }
    policy = [e for e in page.all("meta") if e.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"].startswith("default-src 'none'")


def test_the_page_stands_alone(page):
    check_alone(page)
    assert page.elements[0]["tag"] == "html" and page.elements[0]["lang"] == "en"


def test_what_models_and_data_say_is_text(page):
    # As often as it was put in, and never as markup: no element but our own images.
    assert all(e["src"].startswith("data:") for e in page.all("img"))
    assert page.text_of("problems").count(EVIL) == 2  # question and gold; answers are tokens
    assert page.all("title")[0]["text"] == f"Run {EVIL}"
    assert page.text_of("run").count(EVIL) == 2  # platform and command, once for three starts


def test_images_have_texts_and_are_whole(page):
    images = page.all("img")
    assert len(images) >= 14
    for image in images:
        assert len(image["alt"]) > 20
        svg = base64.b64decode(image["src"].split(",", 1)[1])
        root = ET.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert b"currentColor" in svg and b"prefers-color-scheme:dark" in svg
        assert figures._INK.encode() not in svg
        links = [v for e in root.iter() for k, v in e.items() if k.endswith("href")]
        assert all(link.startswith("#") for link in links)


def test_tables_have_headers_and_full_rows(page):
    for cell in page.all("th"):
        assert cell["scope"] in ("col", "row")
    rows, width = [], 0
    for element in page.elements:
        if element["tag"] == "tr":
            rows.append(0)
            if "thead" in element["inside"]:
                width = 0
        elif element["tag"] in ("td", "th"):
            rows[-1] += 1
            if "thead" in element["inside"]:
                width = rows[-1]
            else:
                assert rows[-1] <= width
    assert len(page.all("table")) == len(page.all("caption")) >= 6
    assert sum(rows) == len(page.all("td")) + len(page.all("th"))


def test_every_token_is_there_with_its_figures(page):
    spans = [e for e in page.all("span", "t")]
    assert len(spans) == 3 * len(PIECES)
    alpha_colours = ["t0", "t2", "t3", "t3", "t4", "t4", "t5"]  # exp(−.9 i)
    wanted = ["<script>", "↵\n", "</span>", r"\xe2\x82", r"\xac", '"&', "<|im_end|>"]
    for number, span in enumerate(spans):
        token = TOKENS[number % len(PIECES)]
        assert span["text"] == wanted[number % len(PIECES)]
        assert alpha_colours[number % len(PIECES)] in span["class"].split()
        assert span["title"] == tokens.title(token, 1.0)
        assert f"r {token['reward']:.3f}".replace("-0.000", "0.000") in span["title"]
    assert [e["text"] for e in page.all("span", "letter")] == ["€"] * 3
    # And as a table, for who cannot point at a token.
    rows = [e["text"] for e in page.all("tr") if "details" in e["inside"]]
    assert len(rows) == 3 * (1 + len(PIECES))
    assert rows[2] == "2↵-0.9000.4071.5002.400-0.125"
    assert len(page.all("li", "t")) == 6 and "below -4.61" in page.text_of("problems")


def test_verdicts_and_notes(page):
    answers = page.all("section", "answer")
    assert [a["text"].strip().split("\n")[0] for a in answers] == [
        "student after sft (start: base)", "student after rl (start: sft)", "teacher",
    ]  # fmt: skip
    assert all("✗ wrong · 7 tokens, " in a["text"] for a in answers)
    assert "cut off" in answers[0]["text"] and "7 tokens, ended" in answers[2]["text"]
    assert "r: mean -2.700, lowest -5.400" in answers[0]["text"]
    text = page.text_of("problems")
    assert (
        "Of 4 problems, from student after sft (start: base) to student after rl (start: sft): "
        "1 became right, 1 became" in text
    )
    assert "Became right, level 1 (p0)" in text and "Greedy answers decide." in text


@pytest.mark.parametrize("verdict", ["right", "wrong"])
def test_every_verdict_is_told(answers_only, verdict):
    changed = dataclasses.replace(answers_only, tokens=tokens_of(verdict=verdict))
    answers = Page(render(changed)).all("section", "answer")
    sign = {"right": "✓ ", "wrong": "✗ "}[verdict]
    assert all(sign + verdict in a["text"] for a in answers)


def test_summary_by_hand(page):
    text = page.text_of("accuracy")
    low, high = (100 * x for x in intervals.wilson(2, 4)[1:])
    assert f"50.0[{low:.1f}, {high:.1f}]" in text and "level 2" in text
    after, before = "student after rl (start: sft)", "student after sft (start: base)"
    assert f"{after} against {before}, greedy: +0.0 points" in page.text_of("changes")
    text = page.text_of("run")
    assert "grpo, 3 steps of 4 × 4 completions, learning rate 0.001, trainable lora" in text
    assert "correctness 1, intrinsic 0.5" in text and "custom" not in text
    assert "c0ffee and uncommitted changes" in text and "jax 0.10.2" in text
    assert "2026-01-02\u00a003:04:05\u00a0UTC" in text and "1:01" in text
    header = page.all("header")[0]["text"]
    assert "Complete: sft. Begun and not complete: rl." in header


def test_findings_are_those_of_the_diagnosis(page):
    text = page.text_of("diagnosis")
    assert "truncated" in text and "completions/clipped_ratio 0.9 → 0.9" in text
    (bad,) = [e["text"] for e in page.all("td", "status-bad") if e["text"] == "bad"]
    assert "sampling.max_new_tokens" in text and bad


def test_curves_of_every_stage_and_reward_terms():
    captions = [plot.title for plot in plots.curves("rl", panels.REINFORCEMENT, METRICS["rl"])]
    assert captions == [
        "accuracy", "reward, weighted and normalised", "KL to the reference",
        "entropy of the policy, nats per token", "completion length, tokens",
        "completions without EOS", "tokens whose ratio is clipped",
    ]  # fmt: skip
    # A norm of nulls is not drawn.
    (loss,) = plots.curves("sft", panels.SUPERVISED, METRICS["sft"])
    assert figures.describe(loss) == (
        "sft: loss, against the step. loss: 2 at step 1, 0.5 at step 4, between 0.5 and 2."
    )
    terms = plots.rewards(METRICS["rl"])
    assert [plot.title for plot in terms] == [
        "format, mean ± std", "intrinsic, mean ± std", "adaptive weight of each term",
        "running scale that the intrinsic reward is divided by",
    ]  # fmt: skip


def test_the_band_is_the_mean_and_a_standard_deviation():
    (format_line,), (line,) = (plot.series for plot in plots.rewards(METRICS["rl"])[:2])
    np.testing.assert_allclose(line.y_K, -np.arange(1.0, 31))
    np.testing.assert_allclose(line.high_K - line.y_K, 0.5)
    np.testing.assert_allclose(line.y_K - line.low_K, 0.5)
    # A step without a standard deviation has no place in the band, nor in the line.
    assert 3 not in format_line.x_K and len(format_line.low_K) == 29


def test_levels_say_every_figure():
    said = figures.describe(plots.levels(RESULTS, "greedy", RUN))
    for name, mean in zip(RESULTS, (100.0, 50.0, 50.0), strict=True):
        assert f"{RUN.label(name)}: level 1 {mean:.1f}%, level 2 {mean:.1f}%" in said
    without = {"teacher": result("teacher", [True], levels=())}
    assert plots.levels(without, "greedy", RUN) is None


def test_the_same_data_give_the_same_bytes(data):
    data = dataclasses.replace(data, metrics={"sft": METRICS["sft"]})
    assert render(data) == render(data)


def test_without_tokens_answers_are_shown_as_they_were_evaluated(answers_only):
    page = Page(render(dataclasses.replace(answers_only, tokens=None)))
    check_alone(page)
    assert page.all("span", "t") == [] and page.all("li", "t") == []
    said = [e["text"] for e in page.all("div", "said")]
    assert len(said) == 4 * 3 and f"rl says {EVIL}" in said
    assert "No tokens were scored" in page.text_of("problems")


def test_tokens_of_other_weights_are_told(answers_only):
    other = tokens_of()
    other["made_from"]["subjects"]["rl"] = "another"
    text = Page(render(dataclasses.replace(answers_only, tokens=other))).text_of("problems")
    assert "than the results above: student after rl (start: sft)." in text


def test_a_run_that_has_only_begun_says_what_is_missing(config):
    stages = [StageRecord("sft", [START])]
    page = Page(render(RunData("run", RUN, config, stages, {"sft": METRICS["sft"]})))
    check_alone(page)
    missing = [e["text"] for e in page.all("p", "missing")]
    assert len(missing) == 5 and any("No model was evaluated yet" in text for text in missing)
    assert len(page.all("img")) == 1


def test_reading_a_work_directory(tmp_path, config):
    with pytest.raises(DataError, match="no stage has begun in"):
        run_data.read(tmp_path)
    other = view.StageView("other", "toy", "somewhere")
    view.save(view.RunView((*RUN.stages, other)), tmp_path)
    for stage, started in (("rl", 2), ("sft", 1), ("somewhere", 1)):
        (tmp_path / stage).mkdir()
        told = {"config": {**config, "seed": started}, "starts": [START] * started}
        (tmp_path / stage / "run.json").write_text(json.dumps(told))
    for stage, rows in METRICS.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / stage / "metrics.jsonl").write_text(lines)
    (tmp_path / "sft" / "done.json").write_text(
        json.dumps({"seconds": 3.5, "figures": {"steps": 4}})
    )
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "teacher.json").write_text(json.dumps(RESULTS["teacher"]))
    (tmp_path / "evaluate" / "done.json").write_text("{}")
    got = run_data.read(tmp_path)
    assert [stage.name for stage in got.stages] == ["sft", "rl", "other"]
    assert got.stages[0].seconds == 3.5 and got.stages[1].seconds is None
    assert got.metrics == METRICS and got.results == {"teacher": RESULTS["teacher"]}
    assert got.view == view.RunView((*RUN.stages, other))
    assert got.tokens is None and got.config["data"]["source"] == "embedded"
    path = run_report.write_html(tmp_path)
    assert path == tmp_path / "report.html" and not list(tmp_path.glob("*.partial"))
    check_alone(Page(path.read_text(encoding="utf-8")))
    (tmp_path / "evaluate" / "teacher.json").write_text("{")
    with pytest.raises(CheckpointError, match="teacher.json is not JSON"):
        run_data.read(tmp_path)


def test_only_subjects_that_were_looked_at_last_are_shown(tmp_path):
    folder = tmp_path / "evaluate"
    folder.mkdir()
    for name in ("teacher", "sft", "rl"):
        (folder / f"{name}.json").write_text(json.dumps(RESULTS[name]))
    assert list(run_data.read_results(tmp_path, RUN)) == ["teacher", "sft", "rl"]
    (tmp_path / "report").mkdir()
    run_data.subjects_file(tmp_path).write_text('{"evaluate": ["sft", "teacher"]}')
    assert list(run_data.read_results(tmp_path, RUN)) == ["teacher", "sft"]
    # A list does not say of which stage it is, as older runs wrote it: all are shown.
    run_data.subjects_file(tmp_path).write_text('["sft", "teacher"]')
    assert list(run_data.read_results(tmp_path, RUN)) == ["teacher", "sft", "rl"]
