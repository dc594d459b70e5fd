"""YAML 1.2 as the specification has it, read by another program: structure by ruamel.yaml, scalars by the core schema's
own table (https://yaml.org/spec/1.2.2/, section 10.3.2)."""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

CORE = (
    (re.compile(r"null|Null|NULL|~|"), lambda text: None),  # noqa: ARG005
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?(\.inf|\.Inf|\.INF)"), lambda text: float(text.replace(".", ""))),
    (re.compile(r"\.nan|\.NaN|\.NAN"), lambda text: float("nan")),  # noqa: ARG005
)
"""Pattern of a plain scalar -> its value; anything else is text."""


class Unreadable(Exception):
    """What this reader does not read."""


def read(text: str) -> Any:
    """Plain data. Raises `Unreadable`."""
    try:
        node = YAML(typ="safe", pure=True).compose(text)
        return {} if node is None else value_of(node)
    except (YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(str(error)) from None


def value_of(node: Node) -> Any:
    """Plain data of a node."""
    if isinstance(node, MappingNode):
        return {value_of(key): value_of(value) for key, value in node.value}
    if isinstance(node, SequenceNode):
        return [value_of(item) for item in node.value]
    assert isinstance(node, ScalarNode)
    text = node.value
    if any("\ud800" <= character <= "\udfff" for character in text):  # escaped in halves
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text if str(node.tag).endswith(":str") else scalar(text)


def scalar(text: str) -> Any:
    """What a plain scalar stands for."""
    for pattern, make in CORE:
        if pattern.fullmatch(text):
            return make(text)
    return text


def same(a: Any, b: Any) -> bool:
    """Equal in value and type, NaN being equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or repr(a) == repr(b) == "nan"
