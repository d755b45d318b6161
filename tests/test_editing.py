"""What a user changes of the membranes: the file, and which points each membrane has then."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxmem.cli import main
from jaxmem.pipeline import Edit, read_edits
from jaxmem.pipeline.editing.applying import apply_edits
from jaxmem.pipeline.editing.edits import EditError
from jaxmem.pipeline.editing.forming import nearest_along
from jaxmem.pipeline.keeping.record import Run
from jaxmem.pipeline.masks import for_mask, instance_lines
from jaxmem.pipeline.placing.refinement import Refined
from jaxmem.results import Groups
from jaxmem.settings import Config
from jaxmem.types import JaxmemError, Tomogram

SIZE, ORIGIN = 10.0, (100.0, 0.0, -50.0)


def world(zyx) -> tuple[float, float, float]:
    x, y, z = np.array(zyx, float)[::-1] * SIZE + ORIGIN
    return float(x), float(y), float(z)


@pytest.fixture(scope="module")
def desk(shells):
    """Two nested shells and one beside them as membranes 1, 2, 3, and `edited`, which makes edits on them."""
    volume, _ = shells
    config = for_mask(Config(), SIZE, 3.0)
    run = Run(None)
    line, regions, owner = instance_lines(volume, 1.35, config, run)
    tomogram = Tomogram(volume, SIZE, ORIGIN)

    def edited(*edits, drop=()):
        regions_left = [r for k, r in enumerate(regions) if k not in drop]
        refined = Refined([None] * len(regions_left), regions_left, config, [False] * len(regions_left))
        surfaces = [line.points[r.members] for r in regions_left]
        record = Run(None)
        record.groups = Groups(line.points, owner, [])
        return apply_edits(edits, line, refined, surfaces, tomogram, None, record)

    return SimpleNamespace(line=line, regions=regions, edited=edited)


def test_what_no_edit_names_stays(desk):
    new = desk.edited(Edit("drop", (2,)))
    assert new.earlier == [0, 2]
    assert new.refined.regions == [desk.regions[0], desk.regions[2]]


def test_a_join_has_the_points_of_both(desk):
    new = desk.edited(Edit("join", (1, 3)))
    assert new.earlier == [None, 1]
    assert len(new.refined.regions[0].members) == len(desk.regions[0].members) + len(desk.regions[2].members)
    # both numbers now call the same membrane
    assert len(desk.edited(Edit("join", (1, 3)), Edit("drop", (3,))).earlier) == 1
    with pytest.raises(EditError, match=r"edit 2 \(join 1, 3\): two of these are the same membrane"):
        desk.edited(Edit("join", (1, 3)), Edit("join", (1, 3)))


def test_a_plane_splits(desk):
    new = desk.edited(Edit("split", (1,), points=(world((24, 32, 30)),), normal=(1.0, 0.0, 0.0), closed=False))
    assert new.earlier == [None, 1, 2, None]
    left, right = (desk.line.points[new.refined.regions[k].members] for k in (0, 3))
    assert left[:, 2].max() <= 30.0 < right[:, 2].min()
    assert len(left) + len(right) == len(desk.regions[0].members)
    assert not new.refined.regions[0].closed


def test_places_split_along_the_membrane(desk):
    """A join is undone by a place on each part, though one lies within the other."""
    one, two = (world(desk.line.points[desk.regions[k].members[0]]) for k in (0, 1))
    new = desk.edited(Edit("join", (1, 2)), Edit("split", (1,), points=(one, two)))
    assert new.earlier == [None, 2, None]
    assert np.array_equal(new.refined.regions[0].members, np.sort(desk.regions[0].members))
    assert np.array_equal(new.refined.regions[2].members, np.sort(desk.regions[1].members))
    gone = desk.edited(Edit("join", (1, 2)), Edit("split", (1,), points=(one, two)), Edit("drop", (two,)))
    assert gone.earlier == [None, 2]
    with pytest.raises(EditError, match="membrane 1 was split; say which part"):
        desk.edited(Edit("join", (1, 2)), Edit("split", (1,), points=(one, two)), Edit("drop", (1,)))


def test_the_way_along_a_curve_is_not_the_straight_one():
    turn = np.linspace(0.0, 1.8 * np.pi, 200)
    points = 10.0 * np.stack([np.cos(turn), np.sin(turn)], 1)
    part = nearest_along(points, points[[100, 199]])
    assert part[0] == 0  # 3 % nearer to the far end straight across the gap
    assert (part[:145] == 0).all()
    assert (part[155:] == 1).all()


@pytest.mark.parametrize("verb", ["close", "open"])
def test_a_user_may_say_whether_it_closes(desk, verb):
    region = desk.edited(Edit(verb, (3,))).refined.regions[2]
    assert region.closed == (verb == "close")
    assert np.array_equal(region.members, desk.regions[2].members)


def test_what_was_dropped_can_be_kept(desk):
    place = world(desk.line.points[desk.regions[1].members[5]])
    new = desk.edited(Edit("keep", (place,), closed=True), drop=(1,))
    assert new.earlier == [0, 1, None]
    assert len(new.refined.regions[2].members) > 0.95 * len(desk.regions[1].members)
    assert new.refined.regions[2].closed
    with pytest.raises(EditError, match="nothing that was dropped lies within 100 A"):
        desk.edited(Edit("keep", (place,)))


def test_points_that_are_added_stay_where_they_are(desk):
    place = world((24 - 15, 30, 72))
    new = desk.edited(Edit("add", (3,), points=(place,), sigma=5.0))
    placed = new.refined.placed[2]
    assert np.allclose(placed.points[-1], (24 - 15, 30, 72), atol=1e-9)
    assert placed.sigma[-1] == 0.5
    assert abs(placed.normals[-1][0]) > 0.9
    assert new.refined.placed[0] is None
    assert new.refined.regions[2].closed == desk.regions[2].closed


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([Edit("drop", (7,))], "there is no membrane 7; the run without edits has 3"),
        ([Edit("drop", (2,)), Edit("drop", (2,))], r"edit 2 \(drop 2\): membrane 2 was dropped before"),
        ([Edit("drop", ((-900.0, 0.0, 0.0),))], r"no membrane lies within 100 A of \[-900.0, 0.0, 0.0\]"),
        (
            [Edit("split", (1,), points=((9e3, 0.0, 0.0),), normal=(1.0, 0.0, 0.0))],
            "a part of 0 points is too small for a surface",
        ),
    ],
)
def test_edits_that_name_what_is_not_there(desk, edits, message):
    with pytest.raises(EditError, match=message):
        desk.edited(*edits)


def test_a_file_says_all_of_it(tmp_path):
    path = tmp_path / "edits.toml"
    path.write_text(
        """
        [[edit]]
        join = [3, [1, 2.5, 3]]
        closed = true
        [[edit]]
        split = 4
        plane = { point = [0, 0, 0], normal = [1, 0, 0] }
        [[edit]]
        split = 4
        at = [[0, 0, 0], [9, 9, 9]]
        [[edit]]
        add = 2
        points = [[4, 5, 6]]
        sigma = 7
        """
    )
    origin = (0.0, 0.0, 0.0)
    assert read_edits(path) == [
        Edit("join", (3, (1.0, 2.5, 3.0)), closed=True),
        Edit("split", (4,), points=(origin,), normal=(1.0, 0.0, 0.0)),
        Edit("split", (4,), points=(origin, (9.0, 9.0, 9.0))),
        Edit("add", (2,), points=((4.0, 5.0, 6.0),), sigma=7.0),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[edit]]\njoin = 3", "edit 1: join needs a list"),
        ("[[edit]]\njoin = [3]", "edit 1: join needs two membranes or more"),
        ("[[edit]]\njoin = [3, true]", "edit 1: expected a membrane's number or a place"),
        ("[[edit]]\ndrop = 3\nkeep = [1, 2, 3]", "edit 1: needs one of .*, got drop, keep"),
        ("[[edit]]\nremove = 3", "edit 1: needs one of .*, got none"),
        ("[[edit]]\ndrop = 3\nsigma = 4", "edit 1: drop does not take 'sigma'; it takes nothing else"),
        ("[[edit]]\ndrop = 1\n[[edit]]\nsplit = 4", "edit 2: split needs a plane"),
        ("[[edit]]\nsplit = 4\nplane = { point = [0, 0, 0], normal = [0, 0, 0] }", "normal has no length"),
        ("[[edit]]\nsplit = 4\nplane = [0, 0, 0]", "plane needs a point and a normal"),
        ("[[edit]]\nsplit = 4\nat = 7", "expected a list of places, got 7"),
        ("[[edit]]\nkeep = 3", "keep needs a place"),
        ("[[edit]]\nadd = 3", "add needs points"),
        ("[[edit]]\nadd = 3\npoints = [[1, 2]]", "expected a membrane's number or a place"),
        ("[[edit]]\nadd = 3\npoints = [[1, 2, nan]]", "expected a membrane's number or a place"),
        ("[[edit]]\nadd = 3\npoints = [[1, 2, 3]]\nsigma = 0", "sigma must be a positive length in A, got 0"),
        ("[[edit]]\nadd = 3\npoints = [[1, 2, 3]]\nsigma = 'x'", "sigma must be a positive length"),
        ("[[edit]]\nclose = 3\nclosed = true", "close does not take 'closed'"),
        ("[[edit]]\njoin = [1, 2]\nclosed = 1", "closed must be true or false"),
        ("edit = 3", "expected .*tables and nothing else"),
        ("[edits]\ndrop = 3", "expected .*tables and nothing else"),
        ("[[edit]", "not valid TOML"),
    ],
)
def test_bad_files_of_edits(tmp_path, text, message):
    path = tmp_path / "edits.toml"
    path.write_text(text)
    with pytest.raises(JaxmemError, match=message) as caught:
        read_edits(path)
    assert str(caught.value).startswith(str(path))


def test_edits_are_read_before_anything_is_done(mrc, tmp_path, capsys):
    path = mrc(np.zeros((8, 16, 16), np.float32))
    run = tmp_path / "run"
    assert main(["segment", str(path), "-o", str(run), "--edit", str(tmp_path / "none.toml"), "--quiet"]) == 1
    assert "none.toml: cannot be read" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [path]
