"""A real daemon beside packages that add to it, good ones and broken ones."""

import json

from tests.packages import write_package

ADDITIONS = """
from pathlib import Path
from asyncval.core.types import Record
from asyncval.data.files import FileFormat, read_lines


class Bars(FileFormat):
    suffixes = (".bars",)

    def read(self, place, form):
        for number, raw, line in read_lines(place):
            name, text = line.split("|")
            yield Record({"id": name, "text": text}, place, number, raw)


class Diary:
    def __init__(self, *, output_dir, logging_dir, run_name):
        self.path = Path(output_dir) / "diary.txt"

    def publish(self, fresh, recorded):
        self.path.write_text(" ".join(each.checkpoint.name for each in recorded))

    def close(self):
        pass
"""
CLUMSY = """
class Clumsy:
    name = "clumsy"
    model_files = describe = load = None

    def recognises(self, folder):
        raise RuntimeError("clumsy!")
"""


def test_installed_formats_and_reporters_are_used_and_broken_packages_are_left_out(
    start, collection, save_checkpoint, tmp_path, monkeypatch
):
    site = tmp_path / "site"
    site.mkdir()
    good = {"asyncval.text_formats": {"bars": "Bars"}, "asyncval.reporters": {"diary": "Diary"}}
    write_package(site, "additions", ADDITIONS, good)
    write_package(site, "wreck", "import no_such_module", {"asyncval.layouts": {"wreck": "Wreck"}})
    write_package(site, "clumsy", CLUMSY, {"asyncval.layouts": {"clumsy": "Clumsy"}})
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
    passages = (collection.corpus / "split00.jsonl").read_text().splitlines()
    bars = [f"{each['text_id']}|{each['text']}\n" for each in map(json.loads, passages)]
    (tmp_path / "corpus.bars").write_text("".join(bars))
    save_checkpoint(1)
    save_checkpoint(2)
    daemon = start(
        "watch", "--query_file", str(collection.queries), "--qrel_file", str(collection.qrels),
        "--candidate_dir", str(tmp_path / "corpus.bars"),
        "--ckpts_dir", str(tmp_path / "training"), "--output_dir", str(tmp_path / "validation"),
        "--cache_dir", str(tmp_path / "cache"), "--devices", "cpu", "--until_step", "2",
        "--report_to", "diary",
    )  # fmt: skip
    assert daemon.exit_code() == 0, daemon.log
    assert (tmp_path / "validation" / "diary.txt").read_text() == "checkpoint-1 checkpoint-2"
    log = " ".join(daemon.log.split())
    assert log.count("asyncval.layouts 'wreck' of wreck is left out: ModuleNotFoundError") == 1
    assert log.count("The layout 'clumsy' failed: RuntimeError: clumsy!.") == 1
