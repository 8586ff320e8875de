"""Modules imported when a library is, by whoever imports it: at no cost to those who do not."""

import importlib.util
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Waiting(MetaPathFinder):
    """Finds one library as everyone else does, and imports some modules when it has been executed."""

    def __init__(self, library: str, modules: tuple[str, ...]) -> None:
        self.library, self.modules = library, modules

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
            _import(self.modules)

        loader.exec_module = executed
        return spec


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        import_module(module)


def import_with(library: str, *modules: str) -> None:
    """Import ``modules`` as soon as ``library`` is imported; now, if it is already."""
    if library in sys.modules:
        _import(modules)
    else:
        sys.meta_path.insert(0, _Waiting(library, modules))
