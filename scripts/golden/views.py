"""Golden cases of one family of methods: views."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from golden._entry import Entry, Inputs, Params
from kdscale.losses import (
    cat_kd,
    crld,
    mlld_batch,
    mlld_batch_rows,
    mlld_class,
    mlld_class_rows,
    mlld_instance,
    rcka,
    sdd,
    tekap_logit,
)

TWO_VIEWS = "z_s_w z_t_w z_s_s z_t_s y"
MLLD_PARAMS = "T_first temperatures ce_weight kd_weight"
MLLD_PARTS = {"loss_kd": mlld_instance, "loss_bc": mlld_batch, "loss_cc": mlld_class}


def views(x: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return x["z_s_w"], x["z_t_w"], x["z_s_s"], x["z_t_s"]


def mlld_part(part: str, x: Inputs, p: Params) -> Tensor:
    return p["kd_weight"] * MLLD_PARTS[part](*views(x), temperatures=p["temperatures"])


def mlld_cross_entropies(x: Inputs, p: Params) -> Tensor:
    weak, strong = F.cross_entropy(x["z_s_w"], x["y"]), F.cross_entropy(x["z_s_s"], x["y"])
    return p["ce_weight"] * (weak + strong)


def crld_part(part: str, x: Inputs, p: Params) -> Tensor:
    weights = {"w_wv": 0.0, "w_cv": 0.0, part: p[part]}
    return crld(*views(x), temperature=p["T"], tau_w=p["tau_w"], tau_s=p["tau_s"], **weights)


def tekap(x: Inputs, p: Params) -> Tensor:
    weights = {name: p[name] for name in ("teacher_weight", "noise_weight", "synthetic_weight")}
    return tekap_logit(x["z_s"], x["z_t"], x["noise"][: p["M"]], temperature=p["T"], **weights)


# fmt: off
ENTRIES = (
    Entry("sdd_kd", "", "z_s z_t y", "T",
          lambda x, p: sdd(x["z_s"], x["z_t"], x["y"], base="kd", temperature=p["T"]), "sdd"),
    Entry("mlld", "batch", "z_s z_t", "T",
          lambda x, p: mlld_batch_rows(x["z_s"], x["z_t"], temperatures=[p["T"]]).sum(), "mlld"),
    Entry("mlld", "class", "z_s z_t", "T",
          lambda x, p: mlld_class_rows(x["z_s"], x["z_t"], temperatures=[p["T"]]).sum(), "mlld"),
    Entry("mlld", "two-view loss_ce", TWO_VIEWS, MLLD_PARAMS, mlld_cross_entropies, "mlld"),
    Entry("mlld", "two-view loss_kd", TWO_VIEWS, MLLD_PARAMS,
          lambda x, p: mlld_part("loss_kd", x, p), "mlld"),
    Entry("mlld", "two-view loss_bc", TWO_VIEWS, MLLD_PARAMS,
          lambda x, p: mlld_part("loss_bc", x, p), "mlld"),
    Entry("mlld", "two-view loss_cc", TWO_VIEWS, MLLD_PARAMS,
          lambda x, p: mlld_part("loss_cc", x, p), "mlld"),
    Entry("crld", "within-view", TWO_VIEWS, "T tau_w tau_s w_wv w_cv",
          lambda x, p: crld_part("w_wv", x, p), "crld"),
    Entry("crld", "cross-view", TWO_VIEWS, "T tau_w tau_s w_wv w_cv",
          lambda x, p: crld_part("w_cv", x, p), "crld"),
    Entry("tekap_logit", "", "z_s z_t noise",
          "T M teacher_weight noise_weight synthetic_weight", tekap, "tekap"),
    Entry("cka_uncentred", "", "z_s z_t", "",
          lambda x, p: rcka(x["z_s"], x["z_t"], inter=1.0, intra=0.0, row_norm=False), "rcka"),
    Entry("cat_kd", "", "F_s F_t", "R normalise",
          lambda x, p: cat_kd(x["F_s"], x["F_t"],
                              resolution=p["R"], normalise=p["normalise"]), "cat_kd"),
)
# fmt: on
