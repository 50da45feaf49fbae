"""Makes the torchvision of the test environment importable: a CUDA wheel beside a torch for processors only.

It raises on import because two operators are missing; declared here, its transforms work, its operators do not. Only
for processes of their own: it must come before anything that imports torchvision.
"""

from __future__ import annotations

import torch

_library = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
