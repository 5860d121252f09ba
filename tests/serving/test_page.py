"""The page is one valid file that loads nothing from elsewhere, and says what the bundle holds."""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxml.serving import status

EMPTY = {"meta", "link", "input", "br"}


class Reader(HTMLParser):
    """Tags and attributes of a page; a tag that is not closed fails."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html():
    return status.page().content.decode()


def test_the_page_is_valid_html(html):
    tags = Reader(html).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        for name in ("for", "aria-labelledby"):
            assert name not in attributes or attributes[name] in ids
    assert set(re.findall(r'\$\("([\w-]+)"\)', html)) <= set(ids)


def test_every_control_has_a_label(html):
    tags = Reader(html).tags
    labelled = {attributes.get("for") for tag, attributes in tags if tag == "label"}
    assert {a["id"] for tag, a in tags if tag in ("input", "select")} <= labelled


def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup(html):
    assert set(re.findall(r"https?://[^\"' ]+", html)) == {"http://www.w3.org/2000/svg"}
    for _, attributes in Reader(html).tags:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}
        assert not attributes.get("src") and attributes.get("href", "data:,") == "data:,"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", html)


def test_the_policy_allows_the_pages_own_script_alone(html):
    policy = dict(part.split(" ", 1) for part in status.page().policy.split("; "))
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    for tag in ("script", "style"):
        inside = html.split(f"<{tag}>")[1].split(f"</{tag}>")[0].encode()
        digest = base64.b64encode(hashlib.sha256(inside).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


def test_the_status_says_what_the_bundle_holds(bundle):
    live = {"requests": 3, "requests_per_second": 0.5, "latency_ms": {"p50": 1.0, "p99": 2.0}}
    found = status.describe(bundle, 3, live=live)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["model"], found["version"], found["live"]) == ("flights", 3, live)
    assert found["digest"] == bundle.manifest.digest and found["drift"] == []
    origin, distance, wind, hour = found["inputs"]
    assert (origin["datatype"], origin["domain"]) == ("BYTES", ["EWR", "JFK", "LGA"])
    assert (distance["datatype"], wind["datatype"]) == ("INT64", "FP64")
    assert (hour["min"], hour["max"]) == (5, 23)
    assert found["outputs"] == [{"name": "probability", "datatype": "FP32", "shape": [-1]}]


def test_the_examples_of_the_form_fit_the_schema(bundle):
    inputs = status.describe(bundle, 1, live={})["inputs"]
    assert bundle.check({each["name"]: [each["example"]] for each in inputs}) == []


def test_drift_is_that_of_the_rows_answered_last(bundle, flights):
    recent = status.Recent(bundle)
    rows, _ = flights(2400, seed=3)
    rows["hour"][:400] = 0  # These rows are forgotten below.
    for at in range(0, 400, 4):
        recent.add({name: each[at : at + 4] for name, each in rows.items()})
    assert recent.drift()[0]["column"] == "hour" and recent.drift()[0]["differs"]
    assert recent.drift()[0]["rows"] == 400
    for at in range(400, 2400, 4):
        recent.add({name: each[at : at + 4] for name, each in rows.items()})
    assert recent.drift()[0]["rows"] == 400  # Measured a moment ago.
    recent._next = 0.0
    found = json.loads(json.dumps(recent.drift()))
    assert {each["rows"] for each in found} == {2000}
    assert {each["column"] for each in found} == set(bundle.columns)
    assert not any(each["differs"] for each in found)


def test_a_few_rows_have_no_drift(bundle, columns):
    recent = status.Recent(bundle)
    recent.add({name: each[:40] for name, each in columns.items()})
    found = status.describe(bundle, 1, live={}, served=recent)
    assert found["drift"] == []


class Chromium:
    """A browser without a window."""

    def __init__(self, program, folder):
        self._command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        self._command += ["--disable-dev-shm-usage", "--disable-background-networking"]
        self._command += [f"--user-data-dir={folder}", "--virtual-time-budget=2000", "--dump-dom"]
        self._out = folder / "out"

    def __call__(self, address):
        """Returns a page as the browser shows it: the HTML after its script has run."""
        # Its children outlive it, and would keep a pipe open.
        with open(self._out, "wb") as out:
            browser = subprocess.Popen(
                [*self._command, address],
                stdout=out,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            browser.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
        text = self._out.read_text("utf-8")
        return re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """`shown(address)` returns the page as Chromium shows it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("needs Chromium, to run the page's script: none is installed")
    show = Chromium(program, tmp_path_factory.mktemp("chromium"))
    try:
        works = "<p>3</p>" in show(
            "data:text/html,<script>document.write(`<p>${1+2}</p>`)</script>"
        )
    except subprocess.TimeoutExpired:
        works = False
    if not works:
        pytest.skip(f"needs Chromium, to run the page's script: {program} shows no page here")
    return show


def inside(text, name):
    """Returns the text of the element with an id."""
    start = text.index(">", text.index(f'id="{name}"')) + 1
    depth, end = 1, start
    while depth:
        tag = re.compile(r"<(/?)(?:div|p|h1|form)\b").search(text, end)
        depth, end = depth + (-1 if tag[1] else 1), tag.end()
    return " ".join(re.sub(r"<[^>]*>", " ", text[start : tag.start()]).split())


def test_the_page_answers_in_a_browser(shown, url, bundle):
    text = shown(f"{url}/#answer")
    rows, _ = bundle.examples()
    wanted = bundle.predict({name: values[:1] for name, values in rows.items()})["probability"][0]
    assert inside(text, "answer") == f"{wanted:.3f} probability"
    assert inside(text, "model") == "flights"
    assert "EWR JFK LGA" in inside(text, "fields") and "5 to 23" in inside(text, "fields")
    assert inside(text, "live").startswith("Requests")
    assert bundle.manifest.digest[:16] in inside(text, "bundle")
    assert inside(text, "connection") == "ready"


def test_the_page_says_which_field_is_at_fault(shown, url):
    text = shown(f"{url}/#hour=99&answer")
    assert inside(text, "error").startswith("No answer: check “hour” INT_TYPE_BIG_INT")
    (field,) = re.findall(r'<input[^>]*aria-invalid="true"[^>]*>', text)
    assert 'type="number"' in field and 'max="23"' in field


def test_no_name_or_value_becomes_markup(shown, running, make_bundle, columns, tmp_path):
    airports = np.where(columns["origin"] == "LGA", "<i>LGA</i>", columns["origin"])
    make_bundle(tmp_path / "bundle", columns | {"origin": airports}, findings=["<i>dead units</i>"])
    with running(tmp_path / "bundle") as (place, _):
        text = shown(f"{place}/#origin=<i>?</i>&answer")
    assert text.count("&lt;i&gt;dead units&lt;/i&gt;") == 1
    assert text.count("&lt;i&gt;LGA&lt;/i&gt;") >= 2 and "<i>" not in text


def test_the_page_asks_for_the_token(shown, running, bundle_path):
    with running(bundle_path, token="secret") as (place, _):
        text = shown(place)
    (box,) = re.findall(r'<section id="token-box"[^>]*>', text)
    assert "hidden" not in box
    assert inside(text, "connection").startswith("a token is wanted")
