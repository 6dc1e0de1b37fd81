"""Profiles: named sets of models that belong together, two encoders and one classifier per chunk size.

Resolving a profile opens only configs and classifiers, never an encoder's weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virnucpro_core.encoders.model_folder import DnabertShape, Esm2Shape, fingerprint
from virnucpro_core.errors import UsageError, WeightsError
from virnucpro_core.files.manifest import MANIFEST, read_manifest, verify
from virnucpro_core.models.classifier_folder import read_classifier
from virnucpro_core.models.sources import SOURCES
from virnucpro_core.models.store import ModelStore, remedy

DEMO_PROFILE = "demo"
DEMO = Path(__file__).parents[1] / "demo"
NO_MEANING = "The demo's scores carry no biological meaning: its encoders are random and tiny."
PUBLISHED_SIZES = (300, 500)
# Digests of configs, tokenizers and classifiers are checked here; those of an encoder's weights when a lane loads them.
DIGESTED_BYTES = 64e6


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set of models. The model names refer to the model store, those of `demo` to the package.

    `classifiers`: chunk size in bases -> model name.
    """

    name: str
    dnabert: str
    esm2: str
    classifiers: dict[int, str] = field(hash=False)
    default_device: str
    note: str


@dataclass(frozen=True, slots=True)
class ImportedFeatures:
    """Features that were imported and take the place of the encoders: sha256 of the import, and columns of each."""

    digest: str
    dnabert_dim: int
    esm2_dim: int


@dataclass(frozen=True, slots=True)
class ResolvedProfile:
    """The model folders and fingerprints of one run. Their dimensions are known to match.

    imported: sha256 of the imported features that take the place of the encoders; their folders are then not used and
    need not exist. "" if the encoders compute. min_open: least amino acids of the open frames that the classifier was
    trained on, 0 if it was trained on stop-free frames only.
    """

    profile: Profile
    chunk_size: int
    dnabert: Path
    esm2: Path
    classifier: Path
    dnabert_fingerprint: str
    esm2_fingerprint: str
    classifier_fingerprint: str
    dnabert_dim: int
    esm2_dim: int
    imported: str = ""
    min_open: int = 0

    @property
    def is_demo(self) -> bool:
        """Whether these are the demo models, whose scores have no biological meaning."""
        return self.profile.name == DEMO_PROFILE


def _own(size: str, note: str) -> Profile:
    """A profile without a published classifier; the user trains one."""
    name = f"esm2-{size}"
    classifiers = {chunk: f"virnucpro-{name}-{chunk}" for chunk in PUBLISHED_SIZES}
    return Profile(name, "dnabert-s", name, classifiers, "cuda", note)


_UNPUBLISHED = "No classifier is published for this encoder; train one."
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "esm2-3b",
            "dnabert-s",
            "esm2-3b",
            {chunk: f"virnucpro-{chunk}" for chunk in PUBLISHED_SIZES},
            "cuda",
            "The published pair of encoders and its classifiers.",
        ),
        *(_own(size, _UNPUBLISHED) for size in ("8m", "35m", "150m", "650m", "15b")),
        Profile(
            "demo",
            "dnabert_s",
            "esm2",
            {chunk: f"classifier_{chunk}" for chunk in PUBLISHED_SIZES},
            "cpu",
            NO_MEANING,
        ),
    )
}


def find_models(profile: str, chunk_size: int = 500, *, store: str | Path | None = None) -> ResolvedProfile:
    """Find the folders of a profile's models: `.dnabert`, `.esm2` and `.classifier`, for chunks of `chunk_size` bases.

    store: the folder of the model store (`virnucpro models list` shows it); the profile "demo" ships with the package
    and needs none. Raises what `resolve_profile` raises.
    """
    if store is None and profile != DEMO_PROFILE and profile in PROFILES:
        raise UsageError(
            f"the models of profile {profile} are in a model store", remedy="give its folder as `store`"
        )
    return resolve_profile(profile, chunk_size, ModelStore(Path(store or "").expanduser()))


def resolve_profile(
    name: str,
    chunk_size: int,
    store: ModelStore,
    *,
    classifier: Path | None = None,
    imported: ImportedFeatures | None = None,
) -> ResolvedProfile:
    """Folders, fingerprints and dimensions of a profile for chunks of `chunk_size` bases.

    For a chunk size without its own classifier, `classifier` (a folder) must be given; no other one is chosen
    silently. With `imported`, the encoders need not be there. Raises UsageError for an unknown profile or chunk size,
    WeightsError for models that are missing or whose dimensions do not match (both numbers are in the message).
    """
    profile = PROFILES.get(name)
    if profile is None:
        raise UsageError(f"there is no profile {name!r}", remedy=f"profiles: {', '.join(PROFILES)}")
    if classifier is None and chunk_size not in profile.classifiers:
        raise UsageError(
            f"profile {name} has classifiers for chunks of"
            f" {' and '.join(map(str, profile.classifiers))} bases, none for {chunk_size}",
            remedy="choose one of these chunk sizes, or name the classifier to use",
        )
    encoders = [] if imported else [profile.dnabert, profile.esm2]
    names = [*encoders, *([] if classifier else [profile.classifiers[chunk_size]])]
    if name != DEMO_PROFILE:
        _require_all(names, profile, store)
    folders = [_folder(profile, model, store) for model in encoders]
    chosen = classifier or _folder(profile, profile.classifiers[chunk_size], store)
    for folder in (*folders, chosen):
        if folder is not classifier or (folder / MANIFEST).exists():
            verify(folder, up_to=DIGESTED_BYTES)
    dnabert, esm2 = folders or (store.path(profile.dnabert), store.path(profile.esm2))
    if imported:
        dnabert_dim, esm2_dim = imported.dnabert_dim, imported.esm2_dim
    else:
        dnabert_dim, esm2_dim = DnabertShape.read(dnabert).width, Esm2Shape.read(esm2).width
    weights = read_classifier(chosen)
    if dnabert_dim + esm2_dim != weights.input_dim:
        origin = "the imported features have" if imported else f"the encoders of profile {name} give"
        raise WeightsError(
            f"the classifier takes {weights.input_dim} features, {origin}"
            f" {dnabert_dim} + {esm2_dim} = {dnabert_dim + esm2_dim}",
            where=chosen,
            remedy="use a classifier that was trained on these encoders",
        )
    if imported:
        fingerprints = dict.fromkeys(("dnabert-s", "esm2"), f"imported {imported.digest}")
    else:
        fingerprints = {"dnabert-s": fingerprint(dnabert), "esm2": fingerprint(esm2)}
    facts = read_manifest(chosen) if (chosen / MANIFEST).exists() else {}
    if facts:
        # Nobody knows the weights behind imported features: whoever names a classifier for them vouches for it.
        known = {} if imported and classifier else fingerprints
        _fits(chosen, facts, (weights.chunk_size, chunk_size), known)
    return ResolvedProfile(
        profile=profile,
        chunk_size=chunk_size,
        dnabert=dnabert,
        esm2=esm2,
        classifier=chosen,
        dnabert_fingerprint=fingerprints["dnabert-s"],
        esm2_fingerprint=fingerprints["esm2"],
        classifier_fingerprint=weights.fingerprint,
        dnabert_dim=dnabert_dim,
        esm2_dim=esm2_dim,
        imported=imported.digest if imported else "",
        min_open=int(facts.get("min_open", 0)),
    )


def published_models(profile: Profile) -> list[str]:
    """Names of the profile's models that can be fetched or are published elsewhere: encoders, then classifiers."""
    names = (profile.dnabert, profile.esm2, *profile.classifiers.values())
    return [name for name in names if name in SOURCES]


def _require_all(names: list[str], profile: Profile, store: ModelStore) -> None:
    """Raise one WeightsError that names every missing model of `names`, and what brings each of them."""
    missing = store.missing(names)
    if not missing:
        return
    if len(missing) == 1:
        store.require(missing[0])
    fetched = [name for name in missing if name in SOURCES and SOURCES[name].files]
    remedies = []
    if fetched:
        size = sum(SOURCES[name].size for name in fetched) / 1e9
        remedies.append(f"run `virnucpro models fetch {' '.join(fetched)}` ({size:.1f} GB)")
    remedies += [f"{name}: {remedy(name, store.path(name))}" for name in missing if name not in fetched]
    raise WeightsError(
        f"{len(missing)} of {len(names)} models of profile {profile.name} are missing: {', '.join(missing)}",
        where=store.root,
        remedy="; ".join(remedies),
    )


def _fits(
    classifier: Path,
    facts: Mapping[str, Any],
    chunk_sizes: tuple[int | None, int],
    fingerprints: dict[str, str],
) -> None:
    """Raise WeightsError if the classifier was trained on other chunks or encoder weights than it would score.

    facts: of its manifest. Classifiers made by `virnucpro train` record both, imported ones perhaps the chunk size.
    chunk_sizes: for which it was trained, and of the chunks that it would score.
    """
    trained_size, chunk_size = chunk_sizes
    sizes = [] if trained_size is None else [trained_size, *facts.get("training", {}).get("augment", ())]
    if sizes and chunk_size not in sizes:
        raise WeightsError(
            f"the classifier was trained on chunks of {' and '.join(map(str, sizes))} bases, the sample is cut into"
            f" chunks of {chunk_size}",
            where=classifier,
            remedy=f"give --chunk-size {trained_size}, or another classifier",
        )
    trained_on = facts.get("trained_on", fingerprints)
    for kind, identity in fingerprints.items():
        if trained_on.get(kind) != identity:
            raise WeightsError(
                f"the classifier was trained on other {kind} weights ({str(trained_on.get(kind))[:12]}) than the"
                f" profile has ({identity[:12]})",
                where=classifier,
                remedy="give the profile that it was trained with, or train it again with this one",
            )


def note_of(trained_on: Mapping[str, str]) -> str:
    """What to print wherever figures of these encoders (kind -> fingerprint) are shown: the demo's have no meaning."""
    demo = {fingerprint(DEMO / "dnabert_s"), fingerprint(DEMO / "esm2")}
    return NO_MEANING if demo & set(trained_on.values()) else ""


def _folder(profile: Profile, model: str, store: ModelStore) -> Path:
    return DEMO / model if profile.name == "demo" else store.require(model)
