"""Loss weights of other code bases, said as an objective with equal gradient.

What differs between code bases, and is converted here: whether a KL divergence is divided by the
batch or by all elements, whether T² is inside, whether a loss sums or averages over its entries,
what a warm-up counts, and which flags multiply nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from kdscale.errors import UserError, did_you_mean
from kdscale.losses._convert_mdistiller import from_mdistiller
from kdscale.losses._converted import (
    ConvertedObjective,
    Settings,
    read_settings,
    term,
    words_of,
)
from kdscale.records import Value


def convert_weights(
    source: str, text: str, *, classes: int | None = None, dims: int | None = None
) -> ConvertedObjective:
    """Returns the objective whose gradient is that of another code base under these settings.

    Args:
        source: ``repdistiller`` (flags of ``train_student.py``), ``mdistiller`` (its YAML, or
            options as after ``--cfg``), ``rsd-paper`` (``lambda=..., kappa=..., D_t=...``) or
            ``deit`` (flags of ``main.py``).
        text: The settings as that code base spells them; what is left out has its default there.
        classes: C, where the convention depends on it (deit, and rsd-paper on logits).
        dims: D_t, the teacher's embedding size, where it does (rsd-paper).

    Raises:
        UserError: An unknown source, setting or method, a bad value, or one that is missing, all
            of them in one message; or a loss that no method of kdscale equals.
    """
    if source not in SOURCES:
        hint = did_you_mean(source, SOURCES) or f"known: {', '.join(SOURCES)}"
        raise UserError(f'there is no code base "{source}" to convert from ({hint})')
    for name, value in (("classes", classes), ("dims", dims)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be >= 1, but got {value}")
    converted = SOURCES[source](text, classes, dims)
    if not converted.terms:
        raise UserError(f"{source}: these settings distil nothing, so there is no objective")
    return converted


# RepDistiller, commit 1143dfe: train_student.py, helper/loops.py, helper/pretrain.py.
REPDISTILLER: Mapping[str, Value | None] = {
    "--distill": "kd",
    "--gamma": 1.0,
    "--alpha": None,
    "--beta": None,
    "--kd_T": 4.0,
    "--feat_dim": 128,
    "--mode": "exact",
    "--nce_k": 16384,
    "--nce_t": 0.07,
    "--nce_m": 0.5,
    "--hint_layer": 2,
    "--init_epochs": 30,
}
REPDISTILLER_SHORT = {"-r": "--gamma", "-a": "--alpha", "-b": "--beta"}
REPDISTILLER_IGNORED = (
    "--print_freq --tb_freq --save_freq --batch_size --num_workers --epochs --learning_rate "
    "--lr_decay_epochs --lr_decay_rate --weight_decay --momentum --dataset --model_s --path_t "
    "--trial"
)
REPDISTILLER_METHODS = {
    "kd": "kd",
    "hint": "fitnet",
    "attention": "at",
    "similarity": "sp",
    "correlation": "cc",
    "vid": "vid",
    "crd": "crd",
    "rkd": "rkd",
    "pkt": "pkt",
    "abound": "ab",
    "factor": "ft",
    "nst": "nst",
}


def from_repdistiller(text: str, classes: int | None, dims: int | None) -> ConvertedObjective:
    """Returns r CE + a KD + b times the method that ``--distill`` names.

    KD is summed over classes, averaged over the batch, with T² inside: a is the weight of kd.
    """
    flags = read_settings(
        "repdistiller",
        _flags("repdistiller", text),
        REPDISTILLER,
        short=REPDISTILLER_SHORT,
        ignored=REPDISTILLER_IGNORED.split(),
    )
    name = flags.one_of("--distill", {**REPDISTILLER_METHODS, "kdsvd": "", "fsp": ""})
    flags.refuse_if(name in ("kdsvd", "fsp"), f"no method of kdscale equals --distill {name}")
    flags.refuse_if(
        name == "hint" and flags.number("--hint_layer") not in (1, 2, 3),
        "--hint_layer must be 1, 2 or 3, a stage after the stem",
    )
    flags.check()
    method, b = REPDISTILLER_METHODS[name], flags.number("--beta")
    init_epochs = int(flags.number("--init_epochs"))
    first = 1
    terms, notes = [], []
    if name == "abound":
        # The method prepares the student alone, with weight 1; -b multiplies nothing.
        first = init_epochs + 1
        terms.append(term("ab", 1.0, stop_epoch=init_epochs))
        notes.append(f"-b {b:g} multiplies nothing with --distill abound")
    elif name == "factor" and b > 0:
        # The paraphraser alone, with weight 1, then b times the factor loss.
        first = init_epochs + 1
        given = {"paraphraser_epochs": init_epochs, "reconstruction_weight": 1 / b}
        terms.append(term("ft", b, given))
    elif name == "kd":
        notes.append(f"-b {b:g} multiplies nothing with --distill kd")
    elif b > 0:
        terms.append(term(method, b, _repdistiller_hyperparameters(method, flags)))
    if first > 1:
        notes.append(f"the first {init_epochs} epochs come on top of --epochs there")
    if flags.number("--alpha") > 0:
        given = {"temperature": flags.number("--kd_T")}
        terms.append(term("kd", flags.number("--alpha"), given, start_epoch=first))
    notes.append("-a: KL divided by the batch, T² inside, as in kd; -r: ce_weight")
    return ConvertedObjective(flags.number("--gamma"), tuple(terms), tuple(notes), first)


def _repdistiller_hyperparameters(method: str, flags: Settings) -> dict[str, Value]:
    """Returns what the flags say of a method; the rest is constant there and kdscale's default."""
    match method:
        case "fitnet":
            return {"stages": f"{flags.number('--hint_layer'):g}"}
        case "cc":
            return {"dims": flags.number("--feat_dim")}
        case "crd":
            return {
                "negatives": flags.number("--nce_k"),
                "temperature": flags.number("--nce_t"),
                "momentum": flags.number("--nce_m"),
                "dims": flags.number("--feat_dim"),
                "mode": flags.word("--mode"),
            }
    return {}


# The RSD paper's algorithm 1 against VISION-SJTU/RSD distillers/rsd.py.
RSD_PAPER: Mapping[str, Value | None] = {
    "lambda": None,
    "kappa": 0.01,
    "gamma": 2,
    "D_t": 0,
    "variant": "embedding",
}


def from_rsd_paper(text: str, classes: int | None, dims: int | None) -> ConvertedObjective:
    """Returns CE + lambda times RSD.

    The paper averages over the D x D entries, authors' code and kdscale sum: lambda / D².
    """
    words = (word.partition("=") for word in re.split(r"[,\s]+", text.strip()) if word)
    settings = read_settings("rsd-paper", [(a.strip(), b) for a, _, b in words], RSD_PAPER)
    variant = settings.one_of("variant", ("embedding", "logits"))
    known = classes if variant == "logits" else dims
    size = int(settings.number("D_t")) or known or 0
    flag = "--classes" if variant == "logits" else "--dims"
    settings.refuse_if(
        size < 1, f"the size that lambda is divided by must be given, as D_t=... or {flag}"
    )
    settings.refuse_if(
        known is not None and size not in (0, known), f"D_t must be {flag}, but got {size}, {known}"
    )
    settings.check()
    given: dict[str, Value] = {
        "lambda": settings.number("lambda") / size**2,
        "kappa": settings.number("kappa"),
        "variant": variant,
    }
    if variant == "embedding":
        given["gamma"] = settings.number("gamma")
    notes = (f"the paper averages over {size}² entries, kdscale sums: lambda / {size}²",)
    return ConvertedObjective(1.0, (term("rsd", 1.0, given),), notes)


# facebookresearch/deit main.py and losses.py.
DEIT: Mapping[str, Value | None] = {
    "--distillation-type": "none",
    "--distillation-alpha": 0.5,
    "--distillation-tau": 1.0,
}
DEIT_IGNORED = (
    "--batch-size --epochs --model --input-size --drop --drop-path --opt --opt-eps --clip-grad "
    "--momentum --weight-decay --sched --lr --min-lr --warmup-lr --warmup-epochs --decay-epochs "
    "--color-jitter --aa --smoothing --train-interpolation --repeated-aug --reprob --mixup "
    "--cutmix --teacher-model --teacher-path --finetune --data-path --data-set --output_dir "
    "--device --seed --resume --num_workers --pin-mem --dist-eval --world_size --dist_url"
)


def from_deit(text: str, classes: int | None, dims: int | None) -> ConvertedObjective:
    """Returns (1 - alpha) CE + alpha KD, where KD is the soft loss of DeiT.

    Its KL has T² inside but is divided by the elements, B x C, and kd's by B: weight alpha / C.
    """
    flags = read_settings("deit", _flags("deit", text), DEIT, ignored=DEIT_IGNORED.split())
    kind = flags.one_of("--distillation-type", ("none", "soft", "hard"))
    alpha = flags.number("--distillation-alpha")
    flags.refuse_if(
        kind == "hard",
        "no method of kdscale equals --distillation-type hard, cross-entropy with the teacher's "
        "first class; soft has one",
    )
    flags.refuse_if(alpha > 1, f"--distillation-alpha must be <= 1, but got {alpha:g}")
    flags.refuse_if(
        classes is None and kind == "soft",
        "--classes must be given, because DeiT divides its KL by the classes too",
    )
    flags.check()
    if kind == "none" or classes is None or alpha == 0:
        return ConvertedObjective(1.0, ())
    notes = (
        f"DeiT divides the KL by batch x classes, kd by the batch: {alpha:g} / {classes}",
        "equal for a student with one head; a distilled DeiT's second head is no output here",
        "the label smoothing of its cross-entropy is recipe.label_smoothing (0.1 by default there)",
    )
    given = {"temperature": flags.number("--distillation-tau")}
    # A difference of two decimals: 1 - 0.9 is meant to be 0.1.
    return ConvertedObjective(round(1 - alpha, 12), (term("kd", alpha / classes, given),), notes)


SOURCES: Mapping[str, Callable[[str, int | None, int | None], ConvertedObjective]] = {
    "repdistiller": from_repdistiller,
    "mdistiller": from_mdistiller,
    "rsd-paper": from_rsd_paper,
    "deit": from_deit,
}
"""The code bases whose weights can be converted."""


def _flags(source: str, text: str) -> Iterator[tuple[str, str]]:
    """Yields (flag, value) of a command line; what stands before the first flag is the program."""
    flag = ""
    for word in words_of(source, text):
        if re.match(r"--?[A-Za-z]", word):
            if flag:
                yield flag, ""
            flag, equals, value = word.partition("=")
            if equals:
                yield flag, value
                flag = ""
        elif flag:
            yield flag, word
            flag = ""
    if flag:
        yield flag, ""
