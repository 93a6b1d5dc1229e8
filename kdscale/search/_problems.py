"""Broken rules: from pydantic's errors to the rule, the place in the file and the mend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kdscale.errors import Problem, did_you_mean
from kdscale.search._yaml import Document, Keys, flow


@dataclass(frozen=True)
class Violation:
    """A broken rule of a study, wherever the study came from.

    Attributes:
        keys: Where the offending value lies in the study file's structure.
        rule: The rule, stated positively: "must be at least 1".
        hint: How to mend it.
        value: The value, where it is another than what the file has there.
    """

    keys: Keys
    rule: str
    hint: str = ""
    value: str | None = None

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{'.'.join(map(str, self.keys))}: {self.rule}{hint}"


def violations_of(
    error: ValidationError, data: Mapping[str, Any], schema: Callable[[], Mapping[str, Any]]
) -> list[Violation]:
    """Returns what is wrong, one violation a place.

    Args:
        error: What pydantic found.
        data: The data that it looked at.
        schema: Makes the JSON schema of the model, for the keys that could have been meant.
    """
    found: dict[Keys, list[Violation]] = {}
    for detail in error.errors(include_url=False):
        context = detail.get("ctx", {})
        if "violations" in context:
            return list(context["violations"])
        keys = (*_keys(detail, data), *context.get("at", ()))
        rule, hint = _rule_and_hint(detail, schema)
        found.setdefault(keys, []).append(Violation(keys, rule, hint))
    # A value that fits none of several types has an error for each type, and a list with a bad
    # entry is also no number or too short: keep the deepest place and join what it may be.
    deepest = [keys for keys in found if not any(_below(other, keys) for other in found)]
    return [_joined(found[keys]) for keys in deepest]


def problems_of(
    violations: Iterable[Violation],
    data: Mapping[str, Any],
    document: Document,
    overridden: Mapping[Keys, str],
) -> list[Problem]:
    """Returns the violations with file and line, or the override that caused them.

    Args:
        violations: What is wrong.
        data: The study's data, overrides applied.
        document: The file.
        overridden: Each place that an override set, and the override as it was typed.
    """
    return [
        Problem(
            where=_where(violation.keys, document, overridden),
            path=".".join(map(str, violation.keys)),
            value=violation.value if violation.value is not None else _value(violation.keys, data),
            rule=violation.rule,
            hint=violation.hint,
        )
        for violation in violations
    ]


def _where(keys: Keys, document: Document, overridden: Mapping[Keys, str]) -> str:
    for length in range(len(keys), 0, -1):
        if keys[:length] in overridden:
            return overridden[keys[:length]]
    if keys not in document.lines:
        for place, text in overridden.items():
            if _below(place, keys):
                return text
    return document.where(keys)


def _value(keys: Keys, data: Any) -> str:
    for key in keys:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return ""
    return flow(data)


def _below(keys: Keys, above: Keys) -> bool:
    return len(keys) > len(above) and keys[: len(above)] == above


def _keys(detail: ErrorDetails, data: Any) -> Keys:
    """Returns an error's place without the names of union members that pydantic puts in."""
    keys: list[str | int] = []
    for step in detail["loc"]:
        if step in (range(len(data)) if isinstance(data, list) else data):
            data = data[step]
            keys.append(step)
        if not isinstance(data, dict | list):
            break
    last = detail["loc"][-1]
    is_member = isinstance(data, dict) and data.get("method") == last  # of the union of methods
    if detail["type"] in ("missing", "rule") and keys[-1:] != [last] and not is_member:
        keys.append(last)  # a field that the file does not have
    if detail["type"] == "union_tag_invalid":
        keys.append(detail["ctx"]["discriminator"].strip("'"))
    return tuple(keys)


def _joined(violations: Sequence[Violation]) -> Violation:
    rules = list(dict.fromkeys(violation.rule for violation in violations))
    if "must be a number" in rules and "must be a whole number" in rules:
        rules.remove("must be a whole number")
    rule = " or ".join([rules[0], *(rule.removeprefix("must be ") for rule in rules[1:])])
    hint = next((violation.hint for violation in violations if violation.hint), "")
    return Violation(violations[0].keys, rule, hint)


_PLAIN = {
    "missing": "must be given",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must match {pattern}",
    "greater_than": "must be > {gt:.10g}",
    "greater_than_equal": "must be >= {ge:.10g}",
    "less_than": "must be < {lt:.10g}",
    "less_than_equal": "must be <= {le:.10g}",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "must have the key {discriminator}",
}


def _rule_and_hint(
    detail: ErrorDetails, schema: Callable[[], Mapping[str, Any]]
) -> tuple[str, str]:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "rule":
        return context["rule"], context["hint"]
    if kind == "extra_forbidden":
        known = list(_known_keys(schema(), detail["loc"][:-1]))
        word = str(detail["loc"][-1])
        return "must be a known key", did_you_mean(word, known) or f"known: {', '.join(known)}"
    rule = _PLAIN[kind].format(**context).replace("'", "") if kind in _PLAIN else detail["msg"]
    if kind == "literal_error":
        return rule, _nearest(detail["input"], context["expected"])
    if kind == "union_tag_invalid":
        nearest = _nearest(context["tag"], context["expected_tags"])
        if context["discriminator"].strip("'") == "method":  # too many to name
            return "must be a known method", nearest or "`kdscale methods` lists them"
        return rule, nearest
    return rule, ""


def _nearest(word: Any, expected: str) -> str:
    words = expected.replace(" or ", ", ").split(", ")
    return did_you_mean(str(word), [known.strip("'") for known in words])


def _known_keys(schema: Mapping[str, Any], loc: tuple[str | int, ...]) -> Iterator[str]:
    node: Mapping[str, Any] = schema
    for step in loc:
        node = _child(schema, node, step)
    yield from _resolved(schema, node).get("properties", {})


def _child(
    schema: Mapping[str, Any], node: Mapping[str, Any], step: str | int
) -> Mapping[str, Any]:
    """Returns the schema of a key, an entry, or a member of a discriminated union."""
    for member in node.get("anyOf", ()):
        if member.get("$ref") == f"#/$defs/{step}":
            return member  # type: ignore[no-any-return]
    node = _resolved(schema, node)
    if isinstance(step, int):
        return node.get("items", {})  # type: ignore[no-any-return]
    if "discriminator" in node:
        return {"$ref": node["discriminator"]["mapping"].get(step, "")}
    return node.get("properties", {}).get(step) or node.get("additionalProperties") or {}


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a schema without references; of an optional value, that of the value."""
    for member in node.get("anyOf", ()):
        if member.get("type") != "null":
            return _resolved(schema, member)
    reference = node.get("$ref", "")
    if not reference:
        return node
    return _resolved(schema, schema["$defs"][reference.removeprefix("#/$defs/")])
