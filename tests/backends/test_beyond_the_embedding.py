"""An id without a row in the embedding is one line that names the token, not an IndexError."""

import json
from pathlib import Path

import pytest
from tiny_models import make_checkpoint

from evalkit.backends.engine import EngineBackend
from evalkit.backends.reference import ReferenceBackend
from evalkit.errors import ModelError
from evalkit.models.spec import ModelSpec
from evalkit.types import GenerateRequest, LoglikelihoodRequest, Request


@pytest.mark.parametrize("backend", [EngineBackend, ReferenceBackend])
@pytest.mark.parametrize(
    "request_", [LoglikelihoodRequest("Answer:", (" A", "<far>")), GenerateRequest("An <far>:", (), 3)]
)
def test_it_names_the_question_and_the_token(
    backend: type[EngineBackend] | type[ReferenceBackend], request_: Request, tmp_path: Path
) -> None:
    folder = make_checkpoint("gpt_neox", tmp_path, vocab_size=480)
    (folder / "added_tokens.json").write_text(json.dumps({"<far>": 480}))
    spec = ModelSpec("tiny", str(folder), dtype="float32", device="cpu")
    with pytest.raises(ModelError, match=r"q/1: the tokenizer makes the token '<far>', id 480, but .* 480 tokens only"):
        list(backend(spec).answer([("q/1", request_)]))
