"""Golden cases of ofa and reviewkd."""

from __future__ import annotations

from torch import Tensor
from torch.func import functional_call

from golden._entry import Entry, Inputs, Params
from kdscale.losses import ABF, hcl, ofa


def reviewkd_two_stages(x: Inputs, p: Params) -> Tensor:
    """HCL of both stages after the fusion, the deep one first."""
    total, residual = x["x_deep"].new_zeros(()), None
    for place, fuse in (("deep", False), ("shallow", True)):
        f_s, f_t, w_1, w_2 = (x[f"{name}_{place}"] for name in ("x", "t", "W1", "W2"))
        fusion = ABF(f_s.shape[1], p["mid_channels"], f_t.shape[1], fuse=fuse).double()
        fusion.reduce_norm.eps = fusion.expand_norm.eps = p["bn_eps"]
        weights = {"reduce.weight": w_1[:, :, None, None], "expand.weight": w_2}
        if fuse:
            weights["attention.weight"] = x["Watt"][:, :, None, None]
            weights["attention.bias"] = x["batt"]
        imitation, residual = functional_call(
            fusion, weights, (f_s, residual, tuple(f_t.shape[2:]))
        )
        total = total + hcl(imitation, f_t)
    return total


# fmt: off
ENTRIES: tuple[Entry, ...] = (
    Entry("ofa", "", "z_s z_t y", "eps T",
          lambda x, p: ofa(x["z_s"], x["z_t"], x["y"], eps=p["eps"], temperature=p["T"]), "ofa"),
    Entry("reviewkd_hcl", "", "F_s F_t", "",
          lambda x, p: hcl(x["F_s"], x["F_t"]), "reviewkd"),
    Entry("reviewkd_abf_hcl", "", "x_shallow x_deep t_shallow t_deep W1_shallow W1_deep W2_shallow "
          "W2_deep Watt batt", "mid_channels bn_eps", reviewkd_two_stages, "reviewkd"),
)
# fmt: on
