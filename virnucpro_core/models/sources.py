"""The table of published models: repositories pinned to a commit, with files, sizes and digests.

Only the files in this table are ever downloaded (`downloads`), each at the pinned revision. No code of a repository is
downloaded.
"""

from dataclasses import dataclass
from typing import Literal

HUGGING_FACE = "https://huggingface.co"
ModelKind = Literal["esm2", "dnabert-s", "classifier"]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a source, with `size` in bytes and `sha256` if they are known in advance."""

    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One published model. `revision` is a full commit id; `files` is empty if they are not known.

    `size`: approximate number of bytes to download.
    """

    kind: ModelKind
    host: Literal["huggingface.co", "github.com"]
    repository: str
    revision: str
    licence: str
    size: int
    files: tuple[RemoteFile, ...] = ()
    chunk_size: int | None = None

    @property
    def address(self) -> str:
        return f"https://{self.host}/{self.repository}/tree/{self.revision}"

    @property
    def shown_size(self) -> str:
        """The size for people: `11.4 GB`, `31 MB`."""
        return f"{self.size / 1e9:.1f} GB" if self.size >= 1e9 else f"{self.size / 1e6:.0f} MB"


def _esm2(repository: str, revision: str, size: int, *files: RemoteFile) -> Source:
    return Source("esm2", "huggingface.co", f"facebook/{repository}", revision, "MIT", size, files)


def _classifier(chunk_size: int) -> Source:
    # The published classifiers hold 3328 x 512 float32 weights: 6.8 MB. Their digests are not published; the
    # commit pins them, and the manifest records the digests of the downloaded files.
    return Source(
        "classifier",
        "github.com",
        "Li-Jing-1997/VirNucPro",
        "0f93f2755a7ea1acd3ff1bcf182892f960ef3326",
        "MIT",
        6_900_000,
        (RemoteFile(f"{chunk_size}_model.pth"),),
        chunk_size,
    )


_CONFIG = RemoteFile("config.json")

SOURCES: dict[str, Source] = {
    "dnabert-s": Source(
        "dnabert-s",
        "huggingface.co",
        "zhihan1996/DNABERT-S",
        "00e47f96cdea35e4b6f5df89e5419cbe47d490c6",
        "see the model card",
        468_489_281,
        (
            RemoteFile(
                "config.json", 1_025, "d54c142114563aa34ef7c2b54ccc921d08e50cd7c3cd69c439d5e0d2bbcfcdee"
            ),
            RemoteFile(
                "tokenizer.json", 168_203, "667f5a0e6e9630f7052b004784dda7c7aeba395cc4ca3c01b11b02e6aa29d7b1"
            ),
            RemoteFile(
                "pytorch_model.bin",
                468_320_053,
                "f3cfc3d0541859df64759e758cc4bc40fe1d5760799a7d098a9f9f09501c1e5f",
            ),
        ),
    ),
    "esm2-8m": _esm2(
        "esm2_t6_8M_UR50D",
        "c731040fcd8d73dceaa04b0a8e6329b345b0f5df",
        31_385_067,
        _CONFIG,
        RemoteFile(
            "model.safetensors",
            31_384_292,
            "24c5fa474c48f3b754b86efe752d5f189d2bcd88190fa2270fc92b2ef3034189",
        ),
    ),
    "esm2-35m": _esm2(
        "esm2_t12_35M_UR50D",
        "6fbf070e65b0b7291e7bbcd451118c216cff79d8",
        136_009_576,
        _CONFIG,
        RemoteFile(
            "model.safetensors",
            136_008_798,
            "e35647818e0e064351d4531ed480d225a002567b4b2b93ad3a9246d753150fc0",
        ),
    ),
    "esm2-150m": _esm2(
        "esm2_t30_150M_UR50D",
        "a695f6045e2e32885fa60af20c13cb35398ce30c",
        595_258_484,
        _CONFIG,
        RemoteFile(
            "model.safetensors",
            595_257_706,
            "c3f1da8aea53bddd32c246c86168c23b9fd72341fb9db9a94436f855f5053566",
        ),
    ),
    "esm2-650m": _esm2(
        "esm2_t33_650M_UR50D",
        "08e4846e537177426273712802403f7ba8261b6c",
        2_609_507_171,
        _CONFIG,
        RemoteFile(
            "model.safetensors",
            2_609_506_392,
            "a08adabb949fa67ad3c14b509d04fd60368b35007b0095e3358f81200c4f4db0",
        ),
    ),
    "esm2-3b": _esm2(
        "esm2_t36_3B_UR50D",
        "476b639933c8baad5ad09a60ac1a87f987b656fc",
        11_367_136_000,
        _CONFIG,
        RemoteFile("pytorch_model.bin.index.json"),
        RemoteFile(
            "pytorch_model-00001-of-00002.bin",
            9_976_735_419,
            "0f971f11c449d21422aa982b791619c10351972992c735f4c3cd43fe09790412",
        ),
        RemoteFile(
            "pytorch_model-00002-of-00002.bin",
            1_390_347_055,
            "7560b46fc383c691fb74b915b7d4bcef40d3df181447f16ba4b298845e308d0c",
        ),
    ),
    # Its files and their digests are not in this table, so the user has to import it.
    "esm2-15b": _esm2("esm2_t48_15B_UR50D", "5fbca39631164edc1d402a5aa369f982f72ee282", 60_600_000_000),
    "virnucpro-300": _classifier(300),
    "virnucpro-500": _classifier(500),
}
