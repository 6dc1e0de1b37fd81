"""The samples among files and folders, what is said of them, and streams that are kept."""

import io
import os
import threading
from pathlib import Path

import pytest

from virnucpro_core.errors import InputError, UsageError
from virnucpro_core.samples.finding import find_samples, look_into, stray_files
from virnucpro_core.samples.removal import remove_sample
from virnucpro_core.samples.sample import register
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.samples.standard_input import STANDARD_INPUT, is_stream, keep_stream

SETTINGS = SampleSettings(profile="demo")


def fastq(path: Path, *headers: str, length: int = 300) -> Path:
    path.write_text("".join(f"@{header}\n{'A' * length}\n+\n{'I' * length}\n" for header in headers))
    return path


def found(*paths: Path, name: str | None = None) -> dict[str, list[str]]:
    return {one.name: [file.name for file in one.files] for one in find_samples(paths, name=name)}


def test_the_kept_cases(shared: Path) -> None:
    cases = shared / "cases"
    assert found(cases / "sra_split3") == {
        "SRR9": ["SRR9.fastq", "SRR9_1.fastq", "SRR9_2.fastq"],
        "other_sample": ["other_sample.fa"],
    }
    assert [*found(cases / "lanes")] == ["pat1"]
    (solo,) = find_samples([cases / "lone_mate"])
    assert find_samples([cases / "lone_mate"], interleaved=True)[0].notes == ()
    assert solo.notes == ("solo_R1.fastq: no file of the other mate: taken as single reads",)
    (run,) = find_samples([cases / "delivery_folder" / "run4"])
    assert [file.name for file in run.files] == ["reads_1.fq", "reads_2.fq"]
    assert run.notes == ()  # stray files are said of the folder, not of its first sample
    folder = cases / "delivery_folder" / "run4"
    [line] = stray_files([folder, cases / "lone_mate", *run.files])
    assert line == f"{folder}: not sequence files, ignored: MD5.txt, Thumbs.db, reads_1.fq.fai"


def test_numbered_samples_are_not_mates(tmp_path: Path) -> None:
    one, two = (fastq(tmp_path / f"pat_{n}.fq", f"p{n}") for n in (1, 2))
    assert found(one, two) == {"pat_1": ["pat_1.fq"], "pat_2": ["pat_2.fq"]}


def test_wrong_mates_stop_only_their_own_sample(tmp_path: Path) -> None:
    files = [
        fastq(tmp_path / "x_R1.fq", "a"),
        fastq(tmp_path / "x_R2.fq", "b"),
        fastq(tmp_path / "y.fq", "c"),
    ]
    wrong, good = find_samples(files)
    assert wrong.name == "x"
    assert "not the mate of" in str(wrong.error)
    assert (good.name, good.error) == ("y", None)


def test_files_under_one_name_keep_the_given_order(tmp_path: Path) -> None:
    files = [
        fastq(tmp_path / name, name)
        for name in ("z.fq", "p_S1_L001_R1_001.fq", "p_S1_L001_I1_001.fq", "a.fq")
    ]
    (one,) = find_samples(files, name="mine")
    assert [file.name for file in one.files] == ["z.fq", "p_S1_L001_R1_001.fq", "a.fq"]
    assert one.notes == ("index reads, left out: p_S1_L001_I1_001.fq",)


def test_hints(tmp_path: Path) -> None:
    short = fastq(tmp_path / "short.fq", *"abcdef", length=150)
    assert look_into([short], SETTINGS) == (
        "records of about 150 bases in chunks of 500: short records score less reliably; "
        "--chunk-size 300 fits better, --min-length N leaves short ones uncalled",
    )
    assert look_into([short], SampleSettings(chunk_size=300)) == ()
    mixed = fastq(tmp_path / "mixed.fq", "a/1", "a/2", "b/1", "b/2")
    (hint,) = look_into([mixed], SETTINGS)
    assert hint.startswith("mixed.fq: looks interleaved")
    assert look_into([mixed], SampleSettings(interleaved=True)) == ()
    assert look_into([fastq(tmp_path / "x.fq", "r1", "r2", "r3")], SETTINGS) == ()
    pair = [fastq(tmp_path / f"y_R{n}.fq", f"a {n}:N:0", f"b {n}:N:0") for n in (1, 2)]
    assert look_into(pair, SETTINGS) == ()


def test_a_stream_is_kept_once_and_goes_with_its_last_sample(tmp_path: Path) -> None:
    data = b">a\nACGT\n"
    kept = keep_stream(tmp_path, STANDARD_INPUT, io.BytesIO(data))
    assert kept.read_bytes() == data
    status = kept.stat()
    assert keep_stream(tmp_path, STANDARD_INPUT, io.BytesIO(data)) == kept
    assert kept.stat().st_mtime_ns == status.st_mtime_ns
    assert [file.name for file in kept.parent.iterdir()] == [kept.name]
    for name in ("one", "two"):
        register(tmp_path, name, [kept], SETTINGS)
    assert register(tmp_path, "one", [kept], SETTINGS, fresh=True).inputs[0].path == kept.resolve()
    remove_sample(tmp_path, "one")
    assert kept.exists()
    remove_sample(tmp_path, "two")
    assert not kept.exists()
    with pytest.raises(InputError, match="standard input: nothing came; check"):
        keep_stream(tmp_path, STANDARD_INPUT, io.BytesIO())


def test_a_named_pipe_is_a_stream(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert is_stream(pipe)
    assert is_stream(STANDARD_INPUT)
    assert not is_stream(tmp_path)
    writer = threading.Thread(target=pipe.write_bytes, args=(b">a\nACGT\n",))
    writer.start()
    assert keep_stream(tmp_path, pipe, io.BytesIO()).read_bytes() == b">a\nACGT\n"
    writer.join()


def test_a_folder_with_an_archive_only_names_it(tmp_path: Path) -> None:
    (tmp_path / "run.zip").touch()
    with pytest.raises(InputError, match=r"it holds run\.zip; unpack the archive"):
        find_samples([tmp_path])


def test_mates_and_wrong_mates_are_not_interleaved(tmp_path: Path) -> None:
    for name, header in (("x_R1.fq", "a/1"), ("x_R2.fq", "a/2")):
        (tmp_path / name).write_text(f"@{header}\nACGT\n+\nIIII\n@b{header[1:]}\nACGT\n+\nIIII\n")
    settings = SampleSettings(interleaved=True)
    with pytest.raises(UsageError, match="--interleaved is for files that have both mates"):
        look_into([tmp_path / "x_R1.fq", tmp_path / "x_R2.fq"], settings)
    with pytest.raises(InputError, match="not the mate of the read before it, 'a/1'"):
        look_into([tmp_path / "x_R1.fq"], settings)
