"""Which model a server serves, and one line for each way it can say no."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.backends.openai.client import Client, GaveUpError, RefusedError
from evalkit.backends.openai.wire import read_models
from evalkit.errors import ConfigError, ModelError
from evalkit.types import Json

_FIRST_CONTACT = 3  # tries before an address counts as wrong
_SHOWN = 10


@dataclass(frozen=True)
class Listing:
    """The model to ask for."""

    name: str
    reported: Mapping[str, Json]  # what the server says of it: no date, path or permission
    served: Sequence[str]  # all names it lists


async def find_model(client: Client, known_as: Sequence[str], named: str | None) -> Listing:
    """The model to ask for.

    named: backend.served_model; known_as: names it may go by where none is named.
    Raises ConfigError for a wrong address or key, ModelError for a model that is not served.
    """
    models = {model["id"]: model for model in await _models(client)}
    served = list(models)
    name = named or next((name for name in known_as if name in models), served[0] if len(served) == 1 else None)
    # A path names a checkpoint on the server's disk, which transformers serve reads without listing it.
    if name is None or (models and name not in models and not name.startswith("/")):
        raise ModelError(
            f"the server at {client.url} does not serve {named or ' or '.join(known_as)}: set backend.served_model to "
            f"one of {_shown(served)}"
            if served
            else f"the server at {client.url} does not list its models: set backend.served_model"
        )
    model = models.get(name, {})
    reported = {key: model[key] for key in ("id", "owned_by", "revision", "max_model_len", "meta") if model.get(key)}
    return Listing(name, reported, served)


async def _models(client: Client) -> list[dict[str, Any]]:
    try:
        return await client.get("models", read_models, attempts=_FIRST_CONTACT)
    except GaveUpError as error:
        if error.status in (500, 501):  # it does not list: transformers serve without a hub cache
            return []
        raise ConfigError(
            f"no OpenAI-compatible server answers at {client.url} ({error.what}): start it, or set backend.url"
        ) from None
    except RefusedError as error:
        if error.status in (404, 405):
            return []
        raise explain(error, client.url, Listing("", {}, [])) from None


def explain(error: RefusedError, url: str, listing: Listing) -> ConfigError | ModelError:
    """One line for what a server refuses."""
    if error.status in (401, 403):
        return ConfigError(
            f"the server at {url} refuses the key ({error}): set EVALKIT_API_KEY, or OPENAI_API_KEY, to one it takes"
        )
    if 300 <= error.status < 400:
        return ConfigError(f"{url} sends elsewhere ({error}): set backend.url to where the server is")
    if error.status == 404 and not listing.served:
        return ConfigError(
            f"no OpenAI-compatible server at {url} ({error}): set backend.url to what stands before /completions"
        )
    if error.status == 404:
        return ModelError(
            f"the server at {url} does not serve {listing.name} ({error}): set backend.served_model to one of "
            f"{_shown(listing.served)}"
        )
    return ModelError(f"the server at {url} refuses a request to {listing.name}: {error}")


def _shown(served: Sequence[str]) -> str:
    return ", ".join(served[:_SHOWN]) + (" …" if len(served) > _SHOWN else "")
