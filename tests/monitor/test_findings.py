"""Findings as lines, and what is to be done about them as data."""

import pytest

from jaxml import monitor


@pytest.mark.parametrize("symptom", monitor.SYMPTOMS)
def test_every_symptom_has_a_remedy(symptom):
    finding = monitor.Finding(symptom, 3, "hidden_0", "error", {}, "a cause", "a remedy")
    assert monitor.remedy(finding).changes()


def test_the_evidence_decides():
    rate = monitor.Finding(
        "exploding_gradient", 4, "out", "error",
        {"learning_rate_factor": 0.04, "learning_rate_to_try": 4e-3, "clip_to_try": 12.5}, "", "",
    )  # fmt: skip
    assert monitor.remedy(rate).changes() == {
        "learning_rate_factor": 0.04,
        "learning_rate": 4e-3,
        "clip": 12.5,
        "rewind": True,
    }
    data = rate._replace(symptom="non_finite", where="input")
    assert monitor.remedy(data).changes() == {"data": "drop_non_finite"}
    assert monitor.remedy([data, rate]) == monitor.remedy(data)
    assert monitor.remedy([]).changes() == {}


def test_a_line_to_read():
    finding = monitor.Finding(
        "exploding_gradient", 1041, "hidden_2", "error", {"norm": 3.1e4}, "too far", "less far"
    )
    assert str(finding) == (
        "step 1,041 · exploding gradient in `hidden_2` (norm 3.1e+04) · cause: too far · remedy: less far"
    )


def test_an_unknown_symptom():
    with pytest.raises(ValueError, match="symptom"):
        monitor.remedy(monitor.Finding("cough", 0, "loss", "error", {}, "", ""))
