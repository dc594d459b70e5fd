"""Validation of the values that plugins return: every problem of one value, in words that its author understands."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from inspect import getattr_static
from typing import Any, NamedTuple

from mio.core.contract.automata import Automaton
from mio.core.contract.checker import Checker
from mio.core.contract.controls import CONTROL, INSERT, ControlToken, ControlTokens
from mio.core.contract.decoding import decoding_conflicts
from mio.core.contract.layouts import ModelLayout
from mio.core.contract.sessions import SessionPolicy, Stream
from mio.core.contract.span_check import automaton_problems, frames_problems, part_problems
from mio.core.contract.values import OPTIONAL, TEXT, DataModule, Decoding, Frames, Modality, Template, Trainable
from mio.core.errors import nearest

LAYOUTS = ("flat", "codebook_major", "frame_major", "delayed")
VIEWS = ("understand", "generate")
NAME = re.compile(r"[a-z][a-z0-9_]*")
PATH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*(/[A-Za-z0-9][A-Za-z0-9_.\-]*)*")


def kind(value: Any) -> str:
    """Name of a value's type, for messages."""
    return "nothing" if value is None else type(value).__name__


def is_int(value: Any) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_tuple_of(value: Any, check: Callable[[Any], bool]) -> bool:
    """Whether a value is a tuple whose items all pass."""
    return isinstance(value, tuple) and all(check(item) for item in value)


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and value != "" and not any(character.isspace() for character in value)


def _names_control(written: str) -> bool:
    """Whether a template may call a control token this: by its name, or by the string of a special token."""
    return bool(NAME.fullmatch(written)) or (_is_token(written) and not written.isidentifier())


def modality_problems(declared: Any) -> list[str]:
    """Everything wrong with one `Modality`, each problem starting with the field's name."""
    if not isinstance(declared, Modality):
        return [f"returned {kind(declared)} where a `mio.Modality` is expected"]
    problems = _type_problems(declared)
    if problems:
        return problems
    if not NAME.fullmatch(declared.name):
        problems.append(f"`name`: {declared.name!r} must be lower case letters, digits and `_`, a letter first")
    if declared.name == CONTROL:
        problems.append(f"`name`: `{CONTROL}` stands for control tokens, wherever a modality may; take another name")
    kinds = [name for name in ("text", "codebooks", "parts") if getattr(declared, name)]
    if len(kinds) > 1:
        listed = " and ".join(f"`{name}`" for name in kinds)
        problems.append(f"at most one of `text`, `codebooks`, `parts` may be given; found {listed}")
    if declared.text and declared.name != TEXT:
        problems.append(f"`name`: the modality with `text=True` is called `{TEXT}`, not {declared.name!r}")
    problems += part_problems(declared)
    if declared.codebooks:
        problems += _code_problems(declared)
    elif declared.views:
        problems.append("`views`: need `codebooks`")
    specials = [token for token in (declared.begin, declared.end, *declared.specials) if token]
    problems += [
        f"special token {token!r} is declared twice" for token in sorted(set(specials)) if specials.count(token) > 1
    ]
    problems += frames_problems(declared)
    if declared.automaton is not None and not problems:
        problems += automaton_problems(declared)
    return problems


def _type_problems(declared: Modality) -> list[str]:
    rules: dict[str, tuple[Callable[[Any], bool], str]] = {
        "name": (lambda v: isinstance(v, str), "a string"),
        "text": (lambda v: isinstance(v, bool), "True or False"),
        "codebooks": (lambda v: is_tuple_of(v, is_int), "a tuple of whole numbers"),
        "parts": (lambda v: isinstance(v, str) or is_tuple_of(v, lambda name: isinstance(name, str)),
                  "the name of a modality, or a tuple of names"),
        "begin": (lambda v: v == "" or _is_token(v), "a string without spaces"),
        "end": (lambda v: v == "" or _is_token(v), "a string without spaces"),
        "specials": (lambda v: is_tuple_of(v, _is_token), "a tuple of strings without spaces"),
        "code_token": (lambda v: v == "" or _is_token(v), "a string without spaces"),
        "layout": (lambda v: isinstance(v, str), "a string"),
        "views": (lambda v: isinstance(v, Mapping) and all(is_tuple_of(i, is_int) for i in v.values()),
                  "a mapping of tuples of codebook numbers"),
        "frames": (lambda v: isinstance(v, Frames) and all(map(is_int, (v.minimum, v.maximum, v.step))),
                   "a `mio.Frames` of whole numbers"),
        "automaton": (lambda v: v is None or isinstance(v, Automaton), "a `mio.Automaton`"),
    }  # fmt: skip
    return [
        f"`{name}`: {getattr(declared, name)!r} must be {wanted}"
        for name, (valid, wanted) in rules.items()
        if not valid(getattr(declared, name))
    ]


def _code_problems(declared: Modality) -> list[str]:
    problems = []
    if any(size < 1 for size in declared.codebooks):
        problems.append(f"`codebooks`: sizes {list(declared.codebooks)} must all be above 0")
    if declared.code_token.count("{}") != 1:
        problems.append(f"`code_token`: {declared.code_token!r} must hold exactly one `{{}}` for the code's number")
    problems += [
        f"`{name}`: a modality with codebooks needs one" for name in ("begin", "end") if not getattr(declared, name)
    ]
    if declared.layout not in LAYOUTS:
        problems.append(
            f"`layout`: {declared.layout!r} is not one of {', '.join(LAYOUTS)}{nearest(declared.layout, LAYOUTS)}"
        )
    for name, books in declared.views.items():
        if name not in VIEWS:
            problems.append(f"`views`: {name!r} is not one of {', '.join(VIEWS)}{nearest(str(name), VIEWS)}")
        if not books or list(books) != sorted(set(books)) or books[0] < 0 or books[-1] >= len(declared.codebooks):
            last = len(declared.codebooks) - 1
            problems.append(f"`views.{name}`: {list(books)} must be ascending codebook numbers from 0 to {last}")
    if declared.layout == "flat" and any(len(declared.view(name)) > 1 for name in VIEWS):
        problems.append("`layout`: `flat` is for one codebook; take `codebook_major`, `frame_major` or `delayed`")
    return problems


TEMPLATE_FORMATTER = string.Formatter()


def template_problems(template: Any) -> list[str]:
    """Everything wrong with one `Template`."""
    if not isinstance(template, Template):
        return [f"is {kind(template)} where a `mio.Template` is expected"]
    problems = []
    for name in ("direction", "prompt", "response"):
        if not isinstance(getattr(template, name), str):
            problems.append(f"`{name}`: {getattr(template, name)!r} must be a string")
    if problems:
        return problems
    if not template.direction:
        problems.append("`direction`: must not be empty")
    if not template.response:
        problems.append("`response`: must not be empty")
    for name in ("prompt", "response"):
        try:
            pieces = template_pieces(getattr(template, name))
        except ValueError as error:
            problems.append(f"`{name}`: {getattr(template, name)!r}: {error}; double a literal brace")
            continue
        if name == "response":
            problems += [f"`response`: {problem}" for problem in view_problems(pieces)]
    return problems


def template_fields(text: str) -> list[str]:
    """Names of fields in braces of one side of a template, in order. Raises `ValueError` for text that is no
    template."""
    return [piece.name for piece in template_pieces(text) if piece.name and not piece.control]


class TemplatePiece(NamedTuple):
    """A piece of one side of a template."""

    literal: str
    name: str = ""
    """What stands in braces behind the literal: a field, or a control token; empty at the end."""
    control: bool = False
    """Whether it is a control token: `{control:NAME}`."""
    optional: bool = False
    """Whether the field may be empty or missing: `{field?}`."""
    view: str = ""
    """View that a field's media take, other than the one of their place: `{field:generate}`."""


def template_pieces(text: str) -> list[TemplatePiece]:
    """One side of a template as its pieces. Raises `ValueError` for text that is no template."""
    pieces: list[TemplatePiece] = []
    literal = ""
    for written, name, spec, conversion in TEMPLATE_FORMATTER.parse(text):
        literal += written
        if name is None:  # the formatter splits at a doubled brace, a literal of ours goes on
            continue
        control = name == CONTROL and bool(spec)
        named = spec or "" if control else name.removesuffix(OPTIONAL)
        if conversion or not (_names_control(named) if control else named.isidentifier()):
            raise ValueError(f"`{{{name}}}` is not a plain field name")
        view = "" if control else spec or ""
        if view not in ("", *VIEWS):
            raise ValueError(
                f"`{{{name}:{view}}}` is neither a plain field name, nor `{{{CONTROL}:NAME}}`, nor a field with the "
                f"view of its media, `:{VIEWS[0]}` or `:{VIEWS[1]}`{nearest(view, VIEWS)}"
            )
        pieces.append(TemplatePiece(literal, named, control, not control and named != name, view))
        literal = ""
    return [*pieces, TemplatePiece(literal)] if literal else pieces


def view_problems(response: Sequence[TemplatePiece]) -> list[str]:
    """Fields of a response that ask for another view than that of what is written."""
    written = VIEWS[1]
    return [
        f"`{{{piece.name}:{piece.view}}}`: media of a response are written, in the view `{written}`; leave the view out"
        for piece in response
        if piece.view not in ("", written)
    ]


def control_name_problems(template: Template, known: Sequence[str]) -> list[str]:
    """Control tokens that a template names and that are not `known`. Nothing for text that is no template."""
    if template_problems(template):
        return []
    pieces = [*template_pieces(template.prompt), *template_pieces(template.response)]
    named = [piece.name for piece in pieces if piece.control]
    there = f"there are {', '.join(known)}" if known else "no plugin of the recipe has any"
    return [f"no control token `{name}`{nearest(name, known)} ({there})" for name in named if name not in known]


def datamodule_problems(module: Any) -> list[str]:
    """Everything wrong with one `DataModule`."""
    if not isinstance(module, DataModule):
        return [f"returned {kind(module)} where a `mio.DataModule` is expected"]
    problems = []
    if module.read is not None and not callable(module.read):
        problems.append(f"`read`: {module.read!r} must be a function")
    if not is_tuple_of(module.suffixes, lambda s: isinstance(s, str) and s.startswith(".") and s == s.lower()):
        problems.append(f"`suffixes`: {module.suffixes!r} must be a tuple of lower-case endings with their dot")
    if not isinstance(module.media_type, str) or not re.fullmatch(r"([a-z]+)?", module.media_type):
        problems.append(f"`media_type`: {module.media_type!r} must be the first half of a media type, such as `model`")
    if module.probe is not None and not callable(module.probe):
        problems.append(f"`probe`: {module.probe!r} must be a function")
    if module.read is None and (module.probe is not None or module.in_memory):
        problems.append("`read`: `probe` and `in_memory` are about files, but nothing reads them")
    if module.suffixes and module.read is None:
        problems.append("`read`: `suffixes` are given, but nothing reads them")
    if not is_tuple_of(module.names, lambda name: isinstance(name, str) and bool(NAME.fullmatch(name))):
        problems.append(f"`names`: {module.names!r} must be a tuple of words of lower-case letters, digits and `_`")
    if not isinstance(module.templates, Mapping):
        problems.append(f"`templates`: {kind(module.templates)} must be a mapping of tuples of templates")
    else:
        for name, templates in module.templates.items():
            if not isinstance(templates, tuple) or not templates:
                problems.append(f"`templates.{name}`: must be a tuple with at least one template")
                continue
            for index, template in enumerate(templates):
                problems += [f"`templates.{name}[{index}]`: {problem}" for problem in template_problems(template)]
    if not isinstance(module.filters, Mapping):
        return [*problems, f"`filters`: {kind(module.filters)} must be a mapping of functions"]
    wrong = ((name, entry) for name, entry in module.filters.items() if not callable(entry))
    return problems + [f"`filters.{name}`: {entry!r} must be a function" for name, entry in wrong]


def decoding_problems(decoding: Decoding) -> list[str]:
    """Everything wrong with the options of sampling."""
    checker = Checker()
    checker.check(Decoding, {one.name: getattr(decoding, one.name) for one in fields(decoding)})
    problems = [problem for _, problem in checker.problems]
    return problems or list(decoding_conflicts(decoding.stop, decoding.beams, decoding.temperature))


_METHODS = {"text": ("encode", "decode", "token"), "codes": ("encode", "frames"), "parts": ("split",)}
_VALUES = {"text": ("fingerprint", "size", "specials"), "codes": ("fingerprint",), "parts": ()}


def tokenizer_problems(tokenizer: Any, declared: Modality) -> list[str]:
    """What the tokenizer of a modality lacks. A tokenizer that has to be trained may get its values later."""
    shape = "text" if declared.text else "parts" if declared.parts else "codes"
    problems = missing_methods(tokenizer, _METHODS[shape])
    if not isinstance(tokenizer, Trainable):
        problems += [f"`{name}`: missing" for name in _VALUES[shape] if not has(tokenizer, name)]
    return problems


def detokenizer_problems(detokenizer: Any) -> list[str]:
    """What a detokenizer lacks, or has by mistake."""
    problems = missing_methods(detokenizer, ("decode", "save"))
    if has(detokenizer, "stream"):  # which is a promise: see `Streamable`
        problems += missing_methods(detokenizer, ("stream",))
    return problems


def missing_methods(value: Any, names: Sequence[str]) -> list[str]:
    """Those of the methods that a value lacks, a sentence each."""
    return [f"`{name}`: {kind(value)} has no such method" for name in names if not callable(getattr(value, name, None))]


def has(value: Any, name: str) -> bool:
    """Whether an attribute exists, without running the property behind it."""
    try:
        getattr_static(value, name)
    except AttributeError:
        return hasattr(value, name)
    return True


def session_problems(policy: Any, modalities: Iterable[str]) -> list[str]:
    """Everything wrong with the policy of a live conversation; `modalities` are those that it may name."""
    if not isinstance(policy, SessionPolicy):
        return [f"returned {kind(policy)} where a `mio.SessionPolicy` is expected"]
    checker = Checker()
    checked = ("answers", "history", "older_media", "control_in_history", "shown_stays", "marks", "least")
    plain = {name: getattr(policy, name) for name in checked}
    checker.check(SessionPolicy, plain)
    problems = [problem for _, problem in checker.problems]
    known = list(modalities)
    named = {"output": policy.output, "speaks": policy.speaks}
    if policy.stream is not None:
        if not isinstance(policy.stream, Stream):
            return [*problems, f"`stream`: {kind(policy.stream)} must be a `mio.Stream`"]
        named["stream.modality"] = policy.stream.modality
    for field, name in named.items():
        if name and name not in known:
            problems.append(f"`{field}`: {name!r} is no modality of the plugins in use{nearest(str(name), known)}")
    if not isinstance(policy.decoding, Decoding):
        return [*problems, f"`decoding`: {kind(policy.decoding)}, not a `mio.Decoding`"]
    if policy.decoding.beams != 1:
        problems.append("`decoding`: conversations have no `beams`: what is said cannot be taken back; leave them out")
    return problems + [f"`decoding`: {problem}" for problem in decoding_problems(policy.decoding)]


def layout_problems(layout: Any) -> list[str]:
    """Everything wrong with the layout of a published model."""
    if not isinstance(layout, ModelLayout):
        return [f"{kind(layout)}, not a `mio.ModelLayout`"]
    problems = [] if callable(layout.config) else [f"`config`: {kind(layout.config)} must be a function"]
    for name in ("names", "beside"):
        value = getattr(layout, name)
        if not isinstance(value, Mapping) or not all(isinstance(one, str) for pair in value.items() for one in pair):
            problems.append(f"`{name}`: {kind(value)} must be a mapping of strings to strings")
    if not isinstance(layout.made, Mapping) or not all(callable(one) for one in layout.made.values()):
        problems.append(f"`made`: {kind(layout.made)} must be a mapping of names to functions")
    if layout.code_rows is not None and not callable(layout.code_rows):
        problems.append(f"`code_rows`: {kind(layout.code_rows)} must be a function or None")
    return problems


def synthesiser_problems(synthesiser: Any) -> list[str]:
    """What a synthesiser lacks."""
    return missing_methods(synthesiser, ("say", "save"))


def control_problems(answer: Any) -> list[str]:
    """Everything wrong with a plugin's `ControlTokens`, each problem with the token and the field."""
    if not isinstance(answer, ControlTokens):
        return [f"returned {kind(answer)} where `mio.ControlTokens` are expected"]
    problems = []
    if answer.label is not None and not callable(answer.label):
        problems.append(f"`label`: {answer.label!r} must be a function or None")
    if isinstance(answer.tokens, str) or not isinstance(answer.tokens, Sequence):
        return [*problems, f"`tokens`: {kind(answer.tokens)} must be a list or tuple"]
    for index, token in enumerate(answer.tokens):
        name = getattr(token, "name", None)
        problems += [f"control token `{name or index + 1}`: {problem}" for problem in _control_problems(token)]
    return problems


def _control_problems(token: Any) -> list[str]:
    if not isinstance(token, ControlToken):
        return [f"{kind(token)}, not a `mio.ControlToken`"]
    checker = Checker()
    checker.check(ControlToken, asdict(token))
    if checker.problems:
        return [problem for _, problem in checker.problems]
    problems = []
    if not NAME.fullmatch(token.name):
        problems.append(f"`name`: {token.name!r} must be lower case letters, digits and `_`, a letter first")
    if not _is_token(token.token):
        problems.append(f"`token`: {token.token!r} must be a string without spaces")
    if token.plain_text and token.anywhere:
        problems.append("`anywhere`: one of plain text is told from text at the beginning of an answer alone; give it "
                        "an id of its own (`plain_text=False`)")  # fmt: skip
    if (token.action == INSERT) != bool(token.insert):
        problems.append(f"`insert`: the text is for the action `{INSERT}`, which needs one; the action is "
                        f"`{token.action}`")  # fmt: skip
    return problems


def preset_problems(preset: Any) -> list[str]:
    """Everything wrong with one preset of the transformer."""
    from mio.core.contract.backbone import TransformerConfig

    if not isinstance(preset, Mapping):
        return [f"{kind(preset)} must be a mapping of fields of `TransformerConfig`"]
    known = [field.name for field in fields(TransformerConfig)]
    return [f"`{key}`: no field of `TransformerConfig`{nearest(str(key), known)}" for key in preset if key not in known]
