"""Briefs a person on a git repository. What this module names is what the plugin offers to its instance."""

from .activity import activity
from .dependencies import dependencies
from .inventory import inventory
from .review import assemble, review
from .scope import scope
from .workflow import REPO_BRIEFING
from .write import write

workflows = (REPO_BRIEFING,)

__all__ = ["activity", "assemble", "dependencies", "inventory", "review", "scope", "workflows", "write"]
