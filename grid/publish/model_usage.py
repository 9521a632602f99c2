"""How a published student is used, as the section of its card: its input, and the code that runs it."""

from __future__ import annotations

from grid.contract.markdown import code_block, code_span, escape_markdown
from grid.publish.publication import Facts

MODES = {1: "L", 3: "RGB"}


def usage(facts: Facts) -> list[str]:
    channels, height, width = facts.input_size
    resized = facts.interpolation.upper()
    spread = f"{list(facts.mean)}, std {list(facts.std)}"
    parts = [
        f"Input: float32 [N, {channels}, {height}, {width}], pixels scaled to [0, 1], then normalised by channel: mean "
        f"{spread}. A picture of another size is resized whole ({facts.interpolation}), not cropped."
        + _second_resize(facts)
        + " Output: logits [N, "
        + f"{facts.spec.dataset.info.classes}]."
    ]
    if facts.labels is not None and len(facts.labels) <= 20:
        parts[0] += f" Classes in order: {', '.join(map(escape_markdown, facts.labels))}."
    elif facts.labels is None:
        parts[0] += " Classes are numbered in the order of their names in the training data."
    make_array = (
        f'picture = image.convert("{MODES[channels]}").resize(({width}, {height}), Image.Resampling.{resized})\n'
        f"pixels = np.asarray(picture, np.float32).reshape({height}, {width}, {channels}) / 255\n"
        f"images = ((pixels - np.float32({list(facts.mean)})) / np.float32({list(facts.std)})).transpose(2, 0, 1)[None]"
    )
    if facts.timm:
        code = (
            "import timm\n\n"
            'model = timm.create_model("local-dir:.", pretrained=True).eval()  # or hf-hub:OWNER/NAME\n'
            "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n"
            f'logits = model(transform(image.convert("{MODES[channels]}")).unsqueeze(0))  # image: a PIL picture'
        )
        parts.append(f"With timm:\n\n{code_block(code, 'python')}")
    else:
        code = f"{facts.build}\n\n{_ARRAY}{make_array}\n{_TORCH}"
        parts.append(f"With torch{_needs(facts)}:\n\n{code_block(code, 'python')}")
    if facts.onnx is not None:
        how = "With onnxruntime (`model.onnx` has its weights inside and takes batches of any size):"
        parts.append(f"{how}\n\n```python\nimport onnxruntime\n{_ARRAY}{make_array}\n{_ONNX}\n```")
    return parts


_ARRAY = "import numpy as np\nfrom PIL import Image\n\n# image: a PIL picture\n"
_TORCH = "logits = model(torch.from_numpy(images))"
_ONNX = 'logits = onnxruntime.InferenceSession("model.onnx").run(None, {"images": images})[0]'


def _second_resize(facts: Facts) -> str:
    own, fed = facts.spec.dataset.image_size, facts.model.image_size
    if own is None or fed in (None, own):
        return ""
    return f" (Those it was trained and tested on were first resized to {own} x {own} pixels, bicubic.)"


def _needs(facts: Facts) -> str:
    if facts.files:
        return f" and the model's own code, {', '.join(map(code_span, facts.files))}, in this folder"
    if facts.model.factory is not None:
        return f" and the package that {code_span(facts.model.factory.rpartition(':')[0])} is in"
    return " and kd-grid installed, whose model it is"
