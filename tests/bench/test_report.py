"""The report page against numbers computed here from the records it was given."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_runs import TOTAL, Page, fake_event, fake_run, report
from scipy import stats

from regrow.bench.report import find_runs, plots, write_report
from regrow.bench.report.svg import arm_colour, marker
from regrow.bench.statistics import student_interval
from regrow.core.errors import RegrowError


def difference(main: Sequence[float], control: Sequence[float]) -> tuple[str, str]:
    """Points and bounds as the page writes them, by scipy."""
    low, high = stats.ttest_rel(main, control).confidence_interval(0.95)
    values = (100 * np.mean(np.subtract(main, control)), 100 * low, 100 * high)
    mean, low, high = (f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") for value in values)
    return mean, f"{low} to {high}"


MAIN = [0.951, 0.949, 0.957, 0.946, 0.953]
CONTROL = [0.941, 0.935, 0.951, 0.931, 0.946]


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path, Page]:
    root = tmp_path_factory.mktemp("five")
    runs = [
        fake_run(
            root / "runs",
            seed,
            accuracies={
                "dense": 0.98 + seed / 1000,
                "bidirectional": MAIN[seed],
                "one_way": CONTROL[seed],
                "random_regrowth": CONTROL[seed] - 0.02 + seed / 1000,
            },
        )
        for seed in range(5)
    ]
    out = root / "page" / "report.html"
    return runs, out, report(runs, out)


def test_verdict_is_computed_from_the_records(five: tuple[list[Path], Path, Page]) -> None:
    page = five[2]
    mean, bounds = difference(MAIN, CONTROL)
    assert page.headline == (
        f"Bidirectional beats the one-way control by {mean[1:]} percentage points at 97 % sparsity"
    )
    assert "The dense network reaches 98.20 % test accuracy." in page.text
    assert f"reaches {100 * np.mean(MAIN):.2f} %" in page.text
    assert (
        "the one-way control, at the same sparsity and with the same total of 11 epochs, "
        f"{100 * np.mean(CONTROL):.2f} %: a difference of {mean} percentage points "
        f"(95 % paired Student interval {bounds}, 5 seeds)." in page.text
    )
    assert "takes 456 B, the dense one 7.6 kB: 16.7 times smaller" in page.text
    assert "not equal" not in page.text


def test_table_of_arms_is_computed_from_the_records(five: tuple[list[Path], Path, Page]) -> None:
    head, *rows = five[2].tables[0]
    by_arm = {" ".join(row[0].split()): dict(zip(head, row, strict=True)) for row in rows}
    assert list(by_arm) == [
        "Dense reference",
        "Bidirectional recipe",
        "One-way control",
        "Random regrowth",
    ]
    main = by_arm["Bidirectional recipe"]
    spread = f" ± {100 * np.std(MAIN, ddof=1):.2f}"
    assert main["Test accuracy"] == f"{100 * np.mean(MAIN):.2f} %{spread}"
    assert main["Validation accuracy"] == f"{100 * np.mean(MAIN) + 1:.2f} %{spread}"
    assert main["Weights kept"] == "56 of 1,864"
    assert main["Epochs"] == "11"
    assert main["Steps"] == "132"
    assert "Epochs of every sparse arm: 3 dense + 8 fine tune." in five[2].text
    assert "Steps of every sparse arm: 36 dense + 96 fine tune." in five[2].text
    assert "Means over seeds" in five[2].text
    assert "paired by seed and computed before rounding" in five[2].text
    assert head.index("Test accuracy") < head.index("Weights kept")
    assert main["Seconds"] == "14.5"
    assert main["File bytes"] == "456"
    column = next(name for name in head if "interval" in name)
    assert main[column] == " ".join(difference(MAIN, CONTROL))
    assert by_arm["One-way control"][column] == "\N{EN DASH}"
    other = [value - 0.02 + seed / 1000 for seed, value in enumerate(CONTROL)]
    assert by_arm["Random regrowth"][column] == " ".join(difference(other, CONTROL))


def test_layers_show_where_weights_went_and_came_back(
    five: tuple[list[Path], Path, Page],
) -> None:
    table = next(table for table in five[2].tables if table[0][0] == "Layer")
    assert table[1] == ["conv1", "8 × 1 × 3 × 3", "72", "7", "14", "80.56 %", "65", "7"]
    assert table[3] == ["fc", "10 × 64", "640", "14", "28", "95.62 %", "626", "14"]
    # 7 of 14, 7 of 14 and 14 of 28 connections grew back, in the wide and the narrow drawing.
    assert five[2].text.count("50 % regrown") == 6
    assert "held 28 connections at its lowest point and 56 at the end" in five[2].text


def test_epochs_of_an_arm_follow_the_dense_ones(five: tuple[list[Path], Path, Page]) -> None:
    table = next(table for table in five[2].tables if table[0][:2] == ["Arm", "Epoch"])
    main = [row for row in table if row[0] == "Bidirectional"]
    assert [row[1] for row in main] == [str(epoch) for epoch in range(4, 12)]
    assert [row[2] for row in main] == ["98.5 %"] * 4 + ["97 %"] * 4
    assert main[0][3] == "90.00 %"


def test_page_needs_nothing_from_elsewhere(five: tuple[list[Path], Path, Page]) -> None:
    runs, out, page = five
    html = out.read_text(encoding="utf-8")
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "http" not in html
    assert not re.search(r"@import|url\((?!#)", html)
    links = [reference for reference in page.references if not reference.startswith("#")]
    assert [(out.parent / link).resolve() for link in links] == [
        (run / "record.json").resolve() for run in runs
    ]
    inner = {reference[1:] for reference in page.references if reference.startswith("#")}
    inner |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert inner <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_colours_come_from_the_page(five: tuple[list[Path], Path, Page]) -> None:
    html = five[1].read_text(encoding="utf-8")
    drawings = "".join(re.findall(r'<svg class="chart".*?</svg>', html, flags=re.DOTALL))
    used = set(re.findall(r"var\(--([\w-]+)\)", drawings))
    assert {"arm-0", "arm-1", "arm-2", "arm-3", "ink", "muted", "grid", "regrown"} <= used
    assert not re.search(r"#[0-9a-f]{6}\b", drawings)
    light, dark = html.split("prefers-color-scheme: dark", 1)
    defined = [
        set(re.findall(r"--([\w-]+): #", part.split("</style>")[0])) for part in (light, dark)
    ]
    assert used <= defined[0]
    assert used <= defined[1]
    assert "font-family" not in drawings
    assert len(re.findall(r'<svg class="chart" role="img" aria-label="[^"]{20,}"', html)) == 12


def test_same_records_give_the_same_bytes(
    five: tuple[list[Path], Path, Page], tmp_path: Path
) -> None:
    runs, out, _ = five
    again = out.with_name("again.html")
    write_report(list(reversed(runs)), again, command="regrow report runs")
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("main", "headline", "words"),
    [
        ([0.93, 0.92, 0.925], "Bidirectional falls behind the one-way control by 1.50", "−1.50"),
        ([0.95, 0.93, 0.943], "No difference found between bidirectional", "includes zero"),
    ],
)
def test_the_other_verdicts(tmp_path: Path, main: list[float], headline: str, words: str) -> None:
    control = [0.944, 0.936, 0.94]
    runs = [
        fake_run(
            tmp_path,
            seed,
            accuracies={"dense": 0.98, "bidirectional": main[seed], "one_way": control[seed]},
            history=False,
        )
        for seed in range(3)
    ]
    page = report(runs, tmp_path / "report.html")
    assert page.headline.startswith(headline)
    assert words in page.text
    assert " ".join(difference(main, control)) in " ".join(page.tables[0][2])
    # Only the second interval includes zero, and it is 3.2 points wide.
    wide = "no difference found; the interval is wide: undecided rather than equal."
    assert (wide in page.text) == headline.startswith("No difference")


def test_one_seed_is_a_look_and_needs_no_history(tmp_path: Path) -> None:
    page = report([fake_run(tmp_path, history=False)], tmp_path / "report.html")
    assert page.headline == (
        "One seed: bidirectional is 1.00 percentage points ahead of the one-way control "
        "at 97 % sparsity"
    )
    assert "One seed: no interval, so this is a look, not a claim." in page.text
    assert "paired Student interval" not in page.text
    assert "One seed. Sparsity counts" in page.text
    assert "Means over seeds" not in page.text
    assert "±" not in " ".join(" ".join(row) for row in page.tables[0])
    assert "Where the weights went" not in page.text
    assert "Over the epochs" not in page.text


def test_unequal_conditions_are_said_first(tmp_path: Path) -> None:
    change = {"one_way": {"kept": 60, "sparsity": 1 - 60 / TOTAL, "epochs": 9, "steps": 108}}
    page = report([fake_run(tmp_path, change=change)], tmp_path / "report.html")
    assert page.headline.startswith("Not an equal comparison")
    assert "Sparsities are not equal: Bidirectional at 97 % (56 of 1,864 kept)" in page.text
    assert "(60 of 1,864 kept)" in page.text
    assert "Total epochs are not equal: Bidirectional had 11, the control 9" in page.text
    assert "at the same sparsity" not in page.text
    assert "the same total" not in page.text


def test_unequal_steps_and_other_arms_are_said(tmp_path: Path) -> None:
    accuracies = {"dense": 0.98, "bidirectional": 0.95, "one_way": 0.94, "gradual": 0.93}
    change = {"gradual": {"epochs": {"dense": 3, "gradual": 20}}, "one_way": {"steps": 99}}
    run = fake_run(tmp_path, accuracies=accuracies, change=change)
    page = report([run], tmp_path / "report.html")
    assert "Total steps are not equal: Bidirectional had 132, the control 99" in page.text
    assert "Total epochs are not equal: Gradual had 23, the control 11" in page.text
    table = page.tables[0]
    epochs = table[0].index("Epochs")
    assert [row[epochs] for row in table[2:]] == [
        *["11 3 dense + 8 fine tune"] * 2,
        "23 3 dense + 20 gradual",
    ]


def test_several_sparsities_are_all_in_the_verdict(tmp_path: Path) -> None:
    def accuracies(seed: int, gain: float) -> dict[str, float]:
        shift = gain + (seed % 2) / 1000
        return {"dense": 0.98, "bidirectional": 0.94 + shift, "one_way": 0.94, "gradual": 0.93}

    for seed in range(3):
        fake_run(tmp_path / "runs", seed, kept=186, accuracies=accuracies(seed, -0.0004))
        fake_run(tmp_path / "runs", seed, kept=19, accuracies=accuracies(seed, 0.02))
    page = report(find_runs(tmp_path / "runs"), tmp_path / "report.html")
    assert page.headline == (
        "Bidirectional against the one-way control: no difference found at 90.02 %; "
        "a gain at 98.98 % sparsity"
    )
    mean, bounds = difference([0.96, 0.961, 0.96], [0.94] * 3)
    assert f"At 98.98 % sparsity: 96.03 % against 94.00 %, {mean} ({bounds}, 3 seeds)." in page.text
    assert "2 sparsities were compared; the intervals are not widened for that." in page.text
    rows = [row[1] if len(row) > 1 else row[0] for row in page.tables[0][1:]]
    assert rows == [
        *("0 %", "Recipe at 90.02 % sparsity", *["90.02 %"] * 3),
        *("Recipe at 98.98 % sparsity", *["98.98 %"] * 3),
    ]


def test_another_recipe_is_the_main_arm(tmp_path: Path) -> None:
    run = fake_run(tmp_path, recipe="gradual")
    page = report([run], tmp_path / "report.html")
    assert page.headline.startswith("One seed: gradual is 1.00 percentage points ahead")


def test_without_a_control_nothing_is_claimed(tmp_path: Path) -> None:
    run = fake_run(tmp_path, accuracies={"dense": 0.98, "bidirectional": 0.95})
    page = report([run], tmp_path / "report.html")
    assert page.headline == "Bidirectional at 97 % sparsity, with no control beside it"
    assert "difference of" not in page.text
    assert "Difference to the control" not in page.text


def test_two_experiments_have_a_section_each(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path), fake_run(tmp_path, recipe="gradual")]
    page = report(runs, tmp_path / "report.html")
    assert page.tags.count("h2") == 2
    assert len(page.ids) == len(set(page.ids))


def test_hostile_names_are_text(tmp_path: Path) -> None:
    evil = '<script>alert("$x$")</script>"]]>--><b>'
    accuracies = {"dense": 0.98, "bidirectional": 0.95, "one_way": 0.94, evil: 0.93, "层_$": 0.9}
    run = fake_run(
        tmp_path,
        accuracies=accuracies,
        command=evil,
        task=evil,
        environment={evil: {"a": evil}},
    )
    history = (run / "history.json").read_text(encoding="utf-8")
    named = json.loads(history.replace('"conv1"', json.dumps(evil)))
    (run / "history.json").write_text(json.dumps(named), encoding="utf-8")
    page = report([run], tmp_path / "report.html", command=evil)
    assert not {"script", "b"} & set(page.tags)
    assert page.text.count('alert("$x$")') >= 8


def test_runs_are_found(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / "b", 1), fake_run(tmp_path / "a", 0)]
    assert find_runs(tmp_path) == sorted(runs)
    assert find_runs(runs[0]) == [runs[0]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RegrowError, match=r"no record\.json in or below"):
        find_runs(tmp_path / "empty")


@pytest.mark.parametrize("file", ["record.json", "history.json"])
@pytest.mark.parametrize(("text", "words"), [('{"schema": 2}', "schema 2"), ("{", "not JSON")])
def test_other_schemas_are_refused(tmp_path: Path, file: str, text: str, words: str) -> None:
    run = fake_run(tmp_path)
    (run / file).write_text(text, encoding="utf-8")
    with pytest.raises(RegrowError, match=words) as caught:
        report([run], tmp_path / "report.html")
    assert file in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_bad_runs_are_refused(tmp_path: Path) -> None:
    run, out = fake_run(tmp_path), tmp_path / "report.html"
    twin = fake_run(
        tmp_path / "twin", accuracies={"dense": 0.98, "bidirectional": 0.951, "one_way": 0.94}
    )
    odd = fake_run(tmp_path / "odd", recipe="gradual", accuracies={"dense": 0.9, "one_way": 0.8})
    short = fake_run(tmp_path / "short")
    record = json.loads((short / "record.json").read_text(encoding="utf-8"))
    del record["arms"]["one_way"]["kept"]
    (short / "record.json").write_text(json.dumps(record), encoding="utf-8")
    for runs, words in [
        ([], "no runs"),
        ([run, twin], "seed 0 is there twice"),
        ([odd], "no arm 'gradual'"),
        ([short], "lacks the field 'kept'"),
        ([tmp_path / "nowhere"], "cannot read"),
    ]:
        with pytest.raises(RegrowError, match=words):
            report(runs, out)
    with pytest.raises(RegrowError, match="is a directory"):
        report([run], tmp_path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda arm: arm["epochs"][0].pop("sparsity"), "lacks sparsity in the epochs"),
        (lambda arm: arm["events"][1].pop("kind"), "lacks kind in the events"),
        (lambda arm: arm["events"][1]["layers"][0].pop("regrown"), "lacks regrown in the layers"),
        (lambda arm: arm["events"][1]["layers"].pop(), "names other layers"),
    ],
)
def test_bad_histories_are_refused(tmp_path: Path, spoil: Any, words: str) -> None:
    run = fake_run(tmp_path)
    history = json.loads((run / "history.json").read_text(encoding="utf-8"))
    spoil(history["arms"]["bidirectional"])
    (run / "history.json").write_text(json.dumps(history), encoding="utf-8")
    with pytest.raises(RegrowError, match=words):
        report([run], tmp_path / "report.html")


@pytest.mark.parametrize("file", ["record.json", "history.json"])
@pytest.mark.parametrize("value", [[], None, "text", {"dense": None}, {"dense": "text"}])
def test_fields_of_other_kinds_are_refused(tmp_path: Path, file: str, value: Any) -> None:
    run = fake_run(tmp_path)
    content = json.loads((run / file).read_text(encoding="utf-8"))
    content["arms"] = value
    (run / file).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RegrowError, match=f"{file}.* is damaged .*`regrow resume`"):
        report([run], tmp_path / "report.html")


def run_pair(root: Path, seed: int, **fields: Any) -> Path:
    """A run of one of the two sets of parameters in the test below."""
    gain = 0.01 + seed / 1000 + (0.02 if fields["parameters"]["rounds"] == 3 else 0.0)
    accuracies = {"dense": 0.98, "bidirectional": 0.94 + gain, "one_way": 0.94}
    return fake_run(
        root / str(fields["parameters"]["rounds"]), seed, accuracies=accuracies, **fields
    )


def test_other_parameters_are_another_section(tmp_path: Path) -> None:
    training = {"lr": 0.1, "batch": 64}
    for seed in range(2):
        for rounds in (1, 3):
            # Sparsity, overshoot and seed are the level and the repetition, not the method.
            parameters = {"rounds": rounds, "sparsity": 0.97, "overshoot": seed, "seed": seed}
            run_pair(tmp_path / "runs", seed, parameters=parameters, training=training)
    page = report(find_runs(tmp_path / "runs"), tmp_path / "report.html")
    assert page.tags.count("h2") == 2
    assert "digits · digits_cnn · bidirectional · rounds 1 · 2 seeds" in page.text
    assert "digits · digits_cnn · bidirectional · rounds 3 · 2 seeds" in page.text
    assert "by 1.05 percentage points" in page.headline
    assert "3.05 percentage points" in page.headline
    assert "overshoot" not in page.text
    assert len(page.ids) == len(set(page.ids))


def test_other_training_is_another_section(tmp_path: Path) -> None:
    shared = {"parameters": {"lr": 1}}
    runs = [
        fake_run(tmp_path / "a", training={"lr": 0.1}, **shared),
        fake_run(tmp_path / "b", training={"lr": 0.2}, **shared),
        fake_run(tmp_path / "old"),
    ]
    page = report(runs, tmp_path / "report.html")
    titles = re.findall(r"bidirectional · (.*?) · 1 seed", page.text)
    assert titles == [
        "parameters lr 1, training lr 0.1",
        "parameters lr 1, training lr 0.2",
        "parameters lr not recorded, training lr not recorded",
    ]


def test_equal_records_of_a_seed_count_once(tmp_path: Path) -> None:
    first, other = fake_run(tmp_path / "a"), fake_run(tmp_path / "c", 1)
    environment = {"regrow": "0.1.0", "threads": 2, "date": "2031-01-01"}
    later = {"bidirectional": {"seconds": 99}}
    twin = fake_run(tmp_path / "b", change=later, environment=environment, command="again")
    page = report([twin, first, other], tmp_path / "report.html")
    assert "Seed 0 at 97 % sparsity was given more than once with equal records" in page.text
    assert "bidirectional · 2 seeds" in page.text
    assert len([ref for ref in page.references if ref.endswith("record.json")]) == 2
    assert "counts once" not in report([first, other], tmp_path / "report.html").text


def edit_history(run: Path, arm: str, edit: Callable[[dict[str, Any]], object]) -> Path:
    history = json.loads((run / "history.json").read_text(encoding="utf-8"))
    edit(history["arms"][arm])
    (run / "history.json").write_text(json.dumps(history), encoding="utf-8")
    return run


def test_the_last_regrowth_of_several_rounds_is_told(tmp_path: Path) -> None:
    def rounds(arm: dict[str, Any]) -> None:
        whole, low, end = [72, 1152, 640], [7, 7, 14], [14, 14, 28]
        between = [7, 10, 11]
        arm["events"] = [
            fake_event(0, "prune", whole, low),
            fake_event(2, "regrow", low, end),
            fake_event(4, "prune", end, between),
            fake_event(6, "regrow", between, end),
        ]

    run = edit_history(fake_run(tmp_path), "bidirectional", rounds)
    page = report([run], tmp_path / "report.html")
    table = next(table for table in page.tables if table[0][0] == "Layer")
    cut = table[0].index("After the cut")
    assert [row[cut] for row in table[1:]] == ["7", "10", "11"]
    shares = [f"{share} % regrown" for share in (50, 29, 61)]
    assert [page.text.count(share) for share in shares] == [2, 2, 2]


def test_without_regrowth_layers_show_what_they_kept(tmp_path: Path) -> None:
    page = report([fake_run(tmp_path, recipe="gradual")], tmp_path / "report.html")
    assert "What each layer kept" in page.text
    assert "Gradual held 56 connections at the end" in page.text
    for words in ("Where the weights went", "% regrown", "arrow", "grew back", "Grown back"):
        assert words not in page.text


def test_totals_are_those_of_the_events(tmp_path: Path) -> None:
    def excluded(arm: dict[str, Any]) -> None:
        for event in arm["events"]:
            event["kept"] += 100
            event["total"] += 100

    run = edit_history(fake_run(tmp_path), "bidirectional", excluded)
    page = report([run], tmp_path / "report.html")
    assert "held 128 connections at its lowest point and 156 at the end" in page.text


def test_a_file_that_is_hardly_smaller_is_not_called_smaller(tmp_path: Path) -> None:
    change = {"dense": {"file_bytes": 7700}, "one_way": {"file_bytes": 7300}}
    page = report([fake_run(tmp_path, change=change)], tmp_path / "report.html")
    assert page.text.count("7.7 kB") == 2
    assert page.text.count("7.3 kB") == 2
    # Of the three files only the recipe's is: in the verdict and both drawings.
    assert re.findall(r"(\S+) times smaller", page.text) == ["16.7"] * 3


def test_an_arm_sparser_at_every_level_is_noted_once(tmp_path: Path) -> None:
    accuracies = {"dense": 0.98, "bidirectional": 0.95, "one_way": 0.94, "no_regrowth": 0.9}
    for kept, left in ((186, 93), (19, 6)):
        change = {"no_regrowth": {"kept": left, "sparsity": 1 - left / TOTAL}}
        fake_run(tmp_path / "runs", kept=kept, accuracies=accuracies, change=change)
    page = report(find_runs(tmp_path / "runs"), tmp_path / "report.html")
    assert page.text.count("Sparsities are not equal") == 1
    assert (
        "Sparsities are not equal: No regrowth at 95.01 % and 99.68 %, the control at 90.02 % "
        "and 98.98 %." in page.text
    )


def test_rows_of_differences_carry_their_numbers(five: tuple[list[Path], Path, Page]) -> None:
    mean, bounds = difference(MAIN, CONTROL)
    assert five[2].text.count(f"Bidirectional, 97 %:  {mean} ({bounds})") == 2


def test_lines_are_the_legend_over_the_epochs(five: tuple[list[Path], Path, Page]) -> None:
    html = five[1].read_text(encoding="utf-8")
    legends = re.findall(r'<ul class="legend">.*?</ul>', html, flags=re.DOTALL)
    kinds = [re.findall(r'class="(patch|line|dashed|mark)"', legend) for legend in legends]
    assert kinds[0] == ["mark"] * 3 + ["dashed"]
    assert kinds[2] == ["dashed"] + ["line"] * 3


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that charts paint, before they are turned into SVG."""
    drawn: list[Figure] = []

    def look(paint: Callable[[Any], None], width: int, height: int, label: str) -> str:
        figure = Figure(figsize=(width / 72, height / 72))
        paint(figure)
        drawn.append(figure)
        return ""

    monkeypatch.setattr(plots, "draw", look)
    return drawn


def test_bands_and_dotted_lines_are_few(drawn: list[Figure]) -> None:
    events = {0: 0, 1: 2, 2: 1, 3: 7}
    courses = [
        plots.Course(
            slot=slot,
            sparsity=((0.0, 0.0), (1.0, 0.5), (2.0, 0.9)),
            accuracy=((1.0, 90.0, 89.0, 91.0), (2.0, 92.0, 91.0, 93.0)),
            events=tuple((float(i), 0.5, "prune") for i in range(count)),
        )
        for slot, count in events.items()
    ]
    plots.course_chart(courses, 920, "label")
    upper, lower = drawn[0].axes
    assert len(lower.collections) == 2
    assert len(lower.lines) == len(courses) + 3
    curves = [line for line in upper.lines if line.get_drawstyle() == "steps-pre"]
    assert max(curves, key=lambda line: line.get_zorder()).get_color() == arm_colour(1)


def test_an_arm_alone_in_its_band_is_not_shifted(drawn: list[Figure]) -> None:
    at = {1: 0.9, 2: 0.9, 3: 0.99}
    series = [
        plots.Series(slot, (plots.Point(sparsity, (95.0,), student_interval([95.0])),))
        for slot, sparsity in at.items()
    ]
    plots.accuracy_chart(series, student_interval([98.0]), 920, "label")
    places = {
        line.get_color(): line.get_xdata()[0]
        for line in drawn[0].axes[0].lines
        if line.get_marker() in {marker(slot) for slot in at} and len(line.get_xdata())
    }
    assert len(places) == 3
    assert places[arm_colour(3)] == pytest.approx(2.0)
    assert places[arm_colour(1)] < 1.0 < places[arm_colour(2)]
    assert places[arm_colour(1)] + places[arm_colour(2)] == pytest.approx(2.0)
