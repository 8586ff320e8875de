"""See that the plan is up to date with the settings: the first stage of all, since every other is planned."""

from pipeline.core.artifacts import digest, write_json
from pipeline.core.config import read_plan
from pipeline.core.errors import UserError
from pipeline.core.stage import In, Out, main
from pipeline.flow.plan import update


def run(*, settings: In, plan: In, planned: Out) -> dict[str, object]:
    """Write which plan it was; a plan that is behind is written again, and everything else waits for the next run."""
    if update(settings, plan):
        raise UserError(f"expected the plan of {settings}, but {plan} was behind and has been written again; run again")
    write_json(planned, {"plan": digest(plan), "own": list(read_plan(plan)["prepare_own"])})
    return {}


if __name__ == "__main__":
    main()
