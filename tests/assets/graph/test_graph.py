"""The asset graph as people see it, held against a file: a change of it is a decision, not an accident."""

from pathlib import Path

import dagster as dg

from virnucpro_assets.definitions import defs
from virnucpro_core.samples.products import PRODUCTS

SNAPSHOT = Path(__file__).with_name("graph.txt")


def described() -> str:
    """Every asset with what it depends on and carries, one paragraph each; then jobs, sensors and schedules."""
    graph = defs.resolve_asset_graph()
    lines = []
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        partitions = node.partitions_def
        named = (
            partitions.partition_dimension_names
            if isinstance(partitions, dg.MultiPartitionsDefinition)
            else None
        )
        checks = sorted(check.name for check in graph.get_check_keys_for_assets({key}))
        condition = node.automation_condition
        schema = node.metadata.get("dagster/column_schema")
        lines += [
            key.to_user_string(),
            f"  from {', '.join(sorted(k.to_user_string() for k in node.parent_keys)) or '-'}",
            f"  by {' x '.join(named) if named else getattr(partitions, 'name', None)}",
            f"  group {node.group_name}, kinds {', '.join(sorted(node.kinds))}, owners {', '.join(node.owners)}",
            f"  code {node.code_version}, automation {condition.get_label() if condition else '-'}",
            f"  checks {', '.join(checks) or '-'}",
            f"  columns {', '.join(c.name for c in schema.columns) if schema else '-'}",  # type: ignore[union-attr]
            "",
        ]
    repository = defs.get_repository_def()
    lines.append(
        f"jobs {', '.join(sorted(j.name for j in repository.get_all_jobs() if not j.name.startswith('__')))}"
    )
    lines.append(f"sensors {', '.join(sorted(s.name for s in repository.sensor_defs))}")
    lines.append(f"schedules {', '.join(sorted(s.name for s in repository.schedule_defs))}")
    return "\n".join(lines) + "\n"


def test_the_graph_is_the_one_in_the_snapshot() -> None:
    assert described() == SNAPSHOT.read_text(), "if this is meant: python -m tests.assets.graph.test_graph"


def test_every_check_blocks_and_every_asset_says_what_it_is() -> None:
    graph = defs.resolve_asset_graph()
    assert all(graph.get_check_spec(key).blocking for key in graph.asset_check_keys)
    assert all(graph.get(key).description for key in graph.get_all_asset_keys())


def test_an_asset_s_code_version_is_its_product_s() -> None:
    graph = defs.resolve_asset_graph()
    versions = {name: graph.get(dg.AssetKey(name)).code_version for name in PRODUCTS}
    assert versions == {name: product.version for name, product in PRODUCTS.items()}


if __name__ == "__main__":
    SNAPSHOT.write_text(described())
