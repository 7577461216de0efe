import shutil
import time
from pathlib import Path


def test_try(tiny, run_job, tmp_path):
    A=Path('/tmp/ckpt/a'); B=Path('/tmp/ckpt/b'); C=Path('/tmp/ckpt/c'); D=Path('/tmp/ckpt/d')
    for d in (A,B,C,D): shutil.rmtree(d, ignore_errors=True)
    bf={"dtype":"bfloat16"}
    EP2={"layout":{"ep":2},**bf}; EP1={"layout":{},**bf}; PP={"layout":{"pp":2,"ep":2,"first":1},**bf}; PP2={"layout":{"pp":2,"ep":2,"first":2},**bf}
    def go(name, tasks, world):
        t=time.time()
        try:
            r=run_job(tiny,tasks,device="npu",world=world)
            for rank in r:
                for task,x in zip(tasks,rank):
                    print(name, task["task"], task["layout"], task.get("directory"), [ (s["losses"],round(s["grad_norm"],5),s["changed"]) for s in x.get("steps",[])], x.get("groups"), flush=True)
        except BaseException as e:
            print(name,"FAILED",str(e)[-3000:],flush=True)
        print(name,"took",time.time()-t,flush=True)
    go("J1",[{"task":"save","directory":str(A),**EP2},{"task":"save","directory":str(B),**EP1}],2)
    go("J2",[{"task":"resume","directory":str(A),**PP},{"task":"resume","directory":str(A),**PP2},{"task":"move","directory":str(A),"to":str(C),**PP}],4)
    go("J3",[{"task":"resume","directory":str(C),**EP2},{"task":"move","directory":str(C),"to":str(D),**EP2},{"task":"resume","directory":str(A),**EP1},{"task":"resume","directory":str(B),**EP2}],2)
    go("J4",[{"task":"resume","directory":str(A),"layout":{"tp":2,"ep":2},**bf}],2)
    from tests.exactness.training.test_resume_exactness import on_the_host
    go("J5",[{"task":"resume","directory":str(A),**EP2,"optimizer":on_the_host()}],2)
