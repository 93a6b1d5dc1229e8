"""Converted weights: each code base's loss as its trainer computes it, against the objective."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from torch import Tensor

from kdscale.errors import UserError
from kdscale.losses import METHODS, ConvertedObjective, Objective, PairShapes, convert_weights
from kdscale.outputs import Outputs, OutputShapes
from kdscale.training import ObjectiveSpec

BATCH_SIZE, CLASSES, DIMS = 8, 10, 6
SHAPES = OutputShapes(CLASSES, DIMS, stages=((3, 8, 8), (4, 8, 8), (5, 4, 4), (6, 4, 4)), stem=1)


class Pair:
    """Random outputs of two networks; RepDistiller's f0..f3 are the stages, f4 the embedding."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(BATCH_SIZE, *shape, generator=generator, dtype=torch.float64)

        def outputs() -> Outputs:
            stages = {number: draw(*shape) for number, shape in enumerate(SHAPES.stages)}
            return Outputs(3 * draw(CLASSES), draw(DIMS), stages=stages)

        self.student, self.teacher = outputs(), outputs()
        self.target = torch.arange(BATCH_SIZE) % CLASSES
        assert self.student.embedding is not None
        self.leaves = [self.student.logits, self.student.embedding, *self.student.stages.values()]
        for leaf in self.leaves:
            leaf.requires_grad_()

    def gradients(self, loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, self.leaves, allow_unused=True)
        pairs = zip(found, self.leaves, strict=True)
        return [torch.zeros_like(leaf) if one is None else one for one, leaf in pairs]


def objective_of(converted: ConvertedObjective) -> Objective:
    shapes = PairShapes(SHAPES, SHAPES, BATCH_SIZE)
    objective = Objective(
        converted.ce_weight,
        0.0,
        converted.terms,
        shapes,
        seed=0,
        ce_start_epoch=converted.ce_start_epoch,
    )
    return objective.double()


def assert_equal_gradient(
    converted: ConvertedObjective, theirs: Callable[[Pair], Tensor], epoch: int = 240
) -> None:
    pair = Pair()
    objective = objective_of(converted)
    objective.start_epoch(epoch, 240)
    ours = objective(pair.student, pair.teacher, pair.target)["loss"]
    expected = pair.gradients(theirs(pair))
    assert any(gradient.abs().max() > 0 for gradient in expected)
    torch.testing.assert_close(pair.gradients(ours), expected, rtol=1e-6, atol=1e-9)


def cross_entropy(pair: Pair) -> Tensor:
    return F.cross_entropy(pair.student.logits, pair.target)


# RepDistiller: distiller_zoo, and the sum of helper/loops.py.


def distill_kl(pair: Pair, T: float) -> Tensor:
    p_s = F.log_softmax(pair.student.logits / T, dim=1)
    p_t = F.softmax(pair.teacher.logits / T, dim=1)
    return F.kl_div(p_s, p_t, reduction="sum") * (T**2) / p_s.shape[0]


def attention_loss(pair: Pair, p: int = 2) -> Tensor:
    losses = []
    for number in (1, 2, 3):
        maps = (pair.student.stages[number], pair.teacher.stages[number])
        s, t = (F.normalize(f.pow(p).mean(1).view(f.size(0), -1)) for f in maps)
        losses.append((s - t).pow(2).mean())
    return torch.stack(losses).sum()


def similarity_loss(pair: Pair) -> Tensor:
    grams = []
    for outputs in (pair.student, pair.teacher):
        flat = outputs.stages[3].view(BATCH_SIZE, -1)
        grams.append(F.normalize(torch.mm(flat, flat.t())))
    difference = grams[1] - grams[0]
    return (difference * difference).view(-1, 1).sum(0)[0] / (BATCH_SIZE * BATCH_SIZE)


def pkt_loss(pair: Pair, eps: float = 1e-7) -> Tensor:
    probabilities = []
    for outputs in (pair.student, pair.teacher):
        e = outputs.embedding
        assert e is not None
        e = e / (torch.sqrt(torch.sum(e**2, dim=1, keepdim=True)) + eps)
        similarity = (torch.mm(e, e.t()) + 1.0) / 2.0
        probabilities.append(similarity / torch.sum(similarity, dim=1, keepdim=True))
    q, p = probabilities
    return torch.mean(p * torch.log((p + eps) / (q + eps)))


def rkd_loss(pair: Pair, distance_weight: float = 25, angle_weight: float = 50) -> Tensor:
    distances, angles = [], []
    for outputs in (pair.student, pair.teacher):
        e = outputs.embedding
        assert e is not None
        squares = e.pow(2).sum(dim=1)
        d = (squares.unsqueeze(1) + squares.unsqueeze(0) - 2 * e @ e.t()).clamp(min=1e-12).sqrt()
        d = d * (1 - torch.eye(BATCH_SIZE, dtype=d.dtype))
        distances.append(d / d[d > 0].mean())
        unit = F.normalize(e.unsqueeze(0) - e.unsqueeze(1), p=2, dim=2)
        angles.append(torch.bmm(unit, unit.transpose(1, 2)).view(-1))
    loss_d = F.smooth_l1_loss(distances[0], distances[1])
    return distance_weight * loss_d + angle_weight * F.smooth_l1_loss(angles[0], angles[1])


def nst_loss(pair: Pair) -> Tensor:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(1) * b.unsqueeze(2)).sum(-1).pow(2)

    losses = []
    for number in (1, 2, 3):
        maps = (pair.student.stages[number], pair.teacher.stages[number])
        s, t = (F.normalize(f.view(f.shape[0], f.shape[1], -1), dim=2) for f in maps)
        mean = kernel(t, t).mean().detach() + kernel(s, s).mean()
        losses.append(mean - 2 * kernel(s, t).mean())
    return torch.stack(losses).sum()


REPDISTILLER_LOSSES: dict[str, Callable[[Pair], Tensor]] = {
    "kd": lambda pair: torch.zeros((), dtype=torch.float64),
    "attention": attention_loss,
    "similarity": similarity_loss,
    "pkt": pkt_loss,
    "rkd": rkd_loss,
    "nst": nst_loss,
}


@pytest.mark.parametrize("distill", REPDISTILLER_LOSSES)
def test_repdistiller(distill: str) -> None:
    text = f"--distill {distill} --model_s resnet8x4 -r 0.5 -a 0.9 -b 3 --kd_T 2"

    def theirs(pair: Pair) -> Tensor:
        loss_kd = REPDISTILLER_LOSSES[distill](pair)
        return 0.5 * cross_entropy(pair) + 0.9 * distill_kl(pair, 2.0) + 3 * loss_kd

    assert_equal_gradient(convert_weights("repdistiller", text), theirs)


def test_repdistiller_spellings_and_defaults_are_those_of_its_parser() -> None:
    wanted = convert_weights("repdistiller", "--distill=similarity -r 1 -a 1.0 -b 3000 --kd_T 4")
    text = "python3 train_student.py --path_t a/b.pth --distill similarity --alpha 1 --beta=3000"
    assert convert_weights("repdistiller", text) == wanted
    assert [(term.method, term.weight) for term in wanted.terms] == [("sp", 3000), ("kd", 1)]


def test_repdistiller_kd_ignores_b_and_says_so() -> None:
    converted = convert_weights("repdistiller", "--distill kd -r 0.1 -a 0.9 -b 7")
    assert [(term.method, term.weight) for term in converted.terms] == [("kd", 0.9)]
    assert "# -b 7 multiplies nothing with --distill kd" in converted.to_yaml()


def test_repdistillers_methods_in_two_steps() -> None:
    ab = convert_weights("repdistiller", "--distill abound -r 1 -a 0.9 -b 0 --init_epochs 20")
    assert ab.ce_start_epoch == 21
    assert [(t.method, t.weight, t.schedule.start_epoch) for t in ab.terms] == [
        ("ab", 1, 1),
        ("kd", 0.9, 21),
    ]
    assert ab.terms[0].schedule.stop_epoch == 20
    ft = convert_weights("repdistiller", "--distill factor -r 1 -a 0 -b 400")
    assert ft.ce_start_epoch == 31
    # The paraphraser's reconstruction error has weight 1 there.
    assert ft.terms[0].hyperparameters["reconstruction_weight"] == 1 / 400
    assert ft.terms[0].hyperparameters["paraphraser_epochs"] == 30


# mdistiller: mdistiller/distillers.


def dkd_loss(pair: Pair, alpha: float, beta: float, T: float) -> Tensor:
    z_s, z_t, y = pair.student.logits, pair.teacher.logits, pair.target
    gt = torch.zeros_like(z_s).scatter_(1, y.unsqueeze(1), 1).bool()

    def two_way(z: Tensor) -> Tensor:
        p = F.softmax(z / T, dim=1)
        return torch.cat([(p * mask).sum(1, keepdim=True) for mask in (gt, ~gt)], dim=1)

    tckd = F.kl_div(torch.log(two_way(z_s)), two_way(z_t), reduction="sum") * T**2 / y.shape[0]
    p_t = F.softmax(z_t / T - 1000.0 * gt, dim=1)
    log_p_s = F.log_softmax(z_s / T - 1000.0 * gt, dim=1)
    nckd = F.kl_div(log_p_s, p_t, reduction="sum") * T**2 / y.shape[0]
    return alpha * tckd + beta * nckd


@pytest.mark.parametrize("epoch", [1, 5, 20, 100])
def test_mdistillers_dkd_with_its_warm_up(epoch: int) -> None:
    text = "DISTILLER.TYPE DKD DKD.CE_WEIGHT 0.7 DKD.ALPHA 0.5 DKD.BETA 6 DKD.T 2 DKD.WARMUP 20"

    def theirs(pair: Pair) -> Tensor:
        return 0.7 * cross_entropy(pair) + min(epoch / 20, 1.0) * dkd_loss(pair, 0.5, 6.0, 2.0)

    assert_equal_gradient(convert_weights("mdistiller", text), theirs, epoch)


def test_mdistillers_kd_from_a_file() -> None:
    text = """
EXPERIMENT:
  NAME: ""  # nothing here
  TAG: "kd,res32x4,res8x4"
DISTILLER:
  TYPE: "KD"
  TEACHER: "resnet32x4"
KD:
  TEMPERATURE: 3.0
  LOSS:
    CE_WEIGHT: 0.2
SOLVER:
  LR_DECAY_STAGES: [150, 180, 210]
"""
    # mdistiller: kl_div without reduction, summed over classes, averaged over the batch.
    assert_equal_gradient(
        convert_weights("mdistiller", text),
        lambda pair: 0.2 * cross_entropy(pair) + 0.9 * distill_kl(pair, 3.0),
    )


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("DISTILLER.TYPE AT AT.P 4", lambda pair: 1000 * attention_loss(pair, 4)),
        ("DISTILLER.TYPE SP", lambda pair: 3000 * similarity_loss(pair)),
        ("DISTILLER.TYPE PKT PKT.LOSS.FEAT_WEIGHT 2e4", lambda pair: 2e4 * pkt_loss(pair)),
        ("DISTILLER.TYPE NST", lambda pair: 50 * nst_loss(pair)),
        ("DISTILLER.TYPE RKD RKD.ANGLE_WEIGHT 10", lambda pair: rkd_loss(pair, 25, 10)),
    ],
)
def test_mdistillers_feature_methods(text: str, loss: Callable[[Pair], Tensor]) -> None:
    converted = convert_weights("mdistiller", text)
    assert_equal_gradient(converted, lambda pair: cross_entropy(pair) + loss(pair))


# RSD: the paper's algorithm 1, with columns normalised so that R is a correlation matrix.


def rsd_of_the_paper(f_s: Tensor, f_t: Tensor, kappa: float) -> Tensor:
    a, b = ((f - f.mean(0)) / (f.std(0, unbiased=False) + 1e-5) for f in (f_s, f_t))
    r = b.T @ a / len(a)
    identity = torch.eye(len(r), dtype=r.dtype)
    squares = (r - identity).pow(2)
    return (squares * identity + kappa * squares * (1 - identity)).mean()


def test_the_rsd_papers_mean_over_entries() -> None:
    text = "lambda=50, kappa=0.02, variant=logits"
    converted = convert_weights("rsd-paper", text, classes=CLASSES)

    def theirs(pair: Pair) -> Tensor:
        loss = rsd_of_the_paper(pair.student.logits, pair.teacher.logits, 0.02)
        return cross_entropy(pair) + 50 * loss

    assert_equal_gradient(converted, theirs)


def test_the_rsd_papers_embedding_form_is_divided_by_the_teachers_size() -> None:
    with_flag = convert_weights("rsd-paper", "lambda=3.6 kappa=0.1", dims=DIMS)
    assert with_flag == convert_weights("rsd-paper", f"lambda=3.6,kappa=0.1,D_t={DIMS}")
    assert with_flag.terms[0].hyperparameters["lambda"] == pytest.approx(0.1)

    def theirs(pair: Pair) -> Tensor:
        aad = objective.adaptors[0].get_submodule("aad")
        assert pair.student.embedding is not None
        assert pair.teacher.embedding is not None
        loss = rsd_of_the_paper(aad(pair.student.embedding), pair.teacher.embedding, 0.1)
        return cross_entropy(pair) + 3.6 * loss

    objective = objective_of(with_flag)
    assert_equal_gradient(with_flag, theirs)


# DeiT: losses.py.


def test_deits_soft_distillation() -> None:
    text = "--model deit_tiny --distillation-type soft --distillation-alpha 0.7"

    def theirs(pair: Pair) -> Tensor:
        T = 3.0
        distillation_loss = (
            F.kl_div(
                F.log_softmax(pair.student.logits / T, dim=1),
                F.log_softmax(pair.teacher.logits / T, dim=1),
                reduction="sum",
                log_target=True,
            )
            * (T * T)
            / pair.student.logits.numel()
        )
        return cross_entropy(pair) * (1 - 0.7) + distillation_loss * 0.7

    converted = convert_weights("deit", f"{text} --distillation-tau 3", classes=CLASSES)
    assert_equal_gradient(converted, theirs)
    assert converted.ce_weight == 0.3


# All of it.

EVERY = [
    *(("repdistiller", f"--distill {d} -r 1 -a 0.5 -b 2", {}) for d in REPDISTILLER_LOSSES),
    *(
        ("repdistiller", f"--distill {d} -r 1 -a 0 -b 0.8", {})
        for d in ("hint", "correlation", "vid", "crd", "abound", "factor")
    ),
    *(
        ("mdistiller", f"DISTILLER.TYPE {t}", {})
        for t in [
            "KD",
            "DKD",
            "AT",
            "RKD",
            "FITNET",
            "OFD",
            "NST",
            "PKT",
            "SP",
            "VID",
            "CRD",
            "REVIEWKD",
        ]
    ),
    ("mdistiller", "DISTILLER.TYPE REVIEWKD", {}),
    ("mdistiller", "DISTILLER.TYPE REVIEWKD REVIEWKD.STU_PREACT True", {}),
    ("rsd-paper", "lambda=0.1", {"dims": 512}),
    ("deit", "--distillation-type soft", {"classes": 1000}),
]


@pytest.mark.parametrize(("source", "text", "sizes"), EVERY)
def test_what_is_printed_is_a_study_files_objective(
    source: str, text: str, sizes: dict[str, int]
) -> None:
    converted = convert_weights(source, text, **sizes)
    printed = YAML(typ="safe").load(converted.to_yaml())
    spec = ObjectiveSpec.model_validate(printed["objective"])
    assert spec.ce_weight == converted.ce_weight
    assert spec.ce_start_epoch == converted.ce_start_epoch
    assert len(spec.methods) == len(converted.terms)
    for entry, term in zip(printed["objective"]["methods"], converted.terms, strict=True):
        assert entry["method"] == term.method
        assert entry["weight"] == term.weight
        assert {name: entry[name] for name in term.hyperparameters} == dict(term.hyperparameters)


def test_published_weights_of_mdistiller_are_the_methods_own() -> None:
    for kind in ("AT", "RKD", "FITNET", "OFD", "NST", "PKT", "SP", "VID", "CRD"):
        (term,) = convert_weights("mdistiller", f"DISTILLER.TYPE {kind}").terms
        assert term.weight == METHODS[term.method].weight


@pytest.mark.parametrize(
    ("source", "text", "message"),
    [
        (
            "repdistil",
            "",
            'no code base "repdistil" to convert from (did you mean "repdistiller"?)',
        ),
        ("repdistiller", "-r 1 -a 1 -b 0 --kdT 4", 'no setting "--kdT" (did you mean "--kd_T"?)'),
        ("repdistiller", "-r 1", "--alpha must be given"),
        ("repdistiller", "-r x -a 1 -b 1", '-r must be a number >= 0, but got "x"'),
        (
            "repdistiller",
            "-a 1 -b 1 --distill kdsvd",
            "no method of kdscale equals --distill kdsvd",
        ),
        ("repdistiller", "-a 1 -b 1 --distill simlarity", 'did you mean "similarity"?'),
        ("repdistiller", "-a 1 -b 1 --distill hint --hint_layer 4", "--hint_layer must be 1, 2 or"),
        ("repdistiller", "-a 1 -b 1 --distill crd --nce_k 1.5", "--nce_k must be a whole number"),
        ("repdistiller", "-a 0 -b 1 --distill kd", "these settings distil nothing"),
        ("mdistiller", "DISTILLER.TYPE KDD", 'DISTILLER.TYPE must be a known one, but got "KDD"'),
        ("mdistiller", "KD.TEMP 4", 'no setting "KD.TEMP" (did you mean "KD.TEMPERATURE"?)'),
        ("mdistiller", "DISTILLER.TYPE", "options must be pairs"),
        ("mdistiller", "DISTILLER.TYPE NONE", "these settings distil nothing"),
        ("mdistiller", "KD:\n  TEMPERATURE 4", "line 2 must be KEY: value"),
        (
            "mdistiller",
            "DISTILLER.TYPE RKD RKD.PDIST.SQUARED True",
            "RKD.PDIST.SQUARED must be False, the constant of kdscale's rkd",
        ),
        ("mdistiller", "DISTILLER.TYPE DKD DKD.WARMUP 0", "DKD.WARMUP must be >= 1"),
        ("rsd-paper", "lamda=1 D_t=4", 'no setting "lamda" (did you mean "lambda"?)'),
        ("rsd-paper", "lambda=1", "must be given, as D_t=... or --dims"),
        ("deit", "--distillation-type soft", "--classes must be given"),
        (
            "deit",
            "--distillation-type hard",
            "no method of kdscale equals --distillation-type hard",
        ),
        ("deit", "--distillation-alpha 0.5", "these settings distil nothing"),
        ("repdistiller", '-r "', "repdistiller: must be words as a shell reads them, but: no clo"),
        ("mdistiller", "KD.TEMPERATURE '4", "as a shell reads them, but: no closing quotation"),
        ("deit", "--distillation-type soft\\", "as a shell reads them, but: no escaped character"),
    ],
)
def test_what_is_wrong_is_said_with_the_mend(source: str, text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        convert_weights(source, text)
    assert message in str(raised.value)


def test_all_that_is_wrong_comes_out_together() -> None:
    with pytest.raises(UserError) as raised:
        convert_weights("repdistiller", "--distil kd -r x")
    assert len(str(raised.value).splitlines()) == 4
    with pytest.raises(UserError, match="classes must be >= 1, but got 0"):
        convert_weights("deit", "--distillation-type soft", classes=0)
