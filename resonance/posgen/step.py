"""One training step: what it reads, where that lies, and how it runs.

Everything that a step reads and writes stays where it is (batch, dropout's bytes, weights, gradients),
so that on a GPU forward and backward are recorded once as a CUDA graph and replayed. The same lines
run as they are everywhere else.

Legend: N sequences, B batch, T positions fed.
"""

import ctypes
import platform
import sys
from collections.abc import Callable

import numpy as np
import torch

from resonance.posgen.decoder import Decoder, Dropout
from resonance.record.precision import precision_here


class DropoutMasks:
    """Draws the bytes of every Dropout of a model at once, on its device, for one shape of batch."""

    def __init__(self, decoder: Decoder, batch_size: int, num_positions: int, draws: torch.Generator) -> None:
        c = decoder.config
        rows = batch_size * num_positions
        sizes = {"attention.dropout": rows * num_positions * c.num_heads, "feed_forward.dropout": rows * c.d_ff}
        self.generator, self.spans, total = draws, [], 0
        for name, module in decoder.named_modules():
            if isinstance(module, Dropout) and module.threshold:
                size = sizes.get(name.split(".", 2)[-1], rows * c.d_model)
                self.spans.append((module, total, size))
                total += -(-size // 64) * 64  # keep every span aligned
        self.words = torch.empty(total // 8, dtype=torch.int64, device=draws.device)

    def draw(self) -> None:
        # From the least int64 on: the default range leaves every eighth byte without its top bit.
        self.words.random_(-(2**63), None, generator=self.generator)
        everything = self.words.view(torch.uint8)
        for module, start, size in self.spans:
            module.bytes = everything[start : start + size]

    def clear(self) -> None:
        for module, _, _ in self.spans:
            module.bytes = None


class Step:
    """Loss and gradients of one batch.

    loss_of   (inputs [B, T], targets [B, T]) -> loss, differentiable in `weights`
    inputs, targets  int64 [N, T], all of them, on the device

    The update is not part of it: one-cycle moves AdamW's beta1 at every step, and the fused kernel
    takes it as a number of the host, which a recorded graph would freeze.
    """

    def __init__(
        self,
        loss_of: Callable,
        weights: list[torch.nn.Parameter],
        inputs_NT: torch.Tensor,
        targets_NT: torch.Tensor,
        batch_size: int,
        precision: str,
        compile_it: bool,
    ) -> None:
        self.loss_of, self.weights, self.precision = CompiledOrNot(loss_of, compile_it), weights, precision
        self.sources = inputs_NT, targets_NT
        self.batch = tuple(source.new_empty((batch_size, *source.shape[1:])) for source in self.sources)
        self.as_graph, self.graph = inputs_NT.is_cuda, None

    @property
    def compiled(self) -> bool:
        return self.loss_of.compiled

    def __call__(self, index_B: torch.Tensor) -> torch.Tensor:
        """The loss, [] on the device, not waited for; the gradients are in the weights."""
        for source, batch in zip(self.sources, self.batch, strict=True):
            torch.index_select(source, 0, index_B, out=batch)
        if not self.as_graph:
            return self._forward_backward()
        if self.graph is None:
            self._record()
        self.graph.replay()
        return self.loss

    def _forward_backward(self) -> torch.Tensor:
        for weight in self.weights:
            weight.grad = None  # the backward writes, it does not add: also at every replay
        # Outside the compiled function: with it inside, its cache on disk refuses the graph and every
        # run pays for the compilation again.
        with autocast(self.batch[0].device.type, self.precision):
            loss = self.loss_of(*self.batch)
        loss.backward()
        return loss.detach()

    def _record(self) -> None:
        """Never run on a GPU so far. Nothing random is inside: the bytes of dropout are drawn before."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):  # compile, choose algorithms and allocate before the recording
                self._forward_backward()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self._forward_backward()


class Losses:
    """The losses since the last look, and the guard that no update takes one that is not finite.

    at_once: every loss is read when it is made and raises before its update. That makes the host
    wait for the device at every step, so on a GPU they are read at looks and checkpoints only. What
    stands in for the host until then is `found_inf` [] on the device: 1 from the first loss on that
    is not finite, and AdamW leaves weights and moments alone where it is 1.
    """

    def __init__(self, device: str, at_once: bool) -> None:
        self.at_once, self.last_step = at_once, 0
        self.values: list[float] = []
        self.pending: list[torch.Tensor] = []
        self.found_inf = None if at_once else torch.zeros((), device=device)

    def take(self, step: int, loss: torch.Tensor) -> None:
        """Raises FloatingPointError as `read` does, if at_once."""
        self.last_step = step
        self.pending.append(loss.clone())  # a replayed graph writes the next one to the same place
        if self.at_once:
            self.read()
        else:
            self.found_inf.copy_(torch.maximum(self.found_inf, (~loss.isfinite()).float()))

    def read(self) -> list[float]:
        """Raises FloatingPointError: the first loss that is not finite, by its step."""
        if self.pending:
            self.values += torch.stack(self.pending).tolist()
            self.pending = []
        bad = np.flatnonzero(~np.isfinite(self.values))
        if len(bad):
            step = self.last_step - len(self.values) + 1 + int(bad[0])
            raise FloatingPointError(
                f"the loss at step {step} is {self.values[bad[0]]}; the weights of step {step - 1} were kept from it. "
                "Lower posgen.training.learning_rate, or train in fp32"
            )
        return self.values


class CompiledOrNot:
    """A function through torch.compile, or as it is where no compiler works: then said aloud."""

    def __init__(self, function: Callable, compile_it: bool) -> None:
        self.eager, self.call, self.compiled = function, function, False
        if compile_it:
            torch._inductor.config.compile_threads = 1  # jobs run side by side, each on its own thread
            self.call = self._first_call

    def _first_call(self, *arguments: torch.Tensor) -> torch.Tensor:
        compiled = torch.compile(self.eager, dynamic=False)
        try:
            keep_stores()
            loss = compiled(*arguments)
        except Exception as error:  # whatever a missing compiler or header raises, per platform
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            print(
                f"WARNING: torch.compile does not work here ({reason[:200]}); training eagerly, about twice as slow. "
                "Install a C++ compiler and the Python headers (Debian: g++ python3-dev), or set "
                "posgen.training.compile: false",
                file=sys.stderr,
            )
            self.call = self.eager
            return self.eager(*arguments)
        self.call, self.compiled = compiled, True
        return loss

    def __call__(self, *arguments: torch.Tensor) -> torch.Tensor:
        return self.call(*arguments)


def keep_stores() -> None:
    """Tell g++ to drop no store: g++ 12, where it knows no processor to tune for, drops live ones.

    Of a bfloat16 transpose 31 rows of 32 are then what lay on the stack: gradients wrong or NaN.
    """
    from torch._inductor import config, cpp_builder

    can_be_told = platform.machine() == "x86_64" and getattr(config.cpp, "march", "") is None
    if can_be_told and sys.platform.startswith("linux") and cpp_builder.is_gcc():
        config.cpp.march = "native -fno-dse"


def autocast(device: str, precision: str) -> torch.autocast:
    """bf16: matrix products in bfloat16 over float32 weights, where it pays. fp32, tf32: nothing."""
    return torch.autocast(device, torch.bfloat16, enabled=precision_here(device, precision) == "bf16")


def tune_allocator() -> None:
    """Tell glibc to keep what it is given back: 2.5 to 5 times on one-thread elementwise work.

    Every step frees and asks for the same megabytes; by default each comes from a fresh mapping
    whose pages the kernel clears again. Elsewhere than on glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**30)
