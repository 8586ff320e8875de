"""The pipeline's graph, run by DVC and recorded by Prefect.

Two doors lead here. ``python -m pipeline.flow <stage>[@<key>] --argument value …`` runs one stage (``one``); every
``cmd`` of ``dvc.yaml`` is such a line. ``run.run_graph`` runs the stages of DVC's graph side by side, each by
``dvc repro --single-item``. DVC decides what is stale, and is the only cache.

A stage never waits for Prefect and never fails with it. A second process (``recorder``) hears through a pipe what the
stage does (``reporter``), and tells Prefect's server, which it starts where none is up (``server``). When the pipe ends
without a word, the stage was killed, and its run is shown as crashed. The recorder also hears what a person asks for in
the UI: a run that is cancelled there is ended here, and goes on from its last checkpoint when it is started again. With
SELFADAPT_PREFECT=off nothing is recorded. The stages ``code`` and ``plan``, which take a fraction of a second, are
never recorded.

``plan`` expands the settings into what the graph runs, and ``stages`` reads the graph as data. ``warm`` forks stages
from a process that has their libraries loaded. ``children`` ends the processes of a run that was killed, ``lock`` makes
good what a killed DVC leaves, and ``keeper`` keeps the project's own Prefect server up for as long as it is used.
"""
