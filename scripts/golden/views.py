"""Golden cases of one family of methods: views."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from golden._entry import Entry, Inputs, Params
from kdscale.losses import mlld_batch, mlld_batch_rows, mlld_class, mlld_class_rows, mlld_instance

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


# fmt: off
ENTRIES = (
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
)
# fmt: on
