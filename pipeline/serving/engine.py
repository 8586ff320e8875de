"""The engine: many answers at once, each with its own adapter, rows coming and going at every step.

``step`` first lets waiting jobs in (their first pass, then their prompts, read together), then writes one token of
every running job. So a job never waits for another to end, a cancelled one is gone at the next step, and what one of
them does wrong ends that one alone. The same engine runs in the caller's thread (``finish``) and in one of a server's
own (``pipeline.serving.http``); ``submit`` may be called from any thread.

Cache and decode step are those of the batch job (``pipeline.model.decoding``); the layout of rows is not. Here they
begin at column 0 and have lengths of their own, so that a row can join without moving others, and a row that leaves is
replaced by the last one. The batch job's rows all end in one column, which makes writing a token a plain slice, and
share the columns of their prefix; that is the faster way where all prompts are known.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import LongTensor, Tensor

from pipeline.core.errors import UserError, out_of_memory
from pipeline.methods.common.routing import Gating
from pipeline.model.decoding.cache import Cache
from pipeline.model.decoding.step import advance, choose, forward
from pipeline.model.forward.adapters import Factors
from pipeline.model.forward.base import Adapted, Base, Compute
from pipeline.serving.choosing import Options, Weighed, nucleus, penalised, weighed, weighed_prompt
from pipeline.serving.forms import ALONE, Form
from pipeline.serving.jobs import Decision, Job, Late
from pipeline.serving.rows import Attached, Way

REMEDY = "use smaller coefficients, or make the model and the expert anew"
ROWS, COLUMNS = 8, 128  # the cache grows and shrinks by so many: moving it costs


class Engine:
    """Answers jobs on one base model. rows: at most so many at once; the rest wait in line."""

    def __init__(self, base: Base, factors: Factors, compute: Compute, *, rows: int = 32) -> None:
        self.base, self.factors, self.compute, self.rows = base, factors, compute, rows
        self.context = int(base.model.config.max_position_embeddings)
        self._lock = threading.Lock()
        self._arrived = threading.Event()
        self._waiting: deque[Job] = deque()
        self._attached = Attached(base.model, factors)
        self._empty()

    # ---- from any thread ---------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """The most tokens of a prompt and its answer together."""
        return min(self.context, self.compute.cache_tokens)

    def prompt_ids(self, turns: Sequence) -> list[int]:
        """The tokens of a chat, as the model's template writes it."""
        return self.base.prompt_ids(turns)

    def submit(self, job: Job) -> None:
        """Put a job in line. Raises UserError where it could never be answered."""
        if isinstance(job.strategy, Way):
            self._take([job], [(job.strategy, Decision(job.strategy.name))])
        else:
            job.prompt, job.options, _ = self._fitted(job, ALONE)
        with self._lock:
            self._waiting.append(job)
        self._arrived.set()

    def _take(self, jobs: Sequence[Job], decided: Sequence[tuple[Way, Decision]]) -> None:
        """Have each job computed in its way. Raises UserError, and changes none, where one of them does not fit."""
        fitted = [self._fitted(job, way.form) for job, (way, _) in zip(jobs, decided, strict=True)]
        for job, (way, decision), (prompt, options, form) in zip(jobs, decided, fitted, strict=True):
            job.way, job.decision, job.prompt, job.options = way, replace(decision, form=form), prompt, options

    def _fitted(self, job: Job, form: Form) -> tuple[list[int], Options, str]:
        """What a job reads, how it is answered, and whose form it is asked in, where ``form`` is its way's."""
        turns = job.messages if job.plain else form.before(job.messages)
        ids = job.prompt if job.prompt and turns is job.messages else self.prompt_ids(turns)
        left, options = self.room - len(ids), job.options
        if job.shrinks and 1 <= left < options.max_new_tokens:
            options = replace(options, max_new_tokens=left)
        if options.max_new_tokens > left:
            raise UserError(
                f"expected at most {self.room} tokens, prompt and answer together, got {len(ids)} + "
                f"{options.max_new_tokens}; shorten the prompt, or ask for fewer tokens"
            )
        return ids, options, "" if turns is job.messages else form.task

    def cancel(self, job: Job) -> None:
        """Nobody waits for this answer any more: it is gone at the next step, and is told nothing."""
        job.cancelled = True
        with self._lock, contextlib.suppress(ValueError):
            self._waiting.remove(job)

    @property
    def load(self) -> tuple[int, int]:
        """How many jobs run, and how many wait."""
        return len(self._running), len(self._waiting)

    # ---- from the one thread that runs the engine --------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Until there is something to do, or the time is over."""
        self._arrived.wait(seconds)
        self._arrived.clear()

    def finish(self, jobs: Sequence[Job]) -> None:
        """Answer these jobs in the caller's thread."""
        for job in jobs:
            self.submit(job)
        while self.step():
            pass

    @torch.no_grad()
    def step(self) -> bool:
        """Let jobs in and write one token of each; False where there was nothing to do."""
        self._leave()
        self._admit()
        if not self._running:
            self._empty()
            return bool(self._waiting)
        self._write()
        return True

    def _by_halves(self, jobs: Sequence[Job], work: Callable[[Sequence[Job]], None]) -> None:
        """Do the work of all jobs at once. Where that fails, do it by halves, down to those whose own work fails: they
        are told, and end. ``work`` changes nothing before it has succeeded."""
        if not jobs:
            return
        try:
            work(jobs)
        except Exception as error:
            if len(jobs) == 1:
                with contextlib.suppress(Exception):  # a listener that cannot hear
                    jobs[0].end(out_of_memory(error) or error)
                return
        else:
            return
        # Behind the handler: until there, the exception holds on to the memory of what has failed.
        middle = len(jobs) // 2
        self._by_halves(jobs[:middle], work)
        self._by_halves(jobs[middle:], work)

    def _empty(self) -> None:
        self._attached.detach()
        self._running: list[Job] = []
        self._cache = Cache(self.base.model, 0, 0)
        self._hold(torch.zeros(0, self.base.model.config.hidden_size, device=self.base.device), [])

    def _hold(self, hidden: Tensor, lengths: Sequence[int] | LongTensor) -> None:
        """hidden: (rows, hidden) the states that predict the next tokens. lengths: (rows,) tokens in the cache."""
        self._hidden = hidden
        self._lengths = torch.as_tensor(lengths, dtype=torch.long, device=self.base.device)
        self._cache.used = int(self._lengths.max()) if len(self._lengths) else 0

    def _leave(self) -> None:
        """Jobs that are over or cancelled give up their rows."""
        gone = [row for row, job in enumerate(self._running) if job.over or job.cancelled]
        if not gone:
            return
        if len(gone) == len(self._running):
            self._empty()
            return
        before = self._cache.leave(gone)
        self._running = [self._running[row] for row in before]
        self._hold(self._hidden[before], self._lengths[before])

    # ---- jobs come in ------------------------------------------------------------------------------------------------

    def _next(self) -> list[Job]:
        """The jobs that may come in now, in the order of the line: as many as rows, cache and one prompt pass hold."""
        chosen: list[Job] = []
        with self._lock:
            while self._waiting:
                job = self._waiting[0]
                if job.late:
                    self._waiting.popleft()
                    with contextlib.suppress(Exception):
                        job.end(
                            Late(f"expected an answer to begin within {job.seconds:g} s, but it did not; ask again")
                        )
                    continue
                together = [*self._running, *chosen, job]
                columns = max(other.columns for other in together)
                longest = max(len(other.prompt) for other in [*chosen, job])
                fits = len(together) <= self.rows and len(together) * columns <= self.compute.cache_tokens
                if not fits or (chosen and longest * (len(chosen) + 1) > self.compute.batch_tokens):
                    break
                chosen.append(self._waiting.popleft())
        return chosen

    def _admit(self) -> None:
        """Decide how the next jobs are computed, and read their prompts."""
        jobs = self._next()
        for strategy in dict.fromkeys(job.strategy for job in jobs if not job.way):
            self._by_halves([job for job in jobs if job.strategy is strategy], self._decide)
        ready = [(job, job.way.edits) for job in jobs if job.way]
        # Edits are attached to the whole model, so prompts under different ones are read one after the other.
        for edits in dict.fromkeys(edits for _, edits in ready):
            self._by_halves([job for job, own in ready if own is edits], self._read)

    def _decide(self, jobs: Sequence[Job]) -> None:
        """Have the first pass that these jobs ask for find out what each is to be computed with."""
        strategy = jobs[0].strategy
        assert not isinstance(strategy, Way)  # those were taken when they came
        self._attached.detach()
        self._take(jobs, strategy(self.base, [job.messages for job in jobs]))

    def _room(self, jobs: Sequence[Job]) -> None:
        """Have the cache hold these jobs beside those that run."""
        rows = -(-(len(self._running) + len(jobs)) // ROWS) * ROWS
        columns = -(-max(job.columns for job in (*self._running, *jobs)) // COLUMNS) * COLUMNS
        if (rows, columns) != (self._cache.room, self._cache.columns):
            every = torch.arange(self._cache.rows, device=self.base.device)
            self._cache.keep(every, room=rows, columns=columns)

    def _read(self, jobs: Sequence[Job]) -> None:
        """Read the prompts of jobs with the same edits into the cache; they are running then."""
        base, device = self.base, self.base.device
        self._attached.need([*_ways(self._running), *_ways(jobs)])
        self._room(jobs)
        own = slice(len(self._running), len(self._running) + len(jobs))
        lengths = torch.tensor([len(job.prompt) for job in jobs], device=device)
        longest = int(lengths.max())
        # Padding stands behind the prompt, where no token of it looks.
        ids = torch.tensor([job.prompt + [0] * (longest - len(job.prompt)) for job in jobs], device=device)
        real = torch.arange(longest, device=device) < lengths[:, None]
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()

        def place(kept: Tensor, new: Tensor) -> Tensor:
            kept[own, :, :longest] = new.to(kept.dtype)
            return new

        edits = jobs[0].way.edits if jobs[0].way else None
        with ExitStack() as stack:
            self._attached.attachment.begin(self._attached.numbers(_ways(jobs)), real)
            editing = stack.enter_context(edits.attached(base.model, self.factors)) if edits else None
            if editing:
                editing.begin(torch.arange(len(jobs), device=device), real)
            hidden = forward(
                base,
                self._cache,
                place,
                ids=ids,
                positions=torch.arange(longest, device=device).expand(len(jobs), -1),
                mask=causal.expand(len(jobs), 1, -1, -1),
            )
            if edits and isinstance(editing, Gating) and editing.gates is not None:
                for job, gates in zip(jobs, editing.gates.tolist(), strict=True):
                    job.decision = _opened(edits.config()["skills"], gates, job.decision)
        last = hidden[torch.arange(len(jobs), device=device), lengths - 1]
        for job, states in zip(jobs, hidden, strict=True):
            if job.options.echo and job.options.logprobs is not None:
                job.echoed = weighed_prompt(states[: len(job.prompt)], base.lm_head, job.prompt, job.options.logprobs)
        self._running += jobs
        self._cache.rows = len(self._running)
        self._hold(torch.cat([self._hidden.to(last.dtype), last]), torch.cat([self._lengths, lengths]))

    # ---- one token of every job --------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Choose a token of every row; rows that end leave; the others' tokens go through the model."""
        for job, sound in zip(self._running, self._hidden.isfinite().all(1).tolist(), strict=True):
            if not sound:
                with contextlib.suppress(Exception):
                    job.end(UserError(f"expected numbers from the model, got NaN or infinity; {REMEDY}"))
        self._leave()
        drawn = {job: job.draw() for job in self._running if job.options.temperature > 0}
        chosen: dict[Job, tuple[int, Weighed | None]] = {}

        def add(jobs: Sequence[Job]) -> None:
            for job in jobs:
                token, weight = chosen[job]
                job.add(token, self.base, weight)

        self._by_halves(self._running, lambda jobs: chosen.update(self._chosen(jobs, drawn)))
        for job in chosen:
            self._by_halves([job], add)
        self._leave()
        if self._running:
            self._by_halves(self._running, self._advance)
        self._leave()

    def _rows(self, jobs: Sequence[Job]) -> slice:
        """The rows of running jobs that stand next to each other."""
        first = self._running.index(jobs[0])
        return slice(first, first + len(jobs))

    def _chosen(self, jobs: Sequence[Job], drawn: dict[Job, Tensor]) -> dict[Job, tuple[int, Weighed | None]]:
        """The next token of each job, the most likely one or by its random number; weighed where that is asked for."""
        logits = self.base.lm_head(self._hidden[self._rows(jobs)])
        shaped = penalised(logits, [job.options for job in jobs], [job.ids for job in jobs])
        ids, _ = choose(shaped, torch.arange(len(jobs), device=logits.device))
        places = [place for place, job in enumerate(jobs) if job in drawn]
        if places:
            rows = torch.tensor(places, device=logits.device)
            options = [jobs[place].options for place in places]
            uniform = torch.cat([drawn[jobs[place]] for place in places]).to(logits.device)
            temperatures = [own.temperature for own in options]
            temperature = torch.tensor(temperatures, dtype=torch.float64, device=logits.device)
            inside = nucleus(shaped[rows], temperature, [own.top_p for own in options])
            every = torch.arange(len(places), device=logits.device)
            ids[rows], _ = choose(inside, every, uniform=uniform, temperature=temperature)
        chosen = ids.tolist()
        weights: list[Weighed | None] = [
            None if job.options.logprobs is None else weighed(logits[[place]], [id_], job.options.logprobs)[0]
            for place, (job, id_) in enumerate(zip(jobs, chosen, strict=True))
        ]
        return dict(zip(jobs, zip(chosen, weights, strict=True), strict=True))

    def _advance(self, jobs: Sequence[Job]) -> None:
        """Compute the newest tokens of jobs whose rows stand next to each other."""
        rows = self._rows(jobs)
        device, lengths = self.base.device, self._lengths[rows].clone()
        columns = torch.arange(int(lengths.max()) + 1, device=device)
        mask = torch.zeros(len(jobs), len(columns), dtype=self._cache.dtype, device=device)
        mask.masked_fill_(columns > lengths[:, None], -torch.inf)
        self._attached.need(_ways(jobs))
        hidden = advance(
            Adapted(self.base, self.compute, self._attached.attachment),
            self._cache,
            self._cache.one_token(lengths, rows),
            ids=torch.tensor([job.ids[-1] for job in jobs], device=device),
            positions=lengths,
            rows=self._attached.numbers(_ways(jobs)),
            mask=mask,
        )
        self._hidden[rows] = hidden
        self._lengths[rows] += 1
        self._hold(self._hidden, self._lengths)


def _ways(jobs: Sequence[Job]) -> list[Way]:
    return [job.way for job in jobs if job.way]


def _opened(skills: Sequence[str], gates: Sequence[float], before: Decision | None) -> Decision:
    """What the router of CS-ReFT decided; it reads what the model computes anyway. before: how the form was found."""
    weights = dict(zip(skills, gates, strict=True))
    names = [name for name, gate in weights.items() if gate > 0]
    return replace(before or Decision(""), chosen=f"csreft, open: {', '.join(names) or 'none'}", weights=weights)
