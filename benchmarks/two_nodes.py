"""Two "nodes" with addresses of their own on one machine train stage 1 under torchrun; one is lost and comes back.

    python benchmarks/two_nodes.py [--steps 60]          (as root on Linux, with iproute2)

Each node is a network namespace; a virtual cable joins them. Everything on the second one, its torchrun included, gets
SIGKILL while it trains, and torchrun is started there again. The last line is one JSON object: steps `lost` and
`repeated` in the journal of the run beside the plan of its recipe, and `restarts`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runs import compare, descendants, start, wait_for_step

ROOT = Path(__file__).parents[1]
NODES = {"mio-a": "10.77.0.1", "mio-b": "10.77.0.2"}


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, stderr=None if check else subprocess.DEVNULL)


def connect() -> None:
    disconnect()
    for node in NODES:
        ip("netns", "add", node)
    ip("link", "add", "cable-a", "netns", "mio-a", "type", "veth", "peer", "name", "cable-b", "netns", "mio-b")
    for node, address in NODES.items():
        cable = f"cable-{node[-1]}"
        ip("-n", node, "addr", "add", f"{address}/24", "dev", cable)
        ip("-n", node, "link", "set", cable, "up")
        ip("-n", node, "link", "set", "lo", "up")


def disconnect() -> None:
    for node in NODES:
        ip("netns", "del", node, check=False)


def torchrun(node: str, folder: Path, steps: int) -> subprocess.Popen[bytes]:
    arguments = [
        *("ip", "netns", "exec", node, "env", f"GLOO_SOCKET_IFNAME=cable-{node[-1]}"),
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1",  # else torchrun does not tell a new node where the others meet
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{NODES['mio-a']}:29500", "--rdzv-id", "stage1"),
        *("--rdzv-conf", f"is_host={node == 'mio-a'}"),  # both namespaces have the machine's name
        *("--local-addr", NODES[node], "--max-restarts", "5", "-m", "mio", "fit", str(ROOT / "recipes/stage1.yaml")),
        *(f"train.steps={steps}", "evaluate.tasks=[]", "runtime.accelerator=cpu", "runtime.checkpoint_every=5"),
        "runtime.runs=runs",
    ]
    return start(folder, arguments, folder / f"{node}.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    # torchrun takes a node for lost after three missed signs of life, five seconds apart; one that is back before meets
    # its own ghost in the rendezvous
    parser.add_argument("--away", type=float, default=20.0, help="seconds until the lost node is back")
    options = parser.parse_args()
    if os.geteuid() or shutil.which("ip") is None:
        raise SystemExit("network namespaces need root and iproute2 (on Debian and Ubuntu: apt install iproute2)")
    connect()
    started: list[subprocess.Popen[bytes]] = []
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            journal = folder / "runs/stage1/journal.csv"
            started += [torchrun(node, folder, options.steps) for node in NODES]
            if not wait_for_step(started[0], journal, options.steps // 3):
                raise SystemExit((folder / "mio-a.log").read_text()[-3000:])
            began = time.monotonic()
            for number in descendants(started[1].pid):
                os.kill(number, signal.SIGKILL)
            started[1].wait()
            print(f"node mio-b lost after step {options.steps // 3}", flush=True)
            time.sleep(options.away)
            started.append(torchrun("mio-b", folder, options.steps))
            for process in (started[0], started[2]):
                if process.wait(900):
                    raise SystemExit("\n".join(log.read_text()[-3000:] for log in folder.glob("*.log")))
            printed = (folder / "mio-a.log").read_text()
            restarts = printed.count("going on from")
            print(f"done {time.monotonic() - began:.0f} s later; rank 0 went on from a checkpoint {restarts} times")
            found = compare(folder, "runs/stage1")
            if not found.exact or found.steps != options.steps:
                print(found)
            print(
                json.dumps(
                    {
                        "lost": len(found.lost) + options.steps - found.steps,
                        "repeated": len(found.repeated),
                        "different": len(found.different),
                        "restarts": restarts,
                    }
                )
            )
    finally:
        for process in started:
            if process.poll() is None:
                for number in descendants(process.pid):
                    os.kill(number, signal.SIGKILL)
        disconnect()


if __name__ == "__main__":
    main()
