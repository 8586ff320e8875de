"""Write the fingerprint of every unit of code: what all other stages depend on instead of source files."""

from pipeline.core.artifacts import atomic_folder, read_json
from pipeline.core.code import Code
from pipeline.core.stage import In, Out, main
from pipeline.data.tasks import OWN


def run(*, plan: In, units: Out) -> dict[str, int]:
    """One file a unit, e.g. ``stages/train_svf``; rows of one's own have the code of all such under their name.

    ``plan`` is waited for: nothing runs on a plan that is behind.
    """
    fingerprints = Code().units()
    fingerprints |= {f"tasks/{task}": fingerprints[f"tasks/{OWN}"] for task in read_json(plan)["own"]}
    with atomic_folder(units) as folder:
        for name, text in fingerprints.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    return {"units": len(fingerprints)}


if __name__ == "__main__":
    main()
