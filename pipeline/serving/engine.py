"""The engine: many answers at once, each with its own adapter, rows coming and going at every step.

A *job* is one prompt to be answered. ``step`` first lets waiting jobs in (their first pass, then their prompts, read
together), then writes one token of every running job. So a job never waits for another to end, a cancelled one is
gone at the next step, and what one of them does wrong ends that one alone. The same engine runs in the caller's
thread (``finish``) and in one of a server's own (``pipeline.serving.http``); ``submit`` may be called from any thread.

The rows of the cache begin at column 0 and have lengths of their own, so that a row can join without moving others;
a row that leaves is replaced by the last one. ``core.generation`` runs a batch to its end instead, which is the faster
way where all prompts are known.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import torch
from jinja2 import TemplateError
from torch import LongTensor, Tensor

from pipeline.core.errors import UserError, out_of_memory
from pipeline.methods.csreft import Gating
from pipeline.model.decoding.sampling import greedy, sample
from pipeline.model.forward.adapters import Attachment, Factors
from pipeline.model.forward.base import Base, Compute, decoder
from pipeline.serving.rows import Way, attached

REMEDY = "use smaller coefficients, or make the model and the expert anew"
ROWS, COLUMNS = 8, 128  # the cache grows and shrinks by so many: moving it costs


class Late(UserError):
    """The time of a job was over before its turn came."""


@dataclass(frozen=True)
class Decision:
    """What the first pass decided, and what it cost.

    chosen: the way that was taken, in words. weights: what it was chosen by: probabilities of categories, or gates.
    tokens: read in the first pass, beside the prompt itself. seconds: of the pass, which several jobs may share.
    """

    chosen: str
    weights: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Answered:
    """A finished answer. ended: by the model itself (``stop``), at the limit of tokens, or of time."""

    text: str
    tokens: int
    prompt_tokens: int
    ended: Literal["stop", "length", "time"]
    decision: Decision
    seconds: float


# A strategy: a way that is known beforehand, or a first pass over the model (nothing attached) that finds one for each
# of several chats.
FirstPass = Callable[[Base, Sequence[Sequence]], list[tuple[Way, Decision]]]
Strategy = Way | FirstPass


@dataclass(eq=False)
class Job:
    """One prompt to be answered. messages: chat turns.

    tell: hears, in the engine's thread, the Decision, then pieces of text, then Answered; or an exception, as the
        last. seconds: after which the answer ends where it is. seed: of sampling, where temperature is not 0.
    """

    messages: Sequence
    strategy: Strategy
    max_new_tokens: int
    tell: Callable[[Decision | str | Answered | Exception], None]
    temperature: float = 0.0
    seed: int = 0
    seconds: float = float("inf")

    def __post_init__(self) -> None:
        self.cancelled = False
        self.started = time.monotonic()
        self.prompt: list[int] = []
        self.ids: list[int] = []
        self.way: Way | None = None
        self.decision: Decision | None = None
        self.generator = torch.Generator().manual_seed(self.seed)
        self._told_from = self._read_to = 0

    @property
    def late(self) -> bool:
        return time.monotonic() - self.started > self.seconds

    @property
    def columns(self) -> int:
        """Of the cache, at most."""
        return len(self.prompt) + self.max_new_tokens

    def piece(self, base: Base, last: bool) -> str:
        """The text that the newest token added: nothing while it ends inside a character."""
        before = base.text(self.ids[self._told_from : self._read_to])
        now = base.text(self.ids[self._told_from :])
        if not last and (len(now) <= len(before) or now.endswith("\ufffd")):
            return ""
        # From here on only the last piece is decoded again: a tokenizer may join a token to the one before it.
        self._told_from, self._read_to = self._read_to, len(self.ids)
        return now[len(before) :]


class _Cache:
    """Keys and values of the running rows, (rows, key-value heads, columns, head size) a layer.

    lengths: (rows,) tokens held of each. reading: the rows that a prompt pass fills, None on a decode step.
    """

    def __init__(self, device: torch.device) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.lengths = torch.zeros(0, dtype=torch.long, device=device)
        self.reading: slice | None = None
        self.size = (0, 0)

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        if layer == len(self.keys):
            rows, columns = self.size
            shape = (rows, keys.shape[1], columns, keys.shape[3])
            self.keys.append(keys.new_zeros(shape))
            self.values.append(values.new_zeros(shape))
        held = self.keys[layer], self.values[layer]
        if self.reading is not None:
            for cache, new in zip(held, (keys, values), strict=True):
                cache[self.reading, :, : new.shape[2]] = new
            return keys, values
        every = torch.arange(len(keys), device=keys.device)
        for cache, new in zip(held, (keys, values), strict=True):
            cache[every, :, self.lengths] = new[:, :, 0]
        end = int(self.lengths.max()) + 1
        return held[0][: len(keys), :, :end], held[1][: len(keys), :, :end]

    def get_seq_length(self, layer: int = 0) -> int:
        return 0

    def resize(self, rows: int, columns: int) -> None:
        """Room for so many; what is held and fits is kept."""
        if (rows, columns) == self.size:
            return
        self.size = rows, columns
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                new = old.new_zeros((rows, old.shape[1], columns, old.shape[3]))
                kept = old[:rows, :, :columns]
                new[: kept.shape[0], :, : kept.shape[2]] = kept
                tensors[layer] = new

    def leave(self, row: int) -> None:
        """The last row takes the place of one that leaves."""
        last = len(self.lengths) - 1
        if row < last:
            used = int(self.lengths[last])
            for tensors in (self.keys, self.values):
                for held in tensors:
                    held[row, :, :used] = held[last, :, :used]
            self.lengths[row] = self.lengths[last]
        self.lengths = self.lengths[:last].clone()


class Engine:
    """Answers jobs on one base model. rows: at most so many at once; the rest wait in line."""

    def __init__(self, base: Base, factors: Factors, compute: Compute, *, rows: int = 32) -> None:
        self.base, self.factors, self.compute, self.rows = base, factors, compute, rows
        self.context = int(base.model.config.max_position_embeddings)
        self._lock = threading.Lock()
        self._arrived = threading.Event()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._hidden = torch.zeros(0)  # (rows, hidden): the last states, which the next tokens are read off
        self._cache = _Cache(base.device)
        self._ways: list[Way] = []
        self._attachment = Attachment()
        self._attached = ExitStack()

    # ---- from any thread ---------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Put a job in line. Raises UserError where it could never be answered."""
        try:
            job.prompt = self.base.prompt_ids(job.messages)
        except TemplateError as error:
            raise UserError(
                f"expected turns that this model's chat template takes, but it says: {error}; change their roles"
            ) from None
        room = min(self.context, self.compute.cache_tokens)
        if job.columns > room:
            raise UserError(
                f"expected at most {room} tokens, prompt and answer together, got {len(job.prompt)} + "
                f"{job.max_new_tokens}; shorten the prompt, or ask for fewer tokens"
            )
        with self._lock:
            self._waiting.append(job)
        self._arrived.set()

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
        for row in reversed(range(len(self._running))):
            if self._running[row].cancelled:
                self._leave(row)
        self._admit()
        if not self._running:
            return bool(self._waiting)
        try:
            self._write()
        except Exception as error:  # whatever it was: those who wait are told, and the next ones find an empty batch
            for job in self._running:
                job.tell(out_of_memory(error) or error)
            self._empty()
        return True

    def _empty(self) -> None:
        self._attached.close()
        self._running, self._ways, self._attachment = [], [], Attachment()
        self._cache = _Cache(self.base.device)
        self._hidden = torch.zeros(0)

    def _leave(self, row: int) -> None:
        self._cache.leave(row)
        last = self._running.pop()
        if row < len(self._running):
            self._running[row] = last
            self._hidden[row] = self._hidden[len(self._running)]
        self._hidden = self._hidden[: len(self._running)].clone()
        if not self._running:
            self._empty()

    def _next(self) -> list[Job]:
        """The jobs that may come in now, in the order of the line: as many as rows, cache and one prompt pass hold."""
        chosen: list[Job] = []
        with self._lock:
            while self._waiting:
                job = self._waiting[0]
                if job.late:
                    self._waiting.popleft()
                    job.tell(Late(f"expected an answer to begin within {job.seconds:g} s; ask again later"))
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
        jobs = self._next()
        if not jobs:
            return
        for strategy in dict.fromkeys(job.strategy for job in jobs):
            alike = [job for job in jobs if job.strategy is strategy]
            try:
                found = self._decide(strategy, alike)
            except Exception as error:
                for job in alike:
                    job.tell(out_of_memory(error) or error)
                continue
            for job, (way, decision) in zip(alike, found, strict=True):
                job.way, job.decision = way, decision
        ready = [job for job in jobs if job.way]
        # Edits are attached to the whole model, so prompts under different ones are read one after the other.
        for edits in dict.fromkeys(job.way.edits for job in ready if job.way):
            group = [job for job in ready if job.way and job.way.edits is edits]
            before = len(self._running)
            try:
                self._read(group)
            except Exception as error:
                for job in group:
                    job.tell(out_of_memory(error) or error)
                self._cache.lengths = self._cache.lengths[:before]
                self._hidden = self._hidden[:before]
                del self._running[before:]

    def _decide(self, strategy: Strategy, jobs: Sequence[Job]) -> list[tuple[Way, Decision]]:
        """What these jobs, which ask for the same strategy, are to be computed with."""
        if isinstance(strategy, Way):
            return [(strategy, Decision(strategy.name))] * len(jobs)
        self._detach()
        return strategy(self.base, [job.messages for job in jobs])

    def _detach(self) -> None:
        self._attached.close()
        self._ways = []

    def _attach(self, ways: Sequence[Way]) -> None:
        """Have the model know these ways and those of the running rows; nothing is done where it does."""
        needed = list(dict.fromkeys(way for way in (*(job.way for job in self._running), *ways) if way))
        if self._ways and set(needed) <= set(self._ways):
            return
        self._detach()
        self._attachment = self._attached.enter_context(attached(self.base.model, self.factors, needed))
        self._ways = needed

    def _numbers(self, jobs: Sequence[Job]) -> LongTensor:
        place = {way: number for number, way in enumerate(self._ways)}
        return torch.tensor([place[job.way] for job in jobs if job.way], device=self.base.device)

    def _read(self, jobs: Sequence[Job]) -> None:
        """Read the prompts of jobs with the same edits into the cache; they are running then."""
        base, device = self.base, self.base.device
        self._attach([job.way for job in jobs if job.way])
        start, end = len(self._running), len(self._running) + len(jobs)
        columns = max(job.columns for job in (*self._running, *jobs))
        self._cache.resize(-(-end // ROWS) * ROWS, -(-columns // COLUMNS) * COLUMNS)
        lengths = torch.tensor([len(job.prompt) for job in jobs], device=device)
        longest = int(lengths.max())
        ids = torch.tensor([job.prompt + [0] * (longest - len(job.prompt)) for job in jobs], device=device)
        real = torch.arange(longest, device=device) < lengths[:, None]
        # Padding stands behind the prompt, where no token of it looks.
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
        edits = jobs[0].way.edits if jobs[0].way else None
        with ExitStack() as stack:
            self._attachment.begin(self._numbers(jobs), real)
            editing = stack.enter_context(edits.attached(base.model, self.factors)) if edits else None
            if editing:
                editing.begin(torch.arange(len(jobs), device=device), real)
            self._cache.reading = slice(start, end)
            try:
                hidden = decoder(base.model)(
                    input_ids=ids,
                    position_ids=torch.arange(longest, device=device).expand(len(jobs), -1),
                    attention_mask=causal.expand(len(jobs), 1, -1, -1),
                    past_key_values=self._cache,
                    use_cache=True,
                ).last_hidden_state
            finally:
                self._cache.reading = None
            if isinstance(editing, Gating) and editing.gates is not None:
                for job, gates in zip(jobs, editing.gates.tolist(), strict=True):
                    job.decision = _opened(edits.config()["skills"], gates) if edits else job.decision
        last = hidden[torch.arange(len(jobs), device=device), lengths - 1]
        self._hidden = torch.cat([self._hidden, last]) if start else last
        self._cache.lengths = torch.cat([self._cache.lengths, lengths])
        self._running += jobs
        for job in jobs:
            if job.decision:
                job.tell(job.decision)

    def _write(self) -> None:
        """Choose a token of every row; rows that end leave; the others' tokens go through the model."""
        base, jobs = self.base, self._running
        logits = base.model.get_output_embeddings()(self._hidden).float()
        chosen, _ = greedy(logits)
        drawn = [row for row, job in enumerate(jobs) if job.temperature > 0]
        if drawn:
            uniform = torch.cat([torch.rand(1, generator=jobs[row].generator) for row in drawn]).to(base.device)
            temperatures = torch.tensor([jobs[row].temperature for row in drawn], device=base.device)
            chosen[drawn] = sample(logits[drawn] / temperatures[:, None], uniform, 1.0)[0]
        ended = []
        sound = self._hidden.isfinite().all(1).tolist()
        for row, (job, token) in enumerate(zip(jobs, chosen.tolist(), strict=True)):
            if not sound[row]:
                job.tell(UserError(f"expected numbers from the model, got NaN or infinity; {REMEDY}"))
                ended.append(row)
                continue
            job.ids.append(token)
            if self._heard(job):
                ended.append(row)
        for row in reversed(ended):
            chosen[row] = chosen[len(self._running) - 1]  # as ``_leave`` moves the rows
            self._leave(row)
        if not self._running:
            return
        chosen = chosen[: len(self._running)]
        lengths = self._cache.lengths
        columns = torch.arange(int(lengths.max()) + 1, device=base.device)
        mask = torch.zeros(len(lengths), len(columns), dtype=self._hidden.dtype, device=base.device)
        mask.masked_fill_(columns > lengths[:, None], -torch.inf)
        self._attach([])
        self._attachment.begin(self._numbers(self._running), None)
        self._hidden = decoder(base.model)(
            input_ids=chosen[:, None],
            position_ids=lengths[:, None],
            attention_mask=mask[:, None, None],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        self._cache.lengths = lengths + 1

    def _heard(self, job: Job) -> bool:
        """Tell a job its newest token; whether it was its last."""
        ended: Literal["stop", "length", "time"] | None = None
        if job.ids[-1] in self.base.end_ids:
            ended = "stop"
        elif len(job.ids) == job.max_new_tokens:
            ended = "length"
        elif job.late:
            ended = "time"
        if piece := job.piece(self.base, last=ended is not None):
            job.tell(piece)
        if ended and job.decision:
            text = self.base.text(job.ids)
            job.tell(Answered(text, len(job.ids), len(job.prompt), ended, job.decision, time.monotonic() - job.started))
        return ended is not None


def _opened(skills: Sequence[str], gates: Sequence[float]) -> Decision:
    """What the router of CS-ReFT decided; it reads what the model computes anyway."""
    weights = dict(zip(skills, gates, strict=True))
    names = [name for name, gate in weights.items() if gate > 0]
    return Decision(f"csreft, open: {', '.join(names) or 'none'}", weights)
