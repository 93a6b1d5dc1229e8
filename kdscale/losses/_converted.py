"""What a conversion of loss weights gives, and how settings of other code bases are read."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from kdscale.errors import UserError, did_you_mean
from kdscale.losses._schedule import Schedule
from kdscale.losses._term_config import TermConfig
from kdscale.records import Value


def words_of(source: str, text: str) -> list[str]:
    """Returns the words of a command line.

    Args:
        source: The code base, for the message.
        text: The command line.

    Raises:
        UserError: If a quotation in it has no end.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        why = f"{error}".lower()
        raise UserError(f"{source}: must be words as a shell reads them, but: {why}") from None


@dataclass(frozen=True)
class ConvertedObjective:
    """An objective with the gradient that another code base has.

    Attributes:
        ce_weight: Weight of the mean cross-entropy.
        terms: The weighted methods.
        notes: What was converted, and what to look after.
        ce_start_epoch: The first epoch with the cross-entropy.
    """

    ce_weight: float
    terms: tuple[TermConfig, ...]
    notes: tuple[str, ...] = ()
    ce_start_epoch: int = 1

    def to_yaml(self) -> str:
        """Returns the ``objective:`` section of a study file, the notes as comments above it."""
        lines = [f"# {note}" for note in self.notes]
        lines += ["objective:", f"  ce_weight: {_spelled(self.ce_weight)}"]
        if self.ce_start_epoch > 1:
            lines.append(f"  ce_start_epoch: {self.ce_start_epoch}")
        lines.append("  methods:")
        for one in self.terms:
            entry: dict[str, Value] = {"weight": one.weight or 0.0, **one.hyperparameters}
            default = Schedule()
            for name in ("warmup_epochs", "start_epoch", "stop_epoch"):
                if getattr(one.schedule, name) != getattr(default, name):
                    entry[name] = getattr(one.schedule, name)
            lines.append(f"    - method: {one.method}")
            lines += [f"      {name}: {_spelled(value)}" for name, value in entry.items()]
        return "\n".join(lines) + "\n"


def _spelled(value: Value) -> str:
    """Returns a scalar as YAML 1.1 and 1.2 read it alike."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if value.isalpha() else json.dumps(value)
    digits, _, exponent = repr(value).removesuffix(".0").partition("e")
    if not exponent:
        return digits
    return f"{digits if '.' in digits else digits + '.0'}e{exponent}"


def term(
    method: str,
    weight: float,
    hyperparameters: Mapping[str, Value] | None = None,
    *,
    warmup_epochs: int = 0,
    start_epoch: int = 1,
    stop_epoch: int = 0,
) -> TermConfig:
    """Returns a term after checking it against the registry.

    Args:
        method: The method's name.
        weight: Its weight.
        hyperparameters: Hyperparameters by name.
        warmup_epochs: See `Schedule`.
        start_epoch: See `Schedule`.
        stop_epoch: See `Schedule`.

    Raises:
        UserError: The method is not there, or refuses a value.
    """
    from kdscale.losses import METHODS  # the registry's module imports this one

    if method not in METHODS:
        raise UserError(f"kdscale has no method {method}, which these weights ask for")
    given = hyperparameters or {}
    complete = METHODS[method].complete(given)
    schedule = Schedule(warmup_epochs=warmup_epochs, start_epoch=start_epoch, stop_epoch=stop_epoch)
    return TermConfig(method, method, weight, {name: complete[name] for name in given}, schedule)


class Settings:
    """The settings of another code base by name, and all that is wrong with them.

    Args:
        source: The code base.
        values: The settings, given or default; None for one that must be given and is not.
        problems: What is wrong already.
    """

    def __init__(
        self, source: str, values: Mapping[str, Value | None], problems: list[str]
    ) -> None:
        self._source = source
        self._values = values
        self._problems = problems

    def value(self, name: str) -> Value | None:
        """Returns a setting as it was read."""
        return self._values[name]

    def number(self, name: str) -> float:
        """Returns a number; 0 where it is missing, which `check` will say."""
        value = self._values[name]
        return float(value) if isinstance(value, int | float) else 0.0

    def word(self, name: str) -> str:
        """Returns a word."""
        return str(self._values[name])

    def one_of(self, name: str, choices: Collection[str]) -> str:
        """Returns a word, and notes as wrong one that is not among the choices."""
        word = self.word(name)
        if word not in choices:
            hint = did_you_mean(word, choices) or f"one of {', '.join(choices)}"
            self._problems.append(f'{name} must be a known one, but got "{word}" ({hint})')
        return word

    def refuse_if(self, wrong: bool, rule: str) -> None:
        """Notes a broken rule."""
        if wrong:
            self._problems.append(rule)

    def check(self) -> None:
        """Raises what is wrong, if anything.

        Raises:
            UserError: All of it, a line each.
        """
        missing = [name for name, value in self._values.items() if value is None]
        lines = [*self._problems, *(f"{name} must be given" for name in missing)]
        if lines:
            raise UserError("\n".join(f"{self._source}: {line}" for line in lines))


def read_settings(
    source: str,
    pairs: Iterable[tuple[str, str]],
    known: Mapping[str, Value | None],
    *,
    short: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
) -> Settings:
    """Returns settings with their defaults; what is wrong with them comes out in `check`.

    Args:
        source: The code base.
        pairs: (name, value) as given; of a name that is there twice the last one counts.
        known: The defaults by name, whose types the values have; None for a number without one.
        short: Other spellings of names.
        ignored: Names that say nothing about the loss.
    """
    values, problems = dict(known), list[str]()
    spellings = {**{name: name for name in known}, **(short or {})}
    for spelled, text in pairs:
        if spelled in ignored:
            continue
        if spelled not in spellings:
            hint = did_you_mean(spelled, [*spellings, *ignored]) or f"known: {', '.join(spellings)}"
            problems.append(f'there is no setting "{spelled}" ({hint})')
            continue
        name = spellings[spelled]
        value, rule = _read(text, known[name])
        if rule:
            problems.append(f'{spelled} must be {rule}, but got "{text}"')
        values[name] = value
    return Settings(source, values, problems)


def _read(text: str, default: Value | None) -> tuple[Value, str]:
    """Returns a value of the default's type, and the rule that the text breaks, if any."""
    if isinstance(default, bool):
        return text.lower() == "true", "" if text.lower() in ("true", "false") else "true or false"
    if isinstance(default, str):
        return text, ""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        return 0.0, "a number >= 0"
    if isinstance(default, int) and number != int(number):
        return 0, "a whole number"
    return number, ""
