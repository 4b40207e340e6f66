"""Files of codes, and the codes of DICOM's dictionary."""

import pytest

from hilum.errors import FormatError
from hilum.files import code_file
from hilum.files.dicom import dictionary_codes
from hilum.values import Code

HEADER = "name,scheme,value,meaning,unit\n"


def table(folder, text):
    path = folder / "codes.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_several_lines_of_a_name_are_equivalent_codes_in_their_order(tmp_path):
    lines = "liver,SCT,10200004,Liver,ml\nliver,RADLEX,RID58,liver,\n肝臓,99SITE,1,肝臓,\n"
    made = code_file.read_codes(table(tmp_path, HEADER + lines))
    assert made["liver"].codes == (Code("SCT", "10200004", "Liver"), Code("RADLEX", "RID58", "liver"))
    assert (made["liver"].unit, made["liver"].source) == ("ml", "codes.csv")
    assert made["肝臓"].codes[0].meaning == "肝臓"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name,scheme,value,meaning,color\n", "unknown column 'color'"),
        ("name,value,meaning\n", "no column 'scheme'"),
        (HEADER + "liver,,10200004,Liver,\n", "line 2: has no scheme"),
        (HEADER + ",SCT,10200004,Liver,\n", "line 2: has no name"),
        (HEADER + "liver,SCT,1,Liver,ml\nliver,LN,2,Liver,l\n", "line 3: 'liver' has two units: l and ml"),
        (HEADER + "liver,a scheme without end,1,Liver,\n", "longer than 16 letters"),
    ],
)
def test_a_file_of_codes_that_cannot_be_understood_is_refused_with_its_line(tmp_path, text, problem):
    with pytest.raises(FormatError, match=r"codes\.csv") as refused:
        code_file.read_codes(table(tmp_path, text))
    assert problem in str(refused.value)


def test_the_dictionary_has_the_code_of_a_name_that_one_meaning_alone_is():
    assert dictionary_codes.dictionary_code("hippocampus") == Code("SCT", "5366008", "Hippocampus")
    assert dictionary_codes.dictionary_code("Pleural Effusion").value == "60046008"
    assert dictionary_codes.dictionary_code("pneumonia") is None
    assert dictionary_codes.dictionary_code("eye") is None  # three letters
    assert dictionary_codes.dictionary_code("the hippocampus") is None
