import numpy as np
def cifar10(channels_last=False):
    x=(np.arange(1437*3072,dtype=np.uint32)*2654435761%17).reshape(1437,3,32,32).astype(np.float32)/16
    x[:,0,0,0]=np.arange(1437)/1437.
    if channels_last: x=np.ascontiguousarray(x.transpose(0,2,3,1))
    y=(np.arange(1437)%10).astype(np.int32)
    return (x,y),(x[:360],y[:360])
from collections import namedtuple
def where(n): return namedtuple("W","name")("stub")
SAMPLES={"cifar10":cifar10}
