"""The methods: pure functions of tensors, and the objective that weighs them.

Conventions: teacher first in every KL; T² inside the value; mean over the batch. Each docstring
says what else is in the number and where paper and official code disagree.
"""

from kdscale.losses._ab import AB, ab
from kdscale.losses._at import AT, at
from kdscale.losses._batch import Batch
from kdscale.losses._cat_kd import CAT_KD, cat_kd
from kdscale.losses._cc import CC, LinearPair, cc
from kdscale.losses._cckd import CCKD, cckd
from kdscale.losses._connectors import Connector, SizeRegressor
from kdscale.losses._convert import convert_weights
from kdscale.losses._converted import ConvertedObjective
from kdscale.losses._crd import CRD, CRDContrast, crd_nce
from kdscale.losses._crd_sampler import CandidateSampler
from kdscale.losses._crld import CRLD, crld
from kdscale.losses._ctkd import CTKD, ctkd, ctkd_dkd, reversal_strength
from kdscale.losses._diffkd import DIFFKD
from kdscale.losses._diffkd_denoiser import Diffusion, ddim_denoise
from kdscale.losses._dist import DIST, dist
from kdscale.losses._dkd import DKD, dkd
from kdscale.losses._fcfd import FCFD
from kdscale.losses._fcfd_bridge import Bridge, fcfd_appearance
from kdscale.losses._fitnet import FITNET, fitnet
from kdscale.losses._ft import FT, Paraphraser, Translator, ft_factor
from kdscale.losses._gather import gather_batch
from kdscale.losses._ickd import ICKD, ickd
from kdscale.losses._kd import KD, kd
from kdscale.losses._ldrld import LDRLD, ldrld, ldrld_local, ldrld_rntk
from kdscale.losses._lskd import LSKD, lskd_dkd, lskd_kd, lskd_mlld, standardise_logits
from kdscale.losses._method import Hyperparameter, Method, Needs, PairShapes, Reads, Term
from kdscale.losses._mgd import MGD, MGDGenerator, mgd
from kdscale.losses._mlld import (
    MLLD,
    mlld,
    mlld_batch,
    mlld_batch_rows,
    mlld_class,
    mlld_class_rows,
    mlld_instance,
)
from kdscale.losses._nkd import NKD, nkd
from kdscale.losses._norm import NORM, norm
from kdscale.losses._normkd import NORMKD, normkd, normkd_dkd
from kdscale.losses._not_public import NOT_PUBLIC, NotPublic
from kdscale.losses._nst import NST, nst
from kdscale.losses._ntce import NTCE, ntce
from kdscale.losses._objective import Objective, TermConfig, common_hyperparameters
from kdscale.losses._ofa import OFA, ofa
from kdscale.losses._ofa_rsd import OFA_RSD
from kdscale.losses._ofd import OFD, ofd, ofd_margin
from kdscale.losses._pkt import PKT, pkt
from kdscale.losses._rcka import RCKA, cka, rcka
from kdscale.losses._reviewkd import ABF, REVIEWKD, hcl
from kdscale.losses._rkd import RKD, rkd
from kdscale.losses._rld import RLD, rld
from kdscale.losses._rsd import AAD, RSD, rsd
from kdscale.losses._schedule import Schedule, ScheduleKind
from kdscale.losses._sdd import SDD, sdd, sdd_regions
from kdscale.losses._semckd import SEMCKD, CrossStageAttention
from kdscale.losses._simkd import SIMKD, simkd
from kdscale.losses._sp import SP, sp
from kdscale.losses._sphericalkd import SPHERICALKD, spherical_logits, sphericalkd, sphericalkd_script
from kdscale.losses._srrl import SRRL, SRRLAdaptor, srrl
from kdscale.losses._tekap import TEKAP, tekap_logit
from kdscale.losses._ttm import TTM, ttm
from kdscale.losses._vid import VID, VIDRegressor, vid
from kdscale.losses._wttm import WTTM, wttm
from kdscale.losses.dense import DENSE_METHODS

METHODS: dict[str, Method] = {
    "kd": KD,
    "dkd": DKD,
    "ldrld": LDRLD,
    "rsd": RSD,
    "ofa": OFA,
    "ofa_rsd": OFA_RSD,
    "reviewkd": REVIEWKD,
    "mlld": MLLD,
    "nkd": NKD,
    "ttm": TTM,
    "wttm": WTTM,
    "normkd": NORMKD,
    "dist": DIST,
    "sp": SP,
    "cc": CC,
    "cckd": CCKD,
    "pkt": PKT,
    "rkd": RKD,
    "crd": CRD,
    "semckd": SEMCKD,
    "diffkd": DIFFKD,
    "fcfd": FCFD,
    **DENSE_METHODS,
    "lskd": LSKD,
    "sphericalkd": SPHERICALKD,
    "rld": RLD,
    "ntce": NTCE,
    "ctkd": CTKD,
    "fitnet": FITNET,
    "at": AT,
    "vid": VID,
    "nst": NST,
    "ft": FT,
    "ab": AB,
    "ofd": OFD,
    "ickd": ICKD,
    "mgd": MGD,
    "sdd": SDD,
    "crld": CRLD,
    "tekap": TEKAP,
    "rcka": RCKA,
    "srrl": SRRL,
    "cat_kd": CAT_KD,
    "simkd": SIMKD,
    "norm": NORM,
}
"""Every method by the name that study files use."""

__all__ = [
    "AAD",
    "ABF",
    "METHODS",
    "NOT_PUBLIC",
    "Batch",
    "Bridge",
    "CRDContrast",
    "CandidateSampler",
    "Connector",
    "ConvertedObjective",
    "CrossStageAttention",
    "Diffusion",
    "Hyperparameter",
    "LinearPair",
    "MGDGenerator",
    "Method",
    "Needs",
    "NotPublic",
    "Objective",
    "PairShapes",
    "Paraphraser",
    "Reads",
    "SRRLAdaptor",
    "Schedule",
    "ScheduleKind",
    "SizeRegressor",
    "Term",
    "TermConfig",
    "Translator",
    "VIDRegressor",
    "ab",
    "at",
    "cat_kd",
    "cc",
    "cckd",
    "cka",
    "common_hyperparameters",
    "convert_weights",
    "crd_nce",
    "crld",
    "ddim_denoise",
    "dist",
    "dkd",
    "fcfd_appearance",
    "fitnet",
    "ft_factor",
    "gather_batch",
    "hcl",
    "ickd",
    "kd",
    "ldrld",
    "ldrld_local",
    "ldrld_rntk",
    "mgd",
    "mlld",
    "mlld_batch",
    "mlld_batch_rows",
    "mlld_class",
    "mlld_class_rows",
    "mlld_instance",
    "nkd",
    "norm",
    "normkd",
    "normkd_dkd",
    "nst",
    "ofa",
    "ofd",
    "ofd_margin",
    "pkt",
    "rcka",
    "rkd",
    "rsd",
    "sdd",
    "sdd_regions",
    "simkd",
    "sp",
    "srrl",
    "tekap_logit",
    "ttm",
    "vid",
    "wttm",
    "lskd_dkd",
    "lskd_kd",
    "lskd_mlld",
    "standardise_logits",
    "spherical_logits",
    "sphericalkd",
    "sphericalkd_script",
    "rld",
    "ntce",
    "ctkd",
    "ctkd_dkd",
    "reversal_strength",
]
