"""The graph on several machines: a Prefect flow whose stages are tasks on Dask's workers (prefect-dask).

The process that a person starts, the coordinator, alone holds ``dvc.lock``. With each task it sends that record and the
settings. A worker is ``dask worker``, started in a clone of the project of its own: it fetches what the stage needs,
has DVC run the stage (``away``), and gives back the stage's entry in the record and the record of its run (``worker``).
The coordinator puts the entry into its own ``dvc.lock`` (``record``). Nothing is shared but DVC's cache: a remote,
to which workers push and from which others pull, or one ``cache.dir`` on a file system that all of them see, and then
nothing is pushed or pulled. DVC's locks know the processes of one machine alone, so no two workers may share a
folder.

What reads the folder's own files stays with the coordinator: the plan, the code's fingerprints, rows of one's own, the
reports (``run.Graph.apart``). A worker gets stages once the coordinator has looked at it (``hub``): its code does the
same, nobody works in its folder, and it reaches the cache. ``places`` finds or starts the workers, on this machine, at
an address, or by SLURM. ``flow`` is the flow.

A stage runs for as long as Dask wants it to. Where the coordinator goes, or a person cancels the run, Dask's scheduler
forgets the task, the worker sees that, and ends the stage. A worker that is killed takes its stage with it
(``children``); the scheduler gives the task to another worker, where it goes on from its last checkpoint.
"""
