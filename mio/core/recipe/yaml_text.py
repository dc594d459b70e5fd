"""YAML as recipes have it: the core schema of version 1.2, bounded, with the place of every key. Nothing is executed.

`3e-5`, `0x1f` and `0o17` are numbers, `on` and `12:20` are text. Files are bounded in bytes, what they hold in nodes,
depth, text and digits, all counted with aliases followed, so that a small file cannot take hours or all memory.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, ClassVar

import yaml

from mio.core.contract.checker import Key
from mio.core.errors import RecipeError
from mio.core.terminal import plain

LARGEST_FILE = 1 << 20
"""Bytes of one file, and characters of its content with aliases followed."""
MOST_NODES = 50_000
"""Mappings, lists and values of one file, aliases followed."""
DEEPEST = 48
"""Mappings and lists inside each other."""
LONGEST_KEY = 200
"""Characters of a key."""
MOST_DIGITS = 40
"""Digits of a whole number."""
_LONGEST_NUMBER = 400

_PREFIX = "tag:yaml.org,2002:"
_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# YAML 1.1, which the scanner follows, ends a line at these, and YAML 1.2 does not
_DOUBTFUL = re.compile("[\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """Plain data by the core schema."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}
    depth = 0
    nodes = 0

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.sizes: dict[int, tuple[int, int, int]] = {}
        """Values, levels and characters of each node that is complete, by its id, aliases followed."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        self.depth += 1
        if self.depth > DEEPEST:
            raise _refusal(event, f"more than {DEEPEST} mappings and lists inside each other are too many")
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise _refusal(event, f"more than {MOST_NODES:,} values are too many for a recipe")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self.sizes:
                raise _refusal(node, "the alias refers to what it is part of")
            return node
        tag = getattr(event, "tag", None)
        if tag == "!" and isinstance(node, yaml.ScalarNode):
            node.tag = f"{_PREFIX}str"
        elif tag is not None:
            _check_tag(event, node, tag)
        if node is not None:
            self.sizes[id(node)] = self._size(node)
        return node

    def _size(self, node: yaml.Node) -> tuple[int, int, int]:
        if isinstance(node, yaml.ScalarNode):
            return 1, 1, len(node.value)
        inner = node.value if isinstance(node, yaml.SequenceNode) else chain.from_iterable(node.value)
        values, levels, characters = zip((1, 0, 0), *(self.sizes[id(item)] for item in inner), strict=True)
        size = sum(values), 1 + max(levels), sum(characters)
        bounds = ((MOST_NODES, "values"), (DEEPEST, "levels"), (LARGEST_FILE, "characters"))
        for number, (most, what) in zip(size, bounds, strict=True):
            if number > most:
                raise _refusal(node, f"aliases make this more than {most:,} {what}, too many for a recipe")
        return size


for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"{_PREFIX}{_name}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that is not for recipes."""


def _refusal(place: Any, text: str) -> _Refused:
    return _Refused(None, None, text, place.start_mark)


def _check_tag(event: Any, node: yaml.Node | None, tag: str) -> None:
    """Tags of the core schema are allowed where they name the type that the value has anyway."""
    name = tag.removeprefix(_PREFIX)
    right = isinstance(node, yaml.ScalarNode) and (
        name == "str" or (name in _SCALARS and re.fullmatch(_SCALARS[name][0], node.value) is not None)
    )
    right |= isinstance(node, yaml.MappingNode) and name == "map"
    right |= isinstance(node, yaml.SequenceNode) and name == "seq"
    if not tag.startswith(_PREFIX) or not right:
        text = f"could not determine a constructor for the tag `{tag}`; write the value without it"
        raise yaml.MarkedYAMLError(None, None, text, event.start_mark)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if len(text) > MOST_DIGITS:
        raise _refusal(node, f"a number of {len(text):,} digits is too long; numbers have at most {MOST_DIGITS}")
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    if len(text) > _LONGEST_NUMBER:
        raise _refusal(node, f"a number of {len(text):,} characters is too long")
    value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    digits = text.lower().partition("e")[0]
    if "inf" not in digits and abs(value) == float("inf"):
        raise _refusal(node, f"{text} is more than a number can be; write `.inf` for infinity")
    if value == 0 and re.search("[1-9]", digits):
        raise _refusal(node, f"{text} is so small that it would be read as 0")
    return value


def _construct_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    text: str = loader.construct_scalar(node)
    if _SURROGATES.search(text):  # escaped in two halves, as JSON does
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _paired(text) else text
    if match := _CONTROL.search(text):
        kind = "half of a surrogate pair" if match[0] >= "\ud800" else "control character"
        raise _refusal(node, f"text holds the {kind} `{plain(match[0])}`, which no recipe needs; remove it")
    return text


def _paired(text: str) -> bool:
    return not _SURROGATES.search(re.sub("[\ud800-\udbff][\udc00-\udfff]", "", text))


_Loader.add_constructor(f"{_PREFIX}int", _construct_int)
_Loader.add_constructor(f"{_PREFIX}float", _construct_float)
_Loader.add_constructor(f"{_PREFIX}str", _construct_text)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would take for something else."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {
        first: [
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
            *_Loader.yaml_implicit_resolvers.get(first, []),
        ]
        for first in {**yaml.SafeDumper.yaml_implicit_resolvers, **_Loader.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(f"{_PREFIX}str", text, style='"' if _DOUBTFUL.search(text) else None)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(value: Any) -> str:
    """Plain data as YAML that `parse_yaml` reads back as it was."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def decode(content: bytes, origin: str) -> str:
    """Text of a file: UTF-8, or as its byte order mark says. Raises `RecipeError`."""
    if len(content) > LARGEST_FILE:
        raise RecipeError([f"{origin}: is larger than {LARGEST_FILE >> 20} MiB; is this a recipe?"])
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RecipeError([f"{origin}:{line}: is not {encoding.upper()[:6]} text ({error.reason})"]) from None


def parse_yaml(text: str, origin: str) -> tuple[Any, dict[Key, str]]:
    """Data of a YAML text and the place of each key.

    Raises `RecipeError` for bad YAML, tags, repeated keys, control characters, and what is beyond the bounds above.
    """
    if len(text) > LARGEST_FILE:
        raise RecipeError([f"{origin}: is longer than {LARGEST_FILE >> 20} MiB"])
    if match := _DOUBTFUL.search(text):
        code = plain(match[0])
        raise RecipeError(
            [
                f"{_line(text, match.start(), origin)}: the character `{code}` ends a line for some readers of YAML "
                f'and not for others; write it as "{code}" in double quotes'
            ]
        )
    if match := _CONTROL.search(text):
        raise RecipeError(
            [f"{_line(text, match.start(), origin)}: not valid YAML: holds the character `{plain(match[0])}`"]
        )
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if loader.yaml_version not in (None, (1, 2)):
            raise RecipeError([f"{origin}: recipes are YAML 1.2; remove the `%YAML` line"])
        if node is None:
            return {}, {}
        marks: dict[Key, str] = {}
        problems = list(_walk(node, (), origin, marks))
        if problems:
            raise RecipeError(problems)
        return loader.construct_document(node), marks
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        kind = "" if isinstance(error, _Refused) else "not valid YAML: "
        raise RecipeError([f"{origin}{line}: {kind}{_one_line(error.problem)}"]) from None
    except yaml.YAMLError as error:
        raise RecipeError([f"{origin}: not valid YAML: {_one_line(error)}"]) from None
    except ValueError as error:  # an escape beyond Unicode
        raise RecipeError([f"{origin}: not valid YAML: {_one_line(error)}"]) from None
    finally:
        if loader is not None:
            loader.dispose()


def _one_line(text: object) -> str:
    return " ".join(plain(str(text)).split())[:300]


def _line(text: str, index: int, origin: str) -> str:
    return f"{origin}:{text.count(chr(10), 0, index) + 1}"


def _at(origin: str, node: yaml.Node) -> str:
    return f"{origin}:{node.start_mark.line + 1}"


def _walk(node: yaml.Node, key: Key, origin: str, marks: dict[Key, str]) -> Iterator[str]:
    """Fills `marks` and yields the problems of keys, which PyYAML lets pass."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                yield f"{_at(origin, name)}: a key must be a word, not a list or a mapping"
                continue
            text = str(name.value)
            if len(text) > LONGEST_KEY:
                yield f"{_at(origin, name)}: key `{plain(text[:40])}...` is longer than {LONGEST_KEY} characters"
                continue
            if "\n" in text:
                yield f"{_at(origin, name)}: key `{_one_line(text)}` must be one line"
                continue
            if text in seen:
                yield f"{_at(origin, name)}: key `{plain(text)}` is given twice"
            seen.add(text)
            marks[(*key, text)] = _at(origin, name)
            yield from _walk(value, (*key, text), origin, marks)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            marks[(*key, str(index))] = _at(origin, value)
            yield from _walk(value, (*key, str(index)), origin, marks)
