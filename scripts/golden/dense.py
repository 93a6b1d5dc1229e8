"""Golden cases of the dense methods."""

from __future__ import annotations

from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import conv2d

from golden._entry import Entry, Inputs, Params
from kdscale.losses.dense import (
    MaskTokens,
    cirkd_minibatch,
    cwd,
    dist_dense,
    feature_mse,
    ifvd,
    ldrld_candidate,
    maskd,
    maskd_dice,
    pixel_kd,
    rld_candidate,
    skd_pair,
    skd_pixel,
)


def masks_of(x: Inputs) -> Tensor:
    module = MaskTokens(x["tokens"].shape[1], x["tokens"].shape[0])
    return functional_call(module, {"tokens": x["tokens"]}, (x["L_t"],))


def pair_original(x: Inputs, p: Params) -> Tensor:
    return skd_pair(x["F_s"], x["F_t"], form="original", scale=p["scale"] or 0.0)


# fmt: off
ENTRIES: tuple[Entry, ...] = (
    Entry("seg_pixel_kd", "", "L_s L_t", "T",
          lambda x, p: pixel_kd(x["L_s"], x["L_t"], temperature=p["T"]), "pixel_kd"),
    Entry("feature_mse", "identity", "F_s F_t", "",
          lambda x, p: feature_mse(x["F_s"], x["F_t"]), "feature_mse"),
    Entry("feature_mse", "1x1", "F_s F_t W", "",
          lambda x, p: feature_mse(conv2d(x["F_s"], x["W"][:, :, None, None]), x["F_t"]),
          "feature_mse"),
    Entry("seg_cwd", "", "L_s L_t", "T",
          lambda x, p: cwd(x["L_s"], x["L_t"], temperature=p["T"]), "cwd"),
    Entry("seg_skd_pair_cirkd", "", "L_s L_t", "",
          lambda x, p: skd_pair(x["L_s"], x["L_t"], form="cirkd"), "skd_pair"),
    Entry("seg_skd_pair_original", "", "F_s F_t", "scale", pair_original, "skd_pair"),
    Entry("seg_skd_pixel_original", "", "L_s L_t", "",
          lambda x, p: skd_pixel(x["L_s"], x["L_t"]), "skd_pixel"),
    Entry("seg_ifvd", "", "L_s L_t label", "num_classes ignore_label",
          lambda x, p: ifvd(x["L_s"], x["L_t"], x["label"], classes=p["num_classes"]), "ifvd"),
    Entry("seg_cirkd_minibatch", "", "L_s L_t", "tau pooling",
          lambda x, p: cirkd_minibatch(x["L_s"], x["L_t"], temperature=p["tau"],
                                       pooling=p["pooling"]), "cirkd_minibatch"),
    Entry("seg_dist", "", "L_s L_t", "beta gamma",
          lambda x, p: dist_dense(x["L_s"], x["L_t"], temperature=1.0, beta=p["beta"],
                                  gamma=p["gamma"]), "dist_dense"),
    Entry("seg_maskd", "tokens=3", "L_s L_t tokens", "",
          lambda x, p: maskd(x["L_s"], x["L_t"], masks_of(x)), "maskd"),
    Entry("seg_maskd", "mask", "L_t tokens", "",
          lambda x, p: maskd_dice(masks_of(x)), "maskd"),
    Entry("seg_ldrld_per_pixel", "local", "L_s L_t", "d T",
          lambda x, p: ldrld_candidate(x["L_s"], x["L_t"], alpha=1.0, beta=0.0, depth=p["d"],
                                       temperature=p["T"]), "ldrld_candidate"),
    Entry("seg_ldrld_per_pixel", "rntk", "L_s L_t", "d T",
          lambda x, p: ldrld_candidate(x["L_s"], x["L_t"], alpha=0.0, beta=1.0, depth=p["d"],
                                       temperature=p["T"]), "ldrld_candidate"),
    Entry("seg_rld_refined_per_pixel", "", "L_s L_t label", "alpha beta T Ta ignore_label",
          lambda x, p: rld_candidate(x["L_s"], x["L_t"], x["label"], alpha=p["alpha"],
                                     beta=p["beta"], temperature=p["T"],
                                     alpha_temperature=p["Ta"]), "rld_candidate"),
)
# fmt: on
