"""The viral reads come out as they went in, mates together, and the table of pairs has every pair."""

import gzip
import html
import json
import re
import tempfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.errors import StoreError
from virnucpro_core.results.blocks import Stores
from virnucpro_core.results.delivery import deliver
from virnucpro_core.results.finished import read_results
from virnucpro_core.results.folder import RUN, Calling, write_results
from virnucpro_core.results.record_calls import NO_CALL, OTHERS, VIRUS
from virnucpro_core.results.summary import RunInfo
from virnucpro_core.results.viral_reads import READ_FILES, Mates, ReadSource, pair_calls
from virnucpro_core.samples.inputs import digest_inputs
from virnucpro_core.sequences.chunks import write_chunks
from virnucpro_core.sequences.fasta import ReadOptions, read_records
from virnucpro_core.sequences.frames import write_frames

Rule = Literal["any", "both"]
LENGTH = 40


def read(name: str, *, seed: int) -> str:
    """A FASTQ record of random letters without T, so that every read has a frame of its own."""
    rng = np.random.default_rng(seed)
    letters = "".join(rng.choice(list("ACG"), LENGTH))
    qualities = "".join(chr(c) for c in rng.integers(33, 127, LENGTH))
    return f"@{name}\n{letters}\n+\n{qualities}\n"


class Case:
    """Files of reads, of which those with an id in `viral` score as virus."""

    def __init__(self, folder: Path, viral: set[str], options: ReadOptions | None = None) -> None:
        self.folder, self.viral, self.options = folder, viral, options or ReadOptions()
        self.files: list[Path] = []
        self.texts: dict[str, str] = {}

    def add(self, name: str, *headers: str, file: str = "") -> None:
        path = self.folder / name
        texts = [read(header, seed=zlib.crc32(f"{name} {header}".encode())) for header in headers]
        path.write_text("".join(texts))
        self.files.append(path)
        self.texts |= {
            f"{file}{header.split()[0]}": text for header, text in zip(headers, texts, strict=True)
        }

    def write(self, pairs: Rule, out: str = "results") -> dict[str, str]:
        chunks = write_chunks(self.files, self.folder / "chunks", chunk_size=60, options=self.options)
        frames = write_frames(chunks, self.folder / "frames")
        names = [name.decode() for name in chunks.ids]
        virus_N = np.zeros(frames.n_unique, np.float32)
        for frame, unique in enumerate(frames.frame_unique.tolist()):
            record = int(chunks.locate(frames.frame_chunk[frame : frame + 1]).record[0])
            virus_N[unique] = max(virus_N[unique], names[record] in self.viral)
        scores_N2 = np.stack([1 - virus_N, virus_N], axis=1)
        run = RunInfo(sample="s", profile="demo", digests={"sample": "0"})
        source = ReadSource(digest_inputs(self.files), pairs)
        write_results(
            Stores(chunks, frames), scores_N2, self.folder / out, calling=Calling(), run=run, reads=source
        )
        found = {}
        for name in READ_FILES:
            path = self.folder / out / name
            if path.exists():
                found[name] = (
                    gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
                ).decode()
        return found

    def facts(self, out: str = "results") -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / out / RUN).read_bytes())
        return facts


@pytest.fixture
def run(tmp_path: Path) -> Case:
    """Two lanes of pairs, and reads without a mate: as SRA and a sequencer write them."""
    case = Case(tmp_path, {"a/1", "b/1", "b/2", "d/2", "o2"})
    case.add("p_S1_L001_R1_001.fastq", "a 1:N:0:A", "b 1:N:0:A", file="1")
    case.add("p_S1_L001_R2_001.fastq", "a 2:N:0:A", "b 2:N:0:A", file="2")
    case.add("orphans.fastq", "o1", "o2 x")
    case.add("p_S1_L002_R1_001.fastq", "c 1:N:0:A", "d 1:N:0:A", file="1")
    case.add("p_S1_L002_R2_001.fastq", "c 2:N:0:A", "d 2:N:0:A", file="2")
    return case


@pytest.mark.parametrize(("rule", "pairs"), [("any", "abd"), ("both", "b")])
def test_viral_pairs_come_out_as_they_went_in(run: Case, rule: Rule, pairs: str) -> None:
    found = run.write(rule)
    assert found["viral_R1.fastq.gz"] == "".join(run.texts[f"1{name}"] for name in pairs)
    assert found["viral_R2.fastq.gz"] == "".join(run.texts[f"2{name}"] for name in pairs)
    assert found["viral_unpaired.fastq.gz"] == run.texts["o2"]
    assert run.facts()["reads"] == {
        "rule": rule,
        "pairs": 4,
        "pairs_virus": len(pairs),
        "pairs_no_call": 0,
        "unpaired": 2,
        "unpaired_virus": 1,
    }
    rows = [line.split("\t") for line in found["pairs.tsv"].splitlines()]
    assert rows[0] == ["pair_id", "call", "call_1", "score_1", "call_2", "score_2"]
    assert [(row[0], row[1] == "virus", row[2], row[4]) for row in rows[1:]] == [
        ("a", "a" in pairs, "virus", "others"),
        ("b", "b" in pairs, "virus", "virus"),
        ("c", "c" in pairs, "others", "others"),
        ("d", "d" in pairs, "others", "virus"),
    ]
    assert {*READ_FILES} < {*read_results(run.folder / "results")["files"]}


def test_equal_reads_give_equal_bytes_and_their_pairs_are_read_again(run: Case) -> None:
    run.write("any", "one")
    run.write("any", "two")
    for name in READ_FILES:
        assert (run.folder / "one" / name).read_bytes() == (run.folder / "two" / name).read_bytes()
    again = list(read_records([run.folder / "one" / f"viral_R{mate}.fastq.gz" for mate in (1, 2)]))
    assert [record.id for record in again] == ["a/1", "b/1", "d/1", "a/2", "b/2", "d/2"]


def test_the_report_shows_the_pairs(tmp_path: Path) -> None:
    case = Case(tmp_path, {"b/1", "c/1", "c/2"})
    names = ("a", "b", "c", "<i>&")
    case.add("x_R1.fq", *(f"{name}/1" for name in names))
    case.add("x_R2.fq", *(f"{name}/2" for name in names))
    for rule, virus in (("any", "b c"), ("both", "c")):
        case.write(rule, rule)
        page = (tmp_path / rule / "report.html").read_text()
        number = len(virus.split())
        assert f"4 pairs: <b>{number} virus</b>,\n{4 - number} others, 0 without a call" in page
        assert f"(<code>--pairs {rule}</code>)" in page
        found = re.findall(
            r"<tr><td><bdi>(.*?)</bdi></td><td><span class=.swatch (\w+).></span>\w+</td><td>(\w+)</td>", page
        )
        others = [name for name in names if name not in virus.split()]
        assert [name for name, call, _ in found if call == "virus"] == virus.split()
        assert [name for name, *_ in found] == [*virus.split(), *(html.escape(name) for name in others)]
        assert ("b", "virus" if rule == "any" else "others", "virus") in found
        assert case.facts(rule)["reads"]["pairs_no_call"] == 0
    alone = Case(tmp_path, {"b"})
    alone.add("y.fq", "a", "b")
    alone.write("any", "alone")
    assert "Pairs of reads" not in (tmp_path / "alone" / "report.html").read_text()


def test_interleaved_pairs_and_ids_with_a_number(tmp_path: Path) -> None:
    for case in (Case(tmp_path, {"a/1", "c"}), Case(tmp_path, {"a/1"}, ReadOptions(interleaved=True))):
        names = ("a", "a", "b", "b") if case.options.interleaved else ("a/1", "a/2", "b/1", "b/2", "c")
        case.add("x.fq", *names)
        found = case.write("any")
        assert [row.split("\t")[:2] for row in found["pairs.tsv"].splitlines()[1:]] == [
            ["a", "virus"],
            ["b", "others"],
        ]
        assert [found[f"viral_R{mate}.fastq.gz"].count("\n") for mate in (1, 2)] == [4, 4]
        assert ("viral_unpaired.fastq.gz" in found) != case.options.interleaved


def test_mates_far_apart_in_a_bam_meet(tmp_path: Path) -> None:
    pysam: Any = pytest.importorskip("pysam", reason="pysam is not installed")
    head = pysam.AlignmentHeader.from_dict({"HD": {"VN": "1.6"}})
    rows = [("a", 0x4D), ("b", 0x4D), ("s", 0x4), ("b", 0x8D), ("t", 0x4D), ("a", 0x8D)]
    with pysam.AlignmentFile(str(tmp_path / "x.bam"), "wb", header=head) as out:
        for seed, (name, flag) in enumerate(rows):
            one = pysam.AlignedSegment(head)
            _, one.query_sequence, _, qualities = read(name, seed=seed).split("\n", 3)
            one.query_name, one.flag = name, flag
            one.query_qualities = pysam.qualitystring_to_array(qualities.strip())
            out.write(one)
    case = Case(tmp_path, {"a/2", "s"})
    case.files = [tmp_path / "x.bam"]
    found = case.write("any")
    assert found["viral_R1.fastq.gz"] == read("a", seed=0)
    assert found["viral_R2.fastq.gz"] == read("a", seed=5)
    assert found["viral_unpaired.fastq.gz"] == read("s", seed=2)
    assert [row.split("\t")[0] for row in found["pairs.tsv"].splitlines()[1:]] == ["a", "b"]


def test_reads_without_mates_have_no_table_of_pairs(tmp_path: Path) -> None:
    case = Case(tmp_path, {"b"})
    case.add("x.fq", "a", "b")
    assert case.write("any") == {"viral_unpaired.fastq.gz": case.texts["b"]}
    (tmp_path / "y.fa").write_text(">a\nACGACGACG\n")
    case.files = [tmp_path / "y.fa"]
    assert case.write("any", "fasta") == {}
    assert "reads" not in case.facts("fasta")


def test_a_changed_or_missing_input_is_told_and_nothing_is_written(run: Case) -> None:
    files = digest_inputs(run.files)
    run.write("any")
    chunks = write_chunks(run.files, run.folder / "chunks", chunk_size=60)
    frames = write_frames(chunks, run.folder / "frames")
    scores_N2 = np.full((frames.n_unique, 2), 0.5, np.float32)
    info = RunInfo(sample="s", profile="demo", digests={"sample": "0"})
    run.files[0].write_text(read("z", seed=1))
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"the viral reads cannot be copied: .*; put the input file back"
        ):
            write_results(
                Stores(chunks, frames),
                scores_N2,
                run.folder / "r",
                calling=Calling(),
                run=info,
                reads=ReadSource(files),
            )
        assert not (run.folder / "r" / RUN).exists()
        run.files[0].unlink(missing_ok=True)


def test_files_that_new_results_do_not_have_leave_the_users_folder(run: Case) -> None:
    run.write("any")
    deliver(run.folder / "results", run.folder / "out")
    for name in READ_FILES:
        (run.folder / "results" / name).unlink()
    deliver(run.folder / "results", run.folder / "out")
    assert not any((run.folder / "out" / name).exists() for name in READ_FILES)


CALLS = st.sampled_from([VIRUS, OTHERS, NO_CALL])


@given(st.lists(st.tuples(CALLS, CALLS), min_size=1, max_size=9))
def test_laws_of_pairs(called: list[tuple[int, int]]) -> None:
    n = len(called)
    calls = np.array(called, np.uint8).T.ravel()
    partner = np.concatenate([np.arange(n, 2 * n), np.arange(n)])
    mates = Mates(partner, np.arange(2 * n) < n, np.ones(2 * n, np.bool_))
    either, both = (pair_calls(calls, mates, rule) for rule in ("any", "both"))
    for found in (either, both):
        assert found[:n].tolist() == found[n:].tolist()
    for k, (one, two) in enumerate(called):
        assert (either[k] == VIRUS) == (VIRUS in (one, two))
        assert (both[k] == VIRUS) == (one == two == VIRUS)
        assert (either[k] == NO_CALL) == (both[k] == NO_CALL) == (one == two == NO_CALL)
    alone = Mates(np.full(2 * n, -1), np.zeros(2 * n, np.bool_), np.ones(2 * n, np.bool_))
    assert pair_calls(calls, alone, "both").tolist() == calls.tolist()


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.sampled_from(["any", "both"]))
def test_every_viral_read_of_a_counted_pair_is_written_once(viral: list[bool], rule: Rule) -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = {f"r{k // 2}/{k % 2 + 1}" for k, is_viral in enumerate(viral) if is_viral}
        case = Case(Path(folder), names)
        ids = [f"r{k}" for k in range((len(viral) + 1) // 2)]
        for mate in (1, 2):
            case.add(f"x_R{mate}.fq", *ids, file=str(mate))
        found = case.write(rule)
    counted = [i for i in ids if (any if rule == "any" else all)(f"{i}/{mate}" in names for mate in (1, 2))]
    for mate in (1, 2):
        expected = "".join(case.texts[f"{mate}{name}"] for name in counted)
        assert found[f"viral_R{mate}.fastq.gz"] == expected
