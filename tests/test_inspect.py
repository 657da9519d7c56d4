"""`nmt inspect --text`: what is captured is what the model computes, in every wiring; the pictures and the page; mistakes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tiny
import torch
from torch import Tensor, nn

from nmt.cli import main
from nmt.errors import InputError
from nmt.inference.bundle import Bundle
from nmt.inference.torch_backend import load_model
from nmt.inference.translator import Translator
from nmt.inspection.page import page
from nmt.inspection.pictures import attention_figure, write
from nmt.inspection.sentence import END, Inspection, Step, inspect, render, spans, surfaces
from nmt.model.capture import capture, encoder_grid, recorded
from nmt.model.encoder import Encoder
from nmt.model.rnn import StackedRNN
from nmt.model.seq2seq import Seq2Seq
from nmt.text.tokenizer import BOS, EOS, PAD
from nmt.training.bundling import BundleOptions, make_bundle

SOURCE, TARGET = [5, 17, 9, 30, 11], [8, 33, 6, 21]
WIRINGS = {
    "gnmt": ["decoder.layers=3", "encoder.hidden=[8,6]", "decoder.layer_norm=true", "decoder.residual=3"],
    "deep": ["wiring=deep", "encoder.layer_norm=true", "decoder.layer_norm=true", "encoder.bidirectional=all"],
    "luong": ["wiring=luong", "attention=dot", "decoder.hidden=[6,8]"],
    "bahdanau": ["wiring=bahdanau", "attention=additive", "decoder.cell=gru"],
}
wirings = pytest.mark.parametrize("overrides", WIRINGS.values(), ids=WIRINGS.keys())


def made(overrides: list[str]) -> Seq2Seq:
    return tiny.model(tiny.model_config(*overrides), sharpness=1.5)


def stepwise_weights(model: Seq2Seq) -> list[Tensor]:
    """The attention weights (T, S) of each attention by its own method, its inputs caught one step of decoding at a time."""
    memory = model.encode(torch.tensor([[*SOURCE, EOS]]), torch.tensor([len(SOURCE) + 1]))
    attentions = list(model.decoder.attentions())
    rows: list[list[Tensor]] = [[] for _ in attentions]
    state = memory.state
    for token in [BOS, *TARGET]:
        with recorded(attentions) as calls:
            _, state = model.decode(torch.tensor([[token]]), memory, state)
        for attention, found in zip(attentions, rows, strict=True):
            (call,) = calls[attention]
            query, key, _, mask = call.arguments
            found.append(attention.weights(query, key, mask)[0, 0])
    return [torch.stack(found) for found in rows]


# --- capture --------------------------------------------------------------------------------------------------------


@wirings
def test_attention_is_what_the_model_uses_at_each_step(overrides: list[str]) -> None:
    model = made(overrides)
    found = capture(model, SOURCE, TARGET).attention
    expected = stepwise_weights(model)
    assert len(found) == len(expected) == len(list(model.decoder.attentions()))
    for weights, own in zip(found, expected, strict=True):
        assert weights.shape == (len(TARGET) + 1, len(SOURCE) + 1)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights)))
        torch.testing.assert_close(weights, own)


@wirings
def test_probabilities_are_those_of_a_plain_pass(overrides: list[str]) -> None:
    model = made(overrides)
    source, given = torch.tensor([[*SOURCE, EOS]]), torch.tensor([[BOS, *TARGET]])
    logits = model.logits(model(source, torch.tensor([len(SOURCE) + 1]), given))[0]
    torch.testing.assert_close(capture(model, SOURCE, TARGET).log_probabilities, torch.log_softmax(logits, dim=-1))


@pytest.mark.parametrize("residual", ["true", "false", "3"])
def test_the_encoder_grid_is_the_stacks_own(residual: str) -> None:
    model = made(
        ["encoder.layers=4", "encoder.hidden=[8,6,6,10]", f"encoder.residual={residual}", "encoder.layer_norm=true"]
    )
    assert isinstance(model.encoder, Encoder)
    stack = StackedRNN(model.config.encoder, model.config.embedding, return_grid=True)
    stack.load_state_dict(model.encoder.stack.state_dict())
    ids, lengths = torch.tensor([[*SOURCE, EOS], [7, 8, EOS, PAD, PAD, PAD]]), torch.tensor([6, 3])
    embedded, *grid = encoder_grid(model, ids, lengths)
    torch.testing.assert_close(embedded, model.source_embedding(ids) * model.scale)
    expected = stack(embedded, lengths).grid
    assert [layer.shape[-1] for layer in grid] == [8, 6, 6, 10]
    for layer, own in zip(grid, expected, strict=True):
        for row, length in enumerate(lengths.tolist()):
            torch.testing.assert_close(layer[row, :length], own[row, :length])
    for layer, own in zip(capture(model, SOURCE, TARGET).encoder, expected, strict=True):
        torch.testing.assert_close(layer, own[0])


@wirings
def test_the_top_layers_are_what_the_model_goes_on_with(overrides: list[str]) -> None:
    model = made(overrides)
    readout = getattr(model.decoder, "combine", None) or model.decoder.readout
    with recorded([readout, model.encoder]) as calls:
        found = capture(model, SOURCE, TARGET)
    read = torch.cat(
        [call.arguments[0].view(-1, call.arguments[0].shape[-1]) for call in calls[readout]]
    )  # (T, inputs)
    wiring, width = model.config.wiring, model.config.decoder.widths[-1]
    encoded, top = found.encoder[-1], found.decoder[-1]
    if wiring == "deep":  # a normalisation stands between
        encoded, top = model.encoder.norm(encoded), model.decoder.norm(top)
    torch.testing.assert_close(calls[model.encoder][0].result[0], encoded)
    torch.testing.assert_close(read[:, -width:] if wiring == "luong" else read[:, :width], top)
    assert [layer.shape for layer in found.decoder] == [(len(TARGET) + 1, w) for w in model.config.decoder.widths]


@wirings
def test_no_hook_stays_and_the_mode_is_what_it_was(overrides: list[str]) -> None:
    model = made(overrides).train()
    capture(model, SOURCE, TARGET)
    with pytest.raises(IndexError):
        capture(model, [10_000], TARGET)  # not in the vocabulary: it breaks while hooks are there
    assert not any(module._forward_hooks for module in model.modules())
    assert all(module.training for module in model.modules())


def test_dropout_takes_no_part() -> None:
    model = made(["dropout.layer=0.5", "dropout.embedding=0.5"]).train()
    first, second = (capture(model, SOURCE, TARGET) for _ in range(2))
    assert torch.equal(first.log_probabilities, second.log_probabilities)
    assert torch.equal(first.encoder[-1], second.encoder[-1])


def test_calls_are_recorded_in_order() -> None:
    module = nn.Linear(1, 1)
    with recorded([module]) as calls:
        results = [module(torch.tensor([float(i)])) for i in range(3)]
    module(torch.zeros(1))
    assert [call.arguments[0].item() for call in calls[module]] == [0.0, 1.0, 2.0]
    assert all(call.result is result for call, result in zip(calls[module], results, strict=True))


# --- a sentence -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    corpus = tiny.prepared(folder)
    make_bundle(tiny.trained(corpus, folder / "run"), folder / "tiny-en-de", BundleOptions(weights="fp32"))
    return folder / "tiny-en-de"


def test_the_translation_is_the_translators_and_its_score_the_same(bundle: Path) -> None:
    text = "the old cat sees the house."
    translated = Translator.load(bundle, threads=1).translate([text])[0]
    found = inspect(Bundle.open(bundle), text, threads=1)
    assert found.translation == translated.text
    assert found.ended is not translated.truncated
    assert found.source[-1] == found.target[-1] == END
    if found.ended:
        assert found.log_probability / len(found.steps) == pytest.approx(translated.score, abs=1e-4)


def test_entropy_and_alternatives_are_of_the_distribution_of_that_step(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    found = inspect(opened, "the cat.", "die Katze.", threads=1)
    source = opened.source_tokenizer.encode(["the cat."])[0]
    target = opened.target_tokenizer.encode(["die Katze."])[0]
    p = capture(load_model(opened), source, target).log_probabilities.exp()
    assert found.given
    assert found.target == (*opened.target_tokenizer.pieces(target), END)
    for step, chosen, row in zip(found.steps, [*target, EOS], p, strict=True):
        assert step.probability == pytest.approx(float(row[chosen]), rel=1e-5)
        assert step.entropy == pytest.approx(float(-(row * row.log2()).sum()), rel=1e-4)
        assert len(step.alternatives) == 5
        others = sorted((float(value) for i, value in enumerate(row) if i != chosen), reverse=True)
        assert [value for _, value in step.alternatives] == pytest.approx(others[:5], rel=1e-5)
    assert "die Katze." in render(found)


def test_spans_cover_the_text_and_unknown_subwords_say_what_they_stand_for(bundle: Path) -> None:
    tokenizer = Bundle.open(bundle).source_tokenizer
    text = "the 漢字 cat, 猫!"
    ids = tokenizer.encode([text])[0]
    where = spans(tokenizer, ids, text)
    assert where is not None
    assert "".join(text[start:end] for start, end in where) == text.replace(" ", "")
    shown = surfaces(tokenizer, ids, text)
    assert "<unk:漢字>" in shown
    assert len(shown) == len(ids)


def test_a_text_with_the_mark_of_the_subwords_is_shown_as_far_as_can_be(bundle: Path) -> None:
    found = inspect(Bundle.open(bundle), "the ▁ cat ▁▁", threads=1)
    assert len(found.source) == len(found.capture.encoder[0])


# --- pictures and page ----------------------------------------------------------------------------------------------

HOSTILE = 'the $x^$ </td><script src="http://e.example/"></script> & "猫" שלום عربي $\\frac{$'


def test_the_folder_holds_pictures_numbers_and_a_page(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "folder"
    arguments = ["inspect", str(bundle), "--text", "the old cat.", "--threads", "1"]
    assert main([*arguments, "--output", str(folder)]) == 0
    shown = capsys.readouterr().out
    for name in ("attention.png", "grid.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    record = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    assert record["translation"] in shown
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == record
    steps, source = len(record["target"]), len(record["source"])
    assert [len(row) for row in record["attention"][0]] == [source] * steps
    assert [len(layer) for layer in record["activation_rms"]["encoder"]] == [source] * 2
    assert [len(layer) for layer in record["activation_rms"]["decoder"]] == [steps] * 2


@pytest.mark.filterwarnings("error")
def test_the_page_stands_alone_whatever_the_text(bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(bundle)
    config = opened.config.model_copy(update={"max_source_tokens": 200})
    write(inspect(dataclasses.replace(opened, config=config), HOSTILE, HOSTILE, threads=1), tmp_path)
    shown = (tmp_path / "index.html").read_text(encoding="utf-8")
    tree = ElementTree.fromstring(shown)  # well-formed, even as XML
    assert not {element.tag for element in tree.iter()} & {"script", "link", "iframe", "object", "form"}
    addresses = [element.get(name, "") for element in tree.iter() for name in ("src", "href") if name in element.attrib]
    assert [address.partition(",")[0] for address in addresses] == ["data:image/png;base64"]
    assert not re.search(r"url\(|@import", shown)
    assert HOSTILE in {element.text for element in tree.iter("bdi")}


def test_a_page_shows_every_attention() -> None:
    found = capture(made(WIRINGS["deep"]), SOURCE, TARGET)
    subwords = tuple("abcdef")
    steps = tuple(Step(name, -0.5, 1.0, ()) for name in subwords)
    seen = Inspection("deep", "a b", "c d", False, True, subwords, steps[: len(TARGET) + 1], found)
    shown = page(seen, b"")
    assert [title for title in re.findall("<h3>(.*?)</h3>", shown) if "ayer" in title] == [
        "Decoder layer 1",
        "Decoder layer 2",
    ]
    assert sum(axes.get_title().startswith("attention") for axes in attention_figure(seen).axes) == 2
    assert "The search met its length limit" in page(dataclasses.replace(seen, ended=False), b"")


# --- mistakes -------------------------------------------------------------------------------------------------------


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["inspect", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_text_that_the_model_would_cut_is_refused_with_its_length(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    limit = opened.config.max_source_tokens
    text = " ".join(["the cat sees the dog"] * limit)
    tokens = len(opened.source_tokenizer.encode([text])[0])
    with pytest.raises(InputError, match=f"the text has {tokens} subwords, the model takes up to {limit} in one piece"):
        inspect(opened, text)
    with pytest.raises(InputError, match=r"the target has \d+ subwords"):
        inspect(opened, "the cat.", text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--text", "  "], "there is nothing to inspect"),
        (["--text", "a\udc80b"], "lone surrogate at character 2"),
        (["--text", "the cat.", "--target", "\udc80"], "the target is not valid Unicode"),
        (["--text", "the cat.", "--seed", "3"], "--seed goes with --probe"),
        (["--probe", "--target", "die Katze."], "--target goes with --text"),
    ],
)
def test_mistakes_are_one_line(
    bundle: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in mistake(capsys, bundle, *arguments)


def test_a_place_that_cannot_be_written_to_is_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["inspect", str(bundle), "--text", "the cat.", "--output", str(tmp_path / "file")]) == 2
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "module"), [("--output", "matplotlib"), ("--probe", "sklearn")])
def test_a_missing_package_is_named_before_any_work(
    option: str, module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else object())
    arguments = ["--probe"] if option == "--probe" else ["--text", "the cat.", "--output", "folder"]
    line = mistake(capsys, "no-such-bundle", *arguments)
    assert module in line
    assert "pip install 'strata-nmt[study]'" in line
