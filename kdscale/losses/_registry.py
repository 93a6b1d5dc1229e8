"""The registry: every method by the name that study files use."""

from __future__ import annotations

from kdscale.losses._ab import AB
from kdscale.losses._at import AT
from kdscale.losses._cat_kd import CAT_KD
from kdscale.losses._cc import CC
from kdscale.losses._cckd import CCKD
from kdscale.losses._crd import CRD
from kdscale.losses._crld import CRLD
from kdscale.losses._ctkd import CTKD
from kdscale.losses._diffkd import DIFFKD
from kdscale.losses._dist import DIST
from kdscale.losses._dkd import DKD
from kdscale.losses._fcfd import FCFD
from kdscale.losses._fitnet import FITNET
from kdscale.losses._ft import FT
from kdscale.losses._ickd import ICKD
from kdscale.losses._kd import KD
from kdscale.losses._ldrld import LDRLD
from kdscale.losses._lskd import LSKD
from kdscale.losses._method import Method
from kdscale.losses._mgd import MGD
from kdscale.losses._mlld import MLLD
from kdscale.losses._nkd import NKD
from kdscale.losses._norm import NORM
from kdscale.losses._normkd import NORMKD
from kdscale.losses._nst import NST
from kdscale.losses._ntce import NTCE
from kdscale.losses._ofa import OFA
from kdscale.losses._ofa_rsd import OFA_RSD
from kdscale.losses._ofd import OFD
from kdscale.losses._pkt import PKT
from kdscale.losses._rcka import RCKA
from kdscale.losses._reviewkd import REVIEWKD
from kdscale.losses._rkd import RKD
from kdscale.losses._rld import RLD
from kdscale.losses._rsd import RSD
from kdscale.losses._sdd import SDD
from kdscale.losses._semckd import SEMCKD
from kdscale.losses._simkd import SIMKD
from kdscale.losses._sp import SP
from kdscale.losses._sphericalkd import SPHERICALKD
from kdscale.losses._srrl import SRRL
from kdscale.losses._tekap import TEKAP
from kdscale.losses._ttm import TTM
from kdscale.losses._vid import VID
from kdscale.losses._wttm import WTTM
from kdscale.losses.dense import DENSE_METHODS

METHODS: dict[str, Method] = {
    # On logits.
    "kd": KD,
    "dkd": DKD,
    "nkd": NKD,
    "ttm": TTM,
    "wttm": WTTM,
    "normkd": NORMKD,
    "sphericalkd": SPHERICALKD,
    "lskd": LSKD,
    "ctkd": CTKD,
    "dist": DIST,
    "ldrld": LDRLD,
    "rld": RLD,
    "ntce": NTCE,
    "sdd": SDD,
    "mlld": MLLD,
    "crld": CRLD,
    "tekap": TEKAP,
    "rcka": RCKA,
    # On features.
    "fitnet": FITNET,
    "at": AT,
    "vid": VID,
    "nst": NST,
    "ft": FT,
    "ab": AB,
    "ofd": OFD,
    "ickd": ICKD,
    "mgd": MGD,
    "reviewkd": REVIEWKD,
    "fcfd": FCFD,
    "diffkd": DIFFKD,
    "srrl": SRRL,
    "simkd": SIMKD,
    "cat_kd": CAT_KD,
    "norm": NORM,
    "ofa": OFA,
    "ofa_rsd": OFA_RSD,
    # On relations between images.
    "rsd": RSD,
    "sp": SP,
    "cc": CC,
    "cckd": CCKD,
    "pkt": PKT,
    "rkd": RKD,
    "crd": CRD,
    "semckd": SEMCKD,
    # On maps of logits, for dense prediction.
    **DENSE_METHODS,
}
"""Every method by the name that study files use."""
