"""The router of a forest: whose its clusters are, and where it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from evomerge.app.ensembles import Ensemble, StoredRouter
from evomerge.app.worker.artifacts import folder_of
from evomerge.merging.forest.errors import RouterFileError
from evomerge.merging.forest.router import Router

ROUTER = "router"


class RoutingError(Exception):
    """A router cannot weigh the ELMs of a forest; `code` is a short name for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def clusters_of(ensemble: Ensemble, corpora: Sequence[str | None]) -> list[int | None]:
    """The cluster of each ELM, None for one that was trained on none.

    Args:
        corpora: content hash of what each ELM was trained on.

    Raises:
        RoutingError: the forest has no router, or a cluster has no ELM or several.
    """
    if ensemble.router is None:
        raise RoutingError("no_router", "the forest has no router: run a cluster job over it first")
    found = [ensemble.router.cluster_of(corpus) for corpus in corpora]
    for cluster in range(len(ensemble.router.clusters)):
        elms = found.count(cluster)
        if not elms:
            raise RoutingError(
                "cluster_without_elm",
                f"cluster {cluster} of the router has no ELM: train one by a branch_train job of "
                f'corpus {{"cluster": {cluster}}}',
            )
        if elms > 1:
            raise RoutingError(
                "cluster_with_several_elms",
                f"cluster {cluster} of the router has {elms} ELMs: take out all but one",
            )
    return found


def router_folder(data_dir: Path, stored: StoredRouter) -> Path:
    """Where the files of a router are."""
    return folder_of(data_dir, stored.job_id) / ROUTER


def router_hash(folder: Path) -> str:
    """SHA-256 over the files of a stored router. Raises OSError: one cannot be read."""
    whole = sha256()
    for file in sorted(folder.iterdir()):
        whole.update(file.name.encode() + b"\0" + sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def load_router(data_dir: Path, stored: StoredRouter) -> Router:
    """The router itself.

    Raises:
        RouterFileError: it cannot be read, or is another than was fitted.
    """
    folder = router_folder(data_dir, stored)
    try:
        found = router_hash(folder)
    except OSError as error:
        raise RouterFileError(folder, "has gone") from error
    if found != stored.content_hash:
        raise RouterFileError(folder, "has changed since it was fitted")
    return Router.load(folder)
