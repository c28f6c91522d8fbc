"""Options that are refused before any data is read."""

import pytest

from asyncval.commands.preparation import check_options
from asyncval.commands.watch import watch
from asyncval.config import WatchConfig
from asyncval.core.errors import InvalidOption
from asyncval.core.types import TextForm
from asyncval.data.sources import passage_files


def config(tmp_path, **options):
    return WatchConfig(ckpts_dir=tmp_path / "training", output_dir=tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("until_step", -1),
        ("idle_timeout", -1.0),
        ("settle", -0.5),
        ("settle", float("nan")),
        ("time_limit", -1.0),
        ("max_pinned_bytes", -1),
        ("anchor_every", 0),
    ],
)
def test_a_number_below_its_least_is_refused(tmp_path, option, value):
    check_options(config(tmp_path))
    with pytest.raises(InvalidOption, match=f"--{option} {value}: give [01] or more"):
        check_options(config(tmp_path, **{option: value}))


def test_what_is_no_reporter_is_refused_with_what_it_lacks(tmp_path):
    with pytest.raises(InvalidOption, match="--report_to: 'os:path' has no 'publish': give a"):
        watch(config(tmp_path, report_to=("os:path",)))
    assert not (tmp_path / "out").exists()


def test_what_is_no_layout_is_refused_with_what_it_lacks(tmp_path):
    with pytest.raises(InvalidOption, match="--layout: 'os:path' has no 'name'"):
        check_options(config(tmp_path, layout="os:path"))


def test_what_is_no_text_format_is_refused_with_what_it_lacks(tmp_path):
    with pytest.raises(InvalidOption, match="--text_format: 'os:path' has no 'suffixes'"):
        passage_files([tmp_path / "corpus.jsonl"], form=TextForm(format="os:path"))
