"""Where the server is, and the key that opens it."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from evalkit.errors import ConfigError

KEY_VARIABLES = ("EVALKIT_API_KEY", "OPENAI_API_KEY")  # the first that is set
_HIDDEN = "***"


class ApiKey:
    """A key that shows itself in no repr and no message."""

    __slots__ = ("_value", "source")

    def __init__(self, value: str, source: str) -> None:
        """source: the environment variable it was read from. Raises ConfigError where no header can carry it."""
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ConfigError(f"{source} holds characters that no HTTP header can carry: set it to the key alone")
        self._value = value
        self.source = source

    def __repr__(self) -> str:
        return f"ApiKey({_HIDDEN} from {self.source})"

    def header(self) -> dict[str, str]:
        """What a request carries."""
        return {"Authorization": f"Bearer {self._value}"}

    def hide(self, text: str) -> str:
        """`text` without the key: a server may quote it in its error."""
        return text.replace(self._value, _HIDDEN)


def key_of(environment: Mapping[str, str]) -> ApiKey | None:
    """The key that the environment holds; None where it holds none."""
    for name in KEY_VARIABLES:
        if value := environment.get(name, "").strip():
            return ApiKey(value, name)
    return None


def base_url(url: str) -> str:
    """The address below which `/completions` lies; `/v1` where none is named.

    Raises ConfigError for anything but an http address, and for one that holds credentials: it would be written to
    the manifest.
    """
    example = "such as http://localhost:8000/v1"
    try:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        port = parts.port  # raises for one that is no number
    except ValueError:
        raise ConfigError(f"backend.url is not an address: use one {example}") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"backend.url may hold no user, key or query, since it is written to the manifest: use an address "
            f"{example} and put the key into {KEY_VARIABLES[0]}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f"backend.url={url!r} is not an http address: use one {example}")
    path = parts.path.rstrip("/").removesuffix("/completions")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"
