"""Attacks that need another user or another machine, each beside its control: `make security`, as root, with Debian's
iproute2 and util-linux. The stranger is user nobody, or a machine of its own made of a network namespace.

`python -m tests.security NAME...` runs some alone. Ends with status 1 unless every attack is refused and every control
gets through. What it starts it ends by its id.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.at_work import workers
from tests.cluster.test_doors import WHO_AM_I
from tests.launching import Launch

NOBODY = 65534
NAMESPACE = f"kd{os.getpid()}"
HERE, THERE = "10.213.7.1", "10.213.7.2"
WAIT_SECONDS = 40.0  # Ray writes its debug_state.txt every ten

found: list[bool] = []


def report(what: str, expected: bool, came: bool, detail: str = "") -> None:
    found.append(expected == came)
    outcome = "gets in" if came else "refused"
    print(f"{'as it should' if expected == came else 'WRONG':>12}  {outcome}  {what}{f': {detail}' if detail else ''}")


def as_nobody(script: str) -> subprocess.CompletedProcess[str]:
    who = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return subprocess.run([*who, "bash", "-ec", script], capture_output=True, text=True)


def until(happened: Callable[[], bool], seconds: float = WAIT_SECONDS) -> bool:
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


@contextmanager
def busy_launch(folder: Path, **environment: str) -> Iterator[Launch]:
    """A launch whose teacher's two workers are at work."""
    before = dict(os.environ)
    os.environ.update(environment)
    sets = ("--set", "seeds=[0]", "--set", "recipe.epochs=100000", "--set", "teachers.0.recipe.epochs=100000")
    launch = Launch("--grid", "digits", "--teacher-workers", "2", "--wandb", "disabled", *sets, folder=folder)
    try:
        launch.wait_until(lambda: any(worker.has_saved() for worker in workers(folder / "runs", "teachers")))
        yield launch
    finally:
        launch.kill()
        os.environ.clear()
        os.environ.update(before)


def logs_of(launch: Launch) -> Path:
    """Where its Ray writes its own logs."""
    return Path(_word(launch, "--log_dir="))


def _word(launch: Launch, option: str) -> str:
    launch.look()
    words = [word for process in launch.seen.values() if process.is_running() for word in process.cmdline()]
    return next(word.partition(option)[2] for word in words if word.startswith(option))


def overwrites(logs: Path, victim: Path) -> bool:
    """Whether nobody can have Ray write over a file of root's: by a link in the place of one that Ray writes to."""
    before = victim.read_bytes()
    until(lambda: (logs / "debug_state.txt").exists())
    as_nobody(f"cd {logs}; mv debug_state.txt was; ln -s {victim} debug_state.txt")
    return until(lambda: victim.read_bytes() != before)


def session_folder(folder: Path) -> None:
    victim = folder / "thesis.txt"
    victim.write_text("a year's work")
    victim.chmod(0o600)
    with busy_launch(folder / "a") as launch:
        report(
            "nobody overwrites a file of root's through Ray's session folder",
            False,
            overwrites(logs_of(launch), victim),
        )
    open_folder = folder / "open"
    open_folder.mkdir(mode=0o777)
    script = (
        f"import ray, time; ray.init(num_cpus=1, _temp_dir='{open_folder}/r', include_dashboard=False); time.sleep(300)"
    )
    control = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: any(open_folder.glob("r/session_2*/logs/debug_state.txt")))
        (logs,) = open_folder.glob("r/session_2*/logs")
        report("the same where the folder is as Ray makes it", True, overwrites(logs, victim))
    finally:
        _end(control)


def made_beforehand(folder: Path) -> None:
    """A folder of nobody's under the name that a launch uses."""
    place = folder / "shared"
    place.mkdir()
    place.chmod(0o1777)
    for owner, expected in ((NOBODY, False), (os.getuid(), True)):
        made = place / f"kd-grid-{os.getuid()}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        os.chown(made, owner, owner)
        changes = ("seeds=[0]", "recipe.epochs=1", "recipe.warmup_epochs=0", "modes=[baseline]", "teachers=[]")
        sets = [word for change in changes for word in ("--set", change)]
        done = subprocess.run(
            [
                sys.executable,
                "launch.py",
                "--grid",
                "digits",
                "--storage",
                f"{folder}/{owner}",
                "--wandb",
                "disabled",
                *sets,
            ],
            env={**os.environ, "TMPDIR": str(place), "KD_GRID_CACHE": ""},
            capture_output=True,
            text=True,
        )
        whose = "nobody has made" if owner == NOBODY else "the user has made"
        report(f"a temporary folder that {whose} is used", expected, done.returncode == 0, done.stderr.strip()[:150])


def compiled(folder: Path) -> None:
    """What torch compiles is unpickled when it is needed again."""
    from grid.private import machine_folder, use_private_compiler_caches

    os.environ["KD_GRID_CACHE"] = str(folder / "cache")
    use_private_compiler_caches()
    machine_folder()
    Path(os.environ["TORCHINDUCTOR_CACHE_DIR"], "entry").write_text("mine")
    tried = as_nobody(f"rm {os.environ['TORCHINDUCTOR_CACHE_DIR']}/entry")
    report("nobody replaces what torch has compiled", False, tried.returncode == 0, tried.stderr.strip())
    theirs = folder / "torchinductor_root"
    theirs.mkdir()
    theirs.chmod(0o777)
    (theirs / "entry").write_text("mine")
    report("the same in a folder of his own making", True, as_nobody(f"rm {theirs}/entry").returncode == 0)


@contextmanager
def another_machine() -> Iterator[None]:
    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", NAMESPACE)
    try:
        ip("link", "add", f"{NAMESPACE}a", "type", "veth", "peer", "name", f"{NAMESPACE}b", "netns", NAMESPACE)
        ip("addr", "add", f"{HERE}/24", "dev", f"{NAMESPACE}a")
        ip("link", "set", f"{NAMESPACE}a", "up")
        ip("-n", NAMESPACE, "addr", "add", f"{THERE}/24", "dev", f"{NAMESPACE}b")
        ip("-n", NAMESPACE, "link", "set", f"{NAMESPACE}b", "up")
        ip("-n", NAMESPACE, "link", "set", "lo", "up")
        ip("-n", NAMESPACE, "route", "add", "default", "via", HERE)
        yield
    finally:
        ip("netns", "del", NAMESPACE)


# All ports at once: without a name server a client takes its time to find out what it is called itself.
STORE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
import torch.distributed

def opens(port):
    try:
        store = torch.distributed.TCPStore(sys.argv[1], port, is_master=False, timeout=timedelta(seconds=30))
        store.set("stranger", "was here")
    except Exception:
        return False
    return True

ports = [int(port) for port in sys.argv[2:]]
with ThreadPoolExecutor(len(ports)) as pool:
    print("opened", *[port for port, opened in zip(ports, pool.map(opens, ports)) if opened])
"""


def network(folder: Path) -> None:
    from torch.distributed import TCPStore

    with another_machine(), busy_launch(folder / "n") as launch:
        launch.look()
        ports, token, head = set(), "", 0
        for process in launch.seen.values():
            if not process.is_running():
                continue
            listening = [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            ports |= {one.laddr.port for one in listening}
            if process.name() == "gcs_server":
                token, head = process.environ()["RAY_AUTH_TOKEN"], listening[0].laddr.port
        there = ["ip", "netns", "exec", NAMESPACE, sys.executable, "-c"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
            "HOME": str(folder)
        }
        address = _word(launch, "--node-ip-address=")
        for what, expected, given in (
            ("another machine without a token runs code", False, {"RAY_AUTH_MODE": "disabled"}),
            ("another machine that has the token runs code", True, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}),
        ):
            command = [*there, WHO_AM_I, f"{address}:{head}"]
            done = subprocess.run(command, env={**clean, **given}, capture_output=True, text=True)
            report(what, expected, "ran as" in done.stdout, (done.stdout or done.stderr).strip().splitlines()[-1][:150])
        stores = subprocess.run([*there, STORE, HERE, *map(str, ports)], env=clean, capture_output=True, text=True)
        opened = stores.stdout.split()[1:]
        report(f"another machine opens a store at one of {len(ports)} ports", False, bool(opened), " ".join(opened))
        own = TCPStore(HERE, 0, 2, is_master=True, wait_for_workers=False)
        stores = subprocess.run([*there, STORE, HERE, str(own.port)], env=clean, capture_output=True, text=True)
        report("the same at a store as torch makes it", True, str(own.port) in stores.stdout.split())


def _end(process: subprocess.Popen[bytes]) -> None:
    below = psutil.Process(process.pid).children(recursive=True)
    for one in [*below, psutil.Process(process.pid)]:
        one.kill()
    process.wait()


ATTACKS = (compiled, made_beforehand, session_folder, network)


def main() -> int:
    if os.getuid() != 0:
        print("make security: needs root, to act as another user and to make a network namespace", file=sys.stderr)
        return 2
    chosen = [attack for attack in ATTACKS if not sys.argv[1:] or attack.__name__ in sys.argv[1:]]
    for attack in chosen:
        folder = Path(tempfile.mkdtemp(prefix="kds-", dir="/tmp"))
        folder.chmod(0o755)
        try:
            attack(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
