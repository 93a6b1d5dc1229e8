"""Golden cases of the methods that compare feature maps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from golden._entry import Entry, Inputs, Params
from kdscale.losses import VIDRegressor, ab, at, ft_factor, ickd, nst, ofd, ofd_margin, vid


def vid_of_identity(x: Inputs, p: Params) -> Tensor:
    """The variance's start comes from kdscale's own regressor, its value from the case."""
    regressor = VIDRegressor(x["F_s"].shape[1], x["F_t"].shape[1], p["init_var"]).double()
    torch.testing.assert_close(regressor.log_scale, x["log_scale"], rtol=1e-6, atol=0)
    regressor.regress = nn.Sequential()
    prediction = functional_call(regressor, {"log_scale": x["log_scale"]}, (x["F_s"],))
    return vid(prediction, x["F_t"], x["log_scale"], eps=p["eps"])


def margins(x: Inputs, p: Params) -> Mapping[str, Tensor]:
    return {"margin": ofd_margin(x["weight"], x["bias"])}


# fmt: off
ENTRIES: tuple[Entry, ...] = (
    Entry("at", "", "F_s F_t", "p", lambda x, p: at(x["F_s"], x["F_t"], p=p["p"]), "at"),
    Entry("nst", "", "F_s F_t", "", lambda x, p: nst(x["F_s"], x["F_t"]), "nst"),
    Entry("vid", "", "F_s F_t log_scale", "init_var eps", vid_of_identity, "vid"),
    Entry("ofd", "one", "F_s F_t margin", "",
          lambda x, p: ofd(x["F_s"], x["F_t"], x["margin"].flatten()), "ofd"),
    Entry("ofd", "margin", "weight bias", "",
          lambda x, p: margins(x, p)["margin"].sum(), "ofd", extras=margins, relative=1e-6),
    Entry("ft_factor", "", "F_s F_t", "", lambda x, p: ft_factor(x["F_s"], x["F_t"]), "ft"),
    Entry("ab", "", "F_s F_t", "margin",
          lambda x, p: ab(x["F_s"], x["F_t"], margin=p["margin"]), "ab"),
    Entry("ickd", "", "F_s F_t", "", lambda x, p: ickd(x["F_s"], x["F_t"]), "ickd"),
)
# fmt: on
