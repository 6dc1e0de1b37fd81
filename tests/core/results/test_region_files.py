"""The region files as other programs read them: tabix, a GFF3 parser, an indexed FASTA; with ids that are awkward."""

import csv
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.scored import Scored, scored_sample, sequence
from virnucpro_core.results import folder, record_calls
from virnucpro_core.results.region_files import bed_name, gff3_name
from virnucpro_core.results.regions import RegionRule, own_bases

SIZE = 60
# One record that is all viral, one with a viral stretch inside, one with two, one without, and awkward names.
NAMES = ("whole", "host", "#two;=&,%09", "none", "track_3", "browser", "a|b>c", "é\u00a0x", "gap")
VIRAL = {"whole": (0, 20), "host": (5, 9), "#two;=&,%09": (4, 8), "track_3": (0, 20), "browser": (0, 3)}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    entries = [f">{name} about\n{sequence(1130, k)}" for k, name in enumerate(NAMES)]
    entries[-1] = ">gap\n" + sequence(180, 99) + "N" * 300 + sequence(180, 98)
    made = scored_sample(
        tmp_path_factory.mktemp("sample"), "\n".join(entries) + "\n>empty\n", chunk_size=SIZE
    )
    frames, windows = made.frames, made.chunks.windows(0, made.chunks.n_chunks)
    virus = np.full(made.frames.n_unique, 0.01, np.float32)
    for frame, unique in zip(frames.frame_chunk.tolist(), frames.frame_unique.tolist(), strict=True):
        name = made.chunks.ids[int(windows.record[frame])].decode()
        lo, hi = VIRAL.get(name, (0, 99 if name in ("a|b>c", "é\u00a0x", "gap") else 0))
        if lo <= windows.number[frame] < hi:
            virus[unique] = 0.99
    return Scored(made.chunks, frames, np.stack([1 - virus, virus], axis=1))


@pytest.fixture(scope="module")
def out(sample: Scored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results")
    sample.write(path)
    return path


def bed(path: Path) -> list[tuple[str, int, int, str, str]]:
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert {len(line) for line in lines} == {6}
    return [(f[0], int(f[1]), int(f[2]), f[3], f[4]) for f in lines]


def places(sample: Scored) -> list[tuple[str, int, int, str]]:
    """The regions that were built into the sample."""
    found = []
    for record, name in enumerate(NAMES[:-1]):
        lo, hi = VIRAL.get(name, (0, 99 if name in ("a|b>c", "é\u00a0x") else 0))
        start, end = own_bases(
            sample.chunks.windows(
                int(sample.chunks.chunk_offsets[record]), int(sample.chunks.chunk_offsets[record + 1])
            )
        )
        if hi:
            hi = min(hi, len(start))
            kind = "whole_record" if hi - lo == len(start) else "provirus_candidate"
            found.append((name, int(start[lo]), int(end[hi - 1]), kind))
    return [*found, ("gap", 0, 660, "whole_record")]


def test_the_built_regions_are_found(sample: Scored, out: Path) -> None:
    rows = bed(out / folder.REGIONS_BED)
    assert [(n, a, b, kind.split(":")[1]) for n, a, b, kind, _ in rows] == [
        (bed_name(name), *rest) for name, *rest in places(sample)
    ]
    assert [kind.split(":")[0] for _, _, _, kind, _ in rows] == [f"region_{k + 1}" for k in range(len(rows))]
    assert {score for *_, score in rows} == {"990"} or {score for *_, score in rows} == {"989"}


def test_chunk_rows_agree_with_the_other_tables(sample: Scored, out: Path) -> None:
    with (out / folder.CHUNK_TABLE).open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    chunks = sample.chunks
    assert [f"{row['record_id']}_chunk_{row['chunk']}" for row in rows] == chunks.chunk_ids(
        0, chunks.n_chunks
    )
    windows = chunks.windows(0, chunks.n_chunks)
    assert [int(row["start"]) for row in rows] == windows.start.tolist()
    assert [int(row["end"]) for row in rows] == (windows.start + windows.length).tolist()
    assert sum(int(row["frames"]) for row in rows) == sample.frames.n_frames
    with (out / folder.CHUNK_CALLS).open(newline="") as stream:
        published = {
            row["Modified_ID"]: row["Is_Virus"]
            for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        }
    scored = [row for row in rows if row["frames"] != "0"]
    assert {f"{r['record_id']}_chunk_{r['chunk']}": str(r["call"] == "virus") for r in scored} == published
    for row in scored:
        others, virus = float(row["score1"]), float(row["score2"])
        assert float(row["score"]) == pytest.approx(virus / (others + virus))
    without = [row for row in rows if row["frames"] == "0"]
    assert {row["record_id"] for row in without} == {"gap"}
    assert {(r["score1"], r["score2"], r["score"], r["call"]) for r in without} == {("", "", "", "")}


def test_the_bedgraph_covers_every_scored_base_once(sample: Scored, out: Path) -> None:
    lines = [line.split("\t") for line in (out / folder.SCORES).read_text().splitlines()]
    with (out / folder.CHUNK_TABLE).open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    scored = [row for row in rows if row["score"]]
    assert [(line[0], line[3]) for line in lines] == [(bed_name(r["record_id"]), r["score"]) for r in scored]
    for name in NAMES[:-1]:
        mine = [(int(line[1]), int(line[2])) for line in lines if line[0] == bed_name(name)]
        assert [start for start, _ in mine] == [0, *(end for _, end in mine[:-1])]
        assert mine[-1][1] == 1130


def test_the_fasta_holds_the_letters_of_the_regions(sample: Scored, out: Path) -> None:
    letters = {name: sample.chunks.sequence(k).decode() for k, name in enumerate(NAMES)}
    entries = (out / folder.REGIONS_FASTA).read_text().removeprefix(">").split("\n>")
    assert len(entries) == len(places(sample))
    for entry, (name, start, end, kind) in zip(entries, places(sample), strict=True):
        header, *lines = entry.splitlines()
        assert header.startswith(f"{name}:{start + 1}-{end} region_")
        assert f" kind={kind} score=0.9" in header
        assert "".join(lines) == letters[name][start:end]


def test_tabix_reads_bed_bedgraph_and_gff3(sample: Scored, out: Path, tmp_path: Path) -> None:
    pysam = pytest.importorskip("pysam", reason="pysam is not installed")
    wanted = places(sample)
    for name, preset, written in (
        (folder.REGIONS_BED, "bed", bed_name),
        (folder.SCORES, "bed", bed_name),
        (folder.REGIONS_GFF3, "gff", gff3_name),
    ):
        packed = str(tmp_path / f"{name}.gz")
        pysam.tabix_compress(str(out / name), packed)
        pysam.tabix_index(packed, preset=preset)
        with pysam.TabixFile(packed, encoding="utf-8") as file:
            assert set(file.contigs) >= {written(record) for record, *_ in wanted}
            for record, start, end, _ in wanted:
                parser: Any = pysam.asGTF() if preset == "gff" else pysam.asBed()
                rows = list(file.fetch(written(record), start, end, parser=parser))
                if name == folder.SCORES:
                    assert (rows[0].start, rows[-1].end) == (start, end)
                else:
                    assert [(row.start, row.end) for row in rows] == [(start, end)]


def test_a_gff3_parser_reads_ids_kinds_and_coordinates(sample: Scored, out: Path) -> None:
    gffutils = pytest.importorskip("gffutils")
    database = gffutils.create_db(str(out / folder.REGIONS_GFF3), ":memory:")
    found = [
        (f.seqid, f.start, f.end, f.attributes["kind"][0], f.featuretype)
        for f in sorted(database.all_features(), key=lambda f: int(f.id.removeprefix("region_")))
    ]
    assert found == [
        (
            gff3_name(name),
            start + 1,
            end,
            kind,
            "proviral_region" if kind == "provirus_candidate" else "viral_sequence",
        )
        for name, start, end, kind in places(sample)
    ]
    lengths = [line.split() for line in database.directives if line.startswith("sequence-region")]
    assert [words[1:] for words in lengths] == [
        [gff3_name(name), "1", "660" if name == "gap" else "1130"] for name, *_ in places(sample)
    ]


def test_an_indexed_fasta_of_the_input_gives_the_letters_at_the_coordinates(
    sample: Scored, out: Path, tmp_path: Path
) -> None:
    pysam = pytest.importorskip("pysam", reason="pysam is not installed")
    genome = tmp_path / "genome.fa"
    genome.write_text(f">host\n{sample.chunks.sequence(1).decode()}\n")
    regions = (out / folder.REGIONS_FASTA).read_text().split(">")
    with pysam.FastaFile(str(genome)) as fasta:
        [(_, start, end, _, _)] = [row for row in bed(out / folder.REGIONS_BED) if row[0] == "host"]
        text = fasta.fetch("host", start, end)
        [entry] = [entry for entry in regions if entry.startswith("host:")]
        assert fasta.fetch(region=entry.split()[0]) == text == "".join(entry.splitlines()[1:])


def test_blocks_do_not_show_and_counts_agree(
    sample: Scored, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_calls, "BLOCK_RECORDS", 2)
    monkeypatch.setattr(folder, "TABLE_CHUNKS", 7)
    counts = sample.write(tmp_path / "pieces").counts
    assert len(list(out.iterdir())) > 10
    for file in out.iterdir():
        assert (tmp_path / "pieces" / file.name).read_bytes() == file.read_bytes(), file.name
    rows = bed(out / folder.REGIONS_BED)
    assert counts.regions == len(rows)
    assert counts.region_bases == sum(end - start for _, start, end, _, _ in rows)
    assert counts.provirus_candidates == sum("provirus" in kind for *_, kind, _ in rows) == 3


def test_least_length_and_support_leave_regions_out(sample: Scored, tmp_path: Path) -> None:
    sample.write(tmp_path / "long", rule=RegionRule(min_length=600))
    assert {kind.split(":")[1] for *_, kind, _ in bed(tmp_path / "long" / "regions.bed")} == {"whole_record"}
    sample.write(tmp_path / "sure", rule=RegionRule(min_support=99))
    assert (tmp_path / "sure" / "regions.bed").read_bytes() == b""
    assert (tmp_path / "sure" / "regions.gff3").read_bytes() == b"##gff-version 3\n"


IDS = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters=" "), min_size=1)


@given(IDS)
def test_gff3_names_use_the_letters_that_the_format_allows(name: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9.:^*$@!+_?|%-]+", gff3_name(name))
    assert unquote(gff3_name(name)) == name


@given(IDS | st.sampled_from(["#1", "track", "Browser_1", "trac", "%23", "a%"]))
def test_bed_names_read_back_and_are_never_taken_for_a_header(name: str) -> None:
    written = bed_name(name)
    assert not written.lower().startswith(("#", "track", "browser"))
    assert unquote(written) == name
