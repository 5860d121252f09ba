"""The page is one valid file that loads nothing from elsewhere, and says what the bundle holds."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

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
