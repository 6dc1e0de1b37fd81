"""`virnucpro ui --read-only` with a real server: viewers see the pages, and what would change something is refused."""

import socket
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.support.live_platform import Site, web_ui

REPOSITORY = 'repositoryName: "__repository__", repositoryLocationName: "virnucpro_assets.definitions"'
MUTATIONS = {
    "launchPipelineExecution": f"""mutation {{ launchPipelineExecution(executionParams: {{
        mode: "default", selector: {{ pipelineName: "clean_up", {REPOSITORY} }} }}) {{ __typename }} }}""",
    "addDynamicPartition": f"""mutation {{ addDynamicPartition(partitionsDefName: "sample", partitionKey: "intruder",
        repositorySelector: {{ {REPOSITORY} }}) {{ __typename }} }}""",
    "wipeAssets": """mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["chunks"]}}]) { __typename } }""",
    "startSensor": f"""mutation {{ startSensor(sensorSelector: {{ sensorName: "inbox", {REPOSITORY} }})
        {{ __typename }} }}""",
}
SEEN = """{ runsOrError { ... on Runs { results { runId } } }
  assetNodes { assetKey { path } partitionKeys }
  canBulkTerminate permissions { permission value } }"""
PAGES = ("/", "/assets", "/asset-groups/", "/runs", "/overview/activity", "/server_info")


@pytest.mark.timeout(200)  # the server starts a Python of its own, and that one the code server
def test_viewers_look_and_change_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path / "home")
    with web_ui(site, "--read-only") as server:
        for name, mutation in MUTATIONS.items():
            assert server.ask(mutation)[name]["__typename"] == "UnauthorizedError", name
        seen = server.ask(SEEN)
        assert {node["assetKey"]["path"][0] for node in seen["assetNodes"]} >= {
            "inbox",
            "consensus",
            "retention",
        }
        assert not any(permission["value"] for permission in seen["permissions"])
        assert seen["runsOrError"]["results"] == []
        assert all("intruder" not in key for node in seen["assetNodes"] for key in node["partitionKeys"])
        for page in PAGES:
            with opener().open(server.url + page, timeout=30) as answer:
                assert answer.status == 200, page
        port = urllib.parse.urlparse(server.url).port
        with pytest.raises(OSError), socket.create_connection((own_address(), port), timeout=2):
            pytest.fail("it listens beyond loopback")


def opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def own_address() -> str:
    """An address of this machine that is not loopback's; a port that nobody serves there refuses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return str(probe.getsockname()[0])
