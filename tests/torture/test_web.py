"""What files are called and hold cannot act in the web UI, the tables or the inbox."""

import os
from pathlib import Path

import dagster as dg
import pytest

from torture.pipeline import Pipeline
from torture.rubbish import HOSTILE_IDS
from virnucpro_assets.automation.sensors import inbox_sensor
from virnucpro_assets.graph.calls import calls_table
from virnucpro_assets.graph.partitions import lane_of
from virnucpro_assets.platform.resource import Platform
from virnucpro_core.errors import UsageError

IDS = [name for name in HOSTILE_IDS if name.isprintable() and " " not in name and len(name) < 100]
NAMES = [
    b"line\nbreak.fa", b"\x1b[31mred.fa",
    b"[x](javascript:alert(1)).fa", b"<img src=x>.fa", b"\xff\xfe.fa", b"=cmd().fa",
    b"n" * 252 + b".fa", b"m" * 249 + b".fasta", b"_R1.fastq", b"_R2.fastq", b"-.fa",
    "é.fa".encode(),
]  # fmt: skip


def test_hostile_ids_pass_through_the_tables_as_they_are_and_act_nowhere(tmp_path: Path) -> None:
    (tmp_path / "reads.fa").write_text("".join(f">{name} <b>x</b>\n{'ACGTTGCA' * 12}\n" for name in IDS))
    pipeline = Pipeline(tmp_path / "home", tmp_path / "reads.fa")
    sample = pipeline.run()
    rows = (sample.results / "contigs.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == IDS
    assert {row.count("\t") for row in rows} == {7}
    report = (sample.results / "report.html").read_text()
    assert "<img src=x" not in report
    assert "<script>alert" not in report
    # Cells of a table are text for the web UI, never markup.
    assert [record.data["record"] for record in calls_table(sample.results).records] == IDS[:20]
    inside = {file.resolve() for file in tmp_path.rglob("*")}
    assert all(tmp_path.resolve() in file.parents for file in inside)


def test_no_name_in_the_inbox_stops_the_inbox(tmp_path: Path) -> None:
    inbox = tmp_path / "home" / "inbox"
    inbox.mkdir(parents=True)
    for name in NAMES:
        (inbox / os.fsdecode(name)).write_bytes(b"no sequence " + name)
    os.mkfifo(inbox / "pipe.fa")
    (inbox / "loop.fa").symlink_to(inbox / "loop.fa")
    (inbox / "good.fa").write_bytes(b">a\nACGTACGT\n")
    platform = Platform(home=str(tmp_path / "home"), device="cpu", profile="demo", inbox_stable_seconds=0)
    with dg.instance_for_test() as made:
        result = inbox_sensor(dg.build_sensor_context(instance=made, resources={"platform": platform}))
        assert isinstance(result, dg.SensorResult)
        for event in result.asset_events:
            made.report_runless_asset_event(event)  # type: ignore[arg-type]
            assert "\n" not in str(event.description)
            assert all(str(value.value).isprintable() for value in event.metadata.values())
        again = inbox_sensor(
            dg.build_sensor_context(instance=made, resources={"platform": platform}, cursor=result.cursor)
        )
        assert isinstance(again, dg.SensorResult)
        assert not again.asset_events
    assert [request.partition_keys for request in result.dynamic_partitions_requests or []] == [["good"]]
    assert sorted(f.name for f in inbox.iterdir()) == ["good.fa", "loop.fa"]
    aside = list((tmp_path / "home" / "set_aside").iterdir())
    assert len([f for f in aside if not f.name.endswith(".reason.txt")]) == len(NAMES) + 1


@pytest.mark.parametrize(
    "key", ["0|../x", "0|a b", "0|" + "a" * 65, "0|", "x|a", "-1|a", "1e3|a", "\u0661|a"]
)
def test_a_lane_key_is_validated_wherever_it_comes_from(key: str) -> None:
    with pytest.raises(UsageError):
        lane_of(key)
