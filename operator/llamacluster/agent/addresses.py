"""Which addresses a model may be downloaded from: none that only the node or the cloud should be
asked at.

Private ranges are allowed: mirrors of models live there.
"""

from __future__ import annotations

import ipaddress
import socket

from llamacluster.planning.reasons import GroupError, Reason

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = tuple(
    map(
        ipaddress.ip_network,
        # Services of clouds outside of link-local: AWS, Azure, Alibaba (2), Oracle (2), Google,
        # Scaleway, Linode.
        (
            *("fd00:ec2::/32", "168.63.129.16", "100.100.100.200", "fd00:100::100:200"),
            *("192.0.0.192", "fd00:c1::a9fe:a9fe", "fd20:ce::254", "fd00:42::42"),
            "fd00:a9fe:a9fe::/48",
        ),
    )
)
# NAT64 (well-known and local) and SIIT. Of the local one, which a network divides as it likes, the
# longest prefix is taken: the address is in the last 32 bits.
_TRANSLATED = tuple(
    map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96"))
)
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")


def why_forbidden(text: str) -> str | None:
    """What is wrong with connecting to an IP address; None if nothing is."""
    address = _meant(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local or any(address in network for network in _METADATA):
        return "a link-local address or a cloud's metadata service"
    if address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        return "a multicast address"
    if address.is_unspecified or (address.version == 4 and address in _THIS_NETWORK):
        return "no address of a host"
    return None


def _meant(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    low = int(address) & 0xFFFFFFFF
    is_translated = any(address in network for network in _TRANSLATED)
    if is_translated or (int(address) >> 32 == 0 and low > 1):  # the latter: ::a.b.c.d
        return ipaddress.IPv4Address(low)
    return address


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """A connection to one of the host's addresses that are allowed. The name is looked up once, so
    that no second answer of the DNS can lead elsewhere.

    Raises OSError, and GroupError if no address of it is allowed.
    """
    why: str | None = None
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        if forbidden := why_forbidden(str(address[0])):
            why = f"{host} is {address[0]}, {forbidden}"
            continue
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(seconds)
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    if failure is None and why is not None:
        raise GroupError(
            Reason.ModelDownloadFailed,
            f"{why}: nothing is downloaded from there unless model.allowLocalAddresses is true",
        )
    raise failure or OSError(f"{host} has no address")
