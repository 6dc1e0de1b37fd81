"""Reads a sample sheet: a table with a row for each set of files, as the pipelines of nf-core have it.

    sample,fastq_1,fastq_2,chunk_size
    pat1,pat1_L1_R1.fq.gz,pat1_L1_R2.fq.gz,300
    pat1,pat1_L2_R1.fq.gz,pat1_L2_R2.fq.gz,300
    pat2,pat2.fq.gz,,

Rows of one sample are joined. Instead of `fastq_1` a row may have `fasta` or `bam`. Paths are relative to the folder of
the sheet, those of settings too. Columns are separated by commas, tabs or semicolons. All faults are found before any
work begins.
"""

import csv
import dataclasses
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virnucpro_core.errors import EmptyFileError, InputError, UsageError, VirnucproError, printable
from virnucpro_core.files.disk import disk_errors
from virnucpro_core.samples.finding import FoundSample
from virnucpro_core.samples.inputs import passing_error
from virnucpro_core.samples.naming import check_chosen
from virnucpro_core.samples.settings import SampleSettings
from virnucpro_core.samples.settings_text import no_path, setting_from_text
from virnucpro_core.samples.sheet_faults import SheetFaults
from virnucpro_core.samples.standard_input import STANDARD_INPUT
from virnucpro_core.sequences.archives import stat_regular
from virnucpro_core.sequences.fasta import first_header
from virnucpro_core.sequences.formats import format_of
from virnucpro_core.sequences.pairs import agree, disagreement

FILES = ("fastq_1", "fastq_2", "fasta", "bam")
# Columns that sheets of nf-core have and that say nothing about a prediction.
IGNORED = ("group", "instrument_platform", "lane", "patient", "run_accession", "single_end", "strandedness")
SETTINGS = {f.name: f for f in dataclasses.fields(SampleSettings)}
_FORMATS = {"fastq_1": ("fastq",), "fastq_2": ("fastq",), "fasta": ("fasta", "genbank"), "bam": ("aligned",)}
_NAMES = {"fastq": "FASTQ", "fasta": "FASTA", "genbank": "GenBank", "aligned": "BAM or CRAM"}
_MOST_BYTES = 64 << 20
_HEAD_BYTES = 1 << 10
_AS_CSV = "save the sheet as CSV in UTF-8"
RELATIVE = "paths are relative to the folder of the sheet"


@dataclass(slots=True)
class _Row:
    """One row: the number of its line, its files as (column, path), and its settings as they are written.

    is_named: False if its cell for the sample holds no valid name. empty: the error of a file without content.
    """

    line: int
    sample: str
    is_named: bool
    files: list[tuple[str, Path]]
    settings: dict[str, Any] = field(default_factory=dict)
    empty: EmptyFileError | None = None


def read_sheet(path: Path, found: SheetFaults) -> list[FoundSample]:
    """The samples of a sheet, in its order, each with its files and the settings of its rows.

    Opens every file that is named and looks at its beginning. Faults are added to `found`; what such a row says
    otherwise can still be checked. An empty file is no fault of the sheet: it is the error of its sample, and the
    others go on. Raises InputError if the sheet itself cannot be read.
    """
    faults: list[tuple[int, str]] = []
    names: dict[int, str] = {}
    if path == STANDARD_INPUT:
        raise UsageError("a sample sheet cannot come through a pipe", where="--sheet -", remedy="give a file")
    rows = list(_rows(path, faults, names))
    samples: dict[str, list[_Row]] = {}
    for row in rows:
        samples.setdefault(row.sample, []).append(row)
    faults += _faults_of_files(rows)
    settings = {name: _joined(own, faults) for name, own in samples.items()}
    if not rows and not faults:
        faults.append((1, "no row below the header"))
    for line, what in faults:
        found.add([line], what, names.get(line, ""))
    return [
        FoundSample(
            name,
            tuple(file for row in own for _, file in row.files),
            settings[name],
            tuple(row.line for row in own),
            error=next((row.empty for row in own if row.empty), None),
        )
        for name, own in samples.items()
    ]


def is_sheet(path: Path, *, certain: bool) -> bool:
    """Whether the header of a table is that of a sample sheet, with or without faults, which `read_sheet` tells.

    certain: it has a column with files. Else the column `sample` is enough, and a file that is no text counts. Raises
    InputError for a file that cannot be read at this moment.
    """
    try:
        head = next(iter(_text(path).splitlines()), "")
    except InputError as error:
        if passing_error(error) is not None:
            raise
        if not certain:
            return True
        with disk_errors(path):  # UTF-16, say
            head = path.read_bytes()[:_HEAD_BYTES].replace(b"\0", b"").decode("latin-1").partition("\n")[0]
    columns = {name.strip(' "\r').lower() for name in re.split("[,\t;]", head)}
    return bool(columns & {*FILES}) or (not certain and "sample" in columns)


def files_named(path: Path) -> list[Path]:
    """The files that a sheet names, whatever else is wrong with it. Opens none of them."""
    try:
        return [file for row in _rows(path, [], {}) for _, file in row.files]
    except InputError:
        return []


def _faults_of_files(rows: Sequence[_Row]) -> Iterator[tuple[int, str]]:
    """What is wrong with the files of all rows, each thing once, however many rows name the file."""
    said: set[str] = set()
    lines: dict[Path, list[int]] = {}
    for row in rows:
        for what in _file_faults(row):
            if what not in said:
                said.add(what)
                yield row.line, what
        for file in {file.resolve() for _, file in row.files}:
            lines.setdefault(file, []).append(row.line)
    for file, (first, *others) in lines.items():
        if others:
            more = f" (and in {', '.join(f'row {line}' for line in others[1:])})" if others[1:] else ""
            yield others[0], f"{printable(file.name)} is given in row {first}, too{more}"


def _joined(own: Sequence[_Row], faults: list[tuple[int, str]]) -> dict[str, Any]:
    """The settings of all rows of a sample. An empty cell says nothing; two different values are a fault."""
    joined: dict[str, tuple[Any, int]] = {}
    for row in own:
        for name, value in row.settings.items():
            before, line = joined.setdefault(name, (value, row.line))
            if before != value:
                faults.append(
                    (row.line, f"{name} is {value!r}, and {before!r} in row {line} of the same sample")
                )
    return {name: value for name, (value, _) in joined.items()}


def _rows(path: Path, faults: list[tuple[int, str]], names: dict[int, str]) -> Iterator[_Row]:
    """The rows, while their faults and the names of their samples, by line, are added to `faults` and `names`."""
    text = _text(path)
    head = next(iter(text.splitlines()), "")
    comma = max(",\t;", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=comma)
    try:
        columns = [name.strip().lower().replace("-", "_") for name in next(reader, [])]
        _check_sheet(path, text)
        faults += [(1, what) for what in _header_faults(columns)]
        if not {*columns} & {"sample", *FILES, *SETTINGS}:
            return  # no sheet at all: a fault in each row would say nothing new
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                what = f"{len(cells)} cells, but the header has {len(columns)}"
                faults.append((reader.line_num, what))
                if columns[0] == "sample" and not _wrong_name(cells[0].strip()):
                    names[reader.line_num] = cells[0].strip()  # the other cells may be those of other columns
                continue
            values = dict(zip(columns, map(str.strip, cells), strict=True))
            row, wrong = _row(path.parent, reader.line_num, values)
            faults += [(reader.line_num, what) for what in wrong]
            if row.is_named:
                names[row.line] = row.sample
            yield row
    except csv.Error as error:
        faults.append((reader.line_num, f"not a table ({error})"))


def _check_sheet(path: Path, text: str) -> None:
    """Raises InputError for tables and files that are often taken for a sample sheet, and says what to give."""
    if text.startswith("PK\x03\x04"):
        what, remedy = "a spreadsheet (XLSX or ODS), not CSV", "save the sheet as CSV in UTF-8"
        raise InputError(what, path=path, remedy=remedy)
    if re.match(r'"?\[(header|data|reads|bclconvert_\w+)\]', text.lstrip(), re.IGNORECASE):
        what = "a sample sheet of an Illumina sequencer, which names no FASTQ files"
        remedy = "give the folder with the FASTQ files, or a table with the columns sample, fastq_1, fastq_2"
        raise InputError(what, path=path, remedy=remedy)


def _text(path: Path) -> str:
    if stat_regular(path).st_size > _MOST_BYTES:
        raise InputError("too large for a sample sheet", path=path, remedy="give a table of samples")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(error.strerror or str(error), path=path, remedy="check its permissions") from error
    if what := _other_format(content):
        raise InputError(what, path=path, remedy=_AS_CSV)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        what = f"not UTF-8 text (byte {content[error.start]:#04x} in row {line:,})"
        raise InputError(what, path=path, remedy=_AS_CSV) from error


def _other_format(content: bytes) -> str:
    """What a file is that is no CSV in UTF-8; "" if its beginning does not say so."""
    if content.startswith(b"PK\x03\x04"):
        return "a spreadsheet (XLSX or ODS), not CSV"
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        return "a spreadsheet (XLS), not CSV"
    return "UTF-16 text, not UTF-8" if _is_utf16(content) else ""


def _is_utf16(content: bytes) -> bool:
    """Whether the bytes are UTF-16, also without the mark at the beginning: then they hold NUL for each letter.

    A CSV file in UTF-8 has no NUL, but in a cell that is damaged.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    head = content[:_HEAD_BYTES]
    return any(head[odd::2].count(0) * 2 > len(head[odd::2]) for odd in (0, 1))


def _header_faults(columns: Sequence[str]) -> list[str]:
    known = ("sample", *FILES, *SETTINGS)
    unknown = [repr(printable(name)) for name in columns if name not in known and name not in IGNORED]
    faults = []
    if unknown:
        word = "column" if len(unknown) == 1 else "columns"
        faults.append(f"unknown {word} {', '.join(unknown)}; known are {', '.join(known)}")
    faults += [f"the column {name!r} is there twice" for name in known if columns.count(name) > 1]
    if "sample" not in columns:
        faults.append("there is no column 'sample'")
    if not {"fastq_1", "fasta", "bam"} & {*columns}:
        faults.append("there is no column with files: fastq_1, fasta or bam")
    return faults


def _row(folder: Path, line: int, values: Mapping[str, str]) -> tuple[_Row, list[str]]:
    faults = []
    name = values.get("sample", "")
    if "sample" in values and (what := _wrong_name(name)):
        faults.append(what)
    given = {name: values[name] for name in FILES if values.get(name)}
    kinds = [name for name in ("fastq_1", "fasta", "bam") if name in given]
    if len(kinds) != 1 and {"fastq_1", "fasta", "bam"} & {*values}:
        named = " and ".join(kinds) if kinds else "none"
        faults.append(f"one of fastq_1, fasta and bam is needed, this row has {named}")
    elif "fastq_2" in given and "fastq_1" not in given:
        faults.append("fastq_2 without fastq_1")
    wrong = {column: what for column, cell in given.items() if (what := no_path(cell))}
    faults += [f"{column}: {what}" for column, what in wrong.items()]
    files = [(column, folder / cell) for column, cell in given.items() if column not in wrong]
    row = _Row(line, name or f"row {line}", not _wrong_name(name), files)
    for name in SETTINGS:
        if values.get(name):
            try:
                row.settings[name] = setting_from_text(name, values[name], folder)
            except UsageError as error:
                faults.append(str(error))
    return row, faults


def _wrong_name(name: str) -> str:
    """Why this cannot be the name of a sample; "" if it can."""
    try:
        check_chosen(name)
    except UsageError as error:
        return f"{error.what}: {error.remedy.removesuffix(' (--sample NAME)')}"
    return ""


def _file_faults(row: _Row) -> list[str]:
    """What is wrong with the files of a row: missing, of another format than its column says, or no mates."""
    faults, heads = [], []
    for name, file in row.files:
        try:
            if not file.exists():
                raise InputError("no such file", path=file, remedy=RELATIVE)
            kind = format_of(file)
            if kind not in _FORMATS[name]:
                faults.append(f"{printable(str(file))} in column {name} is {_NAMES[kind]}")
            heads.append(first_header(file))
        except EmptyFileError as error:
            row.empty = error
        except VirnucproError as error:
            faults.append(str(error))
    if len({file.resolve() for _, file in row.files}) < len(row.files):
        return [*faults, "fastq_1 and fastq_2 are the same file"]
    if len(heads) == 2 and heads[0] and heads[1] and not agree(heads[0], heads[1]):
        one, two = (file for _, file in row.files)
        faults.append(str(disagreement(one, two, heads[0], heads[1])))
    return faults
