"""Listening ports are read from the kernel's table, not tried."""

from __future__ import annotations

import socket

from llamacluster.agent.listening import connections, is_in_use, is_listening


def test_a_socket_counts_from_listen_to_close() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert not is_listening("127.0.0.1", port)
        server.listen()
        assert is_listening("127.0.0.1", port)
        assert not is_listening("127.0.0.2", port)
    assert not is_listening("127.0.0.1", port)


def test_a_socket_on_all_addresses_listens_on_each() -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        assert is_listening("127.0.0.1", server.getsockname()[1])


def test_a_connection_counts_until_one_side_closes_it() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert connections(port) == 0
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            assert connections(port) == 1
        assert connections(port) == 0
        server.close()
        assert is_in_use(port)  # its answer may still be on the way to a client that said all
        accepted.close()
    assert not is_in_use(port)
