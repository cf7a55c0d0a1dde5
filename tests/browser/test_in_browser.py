"""The page of a study in a real browser, opened as a file: what a reader sees and does."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.analysis.invented import fill, study_of
from viny.analysis import published
from viny.analysis.analyze import analyze
from viny.analysis.observed import from_study

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
READY = 60_000  # milliseconds


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """The pages of an invented study, of a part of it, and of the paper's numbers."""
    slow = {"slow": {"finetune": {"learning_rate": 1e-4}}}
    study = study_of(tmp_path_factory.mktemp("browser") / "results", slow, downstream=[32, 64, 128, 256])
    fill(study)
    analyze(from_study(study), study.folder)
    paper = tmp_path_factory.mktemp("paper")
    analyze(published.tables(), paper, {"page"})
    return {"study": study.folder / "overview.html", "paper": paper / "overview.html"}


@pytest.fixture
def visit(browser, files):
    """Open a page; errors in the console fail the test."""
    contexts, errors, requests = [], [], []

    def visited(name="study", viewport=DESKTOP, scheme="light", **more):
        contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme, **more))
        page = contexts[-1].new_page()
        page.on(
            "console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url[:5] in ("file:", "data:", "blob:") else errors.append(request.url),
        )
        page.goto(files[name].as_uri())
        page.wait_for_selector("body[data-ready]", timeout=READY)
        return page

    yield visited
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in requests if url[:5] not in ("file:", "data:", "blob:", "about")] == []


def traces(page, chart: str) -> list[str]:
    """Names of the lines that a chart shows in its first panel."""
    script = "id => document.querySelector(`#${id} .plot`)._fullData.filter(t => t.visible === true).map(t => t.meta)"
    return page.evaluate(script, chart)


def point(page, chart: str, line: str, index: int = 0) -> tuple[float, float]:
    """Where a point of a line is on the screen."""
    page.locator(f"#{chart} .plot").first.scroll_into_view_if_needed()
    script = """([id, line, index]) => {
      const plot = document.querySelector(`#${id} .plot`), box = plot.getBoundingClientRect();
      const layout = plot._fullLayout;
      const trace = plot._fullData.find(t => t.meta === line);
      return [box.left + layout.xaxis._offset + layout.xaxis.d2p(trace.x[index]),
              box.top + layout.yaxis._offset + layout.yaxis.d2p(trace.y[index])];
    }"""
    x, y = page.evaluate(script, [chart, line, index])
    return x, y


@pytest.mark.parametrize("name", ["study", "paper"])
def test_every_chart_is_drawn(visit, name):
    page = visit(name)
    plots = page.locator("[data-chart] .plot")
    assert plots.count() > 8
    assert page.locator("[data-chart] .plot .main-svg >> nth=0").count() == 1
    assert page.evaluate("[...document.querySelectorAll('[data-chart] .plot')].every(p => p.querySelector('.trace'))")
    assert page.locator("#no-charts").is_hidden()


def test_hover_says_the_values(visit):
    page = visit()
    page.mouse.move(*point(page, "miou", "1,024"))
    said = page.locator("#miou .hoverlayer").first
    said.get_by_text("mIoU 44.09").wait_for()
    assert "95% interval" in said.text_content()
    assert "3 seeds: 43.69, 44.09, 44.49" in said.text_content()


def test_lines_are_switched_off_and_on_by_keyboard(visit):
    page = visit()
    assert traces(page, "miou") == ["0 (random start)", "256", "1,024"]
    button = page.locator("#miou button", has_text="256")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert traces(page, "miou") == ["0 (random start)", "1,024"]
    page.keyboard.press("Space")
    assert traces(page, "miou") == ["0 (random start)", "256", "1,024"]
    button.dblclick()
    assert traces(page, "miou") == ["256"]
    button.dblclick()
    assert len(traces(page, "miou")) == 3


def test_the_axis_of_labels_is_switched(visit):
    page = visit()
    axis = "document.querySelector('#miou .plot')._fullLayout.xaxis"
    assert page.evaluate(f"[{axis}.type, {axis}.ticktext]") == ["log", ["32", "64", "128", "256"]]
    page.locator("#miou select").select_option("linear")
    assert page.evaluate(f"{axis}.type") == "linear"
    page.locator("#miou select").select_option("log")
    assert page.evaluate(f"[{axis}.type, {axis}.ticktext]") == ["log", ["32", "64", "128", "256"]]


def test_verdicts_open_to_their_numbers(visit):
    page = visit()
    claim = page.locator("#claim-1b")
    assert claim.locator("dl").is_hidden()
    claim.locator("summary").focus()
    page.keyboard.press("Enter")
    assert claim.locator("dl").is_visible()
    assert "each effect is above 0" in claim.text_content()
    assert claim.locator("tbody tr").count() > 3
    page.goto(page.url + "#claim-2a")
    page.locator("#claim-2a dl").wait_for(state="visible")


def test_runs_are_sorted_and_filtered(visit):
    page = visit()
    rows = page.locator("#runs-table tbody tr:visible")
    column = [head.strip() for head in page.locator("#runs-table th").all_text_contents()].index("mIoU (%)")
    head = page.locator("#runs-table th button", has_text="mIoU")
    scores = "column => [...document.querySelectorAll('#runs-table tbody tr')].map(r => r.cells[column].textContent)"
    for direction in ("ascending", "descending"):
        head.click()
        assert page.locator("#runs-table th[aria-sort]").get_attribute("aria-sort") == direction
        values = [float(value) for value in page.evaluate(scores, column) if value != "–"]
        assert values == sorted(values, reverse=direction == "descending")
        assert page.evaluate(scores, column)[-1] == "–"  # what has no score stays last
    everything = rows.count()
    page.fill("#filter", "1,024 256 cls-intel")
    assert 0 < rows.count() < everything
    assert "CLS-Intel" in rows.first.text_content()
    page.fill("#filter", "")
    page.select_option("[data-filter=stage]", "Pre-training")
    assert rows.count() == 6
    assert page.locator("#shown").text_content() == f"6 of {everything} shown"
    page.select_option("[data-filter=stage]", "Fine-tuning")
    page.select_option("[data-filter=variant]", "slow")
    assert rows.count() == 72
    page.locator("#clear-curves").click()
    rows.first.locator("input").check()
    assert page.locator("#curves .keys:visible").text_content().startswith("slow, ")


def test_curves_of_chosen_runs(visit):
    page = visit()
    panel = page.locator("#curves [data-stage=Fine-tuning]")
    assert panel.is_visible()
    assert page.locator("#curves [data-stage=Pre-training]").is_hidden()
    page.select_option("[data-filter=stage]", "Pre-training")
    page.locator("#runs-table tbody tr:visible input").first.check()
    page.locator("#curves [data-stage=Pre-training]").wait_for(state="visible")
    said = "document.querySelector('#curves [data-stage=Pre-training] .plot')._fullData.flatMap(t => t.hovertext)"
    assert "<b>256 images, seed 1</b><br>epoch 2<br>held-out loss 0.3000" in page.evaluate(said)
    page.locator("#clear-curves").click()
    assert panel.is_hidden()
    assert page.get_by_text("No run is chosen.").is_visible()


def test_links_lead_to_files(visit):
    page = visit()
    addresses = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
    local = {address.partition("#")[0] for address in addresses}
    assert len(local) > 100
    assert [address for address in local if not Path(unquote(urlsplit(address).path)).is_file()] == []


@pytest.mark.parametrize("name", ["study", "paper"])
def test_a_phone_needs_no_sideways_scrolling(visit, name):
    page = visit(name, PHONE, is_mobile=True, has_touch=True)
    for details in page.locator("details").all():
        details.evaluate("element => element.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.evaluate(
        "[...document.querySelectorAll('.plot svg')].every(s => s.getBoundingClientRect().right <= 390)"
    )


CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out(visit, scheme):
    page = visit("study", scheme=scheme)
    for details in page.locator("details").all():
        details.evaluate("element => element.open = true")
    assert page.evaluate(CONTRAST) == []


def test_charts_follow_the_screen_into_the_dark(visit):
    page = visit()
    color = "document.querySelector('#miou .plot')._fullData[1].line.color"
    light = page.evaluate(color)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{color} !== '{light}'")
    assert page.evaluate(CONTRAST) == []


def test_without_a_place_of_its_own_the_page_has_no_links_to_files(visit, files):
    page = visit()
    page.set_content("<iframe></iframe>")
    page.locator("iframe").evaluate(
        "(frame, text) => { frame.src = URL.createObjectURL(new Blob([text], {type: 'text/html'})); }",
        files["study"].read_text(),
    )
    frame = page.frame_locator("iframe")
    frame.locator("body.alone[data-ready]").wait_for(timeout=READY)
    assert frame.locator(".files").first.is_hidden()
