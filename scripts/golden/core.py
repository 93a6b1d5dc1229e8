"""Golden cases of kd, dkd, ldrld and rsd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from golden._entry import Entry, Inputs, Params
from kdscale.losses import AAD, dkd, kd, ldrld, ldrld_local, ldrld_rntk, rsd


def ldrld_total(x: Inputs, p: Params) -> Tensor:
    weights = {"alpha": p["alpha"], "beta": p["beta"]}
    distillation = ldrld(x["z_s"], x["z_t"], depth=p["d"], temperature=p["T"], **weights)
    return distillation + float(p["ce_weight"]) * F.cross_entropy(x["z_s"], x["y"])


def rsd_through_aad(x: Inputs, p: Params) -> Tensor:
    aad = AAD(x["f_s"].shape[1], x["f_t"].shape[1], p["expansion"]).double()
    torch.nn.init.constant_(aad.norm.weight, p["bn_weight"])
    torch.nn.init.constant_(aad.norm.bias, p["bn_bias"])
    aad.norm.eps = p["bn_eps"]
    weights = {"expand.weight": x["W1"], "project.weight": x["W2"]}
    return rsd(functional_call(aad, weights, (x["f_s"],)), x["f_t"], kappa=p["kappa"])


# fmt: off
ENTRIES = (
    Entry("kd", "", "z_s z_t", "T",
          lambda x, p: kd(x["z_s"], x["z_t"], temperature=p["T"]), "kd"),
    Entry("dkd", "", "z_s z_t y", "alpha beta T",
          lambda x, p: dkd(x["z_s"], x["z_t"], x["y"],
                           alpha=p["alpha"], beta=p["beta"], temperature=p["T"]), "dkd"),
    Entry("ldrld", "local", "z_s z_t", "d T",
          lambda x, p: ldrld_local(x["z_s"], x["z_t"], depth=p["d"], temperature=p["T"]), "ldrld"),
    Entry("ldrld", "rntk", "z_s z_t", "d T",
          lambda x, p: ldrld_rntk(x["z_s"], x["z_t"], depth=p["d"], temperature=p["T"]), "ldrld"),
    Entry("ldrld", "total", "z_s z_t y", "alpha beta d T ce_weight", ldrld_total, "ldrld"),
    Entry("rsd", "logits", "z_s z_t", "kappa",
          lambda x, p: rsd(x["z_s"], x["z_t"], kappa=p["kappa"]), "rsd"),
    Entry("rsd", "embeddings", "f_s f_t", "kappa",
          lambda x, p: rsd(x["f_s"], x["f_t"], kappa=p["kappa"]), "rsd"),
    Entry("rsd", "AAD", "f_s f_t W1 W2", "kappa expansion bn_weight bn_bias bn_eps",
          rsd_through_aad, "rsd"),
)
# fmt: on
