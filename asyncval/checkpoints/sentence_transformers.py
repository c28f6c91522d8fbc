"""A Sentence Transformers folder: `modules.json` names the modules, each in its own folder.

Read from the files alone, for versions 2 to 6: every module that makes one vector of a text,
routers that send queries and passages different ways, prompts, similarity and length.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from asyncval.checkpoints.description import (
    SILENCE,
    Description,
    Fact,
    describe,
    find_tokenizer,
    folder_of,
    read_config,
)
from asyncval.checkpoints.folder import Folder
from asyncval.checkpoints.loading import (
    TwoTowers,
    max_positions,
)
from asyncval.checkpoints.modules import (
    FILES,
    LOADERS,
    REFUSED,
    VECTOR,
    Batch,
    Module,
    Site,
    pooling_modes,
    require,
    settings_of,
    transformer,
)
from asyncval.core.errors import CheckpointBroken, CheckpointUnsupported
from asyncval.core.types import EncoderOptions, LoadedCheckpoint, Precision, Reading, Similarity

if TYPE_CHECKING:
    from torch import Tensor

MODULES = "modules.json"
MODEL_CONFIG = "config_sentence_transformers.json"
ROUTERS = ("Router", "Asym")
ROUTER_CONFIG = "router_config.json"
PACKAGE = "sentence_transformers."
SIMILARITIES: Mapping[str, Similarity] = {"cosine": "cos", "dot": "ip", "dot_product": "ip"}
OTHER_MODELS = {
    "CrossEncoder": "it scores a query together with a passage (a re-ranker)",
    "MultiVectorEncoder": "it keeps a vector for every token (ColBERT)",
    "SparseEncoder": "its vectors have a place for every token of the vocabulary",
}
TASKS = (("query",), ("document", "passage", "corpus", "doc"))
"""What the two sides are called, as a prompt or as a route; the first name counts most."""

Step = tuple[str, str]
"""A module's kind, and its folder with a closing slash, or empty."""


class SentenceTransformers:
    """What `SentenceTransformer.save` and its trainer write."""

    name = "sentence-transformers"

    def recognises(self, folder: Folder) -> bool:
        """Say whether its own files are there; the model's come before `modules.json`."""
        return MODULES in folder or MODEL_CONFIG in folder

    def model_files(self, folder: Folder) -> Sequence[str]:
        """Return the files of every module that queries or passages go through."""
        _refuse_other_models(read_config(folder, MODEL_CONFIG))
        files = {MODULES, *([MODEL_CONFIG] if MODEL_CONFIG in folder else [])}
        for task in TASKS:
            for kind, prefix in _steps(folder, task):
                files |= {_router_config(folder, prefix)} if kind in ROUTERS else set()
                files |= set(FILES[kind](folder, prefix)) if kind in FILES else set()
        return sorted(files)

    def describe(self, folder: Folder, options: EncoderOptions) -> Description:
        """Read the modules' configurations; flags may repeat what they say, not contradict it."""
        model_config = read_config(folder, MODEL_CONFIG)
        _refuse_other_models(model_config)
        chains = [_chain(folder, task) for task in TASKS]
        prompts, remarks = _prompts(model_config)
        similarity = Fact(_similarity(model_config), MODEL_CONFIG)
        is_unit = all(chain[-1][0] == "Normalize" for chain in chains)
        if similarity.value is None and options.similarity is None and not is_unit:
            remarks += (
                "--similarity cos is assumed, as the library does: the checkpoint says none.",
            )
        poolings = [_pooling_of(folder, chain) for chain in chains]
        tokenizers = [find_tokenizer(folder, options, place=chain[0][1]) for chain in chains]
        return describe(
            folder,
            options,
            towers=Fact(_both([_place_of(chain[0]) for chain in chains]), MODULES),
            pooling=Fact(_both([each.value for each in poolings]), poolings[0].source),
            head=Fact(_both([_head_of(chain) for chain in chains]), MODULES),
            normalize=Fact(True, MODULES) if is_unit else SILENCE,
            similarity=similarity,
            default_similarity="cos",
            prefixes=(
                Fact(prompts[0] or None, MODEL_CONFIG),
                Fact(prompts[1] or None, MODEL_CONFIG),
            ),
            tokenizer=Fact(_both([each.value for each in tokenizers]), tokenizers[0].source),
            remarks=remarks,
        )

    def load(
        self, folder: Folder, options: EncoderOptions, *, device: str, precision: Precision
    ) -> LoadedCheckpoint:
        """Load the modules of both sides, each once."""
        description = self.describe(folder, options)
        site = Site(folder=folder, prefix="", options=options, device=device, precision=precision)
        loader = _Loader(site)
        towers: list[Chain] = []
        texts: list[Reading] = []
        for task, prefix in zip(
            TASKS, (description.query_prefix, description.passage_prefix), strict=True
        ):
            chain = _chain(folder, task)
            reading = replace(loader.reading(chain, task), prefix=prefix.value)
            texts.append(reading)
            towers.append(
                Chain(
                    [loader.module(step) for step in chain]
                    + [_on_vectors(each) for each in description.closing],
                    prompt_length=_prompt_length(folder, chain, reading, options),
                )
            )
        return LoadedCheckpoint(
            encoder=TwoTowers(queries=towers[0], passages=towers[1]),
            queries=texts[0],
            passages=texts[1],
            assumed=description.assumed,
        )


class Chain:
    """Modules one after another; `prompt_length` tokens at the start are the prompt's."""

    def __init__(self, modules: Sequence[Module], *, prompt_length: int = 0) -> None:
        self.modules = modules
        self.prompt_length = prompt_length

    def encode_queries(self, ids: "Tensor", mask: "Tensor") -> "Tensor":
        """Return [B, D] float32 vectors of [B, T] tokens."""
        return self._encode(ids, mask)

    def encode_passages(self, ids: "Tensor", mask: "Tensor") -> "Tensor":
        """Return [B, D] float32 vectors of [B, T] tokens."""
        return self._encode(ids, mask)

    def _encode(self, ids: "Tensor", mask: "Tensor") -> "Tensor":
        batch: Batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "prompt_length": self.prompt_length,
        }
        for module in self.modules:
            module(batch)
        return cast("Tensor", batch[VECTOR])


class _Loader:
    """Loads each module once, though both sides may go through it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._modules: dict[Step, Module] = {}
        self._limits: dict[Step, int | None] = {}

    def module(self, step: Step) -> Module:
        kind, prefix = step
        if step not in self._modules:
            site = replace(self._site, prefix=prefix)
            if kind == "Transformer":
                self._modules[step], config = transformer(site)
                self._limits[step] = max_positions(config)
            else:
                self._modules[step] = LOADERS[kind](site)
        return self._modules[step]

    def reading(self, chain: Sequence[Step], task: Sequence[str]) -> Reading:
        """Return how the first module of a chain wants its texts, but for the prefix."""
        kind, prefix = chain[0]
        folder, options = self._site.folder, self._site.options
        self.module(chain[0])
        _, settings = settings_of(folder, prefix)
        model_config = read_config(folder, MODEL_CONFIG)
        limits = (
            self._limits.get(chain[0]),
            settings.get("max_seq_length") or _tokenizer_length(folder, prefix),
            settings.get(f"{task[0]}_length"),
        )
        return Reading(
            tokenizer_folder=folder_of(find_tokenizer(folder, options, place=prefix)),
            max_length=min((limit for limit in limits if limit), default=None),
            lower_case=bool(settings.get("do_lower_case")),
            trained_length=_trained_length(model_config, task[0]),
            trained_template=_trained_template(model_config, task[0]),
            special_tokens=kind != "StaticEmbedding",
            append_eos=bool(options.append_eos),
        )


def _on_vectors(layer: Any) -> Module:  # noqa: ANN401
    def run(batch: Batch) -> None:
        batch[VECTOR] = layer(batch[VECTOR])

    return run


def _refuse_other_models(model_config: Mapping[str, Any]) -> None:
    kind = model_config.get("model_type")
    if kind in OTHER_MODELS:
        raise CheckpointUnsupported(
            f"{MODEL_CONFIG} says {kind}: {OTHER_MODELS[kind]}, so there are no vectors to search "
            "with."
        )


def _trained_length(model_config: Mapping[str, Any], task: str) -> int | None:
    """Return the length that our trainer adds; the library keeps one for queries and passages."""
    lengths = model_config.get("max_lengths")
    value = lengths.get(task) if isinstance(lengths, dict) else None
    return value if isinstance(value, int) and value > 0 else None


def _trained_template(model_config: Mapping[str, Any], task: str) -> str | None:
    """Return the template that our trainer adds, if its texts were made by one."""
    templates = model_config.get("templates")
    value = templates.get(task) if isinstance(templates, dict) else None
    return value if isinstance(value, str) else None


def _tokenizer_length(folder: Folder, prefix: str) -> int | None:
    """Return the maximum length that version 6 keeps with the tokenizer."""
    value = read_config(folder, f"{prefix}tokenizer_config.json").get("model_max_length")
    return value if isinstance(value, int) and value < 10**6 else None


def _chain(folder: Folder, task: Sequence[str]) -> list[Step]:
    """Return the modules that texts of one side go through.

    Raises:
        CheckpointUnsupported: They do not make one vector of a text.
    """
    chain = [step for step in _steps(folder, task) if step[0] not in ROUTERS]
    kinds = [kind for kind, _ in chain]
    begins = kinds[:1] == ["StaticEmbedding"] or (
        kinds[:1] == ["Transformer"] and "Pooling" in kinds
    )
    if not begins or "Transformer" in kinds[1:] or "StaticEmbedding" in kinds[1:]:
        raise CheckpointUnsupported(
            f"{MODULES} has {', '.join(kinds)} for a {task[0]}; a transformer and its pooling, or "
            "a static embedding, must come first."
        )
    return chain


def _steps(folder: Folder, task: Sequence[str]) -> Iterator[Step]:
    """Yield the modules of one side, routers too, each followed by those that it leads to."""
    require(folder, MODULES)
    try:
        modules = [
            (str(each["type"]), _as_prefix(each["path"])) for each in folder.read_json(MODULES)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointBroken(f"{MODULES} is not a list of modules: {error}.") from error
    for kind, prefix in modules:
        yield from _routed(folder, kind, prefix, task)


def _routed(folder: Folder, type_name: str, prefix: str, task: Sequence[str]) -> Iterator[Step]:
    kind = type_name.rpartition(".")[2]
    if not type_name.startswith(PACKAGE):
        raise CheckpointUnsupported(
            f"The module {type_name!r} is code of the checkpoint's own, which is not run."
        )
    if kind in REFUSED:
        raise CheckpointUnsupported(f"The module {kind} is not read: {REFUSED[kind]}.")
    if kind not in FILES and kind not in ROUTERS:
        raise CheckpointUnsupported(f"{MODULES} has a module {kind!r}, which is not known.")
    yield kind, prefix
    if kind in ROUTERS:
        name = _router_config(folder, prefix)
        config = read_config(folder, name)
        try:
            routes = {
                route: [(str(config["types"][each]), each) for each in steps]
                for route, steps in config["structure"].items()
            }
            mappings = dict(config["parameters"].get("route_mappings") or {})
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointBroken(f"{name} does not describe routes: {error}.") from error
        for inner, place in routes[_route(name, list(routes), mappings, task)]:
            yield from _routed(folder, inner, f"{prefix}{_as_prefix(place)}", task)


def _as_prefix(path: str) -> str:
    stripped = path.strip("/")
    if ".." in stripped.split("/"):
        raise CheckpointBroken(f"The module folder {path!r} leads out of the checkpoint.")
    return f"{stripped}/" if stripped else ""


def _router_config(folder: Folder, prefix: str) -> str:
    """Return the file that describes a router; before version 5 it was a plain `config.json`."""
    old = f"{prefix}config.json"
    return old if old in folder and prefix else require(folder, f"{prefix}{ROUTER_CONFIG}")


def _route(
    file: str, routes: Sequence[str], mappings: Mapping[str, str], task: Sequence[str]
) -> str:
    """Return the route of a side: by the mappings of (task, modality), by its name, by `text`."""
    wanted = [(task[0], "text"), (task[0], None), (None, "text"), (None, None)]
    known = {_key(each): route for each, route in mappings.items()}
    found = [known[each] for each in wanted if each in known]
    found += [name for name in (*task, "text") if name in routes]
    chosen = next((route for route in found if route in routes), None)
    if chosen is None:
        raise CheckpointUnsupported(
            f"{file} has the routes {', '.join(routes)}, but none for a {task[0]}."
        )
    return chosen


def _key(text: str) -> Any:  # noqa: ANN401
    """Return the pair that a mapping's key was before it was made text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _prompts(model_config: Mapping[str, Any]) -> tuple[list[str], tuple[str, ...]]:
    """Return the prompts of queries and of passages, and what to say of one that is not used.

    From version 5 on there is always one for `query` and one for `document`, and they alone
    count, also where they are empty; before, whatever there was did, or the default.
    """
    prompts = model_config.get("prompts") or {}
    default = prompts.get(model_config.get("default_prompt_name")) or ""
    chosen, remarks = [], []
    for main, *others in TASKS:
        unused = next((name for name in others if prompts.get(name)), None)
        if main in prompts:
            chosen.append(prompts[main] or "")
            if unused and not prompts[main]:
                remarks.append(
                    f"The prompt {unused!r} is not used: {main!r} is empty, and comes first."
                )
        else:
            chosen.append(prompts[unused] if unused else default)
    return chosen, tuple(remarks)


def _similarity(model_config: Mapping[str, Any]) -> Similarity | None:
    """Return the similarity, None where the checkpoint does not say it."""
    name = model_config.get("similarity_fn_name")
    if name is not None and name not in SIMILARITIES:
        raise CheckpointUnsupported(f"{MODEL_CONFIG} has the similarity {name!r}, not searchable.")
    return SIMILARITIES.get(name) if name is not None else None


def _pooling_of(folder: Folder, chain: Sequence[Step]) -> Fact:
    """Return the pooling of one side, several with a plus sign between them."""
    for kind, place in chain:
        if kind == "Pooling":
            return Fact(" + ".join(pooling_modes(folder, place)), f"{place}config.json")
    return Fact("mean", "a static embedding")


def _place_of(step: Step) -> str:
    kind, place = step
    return f"{kind} in {place or 'the checkpoint itself'}"


def _head_of(chain: Sequence[Step]) -> str:
    """Return what follows the pooling, in words."""
    kinds = [kind for kind, _ in chain]
    start = kinds.index("Pooling") + 1 if "Pooling" in kinds else 1
    return ", ".join(_place_of(step) for step in chain[start:]) or "none"


def _both(values: Sequence[Any]) -> Any:  # noqa: ANN401
    """Return what holds for queries and for passages, once where it is the same."""
    return values[0] if values[0] == values[1] else tuple(values)


def _prompt_length(
    folder: Folder, chain: Sequence[Step], reading: Reading, options: EncoderOptions
) -> int:
    """Return how many tokens the prompt has, 0 where they count like all others."""
    is_left_out = any(
        kind == "Pooling"
        and read_config(folder, f"{prefix}config.json").get("include_prompt") is False
        for kind, prefix in chain
    )
    if not is_left_out or not reading.prefix:
        return 0
    from transformers import AutoTokenizer

    place = options.tokenizer or reading.tokenizer_folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(place), local_files_only=True)
    except Exception as error:  # transformers raises almost anything for a bad folder
        raise CheckpointUnsupported(
            "The pooling leaves the prompt out, but there is no tokenizer to count its tokens: "
            "give one with --tokenizer_name_or_path."
        ) from error
    text = reading.prefix.lower() if reading.lower_case else reading.prefix
    ids = tokenizer(text)["input_ids"]
    closes = bool(ids) and ids[-1] in tokenizer.all_special_ids
    return len(ids) - closes
