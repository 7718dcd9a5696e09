"""Items in token ids, where they are known; what the server cannot do or take is refused here."""

from collections.abc import Sequence
from dataclasses import dataclass

from evalkit.backends.base import Item
from evalkit.backends.openai.listing import Listing
from evalkit.backends.openai.probe import Capabilities
from evalkit.backends.openai.tokens import Tokens
from evalkit.errors import ModelError
from evalkit.models.continuations import (
    EncodedChoices,
    EncodedPrompt,
    encode_choice_requests,
    encode_generate_requests,
)
from evalkit.types import GenerateRequest, LoglikelihoodRequest, Request


@dataclass(frozen=True)
class Question:
    """An item, in token ids where they are known."""

    id: str
    request: Request
    encoded: EncodedChoices | EncodedPrompt | None


@dataclass(frozen=True)
class Server:
    """What was found out about the server."""

    listing: Listing
    can: Capabilities
    tokens: Tokens | None
    max_length: int | None  # tokens, prompt and continuation together


def encode(items: Sequence[Item], server: Server, url: str) -> list[Question]:
    """Every item in token ids, where they are known; what the server cannot do or take is refused here."""
    _refuse_beyond_completions(items, url)
    choices = [request for _, request in items if isinstance(request, LoglikelihoodRequest)]
    prompts = [request for _, request in items if isinstance(request, GenerateRequest)]
    if choices and not server.can.routes:
        raise ModelError(
            f"the server at {url} cannot score the choices of this task with {server.can.model}: {server.can.why_not}"
        )
    if server.tokens is None:
        _refuse_unknown_truncation(items)
        return [Question(name, request, None) for name, request in items]
    encoded_choices = iter(encode_choice_requests(server.tokens.tokenizer, choices))
    encoded_prompts = iter(encode_generate_requests(server.tokens.tokenizer, prompts))
    questions = [
        Question(n, r, next(encoded_choices) if isinstance(r, LoglikelihoodRequest) else next(encoded_prompts))
        for n, r in items
    ]
    for question in questions:
        _refuse_too_long(question, server)
    return questions


def text_of(question: Question, server: Server) -> str:
    """The prompt for a server that takes texts. Raises ModelError where a truncated one is none."""
    encoded = question.encoded
    if encoded is None or server.can.takes_ids or not encoded.truncated:
        return question.request.prompt
    text = server.tokens.text_of(encoded.prompt_ids) if server.tokens else None
    if text is None:
        raise ModelError(
            f"{question.id}: the truncated prompt is no text of its own, and the server takes no token ids: serve "
            f"the model with one that does, such as vLLM or llama-server"
        )
    return text


def _refuse_beyond_completions(items: Sequence[Item], url: str) -> None:
    """The server itself decides what ends a text, and it takes texts as they stand."""
    for name, request in items:
        wanted = {"a chat template": bool(request.turns)}
        if isinstance(request, LoglikelihoodRequest):
            wanted |= {"white space moved into the choices": request.seam != "prompt"}
            wanted |= {"choices without their last token": not request.last_token}
        else:
            wanted |= {"a text without its last token": request.without_last}
            wanted |= {f"texts that end with {', '.join(request.end_of_text)} alone": bool(request.end_of_text)}
        if asked := [what for what, is_wanted in wanted.items() if is_wanted]:
            raise ModelError(
                f"{name} asks for {asked[0]}, which the server at {url} is not asked for here; use backend=engine"
            )


def _refuse_unknown_truncation(items: Sequence[Item]) -> None:
    """A token is at least one byte, so a short prompt needs no tokenizer to be known as short."""
    for name, request in items:
        rule = request.truncation
        if rule is not None and len(request.prompt.encode("utf-8", "surrogatepass")) >= rule.longer_than:
            raise ModelError(
                f"{name}: the protocol truncates prompts of more than {rule.longer_than:,} tokens, but the server "
                f"tells no token ids: set backend.tokenizer to the model's folder, .gguf file or hub id"
            )


def _refuse_too_long(question: Question, server: Server) -> None:
    encoded = question.encoded
    if encoded is None or server.max_length is None:
        return
    longest = len(encoded.prompt_ids)
    if isinstance(encoded, EncodedChoices):
        longest = max(n + len(ids) for n, ids in zip(encoded.context_lengths, encoded.continuation_ids, strict=True))
    if longest > server.max_length:
        raise ModelError(f"{question.id}: {longest} tokens, but the server takes {server.max_length} at most")
