from __future__ import annotations

import socket

from kdscale.search._interface import choose_interface, interface_with


def test_loopback_is_found_by_its_address() -> None:
    assert interface_with("127.0.0.1") == "lo"


def test_an_address_of_no_interface_here_is_not_found() -> None:
    assert interface_with("192.0.2.1") is None
    assert interface_with("2001:db8::1") is None
    assert interface_with(socket.gethostname() + " is no address") is None


def test_gloo_and_nccl_are_told() -> None:
    environment: dict[str, str] = {}
    choose_interface("127.0.0.1", environment)
    assert environment == {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


def test_what_the_user_has_set_stays() -> None:
    environment = {"NCCL_SOCKET_IFNAME": "ib0"}
    choose_interface("127.0.0.1", environment)
    assert environment == {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "ib0"}


def test_an_unknown_address_sets_nothing() -> None:
    environment: dict[str, str] = {}
    choose_interface("192.0.2.1", environment)
    assert environment == {}
