"""Stored results are found by the source of their images: it stays, to the letter, for all that is read as before.

The files are given by their bytes, for what encodes them changes; the sources were computed by the first reader.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import pytest

from grid.plan import make_plan
from grid.read.grid_file import load_grid, named_grids
from kd.data.reading.folder import ImageFolder
from kd.data.reading.parquet import Parquet

PICTURES = {
    "png": "iBL{Q4GJ0x0000DNk~Le00002000022m$~A0R7aOa{vGU7D+@wRCt_Y`2R$y^7CFM_W3UQ@hku`1_iAJ!N)%U0000<MNUMnLSTX",
    "gif": "M@dFFH(>$*0sw&k08vp<mX?;gySwxA^DF=W000620ssIA2LJ^G05BjR06P",
    "jpg": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV0RR90|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0|NsC0"
        "|NsC0|NsC0|Np=M3kU!L00IF45di<h03QGV0R;g80RaI400000000000RjUA1qKHQ2?`7U!~nGr00IF60|EpC1qB2I0004f0RjU6"
        "1Q7)iAu&M)6H#FYB5@QlfsvsIBSNvk6;jdgBr{@if(Z&17Z@2DB_<~*DJnEIHa9pqIzvQ7Mn_0VN>fx-R##YAT4Q8oW@l(=YIAgT"
        "c6WGrdV_?8hKGoWijtF*m6n&7nVO=bq@|{(sHv*5v$VCgx45~w!o$SH#>dFX%F@%+)z;V8+1laa<K*S$=jiF`@$&QZ_4fDp`TGCb"
        "00;pA002J#Vd{RSzyH|"
    ),
    "ppm": "P&ObkATl5_H8lzV0RjUA1qKHQ2?`4",
}
# Of two rows: the PNG with label 0, the PPM with label 1.
TABLE = (
    "c-jka3^EjD5PiW2L^`4@Kqi|gn+yX30}~LlF!}?@&Hz7mUM?vvAd}bA!zBnR$;1I7|6Z9@45Y+7T^vIy<|P04@3QjK=Qy=*KlOfn"
    ")L}4UV_nO7@VGrt1%s!npUXO@geGwyJHSlA2n0<{xfmFkm|0la*f}`4xPi9Ih{|Ab21q}M5M`0HF=dcoD^AWx%}o?#VG!j}Ws+dc"
    "%uP&BWe{Zov2zlWQgc-0eAWna2!b5OA}J%OqsAa3$|I@D#vln*EDDqmo5Tb}Y8;+2K<j|I8EnMPFiNsXsxhztHG;G-LA8L*1Z!~;"
    "b5fhdgwUZ0Q!aLeNsL8}14uDwC=?_X6_%!!=q48w=q45w<(Dgzr4|)u=I1FGnduqm8A|E^y$15#1yEQ3V*mhSg+;^"
)

FOLDER_SOURCE = "6ae84f3ccdd766578e7e47a0ccdcb784cd2274a86c7b8fdfdb0328a813ff680d [3, None]"
TABLE_SOURCE = "bc7a6a09c3281d7adf09d0d21ee2268b8470a4ba2f34c5d61c4395d35e252aa0 [null, null, 3, null]"

# Of the data set, and of a baseline on it.
FOLDER_IDS = ("7e850b5cef2f72c3", "fb87261c048f25cf")
TABLE_IDS = ("685378922a96df93", "aab7d63f1ab6669d")
NAMED = {
    "cifar100_full": "e1963908fb634665",
    "cifar100_quick": "041fc8a2070b6332",
    "cifar10_light": "fc56d9e35d888a36",
    "cifar10_sweep": "cf310747da5ea06a",
    "digits": "92bdef7b97f2fb53",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classes 10 and 2, of two pictures each."""
    names = list(PICTURES)
    for split in ("train", "test"):
        for place, name in enumerate(("10", "2")):
            (tmp_path / split / name).mkdir(parents=True)
            for number, suffix in enumerate(names[2 * place : 2 * place + 2]):
                (tmp_path / split / name / f"{number}.{suffix}").write_bytes(base64.b85decode(PICTURES[suffix]))
    (tmp_path / "t.parquet").write_bytes(zlib.decompress(base64.b85decode(TABLE)))
    return tmp_path


def ids(place: Path, **dataset: object) -> tuple[str, str]:
    spec = {"dataset": dataset, "students": ["small_cnn"], "modes": ["baseline"], "recipe": {"epochs": 1}}
    (place / "g.yaml").write_text(json.dumps(spec))
    plan = make_plan(load_grid(str(place / "g.yaml")))
    return plan.data.id, plan.cells[0].id


def test_plain_pictures_keep_their_source(folder: Path) -> None:
    source = ImageFolder("pets", folder, channels=3, size=None)
    assert source.info.source == FOLDER_SOURCE
    assert source.info.notes == ()
    files = {"train": [folder / "t.parquet"], "test": [folder / "t.parquet"]}
    assert Parquet("pets", files, channels=3, size=None).info.source == TABLE_SOURCE


def test_and_so_do_the_stages_on_them(folder: Path) -> None:
    assert ids(folder, name="pets", folder=str(folder)) == FOLDER_IDS
    table = str(folder / "t.parquet")
    assert ids(folder, name="pets", parquet={"train": table, "test": table}) == TABLE_IDS


@pytest.mark.parametrize(
    ("default", "other"),
    [({"class_order": "text"}, {"class_order": "natural"}), ({"classes": ["10", 2]}, {"classes": [2, 10]})],
)
def test_an_order_of_the_classes_that_is_spelled_out_changes_an_id_only_where_it_is_another(
    folder: Path, default: dict[str, object], other: dict[str, object]
) -> None:
    assert ids(folder, name="pets", folder=str(folder), white=None, **default) == FOLDER_IDS
    changed = ids(folder, name="pets", folder=str(folder), **other)
    assert not set(changed) & set(FOLDER_IDS)
    assert changed == ids(folder, name="pets", folder=str(folder), classes=["2", "10"])


def test_the_named_grids_keep_their_data() -> None:
    assert {name: make_plan(load_grid(name)).data.id for name in named_grids()} == NAMED
