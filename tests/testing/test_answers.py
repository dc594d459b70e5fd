"""Answers that the conformance kit shows a judge are those that an evaluation shows it."""

from __future__ import annotations

import pytest
from test_seeded_faults import GOOD, JUDGES, NAMED, checked, in_memory

TEMPLATE = "template=TEMPLATES[0], records=held_out"
CHOSEN = (
    "template=mio.Template(direction='pick', prompt='{tally} The values are:', response=' {values}'), "
    "choices=mio.Choices(field='values', of=lambda record: ['39 39', record['values'], '39']), records=held_out"
)
DRAWN = 'any(spell(media) == record["values"] for media in answer.media("tally"))'


def judged(*changes):
    source = GOOD.read_text(encoding="utf-8")
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return {result.check: result for result in checked(in_memory(source)).results}[JUDGES]


@pytest.mark.parametrize(
    ("judge", "problem"),
    [
        ("answer.text == record['values']", ""),  # the candidate is the whole answer
        ("answer.chosen == 1", ""),
        ("['', record['values'], ''][answer.chosen] == answer.text", ""),
        ("answer.scores[1] == max(answer.scores)", ""),
        ("answer.text == f\" {record['values']}\"", "no right answer has full marks"),
        ("answer.chosen == 0", "no right answer has full marks"),
        ("len(answer.scores) == 3", "for every"),
    ],
)
def test_a_task_with_choices_is_answered_by_one_of_them(judge, problem):
    judge = f"return [{judge} for answer, record in zip(answers, records, strict=True)]"
    result = judged((TEMPLATE, CHOSEN), (NAMED, judge))
    assert result.outcome == ("failed" if problem else "passed"), result.detail
    assert problem in result.detail


def test_answers_of_media_have_their_codes():
    result = judged((DRAWN, 'record["values"] in [spell(one.codes[0] * 4 + one.codes[1]) for one in answer.codes]'))
    assert "draw full marks for 12 of 12 right" in result.detail


def test_codes_of_a_record_are_decoded_for_the_judge():
    coded = "{**source[index], 'coded': mio.Codes('tally', Codec(Options()).encode([source[index]['tally'].data])[0])}"
    result = judged(
        ("source[index] for index", f"{coded} for index"),
        ('prompt="Please draw {values}:", response="{tally}"', 'prompt="Please draw {values}:", response="{coded}"'),
    )
    assert "draw full marks for 12 of 12 right" in result.detail
