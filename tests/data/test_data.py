"""Datasets in local files, against the arrays that were written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from bnoise_cli.data import Arrays, ImageFolder, TextFile, Texts, TokenFile, Windows, padded, returned_loss
from tests.cases import Call, Write


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize(("context", "stride"), [(4, None), (4, 1), (7, 3), (99, None)])
def test_windows_of_a_token_file(write: Write, dtype: Any, context: int, stride: int | None) -> None:
    """Every window, and the token after it, is where the file has it."""
    ids = np.random.default_rng(0).integers(0, 60_000, 100)
    ids.astype(dtype).tofile("train.bin")
    data: Any = TokenFile("train.bin", context, dtype, stride)
    step = stride or context
    starts = [start for start in range(0, 100, step) if start + context + 1 <= 100]
    assert len(data) == len(starts)
    for i, start in enumerate(starts):
        x, y = data[i]
        assert x.dtype == y.dtype == torch.int64
        assert x.tolist() == ids[start : start + context].tolist()
        assert y.tolist() == ids[start + 1 : start + context + 1].tolist()
    several = data.__getitems__([len(starts) - 1, 0])
    assert torch.equal(several[1][0], data[0][0])
    assert isinstance(data.tokens, np.memmap), "never read as a whole"


def test_the_form_of_transformers_has_labels_that_its_models_shift() -> None:
    data: Any = Windows(np.arange(10), 5, form="transformers")
    assert len(data) == 2
    batch = default_collate(data.__getitems__([0, 1]))
    assert batch["input_ids"].tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert torch.equal(batch["labels"], batch["input_ids"])


def test_text_is_bytes(write: Write) -> None:
    write("t.txt", "Größe ab")
    text: Any = TextFile("t.txt", 9)
    x, y = text[0]
    assert bytes(x.tolist()) + bytes(y.tolist()[-1:]) == "Größe ab".encode()


def test_text_by_a_tokenizer_file(write: Write) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 5, "b": 7, "?": 0}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save("tokenizer.json")
    write("t.txt", "a b a c b")
    text: Any = TextFile("t.txt", 4, "tokenizer.json")
    x, y = text[0]
    assert x.tolist() + y.tolist()[-1:] == [5, 7, 5, 0, 7]


def test_arrays_of_every_kind_are_the_same_examples(write: Write) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((6, 3)), generator.integers(0, 9, 6).astype(np.uint16)
    np.save("x.npy", x)
    np.save("y.npy", y)
    np.savez("both.npz", x=x, y=y, other=np.zeros(2))
    for data in (Arrays(["x.npy", "y.npy"]), Arrays("both.npz", ["x", "y"])):
        same_examples(data, x, y)


def test_arrays_of_safetensors(write: Write) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    x, y = torch.randn(6, 3), torch.arange(6)
    safetensors.save_file({"x": x, "y": y}, "both.safetensors")
    same_examples(Arrays("both.safetensors"), x.numpy(), y.numpy())


def same_examples(data: Arrays, x: Any, y: Any) -> None:
    assert len(data) == len(x)
    for i in range(len(x)):
        assert torch.equal(data[i][0], torch.tensor(x[i], dtype=torch.float32))
        assert data[i][1].dtype == torch.int64
        assert int(data[i][1]) == y[i]


def test_other_content_has_another_hash(write: Write) -> None:
    np.arange(3_000_000, dtype=np.uint16).tofile("a.bin")
    before = TokenFile("a.bin", 8).content_hash
    assert TokenFile("a.bin", 16).content_hash == before
    with Path("a.bin").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00")
    assert TokenFile("a.bin", 8).content_hash != before


@pytest.mark.parametrize(("make", "words"), [
    (lambda: TokenFile("no.bin", 4), "a file of token ids is needed at {here}/no.bin; there is none"),
    (lambda: TextFile("no.txt", 4), "a file of text is needed at {here}/no.txt"),
    (lambda: TextFile("odd.bin", 1, "no.json"), "a file of a tokenizer is needed at {here}/no.json"),
    (lambda: Arrays(["no.npy"]), "a file of arrays is needed at {here}/no.npy"),
    (lambda: TokenFile("odd.bin", 4), "has 3 bytes, which are no whole number of uint16"),
    (lambda: TokenFile("even.bin", 4, cast(Any, "int8")), "`dtype` must be uint16 or uint32; found 'int8'"),
    (lambda: TokenFile("even.bin", 2), "a window of 2 tokens is needed; found 2 tokens in all"),
    (lambda: TokenFile("even.bin", 0), "must be at least 1; found 0"),
    (lambda: TokenFile("even.bin", 1, form=cast(Any, "x")), "`form` must be pair or transformers; found 'x'"),
    (lambda: Arrays("odd.bin"), "a file ending in .npy, .npz or .safetensors is needed"),
    (lambda: Arrays(["a.npz", "odd.bin"]), "several files must be .npy"),
    (lambda: Arrays("a.npz"), "arrays of one length are needed; found {{'x': 2, 'y': 3}}"),
    (lambda: Arrays("a.npz", ["z"]), "has no z; it has x, y"),
])  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(write: Write, make: Callable[[], Any], words: str) -> None:
    Path("odd.bin").write_bytes(b"abc")
    Path("even.bin").write_bytes(b"abcd")
    np.savez("a.npz", x=np.zeros(2), y=np.zeros(3))
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words.format(here=Path.cwd()))):
        make()


def test_arrays_with_objects_are_never_unpickled(write: Write) -> None:
    np.save("x.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Arrays(["x.npy"])


@pytest.mark.full
def test_a_token_file_is_probed_from_yaml_alone(bnoise: Call, write: Write) -> None:
    generator = np.random.default_rng(0)
    generator.choice(256, 20_000, p=generator.dirichlet(np.ones(256) * 0.1)).astype(np.uint16).tofile(
        "train.bin"
    )
    write("c.yaml", """\
version: 1
model: {_target_: bnoise_cli.examples.models.ByteGPT, layers: 1, width: 16, heads: 2, context: 16}
dataset: {_target_: bnoise_cli.data.TokenFile, path: train.bin, context: 16, stride: 1}
loss: {_target_: torch.nn.CrossEntropyLoss}
optimizer: {_target_: torch.optim.SGD, lr: 0.1}
probe: {warmup_steps: 20, max_examples: 3000}
""")  # fmt: skip
    code, out, err = bnoise("probe", "c.yaml", "--json")
    assert code in (0, 3), err
    provenance = json.loads(out)["provenance"]
    assert provenance["dataset_length"] == 20_000 - 16
    assert provenance["dataset_hash"]
    code, _, err = bnoise("probe", "c.yaml", "--set", "dataset.path=no.bin")
    assert code == 4
    assert f"a file of token ids is needed at {Path.cwd()}/no.bin" in err


def test_texts_are_padded_and_masked(write: Write) -> None:
    data = Texts(["abc", {"text": "defgh"}], context=4)
    assert len(data) == 2
    batch = padded([data[0], data[1]])
    assert batch["input_ids"].tolist() == [[97, 98, 99, 0], [100, 101, 102, 103]]
    assert batch["labels"].tolist() == [[97, 98, 99, -100], [100, 101, 102, 103]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    labelled = padded([{"input_ids": [1, 2], "label": 0}, {"input_ids": [3], "label": 1}])
    assert labelled["label"].tolist() == [0, 1]
    assert labelled["input_ids"].tolist() == [[1, 2], [3, 0]]
    with pytest.raises(KeyError, match="no column 'text' in a row; it has body"):
        Texts([{"body": "x"}], context=4)[0]
    with pytest.raises(ValueError, match="`context` must be at least 2; found 1"):
        Texts(["x"], context=1)


def image(path: str, size: tuple[int, int], colour: Any, mode: str = "RGB") -> None:
    from PIL import Image

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def test_images_of_a_folder_are_squares_with_their_class(write: Write) -> None:
    image("pets/cat/a.png", (20, 10), (255, 0, 0))
    image("pets/cat/deep/b.jpg", (8, 8), (0, 0, 0))
    image("pets/dog/c.png", (6, 9), 255, "L")
    image("pets/dog/d.png", (5, 5), (0, 0, 255, 0), "RGBA")
    write("pets/dog/notes.txt", "no image")
    data = ImageFolder("pets", size=4)
    assert (len(data), data.classes) == (4, ["cat", "dog"])
    assert [data[i][1] for i in range(4)] == [0, 0, 1, 1]
    red, _ = data[0]
    assert red.shape == (3, 4, 4)
    assert red.mean((1, 2)).tolist() == pytest.approx([1, -1, -1], abs=1e-6)
    assert data[2][0].min() == 1
    assert ImageFolder("pets", size=4, channels=1)[2][0].shape == (1, 4, 4)
    assert data.content_hash == ImageFolder("pets", size=8).content_hash
    image("pets/dog/e.png", (5, 5), (0, 0, 0))
    assert data.content_hash != ImageFolder("pets", size=4).content_hash


@pytest.mark.parametrize(("make", "words"), [
    (lambda: ImageFolder("none", 4), "a folder of images is needed at {here}/none; there is none"),
    (lambda: ImageFolder("empty", 4), "one for each class; found 0 folders and no file ending in .png"),
    (lambda: ImageFolder("empty", 0), "`size` must be at least 1 and `channels` 1 or 3; found 0 and 3"),
])  # fmt: skip
def test_what_is_wrong_with_a_folder_of_images_is_said(
    write: Write, make: Callable[[], Any], words: str
) -> None:
    Path("empty").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words.format(here=Path.cwd()))):
        make()


def test_the_loss_that_a_model_returns(write: Write) -> None:
    class Model(torch.nn.Module):
        def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return inputs, (inputs - targets).square().mean()

    assert returned_loss(Model(), [torch.ones(2), torch.zeros(2)]).item() == 1
