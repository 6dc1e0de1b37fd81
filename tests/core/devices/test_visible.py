"""CUDA_VISIBLE_DEVICES in all its forms, and GPUs and MIG instances as NVML lists them."""

from types import SimpleNamespace

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_core.devices import visible
from virnucpro_core.devices.visible import Board, Device, boards, choose
from virnucpro_core.errors import DeviceError

H100 = [Device(f"GPU-{i}f0e{i}a-11", "H100") for i in range(4)]
PLAIN = [Board(device) for device in H100]
SLICED = Board(Device("GPU-5a5a", "A100"), (Device("MIG-aa01", "1g"), Device("MIG-aa02", "1g")))
MIXED = [PLAIN[0], SLICED, PLAIN[1]]


@pytest.mark.parametrize(
    ("listed", "uuids"),
    [
        (None, ["GPU-0f0e0a-11", "MIG-aa01", "MIG-aa02", "GPU-1f0e1a-11"]),
        ("", []),
        ("-1", []),
        ("2,0", ["GPU-1f0e1a-11", "GPU-0f0e0a-11"]),
        (" 0 , 2 ", ["GPU-0f0e0a-11", "GPU-1f0e1a-11"]),
        ("0,7,2", ["GPU-0f0e0a-11"]),
        ("0,-1,2", ["GPU-0f0e0a-11"]),
        ("0,0", []),
        ("NoDevFiles", []),
        ("1", ["MIG-aa01", "MIG-aa02"]),
        ("MIG-aa02", ["MIG-aa02"]),
        ("MIG-aa02,MIG-aa01", ["MIG-aa02", "MIG-aa01"]),
        ("MIG-aa", []),  # the beginning of two
        ("GPU-1,GPU-0f", ["GPU-1f0e1a-11", "GPU-0f0e0a-11"]),
        ("GPU-", []),
        ("GPU-9", []),
        ("²", []),
    ],
)
def test_the_forms_of_the_variable(listed: str | None, uuids: list[str]) -> None:
    assert [d.uuid for d in choose(listed, MIXED)] == uuids


@given(st.permutations(range(4)), st.integers(0, 4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_devices_come_in_the_order_of_the_words_and_indices_mean_what_uuids_mean(
    order: list[int], count: int, by_uuid: list[bool]
) -> None:
    chosen = order[:count]
    words = [H100[i].uuid if by_uuid[i] else str(i) for i in chosen]
    assert choose(",".join(words), PLAIN) == [H100[i] for i in chosen]


@given(st.text(max_size=30))
def test_whatever_the_variable_holds_the_devices_are_real_and_no_device_comes_twice(listed: str) -> None:
    found = choose(listed, MIXED)
    assert len(set(found)) == len(found)
    assert {d.uuid for d in found} <= {d.uuid for board in MIXED for d in board.devices}


def test_boards_and_instances_as_the_driver_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def instance(_: object, place: int) -> SimpleNamespace:
        if place == 1:
            raise pynvml.NVMLError_NotFound
        return SimpleNamespace(uuid=f"MIG-{place}", name=b"1g.10gb")

    def mig(handle: SimpleNamespace) -> list[int]:
        if handle.uuid == "GPU-old":
            raise pynvml.NVMLError_NotSupported
        return [1, 1]

    cards = [
        SimpleNamespace(uuid="GPU-old", name="T4"),
        SimpleNamespace(uuid="GPU-new", name="H100"),
    ]
    fakes = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": cards.__getitem__,
        "nvmlDeviceGetUUID": lambda handle: handle.uuid,
        "nvmlDeviceGetName": lambda handle: handle.name,
        "nvmlDeviceGetMigMode": mig,
        "nvmlDeviceGetMaxMigDeviceCount": lambda _: 3,
        "nvmlDeviceGetMigDeviceHandleByIndex": instance,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(pynvml, name, fake)
    old, new = boards()
    assert old.devices == (Device("GPU-old", "T4"),)
    assert new.devices == (Device("MIG-0", "1g.10gb"), Device("MIG-2", "1g.10gb"))


def test_without_a_driver_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    with pytest.raises(DeviceError, match="driver does not answer"):
        boards()
    assert not visible.answers("GPU-0")
