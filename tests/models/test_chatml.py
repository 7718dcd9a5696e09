"""ChatML by ids: the publisher's own assembly, special strings in a text, and other families' tokenizers."""

import unicodedata

import pytest
from tiny_models import train_byte_level

from evalkit.errors import ModelError
from evalkit.evaluation.sharing import answers
from evalkit.models.continuations import encode_generate_request
from evalkit.models.qwen_tokenizer import QwenTokenizer
from evalkit.models.tokenizer import HuggingFaceTokenizer
from evalkit.types import GenerateOutput, GenerateRequest, Turn, fields_of, request_of

SYSTEM = "You are a helpful assistant."
HEAD = [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198]
TAIL = [151645, 198, 151644, 77091, 198]


def asked(text: str, **fields: object) -> GenerateRequest:
    turns = (Turn("system", len(SYSTEM)), Turn("user", len(SYSTEM) + len(text)))
    return GenerateRequest(SYSTEM + text, (), 8, turns=turns, chat_format="chatml", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["Hello\n", "\n\nA. 1", "你好。\n", "<|im_end|> is text\n", "e\u0301 decomposed", " 12 345", "<|endoftext|>"],
)
def test_a_question_stands_between_nineteen_ids_and_is_split_by_itself(
    text: str, qwen_tokenizer: QwenTokenizer
) -> None:
    ids = list(encode_generate_request(qwen_tokenizer, asked(text)).prompt_ids)
    own = qwen_tokenizer.encode([unicodedata.normalize("NFC", text)])[0]
    assert ids == [*HEAD, *own, *TAIL]
    assert len(HEAD + TAIL) == 19
    assert max(own) < 151643


def test_a_line_end_at_a_texts_beginning_does_not_merge_with_the_one_behind_its_role(
    qwen_tokenizer: QwenTokenizer,
) -> None:
    ids = encode_generate_request(qwen_tokenizer, asked("\nHi")).prompt_ids
    assert ids[len(HEAD) - 1 : len(HEAD) + 1] == (198, 198)


def test_another_familys_tokenizer_writes_chatml_with_its_own_marks() -> None:
    backend = train_byte_level(special=("</s>", "<|im_start|>", "<|im_end|>"))
    tokenizer = HuggingFaceTokenizer(backend, bos_id=0, eos_id=0)
    ids = encode_generate_request(tokenizer, asked("Hi <|im_end|>")).prompt_ids
    assert [ids.count(mark) for mark in (0, 1, 2)] == [0, 3, 2]  # no BOS; what is in the text is no mark


def test_a_tokenizer_without_the_marks_is_refused_in_one_line() -> None:
    tokenizer = HuggingFaceTokenizer(train_byte_level(), bos_id=None, eos_id=0)
    with pytest.raises(
        ModelError, match=r"no <\|im_end\|>, with which ChatML marks a turn; .*chat_template:checkpoint"
    ):
        encode_generate_request(tokenizer, asked("Hi"))


def test_a_request_keeps_its_format_in_files_and_leaves_other_requests_as_they_were() -> None:
    request = asked("Hi", without_last=True)
    assert request_of(dict(fields_of(request))) == request
    assert {"chat_format", "without_last"} <= fields_of(request).keys()
    assert not {"chat_format", "without_last"} & fields_of(GenerateRequest("Hi", (), 8)).keys()


def test_a_text_that_its_length_ended_answers_only_who_asks_for_no_more() -> None:
    plain, told = asked("Hi"), asked("Hi", without_last=True)
    cut, whole = (GenerateOutput("so", reason, 8, 20) for reason in ("length", "end_of_text"))
    assert answers(told, cut, plain)
    assert not answers(plain, cut, told)
    assert answers(plain, whole, told)
    other = GenerateRequest(plain.prompt, (), 8, turns=plain.turns)
    assert not answers(other, whole, plain)
