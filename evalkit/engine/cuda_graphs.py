"""CUDA graphs as a recorder of pieces: one stream to record on, one pool of memory for all of a network's graphs."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from evalkit.engine.cuda_kernels import refuse_broken
from evalkit.engine.pieces import Piece

_POOL_SHARE = 16  # of the GPU's memory: nothing more is recorded once so much is taken
_LOW_MEMORY = 10  # with less than this share of it free, what torch keeps for later is given back first
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an element


class CudaPiece:
    """One graph."""

    def __init__(self, recorder: "CudaRecorder") -> None:
        self._recorder = recorder
        self._graph = torch.cuda.CUDAGraph()
        self._is_open = False

    def begin(self) -> None:
        """See Piece. Other threads may do what they like meanwhile."""
        self._graph.capture_begin(pool=self._recorder.pool, capture_error_mode="thread_local")
        self._is_open = True

    def end(self) -> None:
        """See Piece."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._graph.capture_end()
        except RuntimeError:
            self._recorder.abandon(self._graph)
            raise

    def replay(self) -> None:
        """See Piece."""
        self._graph.replay()


class CudaRecorder:
    """See Recorder."""

    def __init__(self, device: torch.device) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        self._device = torch.device("cuda", index)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()
        self._num_bytes = 0
        self._broken: list[torch.cuda.CUDAGraph] = []

    @property
    def is_full(self) -> bool:
        """See Recorder."""
        return self._num_bytes > torch.cuda.get_device_properties(self._device).total_memory // _POOL_SHARE

    def piece(self) -> Piece:
        """See Recorder."""
        return CudaPiece(self)

    def abandon(self, graph: torch.cuda.CUDAGraph) -> None:
        """A recording that went wrong is over for the GPU, but torch's allocator takes it to go on, and asks the graph
        about it."""
        self._broken.append(graph)
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(self._device.index, self.pool)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """See Recorder. Nothing is collected meanwhile: what a collection frees may be a graph or an event."""
        free, total = torch.cuda.mem_get_info(self._device)
        if free < total // _LOW_MEMORY:
            torch.cuda.empty_cache()  # it cannot do so itself while it records
        before = torch.cuda.memory_reserved(self._device)
        collects = gc.isenabled()
        gc.disable()
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            if collects:
                gc.enable()
            usual.wait_stream(self._stream)
            self._num_bytes += max(0, torch.cuda.memory_reserved(self._device) - before)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """See Recorder: what waits for the GPU raises, and so ends no recording halfway."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that not everything is found out: then recording raises
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def unowned(self, tensor: Tensor) -> Tensor:
        """See Recorder. The graphs keep the pool, and in it the memory, alive."""
        words = tensor.view(_WORDS[tensor.element_size()])  # bfloat16 has no name in the interface
        found = torch.as_tensor(_Address(words), device=tensor.device).view(tensor.dtype)
        return found if found.data_ptr() == tensor.data_ptr() else tensor

    def settle(self, error: Exception) -> None:
        """See Recorder."""
        refuse_broken(self._device, error)


class _Address:
    """Where a tensor's numbers lie, without the tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.__cuda_array_interface__ = tensor.__cuda_array_interface__
