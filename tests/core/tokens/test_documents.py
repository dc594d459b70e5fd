from mio import Media
from mio.core.tokens.documents import Special, interleaved_document, plain_document

PICTURE = Media("image", None, key="a")


def test_plain_form():
    document = plain_document([PICTURE, "what?"], ["this: ", PICTURE])
    assert [tuple(segment) for segment in document.segments] == [
        (Special.BOS, "prompt", False, "understand"),
        (PICTURE, "prompt", True, "understand"),
        ("what?", "prompt", True, "understand"),
        ("this: ", "response", True, "generate"),
        (PICTURE, "response", True, "generate"),
        (Special.EOS, "response", True, "understand"),
    ]
    assert document.answer == 3


def test_an_interleaved_document_is_all_written():
    document = interleaved_document(["a", PICTURE])
    assert document.answer == 1
    assert {segment.role for segment in document.segments[1:]} == {"response"}
    assert document.segments[2].view == "generate"
