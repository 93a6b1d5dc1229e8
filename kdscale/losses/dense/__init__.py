"""The methods for dense prediction: pure functions of maps.

Conventions as in `kdscale.losses`; maps are [B, C, h, w] at the resolution of the network's head,
labels [B, H, W] with -1 where there is none.
"""

from kdscale.losses._method import Method
from kdscale.losses.dense._aicsd import AICSD, aicsd
from kdscale.losses.dense._attnfd import (
    ATTNFD,
    CBAM,
    AttnFDConnector,
    attnfd,
    attnfd_teacher,
)
from kdscale.losses.dense._bpkd import BPKD, bpkd_body, bpkd_edge, bpkd_edges
from kdscale.losses.dense._cirkd_memory import CIRKD_MEMORY, CIRKDMemory, cirkd_memory
from kdscale.losses.dense._cirkd_minibatch import CIRKD_MINIBATCH, cirkd_minibatch
from kdscale.losses.dense._cwd import CWD, cwd
from kdscale.losses.dense._dist_dense import DIST_DENSE, dist_dense
from kdscale.losses.dense._feature_mse import FEATURE_MSE, feature_mse
from kdscale.losses.dense._ifvd import IFVD, ifvd
from kdscale.losses.dense._ldrld_candidate import LDRLD_CANDIDATE, ldrld_candidate
from kdscale.losses.dense._maskd import MASKD, MaskTokens, maskd, maskd_dice, maskd_tokens
from kdscale.losses.dense._pixel_kd import PIXEL_KD, pixel_kd
from kdscale.losses.dense._rdd import (
    RDD,
    rdd_hard,
    rdd_stage_1,
    rdd_stage_2,
    rdd_weights,
)
from kdscale.losses.dense._rld_candidate import RLD_CANDIDATE, rld_candidate
from kdscale.losses.dense._skd_holistic import (
    SKD_HOLISTIC,
    SKDDiscriminator,
    skd_discriminator,
    skd_generator,
)
from kdscale.losses.dense._skd_pair import SKD_PAIR, skd_pair
from kdscale.losses.dense._skd_pixel import SKD_PIXEL, skd_pixel

DENSE_METHODS: dict[str, Method] = {
    "pixel_kd": PIXEL_KD,
    "feature_mse": FEATURE_MSE,
    "cwd": CWD,
    "skd_pair": SKD_PAIR,
    "skd_pixel": SKD_PIXEL,
    "skd_holistic": SKD_HOLISTIC,
    "ifvd": IFVD,
    "cirkd_minibatch": CIRKD_MINIBATCH,
    "cirkd_memory": CIRKD_MEMORY,
    "maskd": MASKD,
    "dist_dense": DIST_DENSE,
    "rdd": RDD,
    "aicsd": AICSD,
    "attnfd": ATTNFD,
    "bpkd": BPKD,
    "rld_candidate": RLD_CANDIDATE,
    "ldrld_candidate": LDRLD_CANDIDATE,
}
"""Every dense method by the name that study files use."""

__all__ = [
    "CBAM",
    "DENSE_METHODS",
    "AttnFDConnector",
    "CIRKDMemory",
    "MaskTokens",
    "SKDDiscriminator",
    "aicsd",
    "attnfd",
    "attnfd_teacher",
    "bpkd_body",
    "bpkd_edge",
    "bpkd_edges",
    "cirkd_memory",
    "cirkd_minibatch",
    "cwd",
    "dist_dense",
    "feature_mse",
    "ifvd",
    "ldrld_candidate",
    "maskd",
    "maskd_dice",
    "maskd_tokens",
    "pixel_kd",
    "rdd_hard",
    "rdd_stage_1",
    "rdd_stage_2",
    "rdd_weights",
    "rld_candidate",
    "skd_discriminator",
    "skd_generator",
    "skd_pair",
    "skd_pixel",
]
