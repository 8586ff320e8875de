"""Have outputs moved? ``python -m tests.locks OLD/dvc.lock NEW/dvc.lock`` compares the hashes of all outs.

An out is equal (same path, same hash), renamed (its hash stands under a new path), different (same path, another
hash), new or gone. Of adapters that differ in bytes, it says whether their tensors are equal: then only what the file
says of itself, a name, differs. Files are looked up beside the lock files.
"""

import sys
from collections import Counter
from pathlib import Path

import yaml


def outs(lock: Path) -> dict[str, str]:
    """The hash of each out, by its path."""
    stages = yaml.load(lock.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}


def same_tensors(old: Path, new: Path) -> bool:
    """Whether two safetensors files hold equal tensors."""
    import torch
    from safetensors.torch import load_file

    before, after = load_file(old), load_file(new)
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def compare(old: Path, new: Path) -> None:
    """Print how many outs are what, and name those that differ."""
    before, after = outs(old), outs(new)
    fresh = {path: digest for path, digest in after.items() if path not in before}
    by_hash = {digest: path for path, digest in fresh.items()}
    counts: Counter[str] = Counter()
    renamed = set()
    for path, digest in sorted(before.items()):
        if after.get(path) == digest:
            counts["equal"] += 1
        elif digest in by_hash:
            counts["renamed"] += 1
            renamed.add(by_hash[digest])
            print(f"renamed    {path} → {by_hash[digest]}")
        elif path not in after:
            counts["gone"] += 1
            print(f"gone       {path}")
        else:
            counts["different"] += 1
            adapter = path.endswith(".safetensors") and same_tensors(old.parent / path, new.parent / path)
            print(f"different  {path}{' (equal tensors)' if adapter else ''}")
    for path in sorted(fresh.keys() - renamed):
        counts["new"] += 1
        print(f"new        {path}")
    print(", ".join(f"{counts[kind]} {kind}" for kind in ("equal", "renamed", "different", "new", "gone")))


if __name__ == "__main__":
    compare(Path(sys.argv[1]), Path(sys.argv[2]))
