"""The network interface by which a worker's node is known to the cluster."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import MutableMapping

_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_GET_ADDRESS = 0x8915  # SIOCGIFADDR of Linux
_REQUEST_BYTES = 256


def choose_interface(address: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes workers talk over the interface with this address, unless the user has named one.

    By itself gloo takes the interface that the host's name resolves to. On many hosts that is
    loopback, and workers on others wait for it in vain.

    Args:
        address: The node's IPv4 address.
        environment: Where the variables go that gloo and NCCL read.
    """
    name = interface_with(address)
    if name is not None:
        for variable in _VARIABLES:
            environment.setdefault(variable, name)


def interface_with(address: str) -> str | None:
    """Returns the name of this host's interface with an IPv4 address, None if there is none."""
    try:
        wanted = socket.inet_aton(address)
    except OSError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = struct.pack(f"{_REQUEST_BYTES}s", name.encode())
            try:
                answer = fcntl.ioctl(asking, _GET_ADDRESS, request)
            except OSError:  # it has no address
                continue
            if answer[20:24] == wanted:
                return name
    return None
