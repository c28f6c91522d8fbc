"""`asyncval split`: a subset of a corpus that is small and hard. One pass, linear time.

`python -m asyncval.splitter` is the first Asyncval's spelling of it.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from asyncval.core.errors import InvalidData, InvalidOption, NothingToDo, OutputUnavailable
from asyncval.core.sampling import Rankings, Reservoir, Wanted, fitting_depth, judged_passages
from asyncval.core.types import Judgements, QuerySet, RunType, TextForm
from asyncval.data.collection import PASSAGES
from asyncval.data.folders import qrels_in
from asyncval.data.qrels import read_qrels
from asyncval.data.runs import read_run
from asyncval.data.sources import passage_files
from asyncval.subsets.aside import written_aside
from asyncval.subsets.corpus_pass import Kept, ReadingListener, collect, share_out_lines
from asyncval.subsets.manifest import FILE_NAME, NUM_EXAMPLES, Manifest, describe, describe_shard

logger = logging.getLogger(__name__)
DEFAULT_DEPTH = 100
SPILL_NAME = "kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a subset is to have.

    The runs are pooled, each down to its depth: `depths` has one for all or one for each, or
    none, which is `DEFAULT_DEPTH` or, with `target_size`, the largest that fits. Relevant
    passages are always kept, those judged not relevant with `keep_judged`; `num_random`
    others are drawn.
    """

    qrel_files: Sequence[Path]
    run_files: Sequence[Path] = ()
    run_type: RunType = "auto"
    depths: Sequence[int] = ()
    target_size: int | None = None
    keep_judged: bool = False
    num_random: int = 0
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InvalidOption: The message has the flag.
        """
        too_small = [f"--depth {depth}" for depth in self.depths if depth < 1]
        if self.target_size is not None and self.target_size < 1:
            too_small.append(f"--target_size {self.target_size}")
        if too_small:
            raise InvalidOption(f"{too_small[0]}: must be 1 or more.")
        if self.num_random < 0:
            raise InvalidOption(f"--random {self.num_random}: must be 0 or more.")
        if not self.run_files and not self.num_random:
            raise InvalidOption(
                "--run_file: give a run, or --from_checkpoint to have one made, or --random."
            )
        if len(set(self.run_files)) < len(self.run_files):
            raise InvalidOption("--run_file: a run is given twice. Give each once.")
        if len(self.depths) > 1 and len(self.depths) != len(self.run_files):
            runs = "1 run" if len(self.run_files) == 1 else f"{len(self.run_files)} runs"
            raise InvalidOption(
                f"--depth: {len(self.depths)} depths for {runs}. Give one for all, or one for "
                "each in the same order."
            )
        if self.target_size is not None and (self.depths or not self.run_files):
            raise InvalidOption(
                "--target_size finds the depth of runs: give it with a run and without --depth."
            )


def split(
    *,
    candidates: Sequence[Path],
    choice: Choice,
    output_dir: Path,
    form: TextForm = PASSAGES,
    num_splits: int = 1,
    strict: bool = False,
    enclosed: Sequence[Path] = (),
    origin: Mapping[str, Any] | None = None,
    listener: ReadingListener = lambda reading: None,
) -> Manifest:
    """Write the chosen passages, as their files have them, and a manifest.

    The lines keep their bytes and their order; what has no lines becomes JSON lines. All files
    appear together or not at all. Memory goes with what is wanted, not with the corpus.

    Args:
        candidates: The corpus: files or folders.
        choice: What to keep.
        output_dir: Where the subset goes.
        form: How the corpus is to be read.
        num_splits: How many files it is spread over, evenly.
        strict: Whether a wanted passage that the corpus does not have is an error.
        enclosed: Files to be copied beside the subset.
        origin: What else the manifest should say of how the subset was made.
        listener: Told now and then how far the pass over the corpus is.

    Raises:
        UsageError: An input cannot be used, or the output is there already.
        NothingToDo: No wanted passage is in the corpus.
    """
    choice.check()
    if num_splits < 1:
        raise InvalidOption(f"--num_splits {num_splits}: must be 1 or more.")
    files = passage_files(candidates, form=form)
    _check_output(output_dir)
    qrel_files = dict.fromkeys(map(qrels_in, choice.qrel_files))
    judgements = {path: read_qrels(path) for path in qrel_files}
    names = {path: path.name if path in enclosed else str(path) for path in choice.run_files}
    wanted, depths = _choose(choice, list(judgements.values()), names)
    with written_aside(output_dir, last=FILE_NAME) as place:
        kept = collect(
            files,
            form=form,
            wanted=wanted,
            reservoir=Reservoir(choice.num_random, seed=choice.seed),
            path=place / SPILL_NAME,
            listener=listener,
        )
        missing = wanted.missing()
        _check_found(wanted, missing, kept, strict=strict)
        _check_runs(wanted, names.values())
        shards = share_out_lines(kept, num_files=num_splits)
        for path in enclosed:
            shutil.copyfile(path, place / path.name)
        manifest = Manifest(
            candidates=tuple(map(describe, files)),
            runs=tuple(replace(describe(path), path=name) for path, name in names.items()),
            qrels=tuple(describe(path, judgements=each) for path, each in judgements.items()),
            arguments={**_arguments(choice, depths), **(origin or {})},
            num_read=kept.num_read,
            num_kept=len(kept),
            sources=_sources(wanted, kept, choice),
            missing=len(missing),
            missing_examples=tuple(missing[:NUM_EXAMPLES]),
            files=tuple(describe_shard(path, num_passages=size) for path, size in shards.items()),
        )
        manifest.write(place)
    return manifest


def _check_output(output_dir: Path) -> None:
    if [*output_dir.glob("split*"), *output_dir.glob(FILE_NAME)]:
        raise OutputUnavailable(
            f"--output_dir: {str(output_dir)!r} has a subset already. Remove it or give another."
        )


def _choose(
    choice: Choice, judgements: Sequence[Judgements], names: Mapping[Path, str]
) -> tuple[Wanted, list[int]]:
    """Return the passages that are wanted by their ids, and the depth of each run."""
    wanted = Wanted()
    wanted.add(judged_passages(judgements, relevant=True), source="relevant")
    if choice.keep_judged:
        wanted.add(judged_passages(judgements, relevant=False), source="judged not relevant")
    if choice.target_size is None:
        given = list(choice.depths) or [DEFAULT_DEPTH]
        depths = given * len(choice.run_files) if len(given) == 1 else given
        rankings = [
            _read_rankings(path, choice.run_type, depth)
            for path, depth in zip(choice.run_files, depths, strict=True)
        ]
    else:
        rankings = [_read_rankings(path, choice.run_type, None) for path in choice.run_files]
        room = choice.target_size - choice.num_random
        depths = [fitting_depth(rankings, wanted=wanted, num_passages=room)] * len(rankings)
    for path, ranking, depth in zip(choice.run_files, rankings, depths, strict=True):
        wanted.add(ranking.passages(1, depth), source=_source(names[path]))
        if not any(query_id in each for query_id in ranking.queries for each in judgements):
            logger.warning(
                "--run_file: %r has no query that is judged, for example %r: is it of the same "
                "queries as --qrel_file?",
                names[path],
                ranking.queries[0],
            )
    return wanted, depths


def _source(run_name: str) -> str:
    return f"run {run_name}"


def _read_rankings(path: Path, run_type: RunType, depth: int | None) -> Rankings:
    rankings = Rankings(read_run(path, run_type=run_type), name=str(path), depth=depth)
    if not rankings.deepest:
        raise InvalidData(f"--run_file: {str(path)!r} is empty.")
    return rankings


def _check_found(wanted: Wanted, missing: Sequence[str], kept: Kept, *, strict: bool) -> None:
    if not len(kept):
        raise NothingToDo(
            f"None of the {len(wanted)} wanted passages is in the corpus: do the run and the "
            "judgements belong to it?"
        )
    if missing and strict:
        raise InvalidData(
            f"{len(missing)} of {len(wanted)} wanted passages are not in the corpus, for example "
            f"{missing[0]!r}. Without --strict the others are kept."
        )


def _check_runs(wanted: Wanted, names: Iterable[str]) -> None:
    counts = wanted.counts()
    for name in names:
        num_wanted, num_found = counts[_source(name)]
        if not num_found:
            raise InvalidData(
                f"--run_file: none of the {num_wanted} passages of {name!r} is in the corpus. Is "
                "it the right --candidate_dir?"
            )


def _arguments(choice: Choice, depths: Sequence[int]) -> dict[str, Any]:
    """Return the choice as the manifest has it, with the depths that came of it."""
    values = asdict(choice) | {"depths": list(depths)}
    del values["qrel_files"], values["run_files"]  # the manifest has them with their digests
    return values


def _sources(wanted: Wanted, kept: Kept, choice: Choice) -> dict[str, dict[str, int]]:
    counts = {
        source: {"wanted": num_wanted, "found": num_found}
        for source, (num_wanted, num_found) in wanted.counts().items()
    }
    if choice.num_random:
        counts["random"] = {"wanted": choice.num_random, "found": len(kept.drawn)}
    return counts


def write_judged_queries(query_sets: Sequence[QuerySet], folder: Path) -> list[Path]:
    """Write only the queries that have judgements, as JSON lines; return the files.

    Raises:
        InvalidData: A query set has none.
    """
    folder.mkdir()
    files = []
    for each in query_sets:
        judged = set(each.judged)
        if not judged:
            raise InvalidData(
                f"--qrel_file: none of the queries in {str(each.path)!r} has a judgement in "
                f"{str(each.qrels_path)!r}."
            )
        path = folder / f"{each.name}.jsonl"
        lines = [
            json.dumps({"text_id": query.id, "text": query.content})
            for query in each.queries
            if query.id in judged
        ]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        files.append(path)
    return files
