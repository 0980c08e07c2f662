"""With this folder on PYTHONPATH every attempt to leave the machine fails, and is written down."""

import os
import socket

LOCAL = {None, "", b"", "localhost", "0.0.0.0", "::", "::1", socket.gethostname()}
connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo


def local(host):
    host = host.decode() if isinstance(host, bytes) else host
    return host in LOCAL or str(host).startswith("127.")


def refuse(host):
    with open(os.environ["OFFLINE_LOG"], "a") as log:
        log.write(f"{host}\n")
    raise OSError(101, "Network is unreachable")


def guarded_connect(self, address):
    network = self.family in (socket.AF_INET, socket.AF_INET6) and self.type & socket.SOCK_STREAM
    return refuse(address[0]) if network and not local(address[0]) else connect(self, address)


def guarded_getaddrinfo(host, *args, **options):
    return getaddrinfo(host, *args, **options) if local(host) else refuse(host)


socket.socket.connect, socket.getaddrinfo = guarded_connect, guarded_getaddrinfo
