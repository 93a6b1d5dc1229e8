"""The methods: pure functions of tensors, and the objective that weighs them.

Conventions: teacher first in every KL; T² inside the value; mean over the batch. Each docstring
says what else is in the number and where paper and official code disagree.
"""

from kdscale.losses._ab import ab
from kdscale.losses._at import at
from kdscale.losses._batch import Batch
from kdscale.losses._cat_kd import cat_kd
from kdscale.losses._cc import LinearPair, cc
from kdscale.losses._cckd import cckd
from kdscale.losses._connectors import Connector, SizeRegressor
from kdscale.losses._convert import convert_weights
from kdscale.losses._converted import ConvertedObjective
from kdscale.losses._crd import CRDContrast, crd_nce
from kdscale.losses._crd_sampler import CandidateSampler
from kdscale.losses._crld import crld
from kdscale.losses._ctkd import ctkd, ctkd_dkd, reversal_strength
from kdscale.losses._diffkd_denoiser import Diffusion, ddim_denoise
from kdscale.losses._dist import dist
from kdscale.losses._dkd import dkd
from kdscale.losses._fcfd_bridge import Bridge, fcfd_appearance
from kdscale.losses._fitnet import fitnet
from kdscale.losses._ft import Paraphraser, Translator, ft_factor
from kdscale.losses._gather import gather_batch
from kdscale.losses._ickd import ickd
from kdscale.losses._kd import kd
from kdscale.losses._ldrld import ldrld, ldrld_local, ldrld_rntk
from kdscale.losses._lskd import lskd_dkd, lskd_kd, lskd_mlld, standardise_logits
from kdscale.losses._method import Hyperparameter, Method, Needs, PairShapes, Reads, Term
from kdscale.losses._mgd import MGDGenerator, mgd
from kdscale.losses._mlld import (
    mlld,
    mlld_batch,
    mlld_batch_rows,
    mlld_class,
    mlld_class_rows,
    mlld_instance,
)
from kdscale.losses._nkd import nkd
from kdscale.losses._norm import norm
from kdscale.losses._normkd import normkd, normkd_dkd
from kdscale.losses._not_public import NOT_PUBLIC, NotPublic
from kdscale.losses._nst import nst
from kdscale.losses._ntce import ntce
from kdscale.losses._objective import Objective
from kdscale.losses._ofa import ofa
from kdscale.losses._ofd import ofd, ofd_margin
from kdscale.losses._pkt import pkt
from kdscale.losses._rcka import cka, rcka
from kdscale.losses._registry import METHODS
from kdscale.losses._reviewkd import ABF, hcl
from kdscale.losses._rkd import rkd
from kdscale.losses._rld import rld
from kdscale.losses._rsd import AAD, rsd
from kdscale.losses._schedule import Schedule, ScheduleKind
from kdscale.losses._sdd import sdd, sdd_regions
from kdscale.losses._semckd import CrossStageAttention
from kdscale.losses._simkd import simkd
from kdscale.losses._sp import sp
from kdscale.losses._sphericalkd import spherical_logits, sphericalkd, sphericalkd_script
from kdscale.losses._srrl import SRRLAdaptor, srrl
from kdscale.losses._tekap import tekap_logit
from kdscale.losses._term_config import TermConfig, common_hyperparameters
from kdscale.losses._ttm import ttm
from kdscale.losses._vid import VIDRegressor, vid
from kdscale.losses._wttm import wttm

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
    "ctkd",
    "ctkd_dkd",
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
    "lskd_dkd",
    "lskd_kd",
    "lskd_mlld",
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
    "ntce",
    "ofa",
    "ofd",
    "ofd_margin",
    "pkt",
    "rcka",
    "reversal_strength",
    "rkd",
    "rld",
    "rsd",
    "sdd",
    "sdd_regions",
    "simkd",
    "sp",
    "spherical_logits",
    "sphericalkd",
    "sphericalkd_script",
    "srrl",
    "standardise_logits",
    "tekap_logit",
    "ttm",
    "vid",
    "wttm",
]
