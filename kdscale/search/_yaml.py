"""YAML files with the line of every key and value, and YAML text of plain data."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.scalarbool import ScalarBoolean

from kdscale.errors import Problem, StudyFileError, UserError, did_you_mean

Keys = tuple[str | int, ...]
"""Where something lies in a document: keys of mappings and numbers of list entries."""

DEEPEST = 64
"""Levels of mappings and lists in each other; what reads them deeper down fails."""

DEEP_RULE = f"must be nested at most {DEEPEST} levels deep"


@dataclass(frozen=True)
class Document:
    """A YAML file.

    Attributes:
        path: The file.
        data: Its content as plain dictionaries, lists and scalars; keys are strings.
        lines: The line, from 1, on which each key or list entry begins.
        problems: What is wrong with the file as YAML, although it can be read.
    """

    path: Path
    data: dict[str, Any]
    lines: Mapping[Keys, int]
    problems: tuple[Problem, ...]

    def where(self, keys: Keys) -> str:
        """Returns ``file.yaml:12`` for a place, or for what holds it if it is not there."""
        while keys not in self.lines:
            keys = keys[:-1]
        return f"{self.path}:{self.lines[keys]}"


def read_yaml(path: Path) -> Document:
    """Returns the content of a YAML file that holds a mapping.

    Raises:
        UserError: If there is no such file.
        StudyFileError: If it is no YAML, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        near = [str(file) for file in path.parent.glob("*.y*ml")]
        hint = did_you_mean(str(path), near)
        message = f"{path}: the study file must be readable, but: {error.strerror}"
        raise UserError(f"{message} ({hint})" if hint else message) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the study file must be UTF-8 text, but: {error}") from None
    try:
        document = _document(path, text)
    except YAMLError as error:
        raise StudyFileError([_syntax_problem(path, error)]) from None
    except RecursionError:
        document = None
    if document is None or nesting(document.data) > DEEPEST:
        raise StudyFileError([Problem(str(path), "", "", DEEP_RULE)])
    return document


def nesting(data: Any) -> int:
    """Returns how many mappings and lists lie in each other."""
    if not isinstance(data, Mapping | list):
        return 0
    inside = data.values() if isinstance(data, Mapping) else data
    return 1 + max(map(nesting, inside), default=0)


def _document(path: Path, text: str) -> Document:
    loaded, tree = _yaml().load(text), _yaml().compose(text)
    if not isinstance(loaded, CommentedMap):
        rule = "must be a mapping of keys to values"
        raise StudyFileError([Problem(f"{path}:1", "", "", rule, "it starts with name: NAME")])
    lines: dict[Keys, int] = {(): 1}
    data = _plain(loaded, (), lines)
    return Document(path, data, lines, tuple(_repeated_keys(path, tree, ())))


class _Representer(SafeRepresenter):
    """Quotes every string with a character that may mean something in YAML.

    ruamel leaves some unquoted that its own reader refuses, such as ``?0`` between braces.
    """

    def represent_str(self, data: str) -> Any:
        """Returns the string as a YAML node."""
        style = None if _PLAIN_STRING.fullmatch(data) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_PLAIN_STRING = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")
_Representer.add_representer(str, _Representer.represent_str)


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Returns plain data as YAML text in block style, keys in their order."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None  # only the innermost collections in one line
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 100
    yaml.Representer = _Representer
    yaml.dump(dict(data), stream)
    return stream.getvalue()


def _yaml() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.allow_duplicate_keys = True  # found by _repeated_keys, all of them and with both lines
    return yaml


def _plain(node: Any, keys: Keys, lines: dict[Keys, int]) -> Any:
    if isinstance(node, CommentedMap):
        plain = {}
        for key, value in node.items():
            name = key if isinstance(key, str) else str(key)
            line = node.lc.data[key][0] if key in (node.lc.data or {}) else node.lc.line
            lines[(*keys, name)] = line + 1
            plain[name] = _plain(value, (*keys, name), lines)
        return plain
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            lines[(*keys, index)] = node.lc.data[index][0] + 1
        return [_plain(value, (*keys, index), lines) for index, value in enumerate(node)]
    if isinstance(node, ScalarBoolean):
        return bool(node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node if node is None else str(node)  # a date, say


def _syntax_problem(path: Path, error: YAMLError) -> Problem:
    where, what = str(path), "must be YAML"
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else where
        what = f"must be YAML: {error.problem or error.context}"
    hint = "check the indentation, the colons and the brackets around this line"
    return Problem(where, "", "", what, hint)


def _repeated_keys(path: Path, node: Node | None, keys: Keys) -> Iterator[Problem]:
    if isinstance(node, SequenceNode):
        for index, entry in enumerate(node.value):
            yield from _repeated_keys(path, entry, (*keys, index))
    if not isinstance(node, MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, ScalarNode) else str(key.value)
        line = key.start_mark.line + 1
        if name in first and name != "<<":
            dotted = ".".join(map(str, (*keys, name)))
            rule = f"must be there only once, but is on line {first[name]} already"
            yield Problem(f"{path}:{line}", dotted, "", rule, "remove one of them")
        first.setdefault(name, line)
        yield from _repeated_keys(path, value, (*keys, name))


def flow(value: Any) -> str:
    """Returns a value as it would be written in one line of YAML, shortened when it is long."""
    if isinstance(value, Mapping):
        text = f"{{{', '.join(f'{key}: {flow(item)}' for key, item in value.items())}}}"
    elif isinstance(value, Sequence) and not isinstance(value, str):
        text = f"[{', '.join(flow(item) for item in value)}]"
    else:
        text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
