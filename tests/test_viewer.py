"""The report's viewer: its data, and, where Chromium and selenium are installed (`.ci/peers` does that), what it does in a browser."""

import base64
import json
import re
import shutil
import zlib

import numpy as np
import pytest

from jaxmem import Tomogram
from jaxmem.pipeline import Edit, fit_mask, read_edits, write_edits, write_run
from jaxmem.report import interactive
from jaxmem.results import triangles
from jaxmem.types import JaxmemError
from jaxmem.viewing import layers
from jaxmem.viewing.desk import Desk

PLACE = (100.0, -50.0, 30.0)


@pytest.fixture(scope="module")
def page(shells, tmp_path_factory):
    mask = Tomogram((shells[0] > 0).astype(np.int8), 12.0, PLACE, header_origin=PLACE)
    result = fit_mask(mask)
    folder = tmp_path_factory.mktemp("viewer") / "run"
    write_run(folder, result, mask)
    return folder / "report.html", mask, result


def blob(text, name, kind):
    packed = re.search(rf"<script type='text/plain' id='{name}'>([^<]*)</script>", text)[1]
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), kind)


def test_the_page_holds_the_volumes_and_surfaces(page):
    path, mask, result = page
    text = path.read_text()
    meta = json.loads(re.search(r"id='meta'>(.*?)</script>", text)[1])
    assert meta["shape"] == list(mask.data.shape)
    labels = blob(text, "labels", np.uint16).reshape(meta["shape"])
    assert np.array_equal(labels, result.labels)
    grey = blob(text, "grey", np.uint8).reshape(meta["shape"])
    assert grey[mask.data > 0].min() > grey[mask.data == 0].max()
    places = blob(text, "places", np.uint16).reshape(-1, 3) * meta["quantum"] + meta["low"]
    first = result.membranes[0].mesh
    assert meta["rows"][0]["vertices"] == len(first.vertices)
    assert np.abs(places[: len(first.vertices)] - (first.vertices[:, ::-1] + 0.5)).max() < 0.01
    values = blob(text, "values", np.uint8).reshape(len(meta["values"]), -1)
    assert values.shape[1] == len(places) == sum(row["vertices"] for row in meta["rows"])
    corners = blob(text, "corners", np.uint32).reshape(-1, 3)
    assert len(corners) == sum(row["triangles"] for row in meta["rows"])
    assert "http:" not in re.sub(r"http://www\.w3\.org/\S*", "", text.split("<script>var Three")[0])
    assert "&plusmn;" in text


def test_a_run_is_layers_of_napari(page):
    """The same places as the tables and meshes; napari itself is tested in `.ci/peers`."""
    path, _, result = page
    assert layers.reader(str(path)) is None
    run = path.parent
    found = {about["name"]: (data, about, kind) for data, about, kind in layers.reader([str(run)])(str(run))}
    assert [kind for _, _, kind in found.values()] == ["labels", "image", "surface", "surface"]
    labels, about, _ = found[layers.LABELS]
    assert np.array_equal(labels, result.labels)
    assert about["scale"] == (12.0,) * 3
    assert about["translate"] == (30.0, -50.0, 100.0)
    (corners, _), about, _ = found[layers.SURFACES]
    first = triangles(result, 1)
    n = len(first.vertices)
    assert np.abs(corners[:n] - first.vertices[:, ::-1]).max() < 0.01
    shaded = found[layers.SHADED][1]["metadata"]
    assert np.allclose(shaded["values"]["error bar (A)"][:n], first.values["sigma"], rtol=1e-4)
    assert np.allclose(shaded["values"]["mean curvature (1/nm)"][:n], 10.0 * first.values["mean_curvature"], rtol=1e-3)
    assert set(shaded["membrane"]) == set(range(1, len(result.membranes) + 1))
    shades = layers.faded(about["vertex_colors"], shaded["membrane"], [1])
    assert set(shades[:n, 3]) == {1.0}
    assert set(shades[n:, 3]) <= {0.15}
    assert [kind for _, _, kind in layers.sample()] == ["image", "labels"]


def test_the_desk_writes_what_segment_reads(page):
    path, _, result = page
    desk = Desk(path.parent)
    assert {int(row["membrane"]) for row in desk.rows} == set(range(1, len(result.membranes) + 1))
    assert not desk.changed
    for number in range(1, len(result.membranes) + 1):
        place = np.array(desk.place_of(number))
        away = [np.linalg.norm(desk.vertices()[n] - place, axis=1).min() for n in range(1, len(result.membranes) + 1)]
        assert np.argmin(away) == number - 1
    desk.add("drop", [1])
    desk.add("split", [2], [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)])
    desk.add("keep", [], [(7.0, 8.0, 9.0)])
    desk.add("close", [2])
    assert str(desk.undo()).startswith("close")
    with pytest.raises(JaxmemError, match="split needs a plane"):
        desk.add("split", [2])
    words, folder = desk.command(["midline.threshold=0.4"])
    assert words[-2:] == ["--set", "midline.threshold=0.4"]
    assert words[words.index("--edit") + 1] == str(desk.path.resolve())
    assert read_edits(desk.path) == desk.edits
    assert folder.is_dir()
    assert desk.changed
    assert desk.probability() is None


def test_edits_come_back_from_their_file(tmp_path):
    edits = [
        Edit("join", (1, (2.5, 3.0, 4.0)), closed=True),
        Edit("split", (2,), points=((1.0, 2.0, 3.0),), normal=(0.0, 0.0, 1.0)),
        Edit("split", (2,), points=((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), closed=False),
        Edit("add", (3,), points=((1.0, 2.0, 3.0),), sigma=7.5),
        Edit("keep", ((1.0, 2.0, 3.0),)),
        Edit("open", (4,)),
    ]
    write_edits(tmp_path / "edits.toml", edits)
    assert read_edits(tmp_path / "edits.toml") == edits
    with pytest.raises(JaxmemError, match="cannot be written"):
        write_edits(tmp_path / "none" / "edits.toml", edits)


def test_large_volumes_and_meshes_are_made_small():
    assert interactive.step_of((96, 192, 192)) == 1
    assert interactive.step_of((300, 928, 928)) == 5
    slab = np.arange(2 * 4 * 5).reshape(2, 4, 5)
    assert interactive._pooled(slab, 2, False).tolist() == [[26, 28], [36, 38]]
    vertices = np.random.default_rng(0).normal(size=(400, 3))
    vertices = 20 * vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    faces = np.random.default_rng(1).integers(0, 400, (900, 3))
    few, triangles, values = interactive.simplified(vertices, faces, vertices[:, :1], 8.0)
    assert len(few) < 200
    assert triangles.max() < len(few)
    assert np.abs(np.linalg.norm(few, axis=1) - 20.0).max() < 3.0
    assert np.allclose(values[:, 0], few[:, 0])
    assert len(interactive.simplified(vertices, faces, vertices, 0.0)[0]) == 400


def test_what_deserves_a_look_is_said():
    row = {"closed": 1, "seen_fraction": 0.9, "max_sigma_A": 4.0, "median_sigma_A": 3.0}
    assert interactive.flags_of(row) == []
    assert interactive.flags_of(row | {"closed": 0, "seen_fraction": 0.2, "max_sigma_A": 40.0}) == [
        "open",
        "mostly inferred",
        "uncertain in places",
    ]


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: .ci/peers does that")
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("Chromium is not installed: .ci/peers needs it")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--window-size=1300,1000",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def test_the_viewer_works_in_a_browser(page, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def find(name):
        return browser.find_element(By.ID, name)

    def pixels(name):
        return browser.execute_script("return document.getElementById(arguments[0]).toDataURL()", name)

    browser.get(page[0].as_uri())
    WebDriverWait(browser, 20).until(lambda b: b.find_element(By.TAG_NAME, "body").get_attribute("data-ready") == "yes")
    before, space = pixels("slice"), pixels("space")
    assert len(space) > 5000  # not blank
    find("where").send_keys(Keys.ARROW_RIGHT)
    assert pixels("slice") != before
    find("sigma-on").click()
    row = browser.find_elements(By.CSS_SELECTOR, "#rows tr")[0]
    row.send_keys(Keys.ENTER)
    assert "membrane 1:" in find("chosen").text
    assert pixels("space") != space
    find("colour").send_keys("error")
    assert find("key").is_displayed()
    find("filter").send_keys("no such thing")
    assert not any(r.is_displayed() for r in browser.find_elements(By.CSS_SELECTOR, "#rows tr"))
    browser.find_element(By.CSS_SELECTOR, "#membranes th button").click()
    assert [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []
    requests = browser.execute_script(
        "return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('blob:') && !e.name.startsWith('data:')).length"
    )
    assert requests == 0
