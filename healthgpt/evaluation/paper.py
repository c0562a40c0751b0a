"""What the paper reports (arXiv 2502.09838), to stand beside our own figures; percent, dB and grey values as printed.

The paper states no scoring rule, prompt or split, so its rows are for orientation. Two rows of its Table 1 have their
last columns in each other's place; here they are as Table 9 and the printed means say they belong.
"""

from __future__ import annotations

from collections.abc import Mapping

M3, L14 = "HealthGPT-M3 (paper)", "HealthGPT-L14 (paper)"

# Table 1. XL32 has a mean only, 70.4 in the release and 71.1 in the proceedings.
VQA_COLUMNS = (
    "vqa-rad/close", "vqa-rad/all", "slake/close", "slake/all", "pathvqa/close", "pathvqa/all", "mmmu-med/all",
    "omnimedvqa/all",
)  # fmt: skip
VQA: Mapping[str, tuple[float, ...]] = {
    "Med-Flamingo 8.3B": (58.6, 43.0, 47.0, 25.5, 61.9, 31.3, 28.7, 34.9),
    "LLaVA-Med 7B": (60.2, 48.1, 58.4, 44.8, 62.3, 35.7, 30.0, 41.3),
    "HuatuoGPT-Vision 7B": (66.9, 53.0, 59.8, 49.1, 52.9, 32.0, 42.0, 50.0),
    "BLIP-2 6.7B": (43.4, 36.8, 41.6, 35.3, 48.5, 28.8, 27.3, 26.9),
    "LLaVA-v1.5 7B": (51.8, 42.8, 37.1, 37.7, 53.5, 31.4, 32.7, 44.7),
    "InstructBLIP 7B": (61.0, 44.8, 66.8, 43.3, 56.0, 32.3, 25.3, 29.0),
    "Yi-VL 6B": (52.6, 42.1, 52.4, 38.4, 54.9, 30.9, 38.0, 50.2),
    "InternVL2 8B": (64.9, 49.0, 66.6, 50.1, 60.0, 31.9, 43.3, 54.5),
    "Llama-3.2 11B": (68.9, 45.5, 72.4, 52.1, 62.8, 33.6, 39.3, 63.2),
    "Show-o 1.3B": (50.6, 33.9, 31.5, 17.9, 52.9, 28.2, 22.7, 33.0),
    "Unified-IO 2 7B": (46.2, 32.6, 35.9, 21.9, 52.5, 27.0, 25.3, 26.8),
    "Janus 1.3B": (70.9, 52.8, 34.7, 26.9, 51.9, 27.9, 30.0, 45.7),
    M3: (73.7, 55.9, 74.6, 56.4, 78.7, 39.7, 43.3, 68.5),
    L14: (77.7, 58.3, 76.4, 64.5, 85.9, 44.4, 49.2, 74.4),
}
XL32_MEAN = {"release": 70.4, "proceedings": 71.1}

# Table 9, OmniMedVQA by modality.
MODALITIES = ("CT", "X-ray", "fundus photography", "microscopy", "OCT", "MRI", "ultrasound")
OMNIMEDVQA: Mapping[str, tuple[float, ...]] = {
    "Med-Flamingo 8.3B": (30.1, 33.9, 25.5, 37.0, 60.0, 27.6, 30.4),
    "LLaVA-Med 7B": (28.4, 32.8, 42.7, 31.6, 55.3, 45.0, 53.6),
    "HuatuoGPT-Vision 7B": (35.3, 41.5, 51.4, 62.3, 59.3, 40.4, 60.1),
    "BLIP-2 6.7B": (26.6, 29.1, 22.3, 36.9, 29.1, 22.7, 21.4),
    "LLaVA-v1.5 7B": (28.0, 55.7, 35.5, 42.1, 49.2, 52.9, 49.7),
    "InstructBLIP 7B": (20.1, 22.2, 34.1, 30.6, 38.6, 31.9, 25.5),
    "Yi-VL 6B": (51.2, 47.1, 27.7, 62.6, 67.6, 55.0, 40.3),
    "InternVL2 8B": (40.2, 57.9, 53.2, 64.0, 59.1, 58.1, 49.1),
    "Llama-3.2 11B": (37.6, 55.2, 71.4, 82.1, 62.5, 65.2, 68.6),
    "Show-o 1.3B": (29.0, 50.4, 30.9, 22.0, 30.8, 34.2, 33.8),
    "Unified-IO 2 7B": (10.8, 37.7, 12.3, 25.3, 32.6, 30.9, 37.7),
    "Janus 1.3B": (24.9, 54.8, 35.9, 62.7, 54.2, 50.7, 36.8),
    M3: (35.3, 81.9, 54.6, 88.2, 89.3, 78.5, 51.4),
    L14: (39.0, 86.6, 64.1, 88.6, 99.7, 80.9, 62.2),
}

# Table 2: SSIM, PSNR, MSE of each conversion.
CONVERSIONS = (
    "synthrad-ct2mri-brain", "synthrad-ct2mri-pelvis", "synthrad-mri2ct-brain", "synthrad-mri2ct-pelvis",
)  # fmt: skip
CONVERSION: Mapping[str, tuple[tuple[float, float, float], ...]] = {
    "pix2pix": ((71.09, 32.65, 36.85), (59.17, 31.02, 51.91), (78.79, 33.85, 28.33), (72.31, 32.98, 36.19)),
    "CycleGAN": ((54.76, 32.23, 40.56), (54.54, 30.77, 55.00), (63.75, 31.02, 52.78), (50.54, 29.89, 67.78)),
    "BBDM": ((71.69, 32.91, 34.44), (57.37, 31.37, 48.06), (86.40, 34.12, 26.61), (79.26, 33.15, 33.60)),
    "VMamba": ((69.54, 32.67, 36.42), (63.01, 31.47, 46.99), (79.63, 34.12, 26.49), (77.45, 33.53, 31.85)),
    "DiffMa": ((71.47, 32.74, 35.77), (62.56, 31.43, 47.38), (79.00, 34.13, 26.45), (78.53, 33.68, 30.51)),
    M3: ((79.38, 33.03, 33.48), (71.81, 31.83, 43.45), (85.06, 34.40, 25.49), (84.23, 34.29, 27.99)),
    L14: ((79.73, 33.10, 32.96), (71.92, 31.87, 43.09), (85.31, 34.29, 26.20), (84.96, 34.14, 28.13)),
}  # fmt: skip

# Table 3: SSIM, PSNR, MSE, LPIPS of 4 x super-resolution on IXI.
SUPER_RESOLUTION: Mapping[str, tuple[float, float, float, float]] = {
    "SRGAN": (71.34, 32.01, 41.27, 24.50),
    "DASR": (71.57, 32.34, 38.25, 19.17),
    "Real-ESRGAN": (67.30, 31.87, 42.57, 20.64),
    "LIIF": (73.27, 32.13, 40.14, 22.93),
    "BSRGAN": (69.97, 31.97, 41.52, 28.72),
    M3: (78.19, 32.76, 34.47, 12.02),
    L14: (77.94, 32.71, 35.19, 12.43),
}

# Table 11: SSIM, PSNR, MSE of reconstruction, by what is reconstructed.
RECONSTRUCTED = ("CT brain", "CT pelvis", "MRI brain", "MRI pelvis")
RECONSTRUCTION: Mapping[str, tuple[tuple[float, float, float], ...]] = {
    "SEED-X": ((20.18, 27.66, 112.11), (21.53, 28.02, 102.87), (4.90, 27.62, 112.86), (6.31, 27.89, 106.21)),
    "Unified-IO 2": ((83.93, 36.09, 17.95), (85.36, 35.10, 25.46), (87.50, 34.25, 25.47), (86.31, 33.53, 29.80)),
    M3: ((91.73, 36.42, 15.46), (94.26, 37.30, 12.53), (88.76, 33.97, 27.05), (84.40, 33.11, 32.62)),
}  # fmt: skip
