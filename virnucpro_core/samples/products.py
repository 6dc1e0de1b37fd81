"""The table of a sample's products: what each is made from, how it is stored, and the version of its algorithm.

Code that depends on a property of a product reads it here and never compares product names. The names are those of the
assets and of the folders (except the results, which are in `results`).

**The version is part of a product's identity**, together with precision and attention kernel for an encoder's product.
Raise it whenever the same input would give other bytes. Products of older versions are computed again, never mixed.
Finished results stay as they are if what changed is not worth that: then the older version is in `kept`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Embedding = Literal["dnabert_embeddings", "esm_embeddings"]

CHUNKS, TRANSLATIONS, CONSENSUS = "chunks", "translations", "consensus"
DNABERT: Literal["dnabert_embeddings"] = "dnabert_embeddings"
ESM: Literal["esm_embeddings"] = "esm_embeddings"
MERGED, PREDICTIONS = "merged_features", "predictions"


@dataclass(frozen=True, slots=True)
class Product:
    """One product.

    version: of its algorithm. sources: the products it is made from. dataset: name of the float32 rows in its shards,
    "" for a product without shards. columns: number of columns of these rows, if the encoder does not define it; a
    virtual product shows its sources' rows side by side and has no columns of its own. classifier: whether the
    classifier makes it; its rows are then probabilities. frames: whether it is the frames, full or open. released_by:
    the retention policies that delete its data. kept: older versions whose finished results are not made again.

    For an encoder's product only: `encoder`; `label`, its name for people; whether it can compute in fp8 (if not, it
    uses float16 where fp8 was asked for); `settings`, the sample's settings that change its rows.
    """

    name: str
    version: str
    sources: tuple[str, ...] = ()
    dataset: str = ""
    columns: int = 0
    virtual: bool = False
    classifier: bool = False
    frames: bool = False
    released_by: tuple[Literal["scores", "results"], ...] = ()
    kept: tuple[str, ...] = ()
    encoder: Literal["dnabert-s", "esm2"] | None = None
    label: str = ""
    fp8: bool = False
    settings: tuple[str, ...] = ()

    def precision(self, asked: str) -> str:
        """The precision in which an encoder's product is computed if the sample asks for `asked`."""
        return "float16" if asked == "fp8" and not self.fp8 else asked


# In the order in which they are computed.
PRODUCTS: dict[str, Product] = {
    product.name: product
    for product in (
        Product(CHUNKS, "2", released_by=("results",)),
        Product(TRANSLATIONS, "1", (CHUNKS,), frames=True, released_by=("results",)),
        Product(
            DNABERT,
            "1",
            (TRANSLATIONS,),
            dataset="embeddings",
            released_by=("scores", "results"),
            encoder="dnabert-s",
            label="DNABERT-S",
        ),
        Product(
            ESM,
            "1",
            (TRANSLATIONS,),
            dataset="embeddings",
            released_by=("scores", "results"),
            encoder="esm2",
            label="ESM-2",
            fp8=True,
            settings=("overlong",),
        ),
        Product(
            MERGED,
            "1",
            (DNABERT, ESM),
            dataset="features",
            virtual=True,
            released_by=("scores", "results"),
        ),
        Product(
            PREDICTIONS,
            "1",
            (MERGED,),
            dataset="scores",
            columns=2,
            classifier=True,
            released_by=("results",),
        ),
        # 2: pairs.tsv names pairs of SRA reads `SRR5.0.1`, since 3 `SRR5.0`.
        Product(CONSENSUS, "3", (PREDICTIONS,), kept=("2",)),
    )
}
SHARDED = tuple(name for name, product in PRODUCTS.items() if product.dataset)
EMBEDDINGS: tuple[Embedding, ...] = (DNABERT, ESM)


def still_valid(recipes: object) -> object:
    """How finished results were made (`products` in run.json), with the present version for those that are kept."""
    if not isinstance(recipes, dict):
        return recipes
    return {
        name: recipe | {"version": product.version}
        if (product := PRODUCTS.get(name))
        and isinstance(recipe, dict)
        and recipe.get("version") in product.kept
        else recipe
        for name, recipe in recipes.items()
    }


def is_current(attrs: Mapping[str, Any], product: str) -> bool:
    """Whether the attributes of a column store say that this version of the product's algorithm wrote it."""
    return bool(attrs.get("version") == PRODUCTS[product].version)
