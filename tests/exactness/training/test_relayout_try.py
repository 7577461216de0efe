import json, os, pytest
from pathlib import Path
def test_try(tiny, run_job, tmp_path):
    d=Path('/tmp/ckpt/a')
    import shutil; shutil.rmtree(d, ignore_errors=True)
    t={"dtype":"bfloat16","directory":str(d)}
    saved=run_job(tiny,[{"task":"save","layout":{"ep":2},**t}],device="npu",world=2)
    for r in saved: print(r[0]["steps"])
    res=run_job(tiny,[{"task":"resume","layout":{"pp":2,"ep":2,"first":2},**t}],device="npu",world=4)
    for r in res: print(r[0]["steps"])
