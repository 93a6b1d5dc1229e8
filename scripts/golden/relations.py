"""Golden cases of the methods that relate the images of a batch: sp, cc, pkt, rkd, crd."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from golden._entry import Entry, Inputs, Params
from kdscale.losses import CRDContrast, cc, crd_nce, pkt, rkd, sp


def crd(x: Inputs, p: Params) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the first batch's loss, and the banks and constants after it."""
    dims = x["f_s"].shape[1], x["f_t"].shape[1]
    contrast = CRDContrast(
        *dims, p["n_data"], dims=p["feat_dim"], temperature=p["tau"], momentum=p["momentum"]
    ).double()
    state = {name: buffer.clone() for name, buffer in contrast.named_buffers()}
    state |= {"bank_s": x["bank_s"].clone(), "bank_t": x["bank_t"].clone()}
    weights = {
        "embed.student.weight": x["W_s"],
        "embed.student.bias": x["b_s"],
        "embed.teacher.weight": x["W_t"],
        "embed.teacher.bias": x["b_t"],
    }
    if x["contrast_idx"].shape[1] != p["K"] + 1:
        raise ValueError("contrast_idx must hold K + 1 images for each image")
    arguments = (x["f_s"], x["f_t"], x["idx"], x["contrast_idx"])
    return functional_call(contrast, {**weights, **state}, arguments), state


def crd_memory(x: Inputs, p: Params) -> Mapping[str, Tensor]:
    with torch.no_grad():
        _, state = crd(x, p)
    first = x["idx"][0]
    return {
        "bank_s_row_first": state["bank_s"][first],
        "bank_t_row_first": state["bank_t"][first],
        "Z_s": state["log_z_s"].exp(),
        "Z_t": state["log_z_t"].exp(),
    }


# fmt: off
ENTRIES: tuple[Entry, ...] = (
    Entry("sp", "", "f_s f_t", "", lambda x, p: sp(x["f_s"], x["f_t"]), "sp"),
    Entry("cc", "", "f_s f_t", "", lambda x, p: cc(x["f_s"], x["f_t"]), "cc"),
    Entry("pkt", "", "f_s f_t", "", lambda x, p: pkt(x["f_s"], x["f_t"]), "pkt"),
    Entry("rkd", "", "f_s f_t", "w_d w_a",
          lambda x, p: rkd(x["f_s"], x["f_t"],
                           distance_weight=p["w_d"], angle_weight=p["w_a"]), "rkd"),
    Entry("crd_nce", "", "x", "n_data",
          lambda x, p: crd_nce(x["x"], p["n_data"]), "crd"),
    Entry("crd_full", "", "f_s f_t W_s b_s W_t b_t bank_s bank_t idx contrast_idx",
          "tau momentum n_data K feat_dim", lambda x, p: crd(x, p)[0], "crd", extras=crd_memory),
)
# fmt: on
