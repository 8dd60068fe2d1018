"""A shared library that stands in for NVML, which comes with NVIDIA's driver: compiled from the C below."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int ready = 0;
static int devices[4] = {0, 1, 2, 3};
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } rates_t;
/* what is in use; where no file says it, something that tells the devices apart */
static void use(int device, unsigned long long *gib, unsigned *percent) {
    char *path = getenv("STANDIN_USE");
    FILE *file = path ? fopen(path, "r") : NULL;
    unsigned long long g;
    unsigned p;
    int which;
    *gib = device; *percent = 40 + device;
    while (file && fscanf(file, "%d %llu %u", &which, &g, &p) == 3)
        if (which == device) { *gib = g; *percent = p; }
    if (file) fclose(file);
}
static unsigned found(void) { char *text = getenv("STANDIN_GPUS"); return text ? (unsigned)atoi(text) : 4; }
int nvmlInit_v2(void) { if (getenv("STANDIN_NO_DRIVER")) return 9; ready = 1; return 0; }
int nvmlShutdown(void) { ready = 0; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = found(); return ready ? 0 : 1; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index == 2) return 15; /* NVML_ERROR_GPU_IS_LOST */
    *handle = &devices[index];
    return ready ? 0 : 1;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    snprintf(text, length, "GPU-%d000-aaaa", *(int *)handle);
    return 0;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    snprintf(text, length, "Stand-in %d", *(int *)handle);
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    memory->total = 80ULL << 30;
    unsigned percent;
    use(*(int *)handle, &memory->used, &percent);
    memory->used <<= 30;
    memory->free = memory->total - memory->used;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *handle, rates_t *rates) {
    if (*(int *)handle == 3) return 3; /* NVML_ERROR_NOT_SUPPORTED */
    unsigned long long gib;
    use(*(int *)handle, &gib, &rates->gpu);
    rates->memory = 7;
    return 0;
}
"""


def build(folder: Path) -> str:
    """Compile it and return where it lies.

    `STANDIN_GPUS` says how many GPUs it finds, of which the third is lost; `STANDIN_USE` names a file that says how
    busy they are: a line for each, its index, the GiB in use, and percent.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for NVML with")
    (folder / "nvml.c").write_text(SOURCE)
    library = folder / "libnvml-standin.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "nvml.c"], check=True, timeout=60)
    return str(library)
