"""Files beyond this machine: remote folders, what carries files there, and full disks."""

from kdscale.files._disk import (
    DISK_FULL,
    DiskFullError,
    disk_full,
    free_bytes,
    size_text,
    told_when_full,
)
from kdscale.files._mirror import Mirror, patiently, pauses
from kdscale.files._remote import Remote, uri_problem

__all__ = [
    "DISK_FULL",
    "DiskFullError",
    "Mirror",
    "Remote",
    "disk_full",
    "free_bytes",
    "patiently",
    "pauses",
    "size_text",
    "told_when_full",
    "uri_problem",
]
