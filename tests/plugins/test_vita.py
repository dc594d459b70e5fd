"""VITA's state tokens and its backbone."""

import pytest

import mio
from mio.core.contract.backbone import TransformerConfig
from mio.plugins import vita
from mio.plugins.text.backbones import BACKBONES

SPEECH = mio.Media("speech", None, "a")


def labelled(record, number=0, prompt=(), **options):
    return vita.mio_control_tokens(options).label(mio.Turn(record, number, prompt))


@pytest.mark.parametrize(
    ("record", "number", "prompt", "name"),
    [
        ({}, 0, ["What is this?"], "written"),
        ({}, 0, ["What is this?", mio.Media("image", None, "a")], "written"),
        ({}, 1, [mio.Media("image", None, "a"), SPEECH], "spoken"),
        ({}, 0, [mio.Codes("speech", None)], "spoken"),
        # VITA's files number the messages, questions too
        ({"inserted_id": 1}, 0, [SPEECH], "unaddressed"),
        ({"inserted_id": "3"}, 1, [SPEECH], "unaddressed"),
        ({"inserted_id": 3}, 0, [SPEECH], "spoken"),
        ({"inserted_id": [1, 5]}, 2, [SPEECH], "unaddressed"),
        ({"inserted_id": True}, 4, [SPEECH], "unaddressed"),
        ({"inserted_id": False}, 0, [SPEECH], "spoken"),
        ({"inserted_id": None}, 0, ["text"], "written"),
    ],
)
def test_answers_are_labelled_by_what_they_answer(record, number, prompt, name):
    assert labelled(record, number, prompt) == name


def test_field_and_modalities_are_options():
    assert labelled({"noise": "true"}, prompt=[SPEECH], negative="noise") == "unaddressed"
    assert labelled({}, prompt=[mio.Media("voice", None, "a")], speech=["voice"]) == "spoken"
    assert labelled({}, prompt=[SPEECH], speech=["voice"]) == "written"


@pytest.mark.parametrize(("tokens", "plain"), [("text", True), ("ids", False)])
def test_tokens_are_text_or_have_ids(tokens, plain):
    declared = vita.mio_control_tokens({"tokens": tokens, "weight": 2.0}).tokens
    assert [(one.name, one.token, one.action) for one in declared] == [
        ("spoken", "<1>", "interrupt"),
        ("unaddressed", "<2>", "silence"),
        ("written", "<3>", "interrupt"),
    ]
    assert {(one.plain_text, one.weight) for one in declared} == {(plain, 2.0)}


def test_wrong_options_are_refused_by_name():
    with pytest.raises(mio.UserError, match=r"plugins\.vita: `tokens` is `id`, not one of `text`, `ids`"):
        vita.mio_control_tokens({"tokens": "id"})


def test_the_backbone_is_mixtral_without_the_routers_loss():
    (fields,) = vita.mio_backbones().values()
    assert TransformerConfig(**fields).windows == (0,) * 32
    assert TransformerConfig(**BACKBONES["mixtral-8x7b"] | {"router_aux_weight": 0.0}) == TransformerConfig(**fields)
