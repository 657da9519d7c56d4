"""Batch translation: what of every kind of input comes out, what can't be translated, and jobs that go on."""

from __future__ import annotations

import csv
import gzip
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from batching import Begun, Loud, do, do_all
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from nmt.batch import job
from nmt.batch.inputs import Shape, kind_of
from nmt.batch.memo import Memo
from nmt.batch.opening import open_input
from nmt.batch.work import Work
from nmt.errors import ConfigError, DataError, InputError, ServiceError
from nmt.text.lines import unpacked

TEXT = Shape(column="text")


def told(output: Path) -> list[tuple[int, str]]:
    """What the side file says: records and reasons."""
    side = output.with_name(f"{output.name}.failed.jsonl")
    if not side.exists():
        return []
    found = [json.loads(line) for line in side.read_text(encoding="utf-8").splitlines()]
    return [(each["record"], each["reason"]) for each in found]


# --- kinds ------------------------------------------------------------------------------------------------------------


def test_the_kind_is_told_by_the_name(tmp_path: Path) -> None:
    names = {
        "a.en": "lines",
        "a": "lines",
        "a.csv.gz": "csv",
        "a.TSV": "tsv",
        "a.jsonl.zst": "jsonl",
        "a.ndjson": "jsonl",
    }
    names |= {"a.parquet": "parquet", "a.docx": "document", "a.md": "document", "a.txt.gz": "lines", ".gz": "lines"}
    names |= {"hf://datasets/owner/name": "dataset", str(tmp_path): "dataset"}
    assert {name: kind_of(name) for name in names} == names


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_keep_their_ends_and_what_is_no_text(suffix: str, tmp_path: Path) -> None:
    raw = b"\xef\xbb\xbfone\r\n\n two \nbad \xff\xfe\nthree\x0bfour\n\xc3\xa9 last"
    source, output = tmp_path / f"in.txt{suffix}", tmp_path / f"out.txt{suffix}"
    with job.packing(source) as stream:
        stream.write(raw)
    outcome = do(source, output)
    with unpacked(output) as written:
        assert written.read() == b"\xef\xbb\xbfONE\r\n\n TWO \nbad \xff\xfe\nTHREE\x0bFOUR\n\xc3\x89 LAST"
    assert told(output) == [(4, "not valid UTF-8 (byte 5)")]
    assert (outcome.records, outcome.failed) == (6, 1)


@given(
    lines=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=8), max_size=20),
    ended=st.booleans(),
)
def test_there_is_one_output_for_each_line(
    lines: list[str], ended: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    content = "\n".join(lines) + ("\n" if ended and lines else "")
    (folder / "in").write_bytes(content.encode())
    outcome = do(folder / "in", folder / "out")
    written = (folder / "out").read_bytes()
    assert written.count(b"\n") == content.count("\n")
    assert written.endswith(b"\n") == content.endswith("\n")
    assert outcome.records == content.count("\n") + (content != "" and not content.endswith("\n"))


def test_a_table_gets_a_column_and_keeps_its_bytes(tmp_path: Path) -> None:
    rows = 'id,"text",z\r\n1,"a ""b"", c\nd", x \r\n2,,\r\n\r\n3,short\r\n4,plain,"q"'
    (tmp_path / "in.csv").write_bytes(rows.encode())
    do(tmp_path / "in.csv", tmp_path / "out.csv", shape=TEXT)
    assert (tmp_path / "out.csv").read_bytes().decode() == (
        'id,"text",z,translation\r\n1,"a ""b"", c\nd", x ,"A ""B"", C\nD"\r\n2,,,\r\n\r\n3,short\r\n4,plain,"q",PLAIN'
    )
    assert told(tmp_path / "out.csv") == [(4, "the row has 2 cells, the first one has 3")]
    with (tmp_path / "out.csv").open(newline="") as stream:
        assert [row[-1] for row in csv.reader(stream) if row][1] == 'A "B", C\nD'


def test_a_table_leaves_the_limits_of_others_as_they_are(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "y " * 90_000
    (tmp_path / "in.csv").write_text(f"text\n{long}\nb\n")
    outcome = do(tmp_path / "in.csv", tmp_path / "out.csv", shape=Shape(column="text", max_characters=200_000))
    assert outcome.failed == 0
    assert csv.field_size_limit() == before


def test_columns_by_number_other_delimiters_and_tabs(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes("\ufeffx;y;z\na;b;c\n".encode())
    do(tmp_path / "in.csv", tmp_path / "out.csv", shape=Shape(column="x", delimiter=";", output_column="t"))
    assert (tmp_path / "out.csv").read_bytes().decode() == "\ufeffx;y;z;t\na;b;c;A\n"
    (tmp_path / "in.tsv").write_bytes(b'1\tsay "hi\n2\tyou\xff\n')
    do(tmp_path / "in.tsv", tmp_path / "out.tsv", shape=Shape(column="2", header=False))
    assert (tmp_path / "out.tsv").read_bytes() == b'1\tsay "hi\tSAY "HI\n2\tyou\xff\t\n'


def test_json_lines_pass_other_fields_through_to_the_byte(tmp_path: Path) -> None:
    lines = [
        '{"n": 1.50, "text": "a\\u00e9", "big": 123456789012345678901234567890 }',
        '{"text": null}',
        '{"other": 1}',
        "no json",
        "",
        '{"text": "\\ud83d"}',
        '{"text": 5}',
        "[1]",
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    do(tmp_path / "in.jsonl", tmp_path / "out.jsonl", shape=TEXT)
    written = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert written[0] == '{"n": 1.50, "text": "a\\u00e9", "big": 123456789012345678901234567890, "translation": "AÉ"}'
    assert [json.loads(line)["translation"] for line in (written[1], written[2], written[5], written[6])] == [None] * 4
    assert (written[3], written[4], written[7]) == ("no json", "", "[1]")
    assert told(tmp_path / "out.jsonl") == [
        (2, "NoneType instead of text in field 'text'"),
        (3, "no field 'text'"),
        (4, "not a JSON object"),
        (6, "a lone surrogate at character 1: not valid Unicode"),
        (7, "int instead of text in field 'text'"),
        (8, "not a JSON object"),
    ]


def test_a_field_inside_another(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"a": {"b.c": "x", "b": {"c": "y"}}}\n{"a.b.c": "z"}\n')
    do(tmp_path / "in.jsonl", tmp_path / "out.jsonl", shape=Shape(column="a.b.c", output_column="o"))
    assert [json.loads(line)["o"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["X", "Z"]


def test_parquet_keeps_columns_and_types(tmp_path: Path) -> None:
    table = pyarrow.table(
        {"id": pyarrow.array([1, 2, 3], pyarrow.int16()), "pair": [{"en": "a", "n": 1}, {"en": None, "n": 2}, None]}
    )
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({b"huggingface": b"{}", b"k": b"v"}), tmp_path / "in.parquet"
    )
    do(tmp_path / "in.parquet", tmp_path / "out.parquet", shape=Shape(column="pair.en"))
    written = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert written.schema.field("id").type == pyarrow.int16()
    assert written.schema.metadata == {b"k": b"v"}
    assert written.select(["id", "pair"]).to_pylist() == table.to_pylist()
    assert written["translation"].to_pylist() == ["A", None, None]
    assert told(tmp_path / "out.parquet") == [(2, "no text (null)"), (3, "no text (null)")]


def test_a_folder_like_a_hub_dataset(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rows = [{"translation": {"en": f"text {i}", "de": "x"}, "n": i} for i in range(5)]
    (tmp_path / "set" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shape = Shape(column="translation.en", output_column="said", split="train[1:4]")
    do(tmp_path / "set", tmp_path / "out.parquet", shape=shape)
    written = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["said"] for row in written] == ["TEXT 1", "TEXT 2", "TEXT 3"]
    assert [row["n"] for row in written] == [1, 2, 3]
    with pytest.raises(DataError, match="could not be loaded"):
        open_input(str(tmp_path / "set"), Shape(column="x", split="nope"))


def test_documents_keep_their_form(tmp_path: Path) -> None:
    (tmp_path / "in.html").write_text("<p>one <b>two</b></p><p>three</p>")
    do(tmp_path / "in.html", tmp_path / "out.html")
    assert (tmp_path / "out.html").read_text() == "<p>ONE <b>TWO</b></p><p>THREE</p>"
    wrong = Loud(wrong=lambda text: InputError("no") if "three" in text else None)
    do(tmp_path / "in.html", tmp_path / "part.html", wrong)
    assert (tmp_path / "part.html").read_text() == "<p>ONE <b>TWO</b></p><p>three</p>"


def test_lines_as_json_with_scores(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"one\n\xff\n")
    do(tmp_path / "in.txt", tmp_path / "out.jsonl", shape=Shape(full=True))
    first, second = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert (first["source"], first["translation"], first["score"]) == ("one", "ONE", -0.5)
    assert second == {"source": "\ufffd", "translation": None, "error": "not valid UTF-8 (byte 1)"}


# --- what is wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "shape", "words"),
    [
        ("a.csv", b"x,y\n1,2\n", TEXT, "no column 'text' \\(found x, y\\)"),
        ("a.csv", b"text,translation\n1,2\n", TEXT, "has a column 'translation'; name another one"),
        ("a.csv", b'text\n"open\n', TEXT, "line 2: not valid CSV"),
        ("a.csv", b"x\n", Shape(), "say by --column NAME"),
        ("a.tsv", b"a\tb\n", Shape(column="3", header=False), "there are 2, numbered from 1"),
        ("a.jsonl", b'{"text": "a", "translation": 1}\n', TEXT, "line 1: has a field 'translation'"),
        ("a.parquet", b"PAR1 not", TEXT, "not a readable Parquet file"),
        ("a.txt", b"x\n", TEXT, "--column is for tables"),
        ("a.txt", b"\xff\xfea\0", Shape(), "is UTF-16 text; save it as UTF-8"),
        ("a.txt.gz", b"no gzip", Shape(), "the gzip file is damaged"),
        ("a.txt.zst", b"no zstd at all", Shape(), "a.txt.zst: "),
        ("a.docx", b"no zip", Shape(), "a.docx: "),
        ("a.csv", b"x\n", Shape(column="x", full=True), "--json is for lines of text"),
    ],
)
def test_what_is_wrong_with_an_input_is_said_before_anything_is_translated(
    name: str, content: bytes, shape: Shape, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    begin = Loud()
    with pytest.raises((ConfigError, DataError, InputError), match=words):
        do(tmp_path / name, tmp_path / "out", begin, shape)
    assert begin.asked == []
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt.batch.rows._LONGEST", 1000)
    (tmp_path / "in").write_bytes(b"a\n" + b"x" * 1000)
    with pytest.raises(DataError, match="line 2: longer than"):
        do(tmp_path / "in", tmp_path / "out")


def test_a_line_of_10_mb_is_passed_on_and_said(tmp_path: Path) -> None:
    long = "x " * 5_000_000
    (tmp_path / "in").write_text(f"a\n{long}\nb\n")
    outcome = do(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out").read_text() == f"A\n{long}\nB\n"
    assert told(tmp_path / "out") == [(2, "10,000,000 characters: more than --max-characters 100,000")]
    assert outcome.failed == 1


def test_an_empty_file_has_an_empty_output(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"")
    assert do(tmp_path / "in", tmp_path / "out").records == 0
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.parametrize("error", [InputError("too odd"), RuntimeError("lost"), ServiceError("413 too large", 413)])
def test_a_text_that_fails_takes_no_other_with_it(error: Exception, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\nbad\nc\n")
    outcome = do(tmp_path / "in", tmp_path / "out", Loud(wrong=lambda text: error if text == "bad" else None))
    assert (tmp_path / "out").read_text() == "A\nbad\nC\n"
    ((number, reason),) = told(tmp_path / "out")
    assert number == 2
    assert str(error) in reason
    assert outcome.failed == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), ServiceError("cannot be reached"), ServiceError("503 busy", 503)]
)
def test_what_no_text_is_to_blame_for_ends_the_job_which_goes_on(error: Exception, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("".join(f"{i}\n" for i in range(5000)))
    down = Loud(wrong=lambda text: error if int(text) >= 4000 else None)
    with pytest.raises(type(error), match=str(error)):
        do(tmp_path / "in", tmp_path / "out", down)
    assert not (tmp_path / "out").exists()
    begin = Loud()
    outcome = do(tmp_path / "in", tmp_path / "out", begin)
    assert outcome.resumed == 4000
    assert begin.asked == [str(i) for i in range(4000, 5000)]
    assert (tmp_path / "out").read_text() == (tmp_path / "in").read_text()


def test_a_translation_that_the_limit_ended_is_kept_and_said(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\nlong\n")
    outcome = do(tmp_path / "in", tmp_path / "out", Loud(cut="long"))
    assert (tmp_path / "out").read_text() == "A\nLONG\n"
    assert told(tmp_path / "out") == [(2, "the length limit ended the translation: text may be missing")]
    assert (outcome.failed, outcome.truncated) == (0, 1)


# --- jobs ---------------------------------------------------------------------------------------------------------------


def test_repeated_texts_are_translated_once(tmp_path: Path) -> None:
    texts = [f"text {i % 3000}" for i in range(12_000)]
    (tmp_path / "in").write_text("".join(f"{text}\n" for text in texts))
    begin = Loud()
    outcome = do(tmp_path / "in", tmp_path / "out", begin)
    assert sorted(begin.asked) == sorted(set(texts))
    assert outcome.repeated == 9000
    assert (tmp_path / "out").read_text() == (tmp_path / "in").read_text().upper()


def test_outputs_that_are_there_are_kept_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\n")
    (tmp_path / "out").write_text("mine\n")
    with pytest.raises(InputError, match="is there already; add --force"):
        do(tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine\n"
    do(tmp_path / "in", tmp_path / "out", force=True)
    assert (tmp_path / "out").read_text() == "A\n"


def test_several_inputs_are_one_job(tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    pairs: list[tuple[Path | str, Path]] = []
    for name, lines in (("a", 3000), ("b", 0), ("c", 1500)):
        (tmp_path / name).write_text("".join(f"{name} {i}\n" for i in range(lines)))
        pairs.append((tmp_path / name, tmp_path / "o" / name))
    stop = Loud(wrong=lambda text: KeyboardInterrupt() if text == "c 1400" else None)  # type: ignore[arg-type,return-value]
    with pytest.raises(KeyboardInterrupt):
        do_all(pairs, tmp_path / "o", stop)
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a", "b"]  # what is finished is there
    before = (tmp_path / "o" / "a").stat().st_mtime_ns
    outcome = do_all(pairs, tmp_path / "o")
    assert (outcome.records, outcome.resumed) == (4500, 4000)
    assert (tmp_path / "o" / "a").stat().st_mtime_ns == before
    for name in "abc":
        assert (tmp_path / "o" / name).read_text() == (tmp_path / name).read_text().upper()
    assert not (tmp_path / "o.work").exists()


def test_another_job_is_not_mixed_with_the_one_in_hand(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("".join(f"{i}\n" for i in range(4000)))
    stop = Loud(wrong=lambda text: KeyboardInterrupt() if text == "3000" else None)  # type: ignore[arg-type,return-value]
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "in", tmp_path / "out", stop)
    (tmp_path / "in").write_text("other\n")
    with pytest.raises(InputError, match=r"holds the work of another job \(it differs in: inputs\)"):
        do(tmp_path / "in", tmp_path / "out")
    assert do(tmp_path / "in", tmp_path / "out", force=True).resumed == 0
    assert (tmp_path / "out").read_text() == "OTHER\n"


def test_the_same_command_resumes_with_force_too(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("".join(f"{i}\n" for i in range(4000)))
    (tmp_path / "out").write_text("old\n")
    stop = Loud(wrong=lambda text: KeyboardInterrupt() if text == "3000" else None)  # type: ignore[arg-type,return-value]
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "in", tmp_path / "out", stop, force=True)
    assert (tmp_path / "out").read_text() == "old\n"
    assert do(tmp_path / "in", tmp_path / "out", force=True).resumed == 2000
    assert (tmp_path / "out").read_text() == (tmp_path / "in").read_text()


def test_an_input_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\nb\n")

    class Meddler(Loud):
        def __call__(self, texts: list[str]) -> Begun:
            (tmp_path / "in").write_text("a\nB!\n")
            return super().__call__(texts)

    with pytest.raises(InputError, match="has changed while it was translated"):
        do(tmp_path / "in", tmp_path / "out", Meddler())
    assert not (tmp_path / "out").exists()


def test_two_processes_do_not_do_the_same_job(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\n")
    work = Work(tmp_path / "out.work", {})
    with pytest.raises(InputError, match="another process is at this job"):
        do(tmp_path / "in", tmp_path / "out")
    work.close()


def test_a_folder_that_is_no_work_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\n")
    (tmp_path / "out.work").mkdir()
    (tmp_path / "out.work" / "mine").write_text("precious")
    for force in (False, True):
        with pytest.raises(InputError, match="not the folder of a job"):
            do(tmp_path / "in", tmp_path / "out", force=force)
    assert (tmp_path / "out.work" / "mine").read_text() == "precious"


def test_torn_answers_and_a_lost_memo_cost_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("".join(f"{i % 2500}\n" for i in range(6000)))
    stop = Loud(wrong=lambda text: KeyboardInterrupt() if text == "2400" else None)  # type: ignore[arg-type,return-value]
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "in", tmp_path / "out", stop)
    folder = tmp_path / "out.work"
    with (folder / "answers.jsonl").open("ab") as stream:
        stream.write(b'{"t":"torn')
    (folder / "memo").write_bytes(b"cut short")
    begin = Loud()
    outcome = do(tmp_path / "in", tmp_path / "out", begin)
    assert outcome.resumed == 2000
    assert len(begin.asked) == 500 + 2000  # those of the first window, which nothing is known of, once more
    assert (tmp_path / "out").read_text() == (tmp_path / "in").read_text()


def test_a_memo_that_is_kept_spares_what_was_translated_before_a_stop(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("".join(f"{i % 2500}\n" for i in range(6000)))
    stop = Loud(wrong=lambda text: KeyboardInterrupt() if text == "2400" else None)  # type: ignore[arg-type,return-value]
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "in", tmp_path / "out", stop)
    begin = Loud()
    do(tmp_path / "in", tmp_path / "out", begin)
    assert begin.asked == [str(i) for i in range(2000, 2500)]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10**12)), max_size=200), st.integers(1, 30))
def test_a_memo_is_a_mapping(entries: list[tuple[int, int]], hashes: int) -> None:
    """As a dictionary, however many keys begin in the same slot; and when it is opened again."""
    with tempfile.TemporaryDirectory() as folder:
        memo, expected = Memo(Path(folder) / "memo", 200), {}
        for number, place in entries:
            # The last slots of the table, so that it goes on at its beginning.
            key = (2**64 - 1 - number % hashes).to_bytes(8, "little") + number.to_bytes(8, "little")
            memo.put(key, place)
            expected[key] = place
        memo.close()
        again = Memo(Path(folder) / "memo", 200)
        assert {key: again.find(key) for key in expected} == expected
        assert again.find(b"\0" * 16) is None
        again.close()


def test_killed_again_and_again_nothing_is_lost_twice_or_torn(tmp_path: Path) -> None:
    generator = random.Random(5)
    lines = [f"{i} {'word ' * generator.randrange(40)}\u00e9" for i in range(60_000)]
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, str(ROOT / "tests" / "batching.py"), str(tmp_path / "in"), str(tmp_path / "out")]
    answers = tmp_path / "out.work" / "answers.jsonl"
    kills = 0
    for _ in range(8):
        done = answers.stat().st_size if answers.exists() else 0
        with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT) as process:
            while process.poll() is None and (not answers.exists() or answers.stat().st_size == done):
                time.sleep(0.001)
            time.sleep(generator.uniform(0, 0.15))  # somewhere in its work
            kills += process.poll() is None
            process.kill()
        if (tmp_path / "out").exists():
            break
    assert kills >= 3
    if not (tmp_path / "out").exists() or (tmp_path / "out.work").exists():
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    assert (tmp_path / "out").read_text(encoding="utf-8") == "".join(f"{line.upper()}\n" for line in lines)
    assert not list(tmp_path.glob(".partial*"))
    assert not (tmp_path / "out.work").exists()


def test_a_full_disk_is_said_and_the_job_goes_on(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("".join(f"{i} {'x' * 90}\n" for i in range(20_000)))

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_700_000, 1_700_000))

    script = (
        "import sys; from batching import do; from pathlib import Path; from nmt.errors import NMTError\n"
        "try: do(Path(sys.argv[1]), Path(sys.argv[2]))\nexcept NMTError as error: print(error); sys.exit(2)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "in"), str(tmp_path / "out")]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"}
    failed = subprocess.run(command, capture_output=True, text=True, preexec_fn=small, env=environment, check=False)
    assert failed.returncode == 2, failed.stderr
    assert "the disk is full; mend that and give the same command again" in failed.stdout
    outcome = do(tmp_path / "in", tmp_path / "out")
    assert outcome.resumed >= 2000
    assert (tmp_path / "out").read_text() == (tmp_path / "in").read_text().upper()


def test_packed_outputs_are_what_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\n")
    do(tmp_path / "in.txt", tmp_path / "out.txt.gz")
    assert gzip.decompress((tmp_path / "out.txt.gz").read_bytes()) == b"A\n"


def test_the_engine_always_has_a_window_in_hand(tmp_path: Path) -> None:
    """The next window is begun before the one before is waited for."""
    (tmp_path / "in").write_text("".join(f"{i}\n" for i in range(8000)))
    order: list[str] = []

    class Watched(Loud):
        def __call__(self, texts: list[str]) -> Begun:
            order.append(f"begin {texts[0]}")
            begun = super().__call__(texts)
            results = begun.results
            begun.results = lambda: [order.append(f"wait {texts[0]}"), results()][1]  # type: ignore[method-assign,func-returns-value]
            return begun

    do(tmp_path / "in", tmp_path / "out", Watched())
    assert order[:4] == ["begin 0", "begin 2000", "wait 0", "begin 4000"]


def test_a_job_that_was_killed_before_it_began_goes_on(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\n")
    (tmp_path / "out.work").mkdir()
    (tmp_path / "out.work" / "lock").touch()
    (tmp_path / "out.work" / "job.partial").write_text("{")
    assert do(tmp_path / "in", tmp_path / "out").records == 1


ENGLISH = ["The weather was fine and we went for a long walk.", "She has never been to the museum before."]
FRENCH = [
    "Le temps était beau et nous avons fait une longue promenade.",
    "Elle n'est jamais allée au musée auparavant.",
]


def test_texts_of_another_language_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [ENGLISH[i % 2] if i % 40 else FRENCH[0] for i in range(400)]  # every second one that is looked at
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in lines))
    outcome = do_all([(tmp_path / "in", tmp_path / "out")], tmp_path / "out", language="en")
    assert outcome.failed == 0
    said = capsys.readouterr().err
    assert "of 20 texts that were looked at 10 are not in en, which is translated (10 fr)" in said
    do_all([(tmp_path / "in", tmp_path / "o2")], tmp_path / "o2", language="fr")
    assert "10 are not in fr, which is translated (10 en)" in capsys.readouterr().err
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in ENGLISH * 200))
    do_all([(tmp_path / "in", tmp_path / "o3")], tmp_path / "o3", language="en-GB")
    assert capsys.readouterr().err == ""


def test_texts_of_another_language_can_be_passed_on(tmp_path: Path) -> None:
    lines = [ENGLISH[0], FRENCH[0], "Oui", ENGLISH[1], FRENCH[1], "12345 67890 12345 67890"]
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in lines))
    outcome = do_all([(tmp_path / "in", tmp_path / "out")], tmp_path / "out", language="en", passed=True)
    assert told(tmp_path / "out") == [(2, "it seems to be in fr, not in en"), (5, "it seems to be in fr, not in en")]
    assert outcome.failed == 2
    kept = [line if line in FRENCH else line.upper() for line in lines]
    assert (tmp_path / "out").read_text() == "".join(f"{line}\n" for line in kept)
