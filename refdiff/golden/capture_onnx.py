"""The tensors of a program in ONNX Runtime under their golden names, without an edit of that program.

    with capture_onnx(unet="unet/model.onnx", text_encoder="text_encoder/model.onnx", vae="vae_decoder/model.onnx") as trace:
        their_program()
    write_trace("theirs.safetensors", trace)

A call of a session of one of these files is made by a second session of the same file, in which the result of every module is an
output: its weights are in memory twice for as long. The packages onnx and onnxruntime are imported when it is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from refdiff.errors import BadRequest
from refdiff.golden.collected import Captured, Collected, Tensors, host
from refdiff.golden.onnx_scopes import Node, modules_of, results, rooted

FOLDER = "session.model_external_initializers_file_folder_path"  # where the weights beside a model lie
# For each network: a module that every such one has at its root, how its modules are called, the names of its inputs.
UNET = ("time_embedding", "", ("sample", "timestep", "encoder_hidden_states"))
TEXT_ENCODER = ("final_layer_norm", "text_encoder/text_model.", ("input_ids",))
DECODER = ("decoder", "vae/", ("latent_sample",))


@contextmanager
def capture_onnx(
    *,
    unet: Path | str | None = None,
    text_encoder: Path | str | None = None,
    vae: Path | str | None = None,
    scheduler: Any = None,
    calls: Sequence[int] = (0,),
) -> Iterator[Captured]:
    """Watch every onnxruntime.InferenceSession of these files, whenever it was made, for one picture or one batch.

    `unet`, `text_encoder`, `vae` (the decoder): files that torch exported; `scheduler`, `calls` and the order of the texts are
    as for `golden.capture`. Values of which the graph does not tell the module are left out. Calls by io binding, and sessions
    that were made of bytes, are not seen.
    Raises: BadRequest where onnx or onnxruntime is missing, a file is not there or no ONNX, or tells no modules
    """
    seen = Collected(calls)
    found = {"unet": (unet, UNET), "text_encoder": (text_encoder, TEXT_ENCODER), "vae": (vae, DECODER)}
    models = {kind: Exposed(Path(path), *told) for kind, (path, told) in found.items() if path is not None}
    watched = {model.path: Watched(kind, model, seen) for kind, model in models.items()}
    sessions = _imported("onnxruntime").InferenceSession
    original = sessions.run

    def run(session: Any, output_names: Any, input_feed: Any, run_options: Any = None) -> list[Any]:
        path = getattr(session, "_model_path", None)
        watch = None if path is None else watched.get(Path(path).resolve())
        if watch is None:
            return original(session, output_names, input_feed, run_options)
        call = Call(original, session, input_feed, run_options)
        return watch.run(call, output_names or [output.name for output in session.get_outputs()])

    def finish() -> None:
        sessions.run = original
        seen.notes += [f"{path.name} was not run" for path, watch in watched.items() if not watch.model.runs]
        seen.arrange(scheduler)

    with ExitStack() as stack:
        stack.callback(finish)
        sessions.run = run
        yield seen.trace


@dataclass(frozen=True)
class Call:
    """A call of a session that the program makes."""

    original: Callable[..., list]
    session: Any
    feed: Mapping[str, Any]
    options: Any

    def made(self, session: Any, names: Iterable[str]) -> dict[str, Any]:
        """These outputs, by name, from this session or another one."""
        once = list(dict.fromkeys(names))
        return dict(zip(once, self.original(session, once, self.feed, self.options), strict=True))

    def given(self, known: Sequence[str]) -> list[np.ndarray]:
        """The inputs of these names, or the first ones where the session has others."""
        names = [given.name for given in self.session.get_inputs()]
        chosen = known if set(known) <= set(names) else names[: len(known)]
        values = [self.feed[name] for name in chosen]
        return [host(x.numpy() if hasattr(x, "numpy") else x) for x in values]


class Exposed:
    """A model whose graph has the result of every module among its outputs.

    `values`: the value of each module, by its name in a trace.
    """

    def __init__(self, path: Path, anchor: str, prefix: str, inputs: tuple[str, ...]) -> None:
        onnx = _imported("onnx")
        self.path, self.inputs = path.resolve(), inputs
        try:
            model = onnx.load(str(path), load_external_data=False)
        except Exception as error:  # protobuf's errors have no common kind
            raise BadRequest(f"{path}: is no ONNX model that can be read: {' '.join(str(error).split())[:200]}") from error
        graph = model.graph
        finals = {output.name for output in graph.output}
        modules = rooted(results([_node(node) for node in graph.node], finals), anchor)
        if not modules:
            raise BadRequest(f"{path}: none of its nodes tells that it is of {anchor}: give the file as torch exported it")
        self.values = {prefix + module: value for module, value in modules.items()}
        for value in dict.fromkeys(self.values.values()):
            if value not in finals:
                graph.output.append(onnx.ValueInfoProto(name=value))
        self.graph = model.SerializeToString()
        self.session: Any = None
        self.runs = 0

    def run(self, call: Call, more: Sequence[str]) -> dict[str, Any]:
        """The values of every module, and more outputs, by a session with the settings of the program's."""
        if self.session is None:
            self.session = self._session(call.session)
        return call.made(self.session, [*self.values.values(), *more])

    def _session(self, like: Any) -> Any:
        runtime = _imported("onnxruntime")
        options, theirs = runtime.SessionOptions(), like.get_session_options()
        for name in ("graph_optimization_level", "intra_op_num_threads", "inter_op_num_threads", "execution_mode"):
            setattr(options, name, getattr(theirs, name))
        options.add_session_config_entry(FOLDER, str(self.path.parent))
        told = like.get_provider_options()
        providers = [(name, told.get(name, {})) for name in like.get_providers()]
        return runtime.InferenceSession(self.graph, options, providers=providers)


class Watched:
    """The calls of a network's sessions, each with the answer that the program wanted."""

    def __init__(self, kind: str, model: Exposed, seen: Collected) -> None:
        self.kind, self.model, self.seen = kind, model, seen
        self.lock = threading.Lock()

    def run(self, call: Call, wanted: Sequence[str]) -> list[Any]:
        """As InferenceSession.run."""
        with self.lock:
            self.model.runs += 1
            result = call.session.get_outputs()[0].name
            given = call.given(self.model.inputs)
            if self.kind != "unet" or self.seen.unet_begins(given[0], given[1], given[2]):
                made = self.model.run(call, [*wanted, result])
            else:
                made = call.made(call.session, [*wanted, result])
            layers = {name: host(made[value]) for name, value in self.model.values.items() if value in made}
            self._keep(given, layers, host(made[result]))
        return [made[name] for name in wanted]

    def _keep(self, given: Sequence[np.ndarray], layers: Tensors, result: np.ndarray) -> None:
        if self.kind == "unet":
            self.seen.unet_ends(layers, result)
        elif self.kind == "text_encoder":
            self.seen.text({"tokens/ids": given[0], **layers})
        else:
            self.seen.picture({"vae/latents": given[0], **layers, "vae/image": result})


def _node(node: Any) -> Node:
    metadata = {entry.key: entry.value for entry in getattr(node, "metadata_props", ())}
    return Node(tuple(node.input), tuple(node.output), modules_of(node.output, node.name, metadata))


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise BadRequest("capturing ONNX models needs two packages: pip install onnx onnxruntime") from error
