"""Golden cases of the logit methods beside kd, dkd and ldrld."""

from __future__ import annotations

from torch import Tensor

from golden._entry import Entry, Inputs, Params
from kdscale.losses import ctkd, dist, lskd_kd, nkd, normkd, ntce, rld, ttm, wttm


def rld_refined(x: Inputs, p: Params) -> Tensor:
    return rld(
        x["z_s"],
        x["z_t"],
        x["y"],
        alpha=p["alpha"],
        beta=p["beta"],
        temperature=p["T"],
        alpha_temperature=p["Ta"],
        standardise=p["standardise"],
    )


# fmt: off
ENTRIES: tuple[Entry, ...] = (
    Entry("nkd", "", "z_s z_t y", "T gamma",
          lambda x, p: nkd(x["z_s"], x["z_t"], x["y"], temperature=p["T"], gamma=p["gamma"]),
          "nkd"),
    Entry("ttm", "", "z_s z_t", "gamma",
          lambda x, p: ttm(x["z_s"], x["z_t"], gamma=p["gamma"]), "ttm"),
    Entry("wttm", "", "z_s z_t", "gamma",
          lambda x, p: wttm(x["z_s"], x["z_t"], gamma=p["gamma"]), "wttm"),
    Entry("lskd_kd", "", "z_s z_t", "T",
          lambda x, p: lskd_kd(x["z_s"], x["z_t"], temperature=p["T"]), "lskd"),
    Entry("normkd", "", "z_s z_t", "T_norm",
          lambda x, p: normkd(x["z_s"], x["z_t"], temperature=p["T_norm"]), "normkd"),
    Entry("dist", "", "z_s z_t", "tau beta gamma",
          lambda x, p: dist(x["z_s"], x["z_t"],
                            temperature=p["tau"], beta=p["beta"], gamma=p["gamma"]), "dist"),
    Entry("rld_refined", "", "z_s z_t y", "alpha beta T Ta standardise", rld_refined, "rld"),
    Entry("ntce_mkl", "", "z_s z_t y", "T factors",
          lambda x, p: ntce(x["z_s"], x["z_t"], x["y"],
                            temperature=p["T"], factors=p["factors"]), "ntce"),
    Entry("ctkd", "", "z_s z_t theta", "theta t_start t_end lam",
          lambda x, p: ctkd(x["z_s"], x["z_t"], x["theta"], t_start=p["t_start"],
                            t_end=p["t_end"], lambda_=p["lam"]), "ctkd"),
)
# fmt: on
