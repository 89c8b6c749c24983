"""A module by its name or its file, as part of the package that it stands in."""

import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from itertools import takewhile
from pathlib import Path
from traceback import walk_tb
from types import ModuleType

from dscalc.errors import DscalcError
from dscalc.inputs.model_file import no_such_file
from dscalc.pytorch.user_errors import (
    USER_ERRORS,
    error_in_words,
    failure_of,
    is_users,
    other_version,
)
from dscalc.show import did_you_mean, message_of, quoted

_STANDS_IN = "stands in for a package"
_RELATIVE = re.compile(rb"^[ \t]*from\s+(\.+)", re.M)


def imported(name: str) -> ModuleType:
    """Import a module by its dotted name or by its path.

    Raises:
        DscalcError: there is none, or its code fails.
    """
    path = Path(name)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise no_such_file(path)
    if not is_file and (name.startswith(".") or {"/", "\\"} & set(name)):
        raise DscalcError(f"there is no module {quoted(name)} here; {_near_modules(name, name)}")
    _first_on_path(Path.cwd())  # as python -m does
    importlib.invalidate_caches()
    try:
        module = _from_file(path.absolute()) if is_file else importlib.import_module(name)
    except USER_ERRORS as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            if not is_file and error.name and f"{name}.".startswith(f"{error.name}."):
                hint = _near_modules(name, error.name)
                raise DscalcError(f"there is no module {quoted(name)} here; {hint}") from error
            hint = other_version(error) or "; install it, or run dscalc in its folder"
        elif isinstance(error, SystemExit):
            hint = "; put the code that it runs under if __name__ == '__main__':"
        elif "no known parent package" in message_of(error):
            hint = "; add an empty __init__.py beside it to make the folder a package"
        raise failure_of(f"importing {name}", error, hint) from error
    if is_file and not (module.__file__ and path.samefile(module.__file__)):
        raise DscalcError(
            f"{name} is {module.__name__}, but another module of that name is already "
            f"imported ({module.__file__}); rename its package"
        )
    return module


def _from_file(file: Path) -> ModuleType:
    """Import a file as part of its package, if it has one, so that it can import its siblings.

    An empty module stands for a package whose own code cannot be imported, and for a folder without
    ``__init__.py`` that the file imports from.
    """
    folders = _packages_around(file)
    _first_on_path(folders[0].parent if folders else file.parent)
    if not folders or "." in file.stem:
        return _from_lone_file(file)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last: its files are the package's modules
    parts = [folder.name.replace(".", "_") for folder in folders]
    packages = {".".join(parts[:n]): folder for n, folder in enumerate(folders, 1)}
    for package, folder in packages.items():
        _forget_another(package, folder)
        if not (folder / "__init__.py").is_file():
            _stand_in(package, folder)
    name = ".".join([*parts, file.stem]).removesuffix(".__init__")
    failed: dict[str, BaseException] = {}
    while True:
        try:
            module = importlib.import_module(name)
        except USER_ERRORS as error:
            unknown = next((package for package in packages if package not in sys.modules), None)
            if unknown is None or _comes_from(file, error):
                for package in failed:
                    sys.modules.pop(package, None)
                raise next(iter(failed.values()), error) from None
            failed[unknown] = error
            _stand_in(unknown, packages[unknown])
        else:
            for package, reason in failed.items():
                sys.stderr.write(
                    f"note: {package} cannot be imported ({error_in_words(reason)}); {file.name} "
                    "is loaded without it\n"
                )
            return module


def _packages_around(file: Path) -> list[Path]:
    """The folders that a file takes part in as a package, the outermost first."""

    def is_package(folder: Path) -> bool:
        return (folder / "__init__.py").is_file() and "." not in folder.name

    folders: Sequence[Path] = [*takewhile(is_package, file.parents)]
    up = max(map(len, _RELATIVE.findall(file.read_bytes())), default=0)
    if up > len(folders):
        inside = [folder for folder in file.parents if Path.cwd() in folder.parents]
        folders = file.parents[: max(up, len(inside))]
    return [folder for folder in reversed(folders) if folder.name]


def _comes_from(file: Path, error: BaseException) -> bool:
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return True
    return any(frame.f_code.co_filename == str(file) for frame, _ in walk_tb(error.__traceback__))


def _stand_in(package: str, folder: Path) -> None:
    """Have an empty package stand for a folder, if none does already."""
    spec = ModuleSpec(package, None, origin=_STANDS_IN, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules.setdefault(package, importlib.util.module_from_spec(spec))


def _forget_another(package: str, folder: Path) -> None:
    """Forget what stands for another folder of that name, with the modules in it."""
    known = sys.modules.get(package)
    stands_in = known and getattr(known.__spec__, "origin", "") == _STANDS_IN
    if known and stands_in and str(folder) not in known.__path__:
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
            del sys.modules[name]


def _from_lone_file(file: Path) -> ModuleType:
    known = sys.modules.get(file.stem)
    place = getattr(known, "__file__", None)
    if known and place == str(file):
        return known
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if not known or is_users(place or ""):  # torch needs the standard random.py
        sys.modules[file.stem] = module  # as import does: code may look itself up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if sys.modules.get(file.stem) is module:
            del sys.modules[file.stem]
        raise
    return module


def _first_on_path(folder: Path) -> None:
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]


def _near_modules(name: str, missing: str) -> str:
    if Path(f"{name}.py").is_file():
        return f"did you mean the file {name}.py?"
    parent = missing.rpartition(".")[0]
    places = getattr(sys.modules.get(parent), "__path__", []) if parent else None
    beside = [
        f"{parent}.{module.name}" if parent else module.name
        for module in pkgutil.iter_modules(places)
    ]
    otherwise = "install it, or give a file with its ending, such as mymodels.py:Net"
    return did_you_mean(missing, beside, otherwise, cutoff=0.75)
