"""How the ranks of the learner find each other.

On one machine through a file that only this user can read: nothing listens.  On several, rank 0 listens at its
machine's address in the cluster, and not on other interfaces.  The place and a secret that all keys begin with travel
through Ray, which checks its token.  The store itself checks nothing, nor do gloo's and NCCL's connections: whoever
reaches the port can disturb the ranks, so that the machines of a cluster belong into a network of their own.
"""

from __future__ import annotations

import secrets
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Rendezvous:
    """`path`: a file on the one machine of all ranks; else `host` and `port`, where rank 0 listens."""

    path: str = ""
    host: str = ""
    port: int = 0
    secret: str = ""


def open_rendezvous() -> tuple[Rendezvous, socket.socket | None]:
    """Called by rank 0 in its Ray actor: the place, and the socket that listens there already (`join` wants it)."""
    import ray

    host = ray.util.get_node_ip_address()
    if host == LOOPBACK:
        return Rendezvous(path=str(Path(tempfile.mkdtemp(prefix="ranks-")) / "store")), None
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.bind((host, 0))
    listener.listen(2048)
    return Rendezvous(host=host, port=listener.getsockname()[1], secret=secrets.token_hex(16)), listener


def join(
    where: Rendezvous | tuple[str, int], rank: int, ranks: int, backend: str, listener: socket.socket | None = None
) -> None:
    """Make torch's default process group, unless there is one.  Collective.  `where` may be a bare (host, port)."""
    if dist.is_initialized():
        return
    if not isinstance(where, Rendezvous):
        where = Rendezvous(host=where[0], port=where[1])
    store: dist.Store
    if where.path:
        store = dist.FileStore(where.path, ranks)
    else:
        if rank == 0 and listener is None:
            listener = socket.create_server((where.host, where.port))
        # libuv's server takes no descriptor that is not non-blocking; torch sets that itself.
        fd = listener.detach() if rank == 0 and listener is not None else None
        store = dist.TCPStore(where.host, where.port, ranks, is_master=rank == 0, master_listen_fd=fd)
        store = dist.PrefixStore(where.secret, store) if where.secret else store
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks)
