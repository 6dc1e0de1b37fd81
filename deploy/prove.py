"""Prove the container file without a container engine: its own steps on a bare Debian, then the demo as it would run.

    sudo python3 deploy/prove.py /var/tmp/image --build-arg DEVICE=cpu

1. debootstrap puts a minimal Debian of the Dockerfile's base into FOLDER, which must not exist.
2. Every instruction of the Dockerfile is carried out in it, by chroot. An instruction not known here is an error.
3. The demo and the web UI run in it as its user, and as a user that no passwd file knows: HOME is not set, the root is
   read-only, /dev/shm has 64 MB, and there is no network. Only /srv/virnucpro and /tmp can be written.

Needs Linux, root and debootstrap. `--bind` and `--env` are for a site whose package index needs files or variables of
this machine. The files are read-only, and are there while packages are installed and not afterwards; nothing of them
stays in FOLDER.
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = Path(__file__).with_name("Dockerfile")
STRANGER = "54321:54321"  # no user of the image
SHM, TMP = "64m", "256m"
NODES = ("null", "zero", "full", "random", "urandom")
# What a container of this image is asked to do. $DEMO is the folder of the demo's genomes.
DEMO = """
set -eu
! touch /written 2>/dev/null || { echo 'the root can be written'; exit 1; }
[ -z "${HOME+set}" ] || { echo 'HOME is set'; exit 1; }
id; df -h /dev/shm | tail -1
DEMO=$(python -c 'import pathlib, virnucpro_core; print(pathlib.Path(virnucpro_core.__file__).parent / "demo")')
virnucpro --version
virnucpro doctor --profile demo
virnucpro predict "$DEMO/viral.fa" "$DEMO/non_viral.fa" --sample demo --profile demo --chunk-size 300 --out results
test -s results/report.html
sha256sum results/contigs.tsv
echo 'the same from a model store that cannot be written, in five homes at once'
mkdir models
cp -r "$DEMO/dnabert_s" models/dnabert-s
cp -r "$DEMO/esm2" models/esm2-3b
cp -r "$DEMO/classifier_300" models/virnucpro-300
chmod -R a-w models
for task in 1 2 3 4 5; do
  VIRNUCPRO_MODELS=$PWD/models virnucpro predict "$DEMO/viral.fa" --home task$task --device cpu --chunk-size 300 \
    --out task$task/results --quiet >/dev/null & tasks="${tasks-} $!"
done
for task in $tasks; do wait $task; done
sha256sum task*/results/contigs.tsv
virnucpro ui --port 3001 >ui.log 2>&1 & ui=$!
python - <<'END' || { cat ui.log; exit 1; }
import time, urllib.request
for attempt in range(120):
    try:
        page = urllib.request.urlopen("http://127.0.0.1:3001/results/", timeout=5).read()
        break
    except OSError:
        time.sleep(1)
assert b"demo" in page, page
print("the web UI shows the sample")
END
kill -TERM $ui
wait $ui || true
"""


@dataclass
class Image:
    """What the instructions of the Dockerfile have set so far."""

    args: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    folder: str = "/"


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """(name, what follows it) of each instruction, with continued lines joined as Docker joins them."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", "", "\n".join(lines)).splitlines():
        name, _, rest = line.partition(" ")
        yield name, rest.strip()


def build(image: Image, root: Path, asked: argparse.Namespace) -> None:
    """Carry out the Dockerfile. Raises CalledProcessError if a step fails, ValueError for an unknown instruction."""
    given = dict(pair.split("=", 1) for pair in asked.build_arg)
    for name, rest in instructions(DOCKERFILE.read_text()):
        if asked.only_demo and name in ("FROM", "COPY", "RUN"):
            continue
        print(f"--- {name} {rest}", flush=True)
        if name == "FROM":
            bare_debian(root, rest.removeprefix("debian:").removesuffix("-slim"), asked.mirror)
        elif name == "ARG":
            key, _, default = rest.partition("=")
            image.args[key] = given.pop(key, default)
        elif name == "ENV":
            image.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif name == "COPY":
            copy(root, *shlex.split(rest))
        elif name == "WORKDIR":
            image.folder = rest
        elif name == "USER":
            image.user = rest
        elif name == "CMD":
            json.loads(rest)
        elif name == "RUN":
            extra = dict(pair.split("=", 1) for pair in asked.env)
            enter(root, rest, image, env=extra | image.args, binds=["/etc/resolv.conf", *asked.bind])
        else:
            raise ValueError(
                f"{DOCKERFILE}: {name} is not known to {Path(__file__).name}: teach it, or do without"
            )
    if given:
        raise ValueError(f"{DOCKERFILE} has no ARG {', '.join(given)}")


def bare_debian(root: Path, suite: str, mirror: str) -> None:
    """Make the base with debootstrap. Raises ValueError if the folder exists: the steps are for a bare system."""
    if root.exists():
        raise ValueError(f"{root} exists: remove it, or give --only-demo to run the demo in it again")
    subprocess.run(["debootstrap", "--variant=minbase", suite, root, mirror], check=True)


def copy(root: Path, *words: str) -> None:
    """COPY of files into a folder of the image, or of one folder under its new name."""
    *names, target = words
    for source in (ROOT / name for name in names):
        if source.is_dir():
            shutil.copytree(source, root / target.lstrip("/"), ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, root / target.lstrip("/"))


def devices(root: Path) -> list[str]:
    """Commands that give the system a /dev of its own, with /dev/shm of the size that container engines give."""
    nodes = [f"touch {root}/dev/{node} && mount --bind /dev/{node} {root}/dev/{node}" for node in NODES]
    return [
        f"mount -t tmpfs -o mode=755 tmpfs {root}/dev",
        f"mkdir {root}/dev/shm",
        f"mount -t tmpfs -o size={SHM},mode=1777 tmpfs {root}/dev/shm",
        *nodes,
    ]


def enter(root: Path, command: str, image: Image, *, env: dict[str, str], binds: list[str]) -> None:
    """Run a RUN step as root: with /proc, /dev, the network and the bound paths, which all vanish with the process."""
    mounts = [f"mount -t proc proc {root}/proc", *devices(root)]
    made = []
    for path in binds:
        inside = root / path.lstrip("/")
        if not inside.exists():
            missing = [folder for folder in inside.parents if not folder.exists()]
            made += [*reversed(missing), inside]
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.mkdir() if Path(path).is_dir() else inside.touch()
        # Read-only: what packages do to their certificates, say, must not reach this machine's.
        mounts += [f"mount --bind {path} {inside}", f"mount -o remount,bind,ro {inside}"]
    variables = [f"{k}={v}" for k, v in ({"HOME": "/root"} | image.env | env).items()]
    inner = shlex.join(
        ["chroot", str(root), "env", "-i", "-C", image.folder, *variables, "sh", "-c", command]
    )
    try:
        subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", "\n".join([*mounts, inner])], check=True
        )
    finally:
        for path in reversed(made):
            if not path.is_dir():
                path.unlink()
            elif not list(path.iterdir()):  # packages may have put their own files beside
                path.rmdir()


def demo(root: Path, image: Image, user: str) -> None:
    """Run the demo as a container would: another user, a read-only root, a small /dev/shm, no network, no HOME."""
    home = root.with_name(f"{root.name}-home-{user.partition(':')[0]}")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    uid, _, gid = user.partition(":")
    shutil.chown(home, int(uid), int(gid))
    mounts = [
        "ip link set lo up",
        f"mount --bind {root} {root}",
        *devices(root),
        f"mount -t proc proc {root}/proc",
        f"mount -t tmpfs -o size={TMP},mode=1777 tmpfs {root}/tmp",
        f"mount --bind {home} {root}/srv/virnucpro",
        f"mount -o remount,bind,ro {root}",
    ]
    variables = [f"{k}={v}" for k, v in image.env.items()]
    rights = ["--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    inner = ["setpriv", *rights, "env", "-i", "-C", image.folder, *variables, "bash", "-c", DEMO]
    command = "\n".join([*mounts, shlex.join(["chroot", str(root), *inner])])
    print(f"=== the demo as {user}", flush=True)
    subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "sh", "-ec", command], check=True)


def main() -> int:
    """Build, then run the demo as both users. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the system is built; several GB")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian", help="Debian mirror")
    parser.add_argument(
        "--bind", action="append", default=[], metavar="PATH", help="path that pip or apt needs"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="variable that they need"
    )
    parser.add_argument("--only-demo", action="store_true", help="FOLDER is built: run the demo again")
    asked = parser.parse_args()
    root, image = asked.folder.resolve(), Image()
    try:
        build(image, root, asked)
        for user in (image.user, STRANGER):
            demo(root, image, user)
    except (subprocess.CalledProcessError, ValueError) as error:
        print(f"prove.py: {error}", file=sys.stderr)
        return 1
    print("proved")
    return 0


if __name__ == "__main__":
    sys.exit(main())
