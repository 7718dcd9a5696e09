"""What a dotted name stands for: a function or a class in a module of one's own."""

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from evalkit.errors import ConfigError
from evalkit.plugins import let_modules_be_imported

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def looks_named(text: str) -> bool:
    """Whether a text could be a dotted name, "module.function"."""
    return bool(_DOTTED.fullmatch(text))


def function_named(dotted: str) -> Any:
    """The function or class of that name. Raises ConfigError where it cannot be imported, or cannot be called."""
    let_modules_be_imported()
    module, _, name = dotted.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"{dotted} cannot be imported ({error}); put its module beside configs/ in a folder of EVALKIT_PATH, "
            f"or install its package"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"{dotted}: the module {module} has no {name}") from error
    except Exception as error:  # whatever a module of one's own may raise
        raise ConfigError(f"{dotted}: importing {module} fails: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{dotted} is a {type(found).__name__}, where a function is wanted")
    return found


def own_function(dotted: str, *kinds: type) -> Callable[..., Any]:
    """The function of that name; one that fails, or returns none of the kinds, raises ConfigError."""
    found = function_named(dotted)

    def call(*arguments: Any) -> Any:
        try:
            result = found(*arguments)
        except Exception as error:  # whatever a function of one's own may raise
            raise ConfigError(f"{dotted} fails: {type(error).__name__}: {error}") from error
        if not isinstance(result, kinds):
            wanted = ", ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
            raise ConfigError(f"{dotted} returns a {type(result).__name__}; return one of: {wanted}")
        return result

    return call
