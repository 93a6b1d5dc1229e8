"""mdistiller's configuration, said as an objective with equal gradient."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kdscale.errors import UserError
from kdscale.losses._converted import (
    ConvertedObjective,
    Settings,
    read_settings,
    term,
    words_of,
)
from kdscale.records import Value

# Commit a08d46f: mdistiller/engine/cfg.py; the losses in mdistiller/distillers.
KNOWN: Mapping[str, Value | None] = {
    "DISTILLER.TYPE": "NONE",
    "KD.TEMPERATURE": 4.0,
    "KD.LOSS.CE_WEIGHT": 0.1,
    "KD.LOSS.KD_WEIGHT": 0.9,
    "DKD.CE_WEIGHT": 1.0,
    "DKD.ALPHA": 1.0,
    "DKD.BETA": 8.0,
    "DKD.T": 4.0,
    "DKD.WARMUP": 20,
    "AT.P": 2,
    "AT.LOSS.CE_WEIGHT": 1.0,
    "AT.LOSS.FEAT_WEIGHT": 1000.0,
    "RKD.DISTANCE_WEIGHT": 25.0,
    "RKD.ANGLE_WEIGHT": 50.0,
    "RKD.LOSS.CE_WEIGHT": 1.0,
    "RKD.LOSS.FEAT_WEIGHT": 1.0,
    "RKD.PDIST.EPSILON": 1e-12,
    "RKD.PDIST.SQUARED": False,
    "FITNET.HINT_LAYER": 2,
    "FITNET.LOSS.CE_WEIGHT": 1.0,
    "FITNET.LOSS.FEAT_WEIGHT": 100.0,
    "OFD.LOSS.CE_WEIGHT": 1.0,
    "OFD.LOSS.FEAT_WEIGHT": 0.001,
    "OFD.CONNECTOR.KERNEL_SIZE": 1,
    "NST.LOSS.CE_WEIGHT": 1.0,
    "NST.LOSS.FEAT_WEIGHT": 50.0,
    "PKT.LOSS.CE_WEIGHT": 1.0,
    "PKT.LOSS.FEAT_WEIGHT": 30000.0,
    "SP.LOSS.CE_WEIGHT": 1.0,
    "SP.LOSS.FEAT_WEIGHT": 3000.0,
    "VID.LOSS.CE_WEIGHT": 1.0,
    "VID.LOSS.FEAT_WEIGHT": 1.0,
    "VID.EPS": 1e-5,
    "VID.INIT_PRED_VAR": 5.0,
    "CRD.MODE": "exact",
    "CRD.FEAT.DIM": 128,
    "CRD.LOSS.CE_WEIGHT": 1.0,
    "CRD.LOSS.FEAT_WEIGHT": 0.8,
    "CRD.NCE.K": 16384,
    "CRD.NCE.MOMENTUM": 0.5,
    "CRD.NCE.TEMPERATURE": 0.07,
    "REVIEWKD.CE_WEIGHT": 1.0,
    "REVIEWKD.REVIEWKD_WEIGHT": 1.0,
    "REVIEWKD.WARMUP_EPOCHS": 20,
    "REVIEWKD.STU_PREACT": False,
}
IGNORED_GROUPS = ("EXPERIMENT.", "DATASET.", "SOLVER.", "LOG.", "KDSVD.")
IGNORED = (
    "DISTILLER.TEACHER DISTILLER.STUDENT FITNET.INPUT_SIZE VID.INPUT_SIZE CRD.FEAT.STUDENT_DIM "
    "CRD.FEAT.TEACHER_DIM REVIEWKD.SHAPES REVIEWKD.OUT_SHAPES REVIEWKD.IN_CHANNELS "
    "REVIEWKD.OUT_CHANNELS REVIEWKD.MAX_MID_CHANNEL"
)
FIXED = ("RKD.PDIST.EPSILON", "RKD.PDIST.SQUARED", "VID.EPS", "OFD.CONNECTOR.KERNEL_SIZE")
"""What is a constant of kdscale's methods."""

TYPES = ("KD", "DKD", "AT", "RKD", "FITNET", "OFD", "NST", "PKT", "SP", "VID", "CRD", "REVIEWKD")


def from_mdistiller(text: str, classes: int | None, dims: int | None) -> ConvertedObjective:
    """Returns CE_WEIGHT CE + the weight times the method of DISTILLER.TYPE.

    KL is summed over classes, averaged over the batch, with T² inside. DKD and ReviewKD multiply
    by min(epoch / warm-up, 1), epochs from 1: kdscale's ``warmup_epochs``.
    """
    pairs = _yaml_pairs(text) if re.search(r":(\s|$)", text) else _option_pairs(text)
    pairs = [pair for pair in pairs if not pair[0].startswith(IGNORED_GROUPS)]
    settings = read_settings("mdistiller", pairs, KNOWN, ignored=IGNORED.split())
    kind = settings.one_of("DISTILLER.TYPE", (*TYPES, "NONE", "KDSVD"))
    settings.refuse_if(kind == "KDSVD", "no method of kdscale equals DISTILLER.TYPE KDSVD")
    for name in FIXED:
        if name.startswith(f"{kind}."):
            constant = KNOWN[name]
            settings.refuse_if(
                settings.value(name) != constant,
                f"{name} must be {constant}, the constant of kdscale's {kind.lower()}",
            )
    for name in ("DKD.WARMUP", "REVIEWKD.WARMUP_EPOCHS"):
        settings.refuse_if(settings.number(name) < 1, f"{name} must be >= 1")
    settings.refuse_if(
        settings.number("FITNET.HINT_LAYER") not in (1, 2, 3),
        "FITNET.HINT_LAYER must be 1, 2 or 3, a stage after the stem",
    )
    settings.check()
    if kind == "NONE":
        return ConvertedObjective(1.0, ())
    return _convert(kind, settings)


def _convert(kind: str, settings: Settings) -> ConvertedObjective:
    number, method = settings.number, kind.lower()
    notes = ["KL is divided by the batch, T² inside"] if kind in ("KD", "DKD") else []
    if kind == "KD":
        ce_weight, weight = number("KD.LOSS.CE_WEIGHT"), number("KD.LOSS.KD_WEIGHT")
    elif kind == "DKD":
        ce_weight, weight = number("DKD.CE_WEIGHT"), 1.0
    elif kind == "REVIEWKD":
        ce_weight, weight = number("REVIEWKD.CE_WEIGHT"), number("REVIEWKD.REVIEWKD_WEIGHT")
    else:
        ce_weight, weight = number(f"{kind}.LOSS.CE_WEIGHT"), number(f"{kind}.LOSS.FEAT_WEIGHT")
    warmup = {"DKD": "DKD.WARMUP", "REVIEWKD": "REVIEWKD.WARMUP_EPOCHS"}.get(kind)
    # A warm-up of one epoch changes nothing, because epochs count from 1.
    epochs = int(number(warmup)) if warmup and number(warmup) > 1 else 0
    if kind == "VID":
        notes.append("mdistiller does not train VID's variances (they are not in its optimiser)")
    if weight == 0:
        return ConvertedObjective(ce_weight, ())
    one = term(method, weight, _hyperparameters(kind, settings), warmup_epochs=epochs)
    return ConvertedObjective(ce_weight, (one,), tuple(notes))


def _hyperparameters(kind: str, settings: Settings) -> dict[str, Value]:
    number = settings.number
    match kind:
        case "KD":
            return {"temperature": number("KD.TEMPERATURE")}
        case "DKD":
            names = {"alpha": "ALPHA", "beta": "BETA", "temperature": "T"}
            return {ours: number(f"DKD.{theirs}") for ours, theirs in names.items()}
        case "AT":
            return {"p": number("AT.P")}
        case "RKD":
            names = {"distance_weight": "DISTANCE_WEIGHT", "angle_weight": "ANGLE_WEIGHT"}
            return {ours: number(f"RKD.{theirs}") for ours, theirs in names.items()}
        case "FITNET":
            return {"stages": f"{number('FITNET.HINT_LAYER'):g}"}
        case "VID":
            return {"init_var": number("VID.INIT_PRED_VAR")}
        case "CRD":
            names = {"negatives": "NCE.K", "temperature": "NCE.TEMPERATURE"}
            names |= {"momentum": "NCE.MOMENTUM", "dims": "FEAT.DIM"}
            given: dict[str, Value] = {o: number(f"CRD.{theirs}") for o, theirs in names.items()}
            return {**given, "mode": settings.word("CRD.MODE")}
        case "REVIEWKD":
            before_relu = settings.value("REVIEWKD.STU_PREACT")
            return {"student_features": "preactivation" if before_relu else "stage"}
    return {}


def _option_pairs(text: str) -> list[tuple[str, str]]:
    """Returns (name, value) of options, as after ``--cfg FILE``: ``KD.TEMPERATURE 4 ...``."""
    words = words_of("mdistiller", text)
    if len(words) % 2:
        raise UserError(
            "mdistiller: options must be pairs of a name and a value, "
            f"but there are {len(words)} words"
        )
    return list(zip(words[::2], words[1::2], strict=True))


def _yaml_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yields (dotted name, value) of mdistiller's files: nested blocks of ``KEY: value``."""
    blocks: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if not content:
            continue
        found = re.fullmatch(r"( *)([\w.]+):(?: +(.+))?", content)
        if found is None:
            raise UserError(
                f'mdistiller: line {number} must be KEY: value, but got "{content.strip()}" '
                "(quote a file's text, so that its lines are kept)"
            )
        indent, name, value = len(found[1]), found[2], found[3]
        while blocks and blocks[-1][0] >= indent:
            blocks.pop()
        if value is None:
            blocks.append((indent, name))
        else:
            path = ".".join([*(block for _, block in blocks), name])
            yield path, value.strip("\"' ")
