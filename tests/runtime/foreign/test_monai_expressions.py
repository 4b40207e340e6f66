from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hilum.runtime.foreign import monai_expressions
from hilum.runtime.foreign.monai_expressions import Lambda, UnreadError

KNOWN = {"root": "/bundle", "names": {"spleen": 1, "background": 0}, "sizes": [96, 64], "net#width": 3, "big": True}
REFUSALS = (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


def value(text: str) -> Any:
    return monai_expressions.evaluate_expression(text, lambda name: KNOWN[name], {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@root + '/eval'", "/bundle/eval"),
        ("os.path.join(@root, 'models', 'model.pt')", "/bundle/models/model.pt"),
        ("f'{@root}/model_{@net#width:03d}.pt'", "/bundle/model_003.pt"),
        ("'%s/%d' % (@root, 4)", "/bundle/4"),
        ("len(@names) + @net#width", 5),
        ("@names['spleen']", 1),
        ("@sizes[-1] // 2 ** 2 - 1.5", 14.5),
        ("((@sizes[0] - 32) // 2,) * 4", (32,) * 4),
        ("[1.5] * 3 if @big and not False else [3.0] * 3", [1.5] * 3),
        ("1.0 - float(@sizes[1]) / float(@sizes[0])", 1 - 64 / 96),
        ("0 < @net#width <= 3 and 'x' not in @names", True),
        ("@sizes + list(range(2, 4))", [96, 64, 2, 3]),
        ("{'a': (None, -1)}['a'][1:]", (-1,)),
        ("torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')", "cpu"),
        ("torch.float16", torch.float16),
        ("numpy.float32", np.float32),
        ("np.pi / 8", np.pi / 8),
        ("monai.utils.CommonKeys.PRED", "pred"),
        ("monai.utils.enums.BlendMode.GAUSSIAN", "gaussian"),
        ("@big or @nothing", None),
    ],
)
def test_an_expression_has_the_value_that_python_gives_it(text, expected):
    if "@nothing" in text:  # a reference to nothing has no value, wherever it stands
        with pytest.raises(KeyError):
            value(text)
        return
    assert value(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__[0].__subclasses__()",
        "@names.__class__",
        "'{0.__class__}'.format(1)",
        "f'{1!r:>9}'",
        "f'{1:>1000000000}'",
        "'%1000000000d' % 1",
        "'%*d' % (1000000000, 1)",
        "[x for x in (1, 2)]",
        "(y := 3)",
        "open('/etc/passwd')",
        "getattr(@names, 'pop')('spleen')",
        "eval('1')",
        "os.system('true')",
        "torch.hub.load('a', 'b')",
        "torch.load('weights.pt')",
        "torch.nn.Module",
        "torch.__loader__",
        "monai.utils.misc.sys.modules",
        "monai.utils.CommonKeys.__mro__",
        "monai.utils.optional_import",
        "np.load('file.npy')",
        "(lambda x: x)(1)",
        "len(*@sizes)",
        "len(**@names)",
        "9 ** 9 ** 9",
        "'a' * 10 ** 9",
        "[0] * 99999999",
        "list(range(10 ** 10))",
        "[[0] * 9] * 9",
        "str([1])",
        "'%s' % [[1]]",
        "(" * 500 + ")" * 500,
        "-" * 5000 + "1",
        "lambda x=open('a'): x",
        "1 +",
        "",
        "@sizes @ @sizes",
    ],
)
def test_what_could_run_code_or_fill_the_memory_is_refused(text):
    with pytest.raises(REFUSALS):
        value(text)


def test_numbers_that_grow_from_reference_to_reference_end():
    number, steps = 10**9, 0
    with pytest.raises(UnreadError, match="bits"):
        while steps < 10:
            number, steps = (
                monai_expressions.evaluate_expression("@n * @n", lambda _, known=number: known, {}),
                steps + 1,
            )


def test_a_lambda_of_comparisons_and_arithmetic_is_interpreted_on_its_argument():
    numbers = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    for text, expected in {
        "lambda x: (x > 1) * 5": [[0, 0, 5, 5]],
        "lambda x: torch.where(x == 3, 1, torch.where(x > 0, @net#width, 0))": [[0, 3, 3, 1]],
        "lambda x: x[:, 1:] / 2 + 1": [[1.5, 2, 2.5]],
        "lambda x: torch.clamp(x, max=1) if x.shape else x": None,
    }.items():
        function = value(text)
        assert isinstance(function, Lambda)
        if expected is None:
            with pytest.raises(UnreadError, match=r"x\.shape"):
                function(numbers)
        else:
            assert function(numbers).tolist() == expected
    with pytest.raises(UnreadError, match="index"):
        value("lambda x: x[[0] * 999]")(numbers)
