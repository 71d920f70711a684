"""Sections of docs/results.md on GPUs: what is counted without one, and what those at hand did."""

from benchmarks.results import Results, markdown_table


def device_step(results: Results) -> list[str]:
    """Launches and waits of a step on a GPU, counted without one."""
    states = {name: results.files(f"device_step-{name}.json") for name in ("before", "after")}
    told, rows = [], []
    for name, (content, *_) in ((name, found) for name, found in states.items() if found):
        told.append(f"{name}: {content['commit'][:7]}, torch {content['torch']}")
        for row in content["rows"]:
            launches, waits = row["launches"], sum(row["waits"].values())
            place = [str(row["step"]), row["background"] + ", photos compared" * row.get("compares", False), name]
            rows.append([*place, *map(str, launches.values()), str(row["total"]), str(waits)])
            head = ["step", "background", "", *launches, "all", "waits"]
    if not rows:
        return []
    rows.sort(key=lambda row: (row[1], int(row[0])))
    text = """Operations that a step of `craym` at full size launches on a GPU, and where the host waits for it, \
counted on tensors without numbers. At the first step poses wait; later they move; at the last all is on. The cache of \
distances is refreshed in the forward phase. Only the count after has landmarks, and photos compared patch by patch, \
which came in between. Recorded as a CUDA graph, all but the optimizers is one launch."""
    return [text, f"{'; '.join(told)}.", markdown_table(head, rows)]


def first_run(results: Results) -> list[str]:
    """What `craym` does on GPUs that were at hand."""
    parts = []
    for content in results.files("first_run*.json"):
        facts, times, train = content["facts"], content["step"]["ms"], content["train"]
        errors = ", ".join(f"{name} {error:.1e}" for name, error in content["correct"]["worst"].items())
        last, views = train["curve"][-1], train["views"]
        rows = [[kind, *map(str, row.values())] for kind, row in times.items()]
        kernels = [[str(value) for value in row.values()] for row in content["kernels"]["us"]]
        parts += [
            f"{facts['gpu']}, torch {content['machine']['torch']}, Triton {facts['triton']}; memory is copied at "
            f"{facts['copy_gb_s']} GB/s, the host needs {facts['host_us_per_launch']} us per launch. Errors of the "
            f"kernels against float64: {errors}.",
            "Milliseconds of a step, taken plainly and replayed from a CUDA graph:",
            markdown_table(["step", *next(iter(times.values()))], rows),
            "Microseconds of the hash grid's kernels, by points of a program and points in all:",
            markdown_table(list(content["kernels"]["us"][0]), kernels),
            f"`lego_400` from `l2g` poses, stage 0 from the cache: {train['steps']} steps in {last['train_s']} s, "
            f"{views['psnr']:.2f} dB, poses {last['pose_rotation_deg_before']:.2f} -> {last['pose_rotation_deg']:.4f} "
            f"degrees and {last['pose_translation_x100_before']:.1f} -> {last['pose_translation_x100']:.3f}, at most "
            f"{train['peak_mib']} MiB.",
        ]
    return parts
