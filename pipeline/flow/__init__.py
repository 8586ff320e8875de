"""The pipeline as Prefect flows: the only part of it that imports prefect.

Two doors lead here. ``python -m pipeline.flow <stage>[@<key>] --argument value …`` runs one stage (``stage``): it is
what every ``cmd`` of ``dvc.yaml`` says. ``run_graph`` (``graph``) runs the stages of DVC's graph side by side, each by
``dvc repro --single-item``: DVC decides what is stale and is the only cache.

A stage never waits for Prefect and never fails with it. A second process (``recording``) hears what the stage does
through a pipe (``recorder``) and tells the server; it imports prefect, and starts a server where none is up, while the
stage imports its own libraries. When the pipe ends without a word, the stage was killed, and its run is shown as
crashed. It also hears what a person asks for in the UI: a run that is cancelled there is ended here, and goes on from
its last checkpoint when it is started again. With SELFADAPT_PREFECT=off there is no such process.
"""
