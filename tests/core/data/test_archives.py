"""Tar archives whole and damaged, held against what was written; header by header against Python's tarfile."""

from __future__ import annotations

import io
import tarfile

import pytest
from test_readers import KINDS

from mio.core.data.readers import open_reader
from mio.core.data.readers.tar import members
from mio.core.errors import DataError

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
FILES = [(f"{n}.{ending}", f"{ending} {n}".encode() * (300 * n + 1)) for n in range(4) for ending in ("skt", "txt")]


def written(path, files=FILES, form=tarfile.GNU_FORMAT, extra=()):
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, kind, target in extra:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return path


def opened(path, **options):
    return open_reader("webdataset", "train", {"path": str(path), **options}, KINDS)


def contents(path, **options):
    source = opened(path, **options)
    records = [source[index] for index in range(len(source))]
    return [
        {name: value if isinstance(value, str) else value.data.read_bytes() for name, value in record.items()}
        for record in records
    ]


def expected(files=FILES):
    found = {}
    for name, content in files:
        key, ending = name.rsplit(".", 1)
        found.setdefault(key, {}).update({"sketch": content} if ending == "skt" else {ending: content.decode()})
    return list(found.values())


@pytest.mark.parametrize("form", FORMATS)
def test_members_are_where_tarfile_finds_them(tmp_path, form):
    names = [f"{'d' * 80}/{'n' * 70}{n}.skt" for n in range(3)] + ["./a.skt", "/b/c.skt", "ü.skt"]
    names += [] if form == tarfile.USTAR_FORMAT else [f"{'long/' * 60}{'ñ' * 90}.skt"]
    path = written(tmp_path / "a.tar", [(name, name.encode() * 9) for name in names], form)
    with tarfile.open(path, "r:") as archive:
        wanted = [(member.name, member.offset_data, member.size) for member in archive]
    assert [(member.name, member.offset, member.size) for member in members(path)] == wanted


@pytest.mark.parametrize("form", FORMATS)
def test_concatenated_archives_are_read_to_their_end_and_their_keys_do_not_mix(tmp_path, form):
    path = written(tmp_path / "a.tar", form=form)
    path.write_bytes(path.read_bytes() * 2)
    assert contents(path) == expected() * 2


@pytest.mark.parametrize("hurt", ["flipped", "zeroed", "no checksum"])
def test_a_damaged_header_is_never_the_end(tmp_path, hurt):
    path = written(tmp_path / "a.tar")
    with tarfile.open(path, "r:") as archive:
        places = [member.offset for member in archive]
    whole = path.read_bytes()
    for place in places:
        content = bytearray(whole)
        if hurt == "flipped":
            content[place + 3] ^= 8
        else:
            begin, size = (0, 512) if hurt == "zeroed" else (148, 8)
            content[place + begin : place + begin + size] = bytes(size)
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.tar: .*({place:,}|begin with a header)"):
            opened(path)


def test_an_archive_that_is_cut_anywhere_is_refused(tmp_path):
    path = written(tmp_path / "a.tar")
    whole = path.read_bytes()
    end = whole.rindex(b"txt 3") + 5
    end += -end % 512
    for place in [*range(1, end, 509), *range(512, end + 1, 512)]:
        path.write_bytes(whole[:place])
        with pytest.raises(DataError, match=r"a\.tar: (has no end-of-archive|is cut short|is no)"):
            opened(path)
    path.write_bytes(whole[: end + 1024])  # as writers without padding end
    assert contents(path) == expected()


def test_what_is_no_archive_is_told(tmp_path):
    import gzip

    path = written(tmp_path / "a.tar")
    for content, words in [
        (gzip.compress(path.read_bytes()), "is compressed.*gzip -d"),
        (b"", "is no tar archive, or an empty one"),
        (path.read_bytes() + b"more" * 200, "damaged header"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            opened(path)


def test_a_column_that_two_files_give_costs_the_sample(tmp_path):
    source = opened(written(tmp_path / "a.tar", [*FILES, ("2.SKT", b"other"), ("3.txt", b"other")]))
    assert (len(source), source[0]["txt"], source[1]["txt"]) == (4, "txt 0", "txt 1" * 301)
    with pytest.raises(DataError, match=r"2: has `skt` more than once: 2\.skt, 2\.SKT"):
        source[2]
    with pytest.raises(DataError, match=r"3: has `txt` more than once: 3\.txt, 3\.txt"):
        source[3]
    both = opened(written(tmp_path / "b.tar", [("1.json", b'{"a": "x"}'), ("1.more.json", b'{"a": "y"}')]))
    with pytest.raises(DataError, match=r"1\.more\.json: `a` is a column of another json file too"):
        both[0]
    same = written(tmp_path / "c.tar", [("1.json", b'{"sketch": "d/1.skt"}'), ("1.skt", b"s")])
    assert contents(same) == [{"sketch": b"s"}]


def test_of_several_files_of_a_modality_the_plain_one_counts_and_columns_name_the_others(tmp_path):
    files = [("1.skt", b"picture"), ("1.seg.skt", b"mask"), ("1.txt", b"words")]
    path = written(tmp_path / "a.tar", files)
    assert contents(path) == [{"sketch": b"picture", "txt": "words"}]
    assert opened(path).notes == [
        "files of the archives that are not read, as `columns` does not name them: .seg.skt (1)"
    ]
    named = {"columns": {"seg.skt": "mask", "sketch": "sketch"}, "fields": {"mask": "sketch"}}
    assert contents(path, **named) == [{"sketch": b"picture", "mask": b"mask"}]
    walk = written(tmp_path / "b.tar", [("walk_1.25.skt", b"a"), ("walk_1.50.skt", b"b")])
    with pytest.raises(DataError, match=r"walk_1: has several sketch files, with the endings 25\.skt, 50\.skt"):
        opened(walk)[0]
    assert contents(walk, columns={"50.skt": "sketch"}) == [{"sketch": b"b"}]


def test_a_file_whose_ending_means_text_is_media_where_the_options_say_so(tmp_path):
    path = written(tmp_path / "a.tar", [("1.txt", b"a.skt"), ("1.json", b'{"words": "w"}')])
    assert contents(path, columns={"txt": "sketch", "words": "words"}) == [{"sketch": b"a.skt", "words": "w"}]
    assert contents(path, fields={"txt": "sketch"}) == [{"txt": b"a.skt", "words": "w"}]
    assert contents(path) == [{"txt": "a.skt", "words": "w"}]


def test_patterns_leave_hidden_files_out(tmp_path):
    for name in ("a.tar", "b.tar"):
        written(tmp_path / name)
    (tmp_path / "._a.tar").write_bytes(b"\0\5\x16\7")
    assert contents(tmp_path / "*.tar") == expected() * 2
    with pytest.raises(DataError, match=r"\._a\.tar: is no whole tar archive"):
        opened(tmp_path / "._a.*")


def test_members_of_a_sample_need_not_be_neighbours(tmp_path):
    files = sorted(FILES, key=lambda pair: pair[0][-3:])
    assert contents(written(tmp_path / "a.tar", files)) == expected()


def test_links_lead_to_their_files_or_cost_their_sample(tmp_path):
    links = [
        ("h.skt", tarfile.LNKTYPE, "1.skt"),
        ("d/s.skt", tarfile.SYMTYPE, "../h.skt"),
        ("x.skt", tarfile.SYMTYPE, "gone.skt"),
        ("y.skt", tarfile.SYMTYPE, "z.skt"),
        ("z.skt", tarfile.SYMTYPE, "y.skt"),
        ("p.skt", tarfile.FIFOTYPE, ""),
        ("f.skt", tarfile.DIRTYPE, ""),
    ]
    source = opened(written(tmp_path / "a.tar", FILES, extra=links))
    assert len(source) == 4 + 6
    assert source[4]["sketch"].data.read_bytes() == source[5]["sketch"].data.read_bytes() == FILES[2][1]
    for index, words in enumerate(("link to `gone.skt`", "leads back", "leads back", "device or pipe"), 6):
        with pytest.raises(DataError, match=words):
            source[index]


def test_what_programs_leave_behind_is_no_sample(tmp_path):
    others = ["._1.skt", "__MACOSX/._2.skt", "__MACOSX/2.skt", ".DS_Store", ".ipynb_checkpoints/1-checkpoint.skt"]
    assert contents(written(tmp_path / "a.tar", [*FILES, *((name, b"x") for name in others)])) == expected()


def test_names_that_are_no_text_are_told_in_one_line(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("bad\udcff.skt", "two\nlines.skt", "\x1b[31mred.skt"):
            archive.addfile(tarfile.TarInfo(name))
    source = opened(path)
    assert [source.locate(index).split(": ")[1] for index in range(3)] == ["bad\\xff", "two\\nlines", "\\x1b[31mred"]


def test_sparse_files_come_whole(tmp_path):
    """A file of the GNU format's old sparse type: two stretches of data, the rest holes."""
    header = bytearray(tarfile.TarInfo("1.skt").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"%011o\0" % 5
    header[156:157] = b"S"
    for place, (offset, size) in enumerate([(100, 3), (1000, 2)]):
        header[386 + 24 * place : 410 + 24 * place] = b"%011o\0%011o\0" % (offset, size)
    header[483:495] = b"%011o\0" % 2000
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    rest = written(tmp_path / "rest.tar", [("2.skt", b"next")]).read_bytes()
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) + b"abcde" + bytes(507) + rest)
    holes = bytearray(2000)
    holes[100:103], holes[1000:1002] = b"abc", b"de"
    assert contents(path) == [{"sketch": bytes(holes)}, {"sketch": b"next"}]
