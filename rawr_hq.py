"""What this HQ is made of. The host mounts what the manifest holds, and nothing else."""

from pathlib import Path

from rawr.hq import Manifest, compose


def manifest(root: Path) -> Manifest:
    """Everything in plugins/. Return a narrower Manifest to leave parts out."""
    return compose(root)
