"""Something done when a library is imported, by whoever imports it: at no cost to those who do not."""

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Waiting(MetaPathFinder):
    """Finds one library as everyone else does, and calls a function when it has been executed."""

    def __init__(self, library: str, then: Callable[[], None]) -> None:
        self.library, self.then = library, then

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.library:
            return None
        sys.meta_path.remove(self)  # from here on it is found without this
        spec = importlib.util.find_spec(name)
        loader: Any = spec.loader if spec else None
        if loader is None:
            return spec
        execute = loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            self.then()

        loader.exec_module = executed
        return spec


def call_with(library: str, then: Callable[[], None]) -> None:
    """Call a function as soon as ``library`` is imported; now, if it is already."""
    if library in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Waiting(library, then))
