"""Run the suite that the package onnx carries (onnx.backend.test) on sepconv.onnx.backend; write docs/conformance.md.

python tools/conformance.py [--check] [--verbose]

Of its CPU cases, those count whose inputs and outputs are of base types and whose operators are those of convolutional
networks. Fails where one of them fails, where fewer than the suite must offer were found, or fewer run in our kernels
than must; --check also where docs/conformance.md is not what it would write.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import unittest
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "conformance.md"
MIN_CASES = 950  # selected and passing
MIN_NATIVE = 900  # of those, wholly in our kernels
MUST_PASS = (
    "test_Conv2d_depthwise_cpu",
    "test_Conv2d_depthwise_padded_cpu",
    "test_Conv2d_depthwise_strided_cpu",
    "test_Conv2d_depthwise_with_multiplier_cpu",
    "test_shufflenet_cpu",
)

BASE_TYPES = {"FLOAT": 1, "UINT8": 2, "INT8": 3, "INT32": 6, "INT64": 7, "BOOL": 9}
# The operators of convolutional networks, and those that their exporters put around them.
OPERATORS = {
    "convolution and products": "Conv ConvTranspose Gemm MatMul",
    "pooling": "AveragePool MaxPool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool",
    "normalisation": "BatchNormalization InstanceNormalization LayerNormalization GroupNormalization LRN Dropout "
    "LpNormalization MeanVarianceNormalization RMSNormalization",
    "activation": "Relu LeakyRelu PRelu Clip Sigmoid HardSigmoid HardSwish Tanh Elu Selu Celu Mish Gelu Softplus "
    "Softsign Swish ThresholdedRelu Shrink Softmax LogSoftmax Hardmax",
    "elementwise": "Add Sub Mul Div Pow Mod Max Min Sum Mean Abs Neg Sqrt Exp Log Reciprocal Floor Ceil Round Sign Erf "
    "Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor Not Where Cast CastLike IsNaN Sin Cos Tan",
    "reduction": "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum "
    "ReduceLogSumExp ArgMax ArgMin",
    "shape": "Reshape Flatten Squeeze Unsqueeze Transpose Concat Split Slice Pad Expand Tile Gather Shape Size "
    "Identity Constant ConstantOfShape Range DepthToSpace SpaceToDepth",
    "resize": "Resize Upsample",
}
KNOWN = {name: group for group, names in OPERATORS.items() for name in names.split()}
CATEGORIES = {
    "Node": "single operators",
    "Real": "networks",
    "Simple": "simple models",
    "PyTorchConverted": "PyTorch's layers",
    "PyTorchOperator": "PyTorch's operators",
}


@dataclass
class Case:
    name: str
    category: str
    operators: tuple[str, ...]
    result: str = ""  # native, fallback, failed, skipped
    reason: str = ""


@dataclass
class Suite:
    cases: list[Case] = field(default_factory=list)
    other_types: Counter[str] = field(default_factory=Counter)
    other_operators: Counter[str] = field(default_factory=Counter)

    def count(self, *results: str, category: str | None = None) -> int:
        return sum(case.result in results and category in (None, case.category) for case in self.cases)

    def problems(self) -> Iterator[str]:
        """What does not hold."""
        for case in self.cases:
            if case.result == "failed":
                yield f"{case.name}: {case.reason}"
        passed = {case.name for case in self.cases if case.result in ("native", "fallback")}
        if len(passed) < MIN_CASES:
            yield f"{len(passed)} cases passed, must be at least {MIN_CASES}"
        if self.count("native") < MIN_NATIVE:
            yield f"{self.count('native')} cases ran wholly in our kernels, must be at least {MIN_NATIVE}"
        yield from (f"{name} must pass" for name in MUST_PASS if name not in passed)


def run_suite(only: str = "") -> Suite:
    """Every selected case, once; ``only``: those whose name contains it."""
    import onnx.backend.test as suite_package

    from sepconv.onnx.backend import SepconvBackend, SepconvRep

    prepared: list[SepconvRep] = []

    class Watched(SepconvBackend):
        @classmethod
        def prepare(cls, model: Any, device: str = "CPU", **options: Any) -> SepconvRep:
            prepared.append(super().prepare(model, device, **options))
            return prepared[-1]

    found = Suite()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ["ONNX_HOME"] = folder  # where the suite writes the networks' inputs
        runner = suite_package.BackendTest(Watched, __name__)
        models = _models()
        for category, items in runner._test_items.items():
            for name, item in sorted(items.items()):
                if not name.endswith("_cpu") or only not in name:
                    continue
                case = _select(found, name, category.removesuffix("Model"), models)
                if case is not None:
                    found.cases.append(case)
                    prepared.clear()
                    _run(case, item.func, prepared)
    return found


def _models() -> dict[str, Any]:
    """The model of each case that is not made on the fly, by its name."""
    import onnx
    from onnx.backend.test.loader import load_model_tests

    root = Path(onnx.__file__).parent.parent
    models = {}
    for kind in ("node", "real", "simple", "pytorch-converted", "pytorch-operator"):
        for case in load_model_tests(kind=kind):
            if case.model is not None:
                models[case.name] = case.model
            elif case.model_dir is not None:
                models[case.name] = onnx.load(str(Path(case.model_dir) / "model.onnx"))
            elif case.url is not None and (root / case.url).is_file():
                models[case.name] = onnx.load(str(root / case.url))
    return models


def _select(found: Suite, name: str, category: str, models: dict[str, Any]) -> Case | None:
    model = models.get(name.removesuffix("_cpu"))
    if model is None:
        return Case(name, category, (), "skipped", "its data is not in the package and would be downloaded")
    operators = tuple(sorted({node.op_type for node in model.graph.node}))
    types = {_type_of(value) for value in [*model.graph.input, *model.graph.output]}
    strange = types - set(BASE_TYPES)
    if strange:
        found.other_types.update([min(strange)])
        return None
    functions = {function.name for function in model.functions}
    unknown = [op for op in operators if op not in KNOWN and op not in functions]
    if unknown:
        found.other_operators.update([unknown[0]])
        return None
    return Case(name, category, operators)


def _type_of(value: Any) -> str:
    import onnx

    if value.type.WhichOneof("value") != "tensor_type":
        return "sequence or optional"
    return str(onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type))


def _run(case: Case, function: Any, prepared: list[Any]) -> None:
    try:
        function(unittest.TestCase())
    except unittest.SkipTest as skip:
        case.result, case.reason = "skipped", str(skip)
    except Exception as error:
        case.result, case.reason = "failed", f"{type(error).__name__}: {str(error).strip()[:300]}"
    else:
        reasons = [reason for rep in prepared for reason in rep.model.fallbacks.values()]
        case.result = "fallback" if reasons or not prepared else "native"
        case.reason = "; ".join(dict.fromkeys(reasons))


def page(suite: Suite) -> str:
    """docs/conformance.md."""
    import onnx

    lines = [
        "# Conformance",
        "",
        f"The package onnx {onnx.__version__} carries a suite for backends, `onnx.backend.test`. These are its CPU",
        "cases for convolutional networks, at float32, int8, uint8, int32, int64 and bool, on",
        "`sepconv.onnx.backend`. *Native*: our own kernels ran every node. *Fallback*: some node ran on the package's",
        "reference implementation, as `model.explain()` says. `python tools/conformance.py` writes this page; it",
        f"fails where one of these cases fails or fewer than {MIN_CASES} pass, {MIN_NATIVE} of them native.",
        "",
        "| cases | native | fallback | skipped | failed |",
        "|---|--:|--:|--:|--:|",
    ]
    results = ("native", "fallback", "skipped", "failed")
    for category, title in CATEGORIES.items():
        lines.append(f"| {title} | " + " | ".join(str(suite.count(r, category=category)) for r in results) + " |")
    lines.append("| **all** | " + " | ".join(f"**{suite.count(r)}**" for r in results) + " |")
    lines += ["", "## Single operators", "", "| group | native | fallback |", "|---|--:|--:|"]
    for group in OPERATORS:
        cases = [case for case in suite.cases if case.category == "Node" and KNOWN.get(case.operators[0]) == group]
        lines.append(f"| {group} | {_count(cases, 'native')} | {_count(cases, 'fallback')} |")
    lines += ["", "## Why a fallback", ""]
    reasons = Counter(case.reason for case in suite.cases if case.result == "fallback")
    lines += [
        f"- {count} × {reason}" for reason, count in sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    skipped = [case for case in suite.cases if case.result == "skipped"]
    lines += ["", "## Skipped", ""]
    lines += [f"- `{case.name}`: {case.reason}" for case in skipped] or ["None."]
    lines += [
        "",
        "## Not counted",
        "",
        f"{sum(suite.other_types.values())} cases of other types ("
        + ", ".join(f"{kind} {count}" for kind, count in sorted(suite.other_types.items()))
        + ")",
        f"and {sum(suite.other_operators.values())} of operators that convolutional networks do not use: attention,",
        "recurrence, sequences, losses, training, signal processing and the like.",
    ]
    return "\n".join(lines) + "\n"


def _count(cases: list[Case], result: str) -> int:
    return sum(case.result == result for case in cases)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is out of date")
    parser.add_argument("--verbose", action="store_true", help="print each case")
    parser.add_argument("--only", default="", metavar="TEXT", help="run those with this in their name, write nothing")
    arguments = parser.parse_args()
    suite = run_suite(arguments.only)
    if arguments.verbose:
        for case in suite.cases:
            print(f"{case.result:9}{case.name}  {case.reason}")
    print(", ".join(f"{suite.count(result)} {result}" for result in ("native", "fallback", "skipped", "failed")))
    if arguments.only:
        return 0
    problems = list(suite.problems())
    text = page(suite)
    if arguments.check:
        import onnx

        written = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
        if written and f"onnx {onnx.__version__} " not in written:
            print(f"{PAGE.name} is of another version than onnx {onnx.__version__}: not compared")
        elif written != text:
            problems.append(f"{PAGE.name} is out of date: python tools/conformance.py")
    elif not problems:
        PAGE.write_text(text, encoding="utf-8")
    print("\n".join(problems) or "all that must hold holds")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
