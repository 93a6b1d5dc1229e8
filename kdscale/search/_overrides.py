"""Overrides on the command line in Hydra's grammar: ``alpha=interval(0,14)``, ``budget.trials=20``.

A key names a field of the study file (``task.recipe.lr``), or else a parameter: sweep functions say
what values a parameter takes, a plain value fixes it. As in Hydra, ``+key=value`` adds a field that
must not be there, ``++key=value`` adds or changes, ``~key`` removes, dictionaries are merged and
lists replaced. Source: Hydra 1.3, "Basic Override syntax" and "Extended Override syntax".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from kdscale.errors import did_you_mean

_KEY = re.compile(r"(~|\+\+?)?\s*([A-Za-z_][\w-]*(?:\.[\w-]+)*)\s*(=|$)")
_WORD = re.compile(r"[A-Za-z_]\w*$")
_QUOTED = re.compile(r"(\\*)([^\\])", re.DOTALL)
_NAMED = re.compile(r"\s*([A-Za-z_]\w*)\s*=")
_INT = re.compile(r"[+-]?(0|[1-9](_?[0-9])*)$")
_DIGITS = r"[0-9](_?[0-9])*"
_FLOAT = re.compile(
    rf"[+-]?(({_DIGITS})?\.{_DIGITS}|{_DIGITS}\.|{_DIGITS}(?=e))(e[+-]?{_DIGITS})?$", re.IGNORECASE
)
_SPECIAL = {"inf": float("inf"), "nan": float("nan")}
_CONSTANTS = {"null": None, "true": True, "false": False}
_TAGS = ("log", "int")


class OverrideError(Exception):
    """An override breaks a rule."""

    def __init__(self, rule: str, hint: str = "") -> None:
        self.rule = rule
        self.hint = hint
        super().__init__(rule)


@dataclass(frozen=True)
class Sweep:
    """What a parameter takes: the dictionary that a study file would spell."""

    parameter: Mapping[str, Any]


@dataclass(frozen=True)
class Override:
    """One override.

    Attributes:
        text: As it was typed.
        action: What it does to its key.
        key: The dotted key.
        value: A plain value, a list, a dictionary or a `Sweep`; None for a bare ``~key``.
        bare: It is ``~key`` without a value.
    """

    text: str
    action: Literal["change", "add", "force", "remove"]
    key: str
    value: Any = None
    bare: bool = False


def parse_override(text: str) -> Override:
    """Returns what an override says.

    Raises:
        OverrideError: If it breaks Hydra's grammar, or calls a function that has no meaning here.
    """
    match = _KEY.match(text)
    if not match:
        rule = "must be KEY=VALUE, +KEY=VALUE, ++KEY=VALUE or ~KEY"
        raise OverrideError(rule, "as in alpha=interval(0,14) or budget.trials=20")
    sign, key, equals = match.groups()
    actions: dict[str | None, Literal["change", "add", "force", "remove"]]
    actions = {None: "change", "+": "add", "++": "force", "~": "remove"}
    if not equals:
        if sign != "~":
            raise OverrideError("must give the key a value", f"write {key}=VALUE")
        return Override(text, "remove", key, bare=True)
    return Override(text, actions[sign], key, _Parser(text, match.end()).value())


class _Parser:
    """Recursive descent over one override, from a position to its end."""

    def __init__(self, text: str, position: int) -> None:
        self.text = text
        self.position = position

    def value(self) -> Any:
        if not self.text[self.position :].strip():
            return ""
        elements = [self.element()]
        while self.take(","):
            elements.append(self.element())
        if self.peek():
            raise self.unexpected()
        return elements[0] if len(elements) == 1 else _choice(*elements)

    def element(self) -> Any:
        start = self.peek()
        if start and start in "'\"":
            return self.quoted(start)
        if self.take("["):
            return self.separated("]", self.element)
        if self.take("{"):
            return dict(self.separated("}", self.pair))
        word, escaped = self.primitive(",()[]{}='\"")
        if self.peek() == "(" and _WORD.match(word):
            return self.function(word)
        if not word and not escaped:
            raise self.unexpected()
        return word if escaped else _typed(word)

    def function(self, name: str) -> Any:
        if name not in _FUNCTIONS:
            hint = did_you_mean(name, _FUNCTIONS) or f"there are {', '.join(_FUNCTIONS)}"
            raise OverrideError(f"must call a function that searches, but {name} is none", hint)
        self.take("(")
        arguments = self.separated(")", self.argument)
        function, signature = _FUNCTIONS[name]
        positional = [value for name, value in arguments if not name]
        named = {name: value for name, value in arguments if name}
        try:
            if arguments != [*(("", value) for value in positional), *named.items()]:
                raise TypeError("an argument is there twice, or one without a name comes late")
            return function(*positional, **named)
        except TypeError:
            raise OverrideError(f"must call {signature}") from None

    def argument(self) -> tuple[str, Any]:
        match = _NAMED.match(self.text, self.position)
        if match:
            self.position = match.end()
        return (match[1] if match else ""), self.element()

    def pair(self) -> tuple[str, Any]:
        key, _ = self.primitive(",()[]{}='\":")
        if not key or not self.take(":"):
            raise self.unexpected()
        return key, self.element()

    def separated(self, end: str, item: Callable[[], Any]) -> list[Any]:
        items: list[Any] = []
        if self.take(end):
            return items
        items.append(item())
        while self.take(","):
            items.append(item())
        if not self.take(end):
            raise self.unexpected(end)
        return items

    def quoted(self, quote: str) -> str:
        start = self.position
        text = ""
        self.position += 1
        while match := _QUOTED.match(self.text, self.position):
            slashes, character = match.groups()
            self.position = match.end()
            if character != quote:
                text += slashes + character
                continue
            # Backslashes count only before a quote, where each pair stands for one.
            text += "\\" * (len(slashes) // 2)
            if len(slashes) % 2 == 0:
                return text
            text += quote
        raise OverrideError(f"must close the quote {quote} of character {start + 1}")

    def primitive(self, stops: str) -> tuple[str, bool]:
        """Returns an unquoted word without outer blanks, and whether it has escapes."""
        self.peek()
        word, kept, escaped = "", 0, False
        while self.position < len(self.text) and self.text[self.position] not in stops:
            character = self.text[self.position]
            following = self.text[self.position + 1 : self.position + 2]
            self.position += 1
            if character == "\\" and following and following in "\\()[]{}:=, \t'\"":
                self.position += 1
                word += following
                kept, escaped = len(word), True
            else:
                word += character
                kept = kept if character in " \t" else len(word)
        return word[:kept], escaped

    def peek(self) -> str:
        """Returns the next character after blanks, or an empty string at the end."""
        while self.text[self.position : self.position + 1] in (" ", "\t"):
            self.position += 1
        return self.text[self.position : self.position + 1]

    def take(self, character: str) -> bool:
        if self.peek() != character:
            return False
        self.position += 1
        return True

    def unexpected(self, wanted: str = "") -> OverrideError:
        found = f"{self.peek()} at character {self.position + 1}" if self.peek() else "the end"
        rule = f"must have {wanted or 'a value'} instead of {found}"
        return OverrideError(rule, "quote values that hold one of ,()[]{}= or a quote")


def _typed(word: str) -> Any:
    if word.lower() in _CONSTANTS:
        return _CONSTANTS[word.lower()]
    if _INT.match(word):
        return int(word)
    if _FLOAT.match(word):
        return float(word)
    unsigned = word.lower().lstrip("+-") if len(word) <= 4 else ""
    if unsigned in _SPECIAL:
        return -_SPECIAL[unsigned] if word.startswith("-") else _SPECIAL[unsigned]
    return word


def _choice(*values: Any) -> Sweep:
    if not values:
        raise TypeError("no values")
    flat: list[Any] = []
    for value in values:
        nested = value.parameter.get("values") if isinstance(value, Sweep) else [value]
        if nested is None:
            raise OverrideError("must be a choice of plain values")
        flat.extend(nested)
    return Sweep({"values": flat})


def _range(start: Any, stop: Any = None, step: Any = 1) -> Sweep:
    if stop is None:
        start, stop = 0, start
    if not (_is_number(start) and _is_number(stop) and _is_number(step)) or step == 0:
        raise TypeError("not numbers")
    # As decimal fractions, so that range(0, 0.3, 0.1) ends with 0.2 exactly.
    first, beyond, stride = (Decimal(str(number)) for number in (start, stop, step))
    steps = math.ceil((beyond - first) / stride)
    if steps < 1:
        raise OverrideError("must hold a value: a range's stop is not part of it")
    ends = sorted((first, first + (steps - 1) * stride))
    whole = isinstance(start, int) and isinstance(step, int)
    low, high, q = (int(end) if whole else float(end) for end in (*ends, abs(stride)))
    return Sweep({"value": low} if steps == 1 else {"min": low, "max": high, "q": q})


def _interval(start: Any, end: Any) -> Sweep:
    if not (_is_number(start) and _is_number(end)):
        raise TypeError("not numbers")
    return Sweep({"min": start, "max": end})


def _tag(*items: Any, sweep: Any = None) -> Sweep:
    items = (*items, sweep) if sweep is not None else items
    if not items or not isinstance(items[-1], Sweep):
        raise TypeError("no sweep")
    *tags, last = items
    for tag in tags:
        if tag not in _TAGS:
            hint = did_you_mean(str(tag), _TAGS) or f"there are {', '.join(_TAGS)}"
            raise OverrideError(f"must have a known tag, but got {tag}", hint)
    if "min" not in last.parameter:
        raise OverrideError("must tag an interval or a range")
    parameter = dict(last.parameter)
    if "int" in tags:
        if any(number != int(number) for number in parameter.values()):
            raise OverrideError("must have whole numbers with tag int")
        parameter.setdefault("q", 1)
    if "log" in tags:
        stepped = "q" in parameter
        parameter["distribution"] = "q_log_uniform_values" if stepped else "log_uniform_values"
    return Sweep(parameter)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_FUNCTIONS: dict[str, tuple[Callable[..., Sweep], str]] = {
    "choice": (_choice, "choice(VALUE, VALUE, ...)"),
    "range": (_range, "range(START, STOP, STEP) with numbers, STOP not included"),
    "interval": (_interval, "interval(START, END) with two numbers"),
    "tag": (_tag, "tag(log, interval(START, END)) or tag(int, ...)"),
}
